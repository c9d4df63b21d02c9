"""Summaries over patients and subsets, and their confidence intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2fseg_cli.evaluation.statistics import Summary, bootstrap_interval, bootstrap_interval_of_means, summarise


def test_summary_by_hand() -> None:
    # Deviations from 4 are -3, -1, 0, 4: squares sum to 26, by n - 1 = 3.
    assert summarise([1, 3, 4, 8]) == Summary(4.0, pytest.approx(math.sqrt(26 / 3)), 3.5, 4, 0)


def test_undefined_values_are_left_out_and_counted() -> None:
    assert summarise([math.nan, 2.0, math.nan, 4.0]) == Summary(3.0, pytest.approx(math.sqrt(2)), 3.0, 2, 2)


def test_one_value_has_no_standard_deviation() -> None:
    assert summarise([0.5]) == Summary(0.5, pytest.approx(math.nan, nan_ok=True), 0.5, 1, 0)


@pytest.mark.parametrize("values", [[], [math.nan], [math.nan, math.nan]])
def test_nothing_defined(values: list[float]) -> None:
    undefined = pytest.approx(math.nan, nan_ok=True)
    assert summarise(values) == Summary(undefined, undefined, undefined, 0, len(values))
    assert bootstrap_interval(values) == (undefined, undefined)


def test_interval_of_the_normal_mean() -> None:
    """For many patients the interval is mean -+ 1.96 standard errors; here 1.96 / sqrt(400) = 0.098 each side."""
    values = np.random.default_rng(1).normal(size=400)
    values = (values - values.mean()) / values.std()
    low, high = bootstrap_interval(values)
    assert (low, high) == (pytest.approx(-0.098, abs=0.01), pytest.approx(0.098, abs=0.01))


def test_interval_by_counting() -> None:
    """Of two patients with 0 and 1, the mean of two drawings is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4."""
    assert bootstrap_interval([0.0, 1.0], level=0.95) == (0.0, 1.0)
    assert bootstrap_interval([0.0, 1.0], level=0.3) == (0.5, 0.5)


def test_interval_depends_on_the_seed_alone() -> None:
    values = [0.1, 0.5, 0.9, 0.7]
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3, resamplings=50) != bootstrap_interval(values, seed=4, resamplings=50)


def test_undefined_patients_are_not_drawn() -> None:
    assert bootstrap_interval([0.1, math.nan, 0.9]) == bootstrap_interval([0.1, 0.9])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_interval_lies_within_the_values(values: list[float]) -> None:
    low, high = bootstrap_interval(values, resamplings=100)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12


@pytest.mark.parametrize(("resamplings", "level"), [(0, 0.95), (10, 0.0), (10, 1.0)])
def test_interval_refuses_what_has_no_meaning(resamplings: int, level: float) -> None:
    with pytest.raises(ValueError, match="expected resamplings"):
        bootstrap_interval([0.1, 0.2], resamplings=resamplings, level=level)


def test_interval_of_means_over_subsets() -> None:
    """Each drawing by itself: the mean of the subsets' means over the drawn patients who have them."""
    values = np.random.default_rng(1).uniform(0, 1, (3, 5))
    whole = bootstrap_interval_of_means(values)
    assert whole == bootstrap_interval(values.mean(axis=0))
    values[0, 1:4] = values[2, 0] = math.nan
    drawn = np.random.default_rng(0).integers(0, 5, (50, 5))
    means = [np.nanmean([np.nanmean(row[rows]) for row in values if not np.isnan(row[rows]).all()]) for rows in drawn]
    expected = np.quantile(means, (0.025, 0.975))
    assert bootstrap_interval_of_means(values, resamplings=50) == pytest.approx(tuple(expected))
    with_empty = np.full((4, 6), math.nan)  # a subset and a patient of nothing change nothing
    with_empty[:3, :5] = values
    assert bootstrap_interval_of_means(with_empty, resamplings=50) == pytest.approx(tuple(expected))
    assert all(map(math.isnan, bootstrap_interval_of_means(np.full((2, 2), math.nan))))
