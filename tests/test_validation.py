"""Validation: what is scored, with which weights, on which subsets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from training_toys import (
    CONFIG,
    CPU,
    lesion_sample,
    trainer,
)

from a2fseg_cli.imaging.labels import region_dice
from a2fseg_cli.inference.predictor import Predictor
from a2fseg_cli.training import validation as validation_module
from a2fseg_cli.training.validation import patient_scores


def test_scores_of_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Perfect results score 1, background only 0 (an empty region 1); subsets a patient lacks are left out."""
    sample = lesion_sample(10)
    single = replace(sample, present=(False, True), classes=np.zeros_like(sample.classes))
    one = trainer(tmp_path, validation=[sample, single])
    before = {name: value.clone() for name, value in one.learner.model.state_dict().items()}
    one.learner.mean = {name: torch.full_like(value, 0.5) for name, value in one.learner.mean.items()}
    seen: list[float] = []

    truths = iter((sample.classes, single.classes))

    def predict(_: Predictor, images: np.ndarray, subsets: list[tuple[bool, ...]]) -> Iterator[Any]:
        seen.append(float(one.learner.model.head.weight.detach()[0, 0, 0, 0, 0]))
        classes = next(truths)
        for subset in subsets:
            said = np.zeros_like(classes) if subset == (True, False) else classes
            yield SimpleNamespace(probabilities=np.eye(2)[said].transpose(3, 0, 1, 2))

    monkeypatch.setattr(Predictor, "segment_subsets", predict)
    row = one.validate()
    expected = {"lesion t1+flair": 1.0, "lesion t1": 0.0, "lesion flair": 1.0}
    assert row == {**expected, "score": pytest.approx(2 / 3)}
    assert seen == [0.5, 0.5], "the running mean is what is validated"
    assert all(torch.equal(value, before[name]) for name, value in one.learner.model.state_dict().items())


def test_validation_scores_what_the_network_says(tmp_path: Path) -> None:
    """Of a patient with both modalities all three subsets, of one without T1 only FLAIR."""
    one = trainer(tmp_path)
    sample = lesion_sample(16)
    subsets = [(True, True), (True, False), (False, True)]
    images = torch.from_numpy(sample.images.astype(np.float32))[None]
    expected = {}
    for name, subset in zip(("t1+flair", "t1", "flair"), subsets, strict=True):
        predicted = one.learner.model(images, subset)[0].argmax(dim=0).to(torch.uint8).numpy()
        expected[f"lesion {name}"] = region_dice(predicted, sample.classes, CONFIG)["lesion"]
    model = one.learner.model
    assert patient_scores(model, CPU, sample, subsets) == pytest.approx(expected, abs=1e-3)
    assert list(patient_scores(model, CPU, replace(sample, present=(False, True)), subsets)) == ["lesion flair"]


def test_validation_does_not_try_cudnns_algorithms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = trainer(tmp_path)
    seen: list[bool] = []

    def spied(*arguments: Any) -> dict[str, float]:
        seen.append(torch.backends.cudnn.benchmark)
        return patient_scores(*arguments)

    monkeypatch.setattr(validation_module, "patient_scores", spied)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    one.validate()
    assert (seen, torch.backends.cudnn.benchmark) == ([False], True)
