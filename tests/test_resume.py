"""Resuming: interrupted, failed or killed, a training arrives at the same weights."""

from __future__ import annotations

import csv
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_toys import CONFIG, RECIPE, lesion_sample, trainer

from a2fseg_cli.core.device import Compute
from a2fseg_cli.core.networks import parameter_shapes
from a2fseg_cli.training.checkpoint import load_checkpoint
from a2fseg_cli.training.data import Sample
from a2fseg_cli.training.loop import Setup, Trainer
from a2fseg_cli.training.run_folder import RunFolder
from a2fseg_cli.weights.file_format import load_weights

pytestmark = pytest.mark.usefixtures("no_curves")


def assert_same_training(one: Trainer, other: Trainer) -> None:
    """Bit for bit: weights, their running mean, the optimiser's state, and every figure but the time."""
    for name, value in one.learner.model.state_dict().items():
        assert torch.equal(value, other.learner.model.state_dict()[name]), name
        assert torch.equal(one.learner.mean[name], other.learner.mean[name]), name
    a, b = one.learner.optimizer.state_dict()["state"], other.learner.optimizer.state_dict()["state"]
    assert a.keys() == b.keys()
    assert all(torch.equal(torch.as_tensor(a[k][n]), torch.as_tensor(b[k][n])) for k in a for n in a[k])
    rows = [[{k: v for k, v in r.items() if k != "hours"} for r in t.state.rows] for t in (one, other)]
    assert rows[0] == rows[1]
    assert (one.state.step, one.state.best_score) == (other.state.step, other.state.best_score)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
@pytest.mark.parametrize("epochs_before", [1, 3])
def test_resuming_is_as_if_never_interrupted(tmp_path: Path, optimizer: str, epochs_before: int) -> None:
    recipe = replace(RECIPE, optimizer=optimizer, batch_size=2 if optimizer == "adamw" else 1)
    whole = trainer(tmp_path / "whole", recipe)
    whole.run(lambda _: None)

    def interrupt(row: dict[str, float]) -> None:
        if row["epoch"] == epochs_before:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "cut", recipe).run(interrupt)
    torch.manual_seed(99)
    second = trainer(tmp_path / "cut", recipe)
    second.resume()
    assert second.state.step == 2 * epochs_before
    second.run(lambda _: None)
    assert second.state.step == whole.state.step == 8
    assert_same_training(whole, second)
    texts = [(tmp_path / folder / "metrics.csv").read_text() for folder in ("whole", "cut")]
    tables = [list(csv.DictReader(text.splitlines())) for text in texts]
    assert [row | {"hours": ""} for row in tables[0]] == [row | {"hours": ""} for row in tables[1]]
    assert len(tables[0]) == 4
    for name in ("best", "last"):
        tensors = [load_weights(tmp_path / f / f"{name}.safetensors", parameter_shapes)[1] for f in ("whole", "cut")]
        assert all(torch.equal(value, tensors[1][key]) for key, value in tensors[0].items())


def test_a_validation_that_fails_costs_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out at the last of 8 steps' validation: resumed, it validates, and all is as if nothing had been."""
    whole = trainer(tmp_path / "whole")
    whole.run(lambda _: None)
    one = trainer(tmp_path / "cut")
    monkeypatch.setattr(one, "validate", lambda: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        one.run(lambda _: None)
    second = trainer(tmp_path / "cut")
    second.resume()
    assert second.state.step == 8
    rows: list[dict[str, float]] = []
    second.run(rows.append)
    assert [row["epoch"] for row in rows] == [4]
    assert_same_training(whole, second)
    for name in ("best", "last"):
        both = [load_weights(tmp_path / f / f"{name}.safetensors", parameter_shapes)[1] for f in ("whole", "cut")]
        assert all(torch.equal(value, both[1][key]) for key, value in both[0].items())


def _step(folder: Path) -> int:
    return int(load_checkpoint(folder / "last.ckpt")["state"]["step"]) if (folder / "last.ckpt").exists() else 0


def train_in(folder: Path, epochs: int) -> None:
    """What the killed processes do: start or go on, to the end."""
    torch.set_num_threads(1)
    one = trainer(folder, replace(RECIPE, epochs=epochs, optimizer="muon"))
    if (folder / "last.ckpt").exists():
        one.resume()
    one.run(lambda _: None)
    (folder / "done").touch()


@pytest.mark.slow
def test_killed_it_arrives_at_the_same_weights(tmp_path: Path) -> None:
    """kill -9 at random moments of starting, stepping and saving; started again each time."""
    kills, epochs = 10, 24
    fresh = multiprocessing.get_context("forkserver")
    # What a first step and a first figure would import again in each of the processes.
    fresh.set_forkserver_preload(["a2fseg_cli.training.loop", "torch._dynamo", "matplotlib.figure"])

    def start(folder: Path) -> Any:
        process = fresh.Process(target=train_in, args=(folder, epochs))
        process.start()
        return process

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    began = time.perf_counter()
    start(whole).join()
    epoch_s = (time.perf_counter() - began) / epochs
    assert (whole / "done").exists()
    cut.mkdir()
    random = np.random.default_rng(0)
    steps = []
    for kill in range(kills):
        process = start(cut)
        before = _step(cut)
        while kill >= 0.3 * kills and _step(cut) == before and process.is_alive():  # the first ones at once
            time.sleep(0.002)
        time.sleep(random.uniform(0, 1.2) * epoch_s)
        assert process.is_alive(), "it was to be killed before its end"
        process.kill()
        process.join()
        steps.append(_step(cut))
    assert steps == sorted(steps)
    assert len(set(steps)) >= 0.7 * kills, "the kills came at different steps"
    start(cut).join()
    assert (cut / "done").exists()
    one, other = (load_checkpoint(folder / "last.ckpt") for folder in (whole, cut))
    for part in ("model", "mean"):
        assert all(torch.equal(value, other[part][name]) for name, value in one[part].items())
    for name in ("best", "last"):
        tensors = [load_weights(folder / f"{name}.safetensors", parameter_shapes)[1] for folder in (whole, cut)]
        assert all(torch.equal(value, tensors[1][key]) for key, value in tensors[0].items())


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
def test_training_and_resuming_on_cuda(optimizer: str, precision: str, tmp_path: Path) -> None:
    """As `train` runs there: crops drawn ahead, cuDNN trying its algorithms."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    compute = Compute(torch.device("cuda"), precision, "for the tests")

    def on_cuda() -> Trainer:
        samples: list[Sample] = [lesion_sample(16)]
        recipe = replace(RECIPE, optimizer=optimizer)
        return Trainer(Setup(CONFIG, recipe, samples, samples, RunFolder(tmp_path), compute, workers=2))

    torch.backends.cudnn.benchmark = True
    try:
        one = on_cuda()
        one.step()
        one.save()
        two = on_cuda()
        two.resume()
        for name, value in one.learner.mean.items():
            assert two.learner.mean[name].device.type == "cuda"
            assert torch.equal(value, two.learner.mean[name])
        assert one.step() == pytest.approx(two.step(), rel=1e-3 if precision == "fp32" else 2e-2)
        two.run(lambda _: None)
    finally:
        torch.backends.cudnn.benchmark = False
    assert two.state.step == 9  # epochs of two steps, begun after the first
    assert (tmp_path / "best.safetensors").is_file()
