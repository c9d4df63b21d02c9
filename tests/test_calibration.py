"""Do probabilities mean what they say: bins by hand, and the files of an evaluation."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.evaluation.calibration import pooled, region_reliability, reliability

Run = Callable[..., tuple[int, str, str]]


def test_bins_and_error_by_hand() -> None:
    """Four voxels of 0.85, three of them true, one of 0.25 that is not, one of 0.005 that does not count.

    |3 - 3.4| + |0 - 0.25| = 0.65 over 5 voxels.
    """
    probability = np.array([[[0.85, 0.85, 0.85, 0.85, 0.25, 0.005]]])
    true = np.array([[[True, True, True, False, False, True]]])
    bins = reliability(probability, true)
    assert bins.voxels == (0, 0, 1, 0, 0, 0, 0, 0, 4, 0)
    assert bins.true == (0, 0, 0, 0, 0, 0, 0, 0, 3, 0)
    assert bins.error == pytest.approx(0.65 / 5)
    assert bins.points == [(0.25, 0.0), (pytest.approx(0.85), 0.75)]
    both = pooled([bins, bins])
    assert both.voxels[8] == 8
    assert both.error == pytest.approx(bins.error)


def test_certainty_is_the_last_bin_and_nothing_has_no_error() -> None:
    assert reliability(np.ones((1, 1, 2)), np.array([[[True, True]]])).voxels[-1] == 2
    assert math.isnan(reliability(np.zeros((1, 1, 2)), np.array([[[True, True]]])).error)
    assert math.isnan(pooled([]).error)


def test_probabilities_that_are_frequencies_have_no_error() -> None:
    rng = np.random.default_rng(0)
    probability = rng.uniform(size=(40, 50, 50))
    assert reliability(probability, rng.uniform(size=probability.shape) < probability).error < 0.01
    assert reliability(probability, rng.uniform(size=probability.shape) < 0.5).error == pytest.approx(0.25, abs=0.01)


def test_a_region_has_the_sum_of_its_classes() -> None:
    probabilities = np.array([0.1, 0.2, 0.3, 0.4], np.float32).reshape(4, 1, 1, 1)
    bins = region_reliability(probabilities, np.full((1, 1, 1), 3, np.uint8), ModelConfig())
    assert {region: of.points for region, of in bins.items()} == {
        "WT": [(pytest.approx(0.9, abs=1e-3), 1.0)],
        "TC": [(pytest.approx(0.6, abs=1e-3), 1.0)],
        "ET": [(pytest.approx(0.4, abs=1e-3), 1.0)],
    }


def test_evaluate_writes_curves(run: Run, tmp_path: Path, phantom: Path, toy_weights: Path) -> None:
    cohort = tmp_path / "cohort"
    for name in ("P1", "P2"):
        shutil.copytree(phantom, cohort / name)
        bright = sitk.ReadImage(phantom / "P1_flair.nii.gz") > 100
        sitk.WriteImage(sitk.Cast(bright, sitk.sitkUInt8) * 2, cohort / name / "P1_seg.nii.gz")
    command = ("evaluate", cohort, "--subset", "t1c", "--subset", "t1c+flair", "--weights", toy_weights)
    out = tmp_path / "scores"
    code, shown, _ = run(*command, "--metrics", "dice,calibration", "-o", out)
    assert code == 0
    assert "expected calibration error in %" in shown
    with (out / "reliability.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["subset"], row["region"]) for row in rows} >= {("t1c", "WT"), ("t1c+flair", "WT")}
    assert (out / "reliability.png").stat().st_size > 10_000
    before = (out / "reliability.csv").read_bytes()
    assert run(*command, "--metrics", "dice,calibration", "-o", out)[0] == 0  # from the scores that are kept
    assert (out / "reliability.csv").read_bytes() == before


def test_masks_have_no_probabilities(run: Run, tmp_path: Path) -> None:
    code, _, said = run("evaluate", tmp_path, "--predictions", tmp_path, "--metrics", "calibration")
    assert code == 2
    assert "masks have no probabilities" in said
