"""Weights to start from: what is taken over, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_toys import (
    CONFIG,
    trainer,
)

from a2fseg_cli.core.a2fseg import A2FSeg
from a2fseg_cli.core.networks import parameter_shapes
from a2fseg_cli.errors import WeightsError
from a2fseg_cli.training.initial import initial_weights
from a2fseg_cli.weights.card import hours_in_all, stages
from a2fseg_cli.weights.file_format import save_weights


def test_weights_of_another_task_give_what_fits(tmp_path: Path) -> None:
    """From (t1, flair) at 1 mm to (flair, dwi) at 2 mm: FLAIR's encoder, attention and heads stay, DWI's are new."""
    torch.manual_seed(4)
    source = A2FSeg(CONFIG).state_dict()
    card = {"name": "first", "hours": 1.5, "steps": 9, "initial": {"hours": 0.5}, "data": {"train": ["x"]}}
    save_weights(tmp_path / "first.safetensors", source, CONFIG, card, dtype="float32")
    target = replace(CONFIG, modalities=("flair", "dwi"), spacing_mm=(2.0, 2.0, 2.0))
    found = initial_weights(tmp_path / "first.safetensors", target)
    assert "taken over for flair; new: dwi; not used: t1; working spacing 2 x 2 x 2 mm, was 1 x 1 x 1" in found.note
    assert found.provenance["hours"] == 1.5
    assert "data" not in found.provenance
    one = trainer(tmp_path / "run", config=target, initial=found.tensors)
    state = one.learner.model.state_dict()
    same = {name for name, value in state.items() if name in source and torch.equal(value, source[name])}
    assert same == {name for name in state if "dwi" not in name}
    assert any("encoders.flair" in name for name in same)
    card = {"hours": 2.0, "initial": found.provenance}
    assert [stage.get("hours") for stage in stages(card)] == [0.5, 1.5, 2.0]
    assert hours_in_all(card) == 4.0
    assert hours_in_all({"hours": "many", "initial": {"hours": None, "initial": 3}}) == 0


def test_other_classes_get_new_heads(tmp_path: Path) -> None:
    save_weights(tmp_path / "first.safetensors", A2FSeg(CONFIG).state_dict(), CONFIG, {})
    other = replace(CONFIG, classes=("background", "scar"), regions=(("scar", ("scar",)),))
    found = initial_weights(tmp_path / "first.safetensors", other)
    assert "new heads for background, scar" in found.note
    assert set(found.tensors) == {name for name in parameter_shapes(other) if "head" not in name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features_per_stage": (4, 6)}, r"features_per_stage is \(4, 8\), the network to train has \(4, 6\)"),
        ({"modalities": ("t2", "dwi")}, "made for t1, flair; none of them is among t2, dwi"),
    ],
    ids=["widths", "modalities"],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    save_weights(tmp_path / "first.safetensors", A2FSeg(CONFIG).state_dict(), CONFIG, {})
    with pytest.raises(WeightsError, match=words):
        initial_weights(tmp_path / "first.safetensors", replace(CONFIG, **change))
