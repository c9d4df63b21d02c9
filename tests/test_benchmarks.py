"""The benchmarks run, in a small, so that they never rot."""

from __future__ import annotations

import importlib.util
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk

from a2fseg_cli.core.config import PRESETS
from a2fseg_cli.core.device import choose_compute
from a2fseg_cli.prediction.segmenter import Segmenter

FOLDER = Path(__file__).parents[1] / "benchmarks"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_training_step_prints_its_table() -> None:
    config = replace(PRESETS["tiny"], features_per_stage=(4, 8), window=(16, 16, 16))
    table = load("training_step").measure(config, choose_compute("cpu", "fp32"), repeats=1)
    losses = re.search(r"first step \| ([0-9.]+) \| ([0-9.]+) \|", table)
    assert losses is not None
    assert float(losses[1]) == pytest.approx(float(losses[2]), rel=1e-3)  # both in fp32
    assert re.search(r"step, s \| [0-9.]+ \| [0-9.]+ \| [0-9.]+ \|", table)


def test_all_subsets_prints_its_table(phantom: Path, toy_weights: Path) -> None:
    table = load("all_subsets").measure(Segmenter(toy_weights, choose_compute("cpu", "fp32")), phantom, repeats=1)
    ratios = [float(value) for value in re.findall(r"\| ([0-9.]+) \|$", table, re.MULTILINE)]
    assert len(ratios) == 2  # network, and from files to class maps
    assert all(ratio > 1 for ratio in ratios)


def test_ablation_prints_its_table(phantom: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(phantom, tmp_path / "data" / name)
        image = sitk.ReadImage(phantom / "P1_flair.nii.gz")
        sitk.WriteImage(sitk.Cast(image > 100, sitk.sitkUInt8) * 2, tmp_path / "data" / name / "P1_seg.nii.gz")
    split = tmp_path / "split.json"
    split.write_text('{"train": ["a"], "test": ["b"]}')
    config = replace(PRESETS["tiny"], features_per_stage=(4, 8), spacing_mm=(6.0, 6.0, 6.0), window=(16, 16, 16))
    module = load("ablation")
    table = module.measure(tmp_path / "data", split, tmp_path / "out", list(module.VARIANTS), 0.5, config)
    rows = re.findall(r"^\| ([a-z-]+) \| (\d+) \| ([0-9.]+) \|", table, re.MULTILINE)
    assert [row[0] for row in rows] == list(module.VARIANTS)
    assert all(int(steps) > 0 for _, steps, _ in rows)
