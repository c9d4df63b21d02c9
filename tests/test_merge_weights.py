"""`scripts/merge_weights.py`: the mean of stages, and biases that validation patients prefer."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from training_toys import write_cohort

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.networks import build_network, parameter_shapes
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.inference.predictor import Segmenter
from a2fseg_cli.weights.file_format import load_weights, save_weights


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "scripts")
    return importlib.import_module("merge_weights")


def test_the_bias_that_finds_a_shy_class(script: Any) -> None:
    """Four of ten voxels are the lesion; two of them are called so, two lose by 0.5, one of the others by 1.0.

    Dice is 2 * 2 / (2 + 4) = 0.667; with 0.8 more all four and no other are the lesion; 1.2 would add the fifth.
    """
    config = ModelConfig(
        modalities=("t1",), classes=("background", "lesion"), label_values=(0, 1), regions=(("lesion", ("lesion",)),)
    )
    lesion = np.array([1, 1, -0.5, -0.5, -1, -9, -9, -9, -9, -9], np.float32)
    truth = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], np.uint8)
    found = [(np.stack([np.zeros(10, np.float32), lesion]), truth, np.array([6, 4]))]
    shift, before, after = script.best_shift(found, config)
    np.testing.assert_allclose(shift, [0, 0.8])
    assert (before, after) == (pytest.approx(2 / 3), 1)
    assert script.mean_dice(found, np.array([0, 1.2]), config) == pytest.approx(2 * 4 / (5 + 4))


def test_merging_two_stages(script: Any, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    shutil.copytree(phantom, tmp_path / "data" / "a")
    image = sitk.ReadImage(phantom / "P1_flair.nii.gz")
    sitk.WriteImage(sitk.Cast(image > 100, sitk.sitkUInt8) * 2, tmp_path / "data" / "a" / "P1_seg.nii.gz")
    weights, state = load_weights(toy_weights, parameter_shapes)
    other = tmp_path / "other.safetensors"
    card = {
        "name": "last",
        "mirrored": ["left-right"],
        "validation": {"score": 0.5},
        "absent_below_ml": {"ET": {"t1c": 1}},
    }
    card["scores"] = {"patients": 8, "subsets": {"flair": {"WT": 0.9}}}
    save_weights(other, {name: value + 0.25 for name, value in state.items()}, weights.config, card)
    merged = tmp_path / "merged.safetensors"
    script.merge([toy_weights, other], merged)
    plain, mean = load_weights(merged, parameter_shapes)
    for name, value in mean.items():
        torch.testing.assert_close(value, state[name] + 0.125, atol=2e-3, rtol=2e-3)  # stored in float16
    assert len(plain.card["mean_of"]) == 2
    assert set(plain.card) == {"name", "mirrored", "mean_of"}  # the scores were of other weights
    said = json.loads(script.merge_with_biases([tmp_path / "data"], ["a"], [toy_weights, other], merged))
    result, tensors = load_weights(merged, parameter_shapes)
    moved = torch.tensor(list(said["head_bias_moved_by"].values()))
    for name, value in tensors.items():
        expected = state[name] + 0.125 + (moved if name == "head.bias" else 0)
        torch.testing.assert_close(value, expected, atol=2e-3, rtol=2e-3)  # stored in float16
    assert moved[0] == 0
    before, after = said["mean_dice_on_validation"]
    assert after >= before
    assert result.card["name"] == "last"
    assert result.card["merged"] == said
    assert len(result.card["mean_of"]) == 2


def test_stages_of_two_networks_are_refused(script: Any, toy_weights: Path, tmp_path: Path) -> None:
    weights, state = load_weights(toy_weights, parameter_shapes)
    other = tmp_path / "other.safetensors"
    spacing = ModelConfig.from_json(weights.config.to_json().replace("4.0", "3.0"))
    save_weights(other, state, spacing, {})
    with pytest.raises(UsageError, match=r"^\S+toy\S*: not of the same network as .*other.safetensors"):
        script.mean_of([toy_weights, other])


def test_what_cannot_be_merged_is_said_in_a_line(
    script: Any, toy_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "split.json").write_text('{"validation": ["a"]}')
    split = f"{tmp_path / 'split.json'}:val"
    for arguments, words in (
        ((tmp_path / "none.safetensors",), "none.safetensors"),
        ((toy_weights, "--biases-on", tmp_path, tmp_path, split), "NAME one of validation"),
        ((toy_weights, "--biases-on", split), "expected folders with patients"),
    ):
        monkeypatch.setattr("sys.argv", ["merge", *map(str, arguments), "-o", str(tmp_path / "m.safetensors")])
        with pytest.raises(SystemExit):
            script.main()
        assert words in capsys.readouterr().err
    with pytest.raises(InputError, match=r"a: named in the split but not found"):
        list(script.scores_of(Segmenter(toy_weights), [write_cohort(tmp_path / "data", "bc")], ["a"]))


def test_every_voxel_of_a_block_has_the_bias(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(features_per_stage=(2, 2), patch_size=(8, 8, 8), sub_voxels=2)
    stage = tmp_path / "stage.safetensors"
    state = build_network(config).state_dict()
    save_weights(stage, state, config, {})
    monkeypatch.setattr(script, "scores_of", lambda *_: [])
    monkeypatch.setattr(script, "best_shift", lambda *_: (np.array([0, 0.4, 0, -0.8], np.float32), 0.0, 1.0))
    script.merge_with_biases([tmp_path], ["a"], [stage], tmp_path / "moved.safetensors")
    moved = load_weights(tmp_path / "moved.safetensors", parameter_shapes)[1]["head.bias"] - state["head.bias"]
    expected = torch.tensor([0.0] * 8 + [0.4] * 8 + [0.0] * 8 + [-0.8] * 8)
    torch.testing.assert_close(moved, expected, atol=2e-3, rtol=0)  # stored in float16
