"""The benchmarks run, in a small, so that they never rot."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from a2fseg_cli.core.device import choose_compute
from a2fseg_cli.prediction.segmenter import Segmenter

FOLDER = Path(__file__).parents[1] / "benchmarks"


def test_all_subsets_prints_its_table(phantom: Path, toy_weights: Path) -> None:
    spec = importlib.util.spec_from_file_location("all_subsets", FOLDER / "all_subsets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    table = module.measure(Segmenter(toy_weights, choose_compute("cpu", "fp32")), phantom, repeats=1)
    ratios = [float(value) for value in re.findall(r"\| ([0-9.]+) \|$", table, re.MULTILINE)]
    assert len(ratios) == 2  # network, and from files to class maps
    assert all(ratio > 1 for ratio in ratios)
