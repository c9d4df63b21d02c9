"""Paired tests of differences: counted by hand, and against scipy on made data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from a2fseg_cli.evaluation import significance
from a2fseg_cli.evaluation.significance import holm, sign_flip_p, sign_flip_ps, smallest_p
from a2fseg_cli.evaluation.statistics import bootstrap_interval


def test_p_by_counting() -> None:
    """Of the 8 exchanges of 1, 2, 3 two have a sum of 6 or -6; of 1, 1, -2, whose sum is 0, all are as far from 0."""
    assert sign_flip_p([1, 2, 3]) == 2 / 8
    assert sign_flip_p([1, 1, -2]) == 1
    # 3 + 2 - 1 = 4 is reached or passed by 6, 4, -4 and -6.
    assert sign_flip_p([-1, 2, 3]) == 4 / 8


def test_eight_patients_that_all_agree_give_two_of_256() -> None:
    assert sign_flip_p([0.1] * 8) == smallest_p(8) == 2 / 256


def test_methods_that_are_the_same_do_not_differ() -> None:
    assert sign_flip_p([0.0] * 8) == 1
    assert sign_flip_p([0.0] * 20) == 1


def test_patients_without_both_scores_are_left_out() -> None:
    assert sign_flip_p([1, math.nan, 2, 3]) == sign_flip_p([1, 2, 3])
    assert math.isnan(sign_flip_p([math.nan]))


def test_rounding_makes_no_difference_between_equal_sums() -> None:
    """0.1 + 0.2 - 0.3 is 5.6e-17: every exchange that leaves it at nothing counts as equal."""
    assert sign_flip_p([0.1, 0.2, -0.3]) == 1


@pytest.mark.parametrize("seed", range(5))
def test_p_is_scipys(seed: int) -> None:
    """Dice as it is: skewed, with patients at 0 and 1 in both methods."""
    random = np.random.default_rng(seed)
    first = np.clip(random.beta(5, 2, 9) + 0.05 * seed, 0, 1)
    second = np.clip(first + random.normal(0, 0.1, 9), 0, 1)
    first[:2] = second[:2] = (0.0, 1.0)
    theirs = stats.permutation_test(
        (first, second),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert sign_flip_p(first - second) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_random_exchanges_come_near_to_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """p 0.05 from 99,999 drawings has a standard error of 0.0007."""
    values = np.random.default_rng(2).normal(0.5, 1, 13)
    exact = sign_flip_p(values)
    monkeypatch.setattr(significance, "MOST_EXACT", 5)
    assert sign_flip_p(values) == pytest.approx(exact, abs=0.003)
    assert sign_flip_p(values) != exact
    assert sign_flip_p(values, seed=1) != sign_flip_p(values, seed=2)


def test_many_comparisons_at_once_are_each_alone() -> None:
    """Some with all patients, some with few defined, one with none."""
    values = np.random.default_rng(5).normal(0.3, 1, (4, 20))
    values[1, 3:] = math.nan
    values[2] = math.nan
    values[3, 0] = math.nan
    alone = [sign_flip_p(row) for row in values]
    assert sign_flip_ps(values) == pytest.approx(alone, nan_ok=True)
    assert alone[1] == sign_flip_p(values[1, :3])  # counted, not drawn


def test_random_exchanges_never_give_nought() -> None:
    assert sign_flip_p([0.1] * 40) == smallest_p(40) == 1 / 100_000


def test_holm_by_hand() -> None:
    """Sorted 0.01, 0.02, 0.03, 0.04: times 4, 3, 2, 1 gives 0.04, 0.06, 0.06, 0.04, and none less than one before."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_what_was_not_tested_does_not_count() -> None:
    assert holm([0.01, math.nan, 0.04]) == pytest.approx([0.02, math.nan, 0.04], nan_ok=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_the_definition_rejects(values: list[float]) -> None:
    """Step down: go from the smallest p on as long as p <= 0.05 / (number left)."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    rejected = set()
    for rank, index in enumerate(order):
        if values[index] * (len(values) - rank) > 0.05:
            break
        rejected.add(index)
    assert {i for i, p in enumerate(holm(values)) if p <= 0.05} == rejected


def test_interval_of_differences_is_scipys() -> None:
    """The percentile bootstrap of the mean; two sets of drawings differ by a few per cent of its width."""
    differences = np.random.default_rng(4).normal(0.02, 0.1, 30)
    theirs = stats.bootstrap((differences,), np.mean, method="percentile", n_resamples=20_000, random_state=1)
    low, high = bootstrap_interval(differences, resamplings=20_000)
    width = high - low
    assert low == pytest.approx(theirs.confidence_interval.low, abs=0.03 * width)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=0.03 * width)
