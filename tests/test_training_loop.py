"""The training loop: schedule, loss, step, running mean, weights and what must stop it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_toys import CONFIG, RECIPE, lesion_sample, trainer

from a2fseg_cli.core.a2fseg import A2FSeg
from a2fseg_cli.core.device import Compute
from a2fseg_cli.core.losses import total_loss
from a2fseg_cli.core.networks import parameter_shapes
from a2fseg_cli.errors import UsageError
from a2fseg_cli.training.checkpoint import load_checkpoint
from a2fseg_cli.training.loop import DivergenceError, Setup, Trainer
from a2fseg_cli.training.run_folder import RunFolder
from a2fseg_cli.weights.file_format import load_weights

pytestmark = pytest.mark.usefixtures("no_curves")


def test_learning_rate_falls_as_the_paper_says(tmp_path: Path) -> None:
    """0.01 (1 - epoch / 4)^0.9: after 2 of 4 epochs 0.01 * 0.5^0.9 = 0.00536."""
    one = trainer(tmp_path)
    rates = []
    for one.state.step in (0, 2, 4, 6, 8):
        rates.append(one.learning_rate)
    assert rates == pytest.approx([0.01, 0.007719, 0.005359, 0.002872, 0.0], abs=1e-6)
    timed = trainer(tmp_path, replace(RECIPE, time_budget_s=100.0))
    timed.state.step, timed.state.elapsed_s = 10_000, 50.0
    assert timed.learning_rate == pytest.approx(0.005359, abs=1e-6)
    timed.state.validation_s = 10.0  # twice that is kept for the end: 50 of 80 s are used
    assert timed.progress == pytest.approx(0.625)


def test_the_dice_loss_of_regions(tmp_path: Path) -> None:
    """The first step of the same network on the same crop; only the Dice loss, of two parts or of all and a part."""
    config = replace(
        CONFIG,
        classes=("background", "rim", "core"),
        label_values=(0, 1, 2),
        regions=(("all", ("rim", "core")), ("inner", ("core",))),
    )
    sample = lesion_sample()
    sample.classes[4:7, 4:7, 5:8] *= 2
    losses = {}
    for kind in ("classes", "regions"):
        one = trainer(tmp_path / kind, replace(RECIPE, dice_over=kind), config, train=[sample], validation=[])
        (crop,) = one.crops(0)
        assert {1, 2} <= set(crop.classes.unique().tolist())
        heads = one.learner.model.training_outputs(crop.images[None], crop.subsets).heads
        groups = {"classes": ((1,), (2,)), "regions": ((1, 2), (2,))}[kind]
        losses[kind] = one.step()
        assert losses[kind] == pytest.approx(total_loss(heads, crop.classes[None], groups=groups).item(), rel=1e-5)
    assert abs(losses["regions"] - losses["classes"]) > 0.01


def test_a_small_network_learns_one_patient(tmp_path: Path) -> None:
    """Six heads start near 1.2 each; 40 steps at the rate 0.1 bring them to about 0.2, Dice to about 0.97."""
    recipe = replace(
        RECIPE,
        iterations_per_epoch=10,
        augment=False,
        foreground_share=1.0,
        learning_rate=0.1,
    )
    rows: list[dict[str, float]] = []
    patient = [lesion_sample()]
    config = replace(CONFIG, patch_size=(16, 16, 16))
    one = trainer(tmp_path / "run", recipe, config, train=patient, validation=patient)
    first = trainer(tmp_path / "first", recipe, config, train=patient).step()
    one.run(rows.append)
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    assert first == pytest.approx(7.1, abs=0.5)
    assert rows[-1]["loss"] < first / 4
    assert rows[-1]["lesion t1+flair"] > 0.8
    assert rows[-1]["score"] == pytest.approx(np.mean([rows[-1][f"lesion {s}"] for s in ("t1+flair", "t1", "flair")]))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "last.ckpt",
        "best.safetensors",
        "last.safetensors",
        "metrics.csv",
    }


def test_the_seed_decides_weights_and_crops(tmp_path: Path) -> None:
    one, same, other = (trainer(tmp_path, replace(RECIPE, seed=seed), validation=[]) for seed in (1, 1, 2))
    first, again = one.learner.model.state_dict(), same.learner.model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["head.weight"], other.learner.model.state_dict()["head.weight"])
    other.learner.model.load_state_dict(first)
    losses = [one.step(), same.step(), other.step()]
    assert losses[0] == losses[1] != losses[2]


def test_running_mean_by_hand(tmp_path: Path) -> None:
    """After the first step it moves by 1 - min(0.9, 2 / 11) = 9 / 11 of the way; with decay 0 all the way."""
    for decay, share in ((0.9, 9 / 11), (0.0, 1.0), (0.1, 0.9)):
        one = trainer(tmp_path, replace(RECIPE, ema_decay=decay))
        before = one.learner.model.state_dict()["head.weight"].clone()
        one.step()
        after = one.learner.model.state_dict()["head.weight"]
        torch.testing.assert_close(one.learner.mean["head.weight"], before + share * (after - before))
        assert not torch.equal(before, after)


@pytest.mark.parametrize(("depth", "in_fp32"), [(4, True), (6, False)])
def test_maps_two_deep_are_computed_in_fp32(depth: int, in_fp32: bool, tmp_path: Path) -> None:
    """The deepest maps are 2 and 3 deep; of those two deep, a CPU's gradient in bf16 held whatever lay in memory."""
    config, gradients = replace(CONFIG, patch_size=(depth, 8, 8)), []
    for precision in ("fp32", "bf16"):
        compute = Compute(torch.device("cpu"), precision, "for the tests")
        setup = Setup(config, RECIPE, [lesion_sample()], [], RunFolder(tmp_path), compute)
        one = Trainer(setup)
        one.learner.backward(one.crops(0), 0.0)
        gradients.append([p.grad for p in one.learner.model.parameters() if p.grad is not None])
    fp32, bf16 = gradients
    assert all(torch.equal(a, b) for a, b in zip(fp32, bf16, strict=True)) == in_fp32


def test_the_gradient_is_clipped_and_the_first_adam_step_is_the_learning_rate(tmp_path: Path) -> None:
    """Adam's first step is the rate times the sign of the gradient, whatever the clipped norm."""
    one = trainer(tmp_path, replace(RECIPE, gradient_clip=1e-2))
    before = {name: value.clone() for name, value in one.learner.model.state_dict().items()}
    norms: list[float] = []
    one.learner.optimizer.register_step_pre_hook(
        lambda *_: norms.append(
            math.sqrt(sum(float(p.grad.square().sum()) for p in one.learner.model.parameters() if p.grad is not None))
        )
    )
    one.step()
    assert norms == [pytest.approx(1e-2, rel=1e-3)]
    moved = (one.learner.model.state_dict()["head.bias"] - before["head.bias"]).abs()
    assert moved.tolist() == pytest.approx([0.01] * 2, rel=0.05)


@pytest.mark.parametrize(("budget_s", "validation_s"), [(20.0, 5.0), (20.0, 6.0), (16.0, 4.0), (40.0, 3.0)])
def test_a_time_budget_is_kept_and_the_rate_falls_to_nothing(
    budget_s: float, validation_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which a step takes 1 s."""
    now = [0.0]
    monkeypatch.setattr("a2fseg_cli.training.loop.time.perf_counter", lambda: now[0])
    one = trainer(tmp_path, replace(RECIPE, time_budget_s=budget_s, iterations_per_epoch=5))

    def taking(seconds: float, work: Callable[[], Any]) -> Callable[[], Any]:
        def timed() -> Any:
            now[0] += seconds
            return work()

        return timed

    monkeypatch.setattr(one, "step", taking(1.0, one.step))
    monkeypatch.setattr(one, "validate", taking(validation_s, one.validate))
    one.run(lambda _: None)
    assert 0.6 * budget_s < now[0] <= budget_s
    assert one.learning_rate == 0
    assert "score" in one.state.rows[-1]
    assert (tmp_path / "last.safetensors").is_file()
    short = trainer(tmp_path / "short", replace(RECIPE, time_budget_s=2 * validation_s))
    monkeypatch.setattr(short, "validate", taking(validation_s, short.validate))
    with pytest.raises(UsageError, match="one validation takes"):
        short.run(lambda _: None)


def test_the_rate_and_the_losses_of_a_step(tmp_path: Path) -> None:
    """Step 4 of 8 at 0.01 * 0.5^0.9 = 0.00536; two crops count as their mean; tumour voxels weigh seven times."""
    recipe = replace(RECIPE, batch_size=2, foreground_weight=7.0)
    one = trainer(tmp_path, recipe)
    one.state.step = 4
    losses = []
    for crop in one.crops.draw(4):
        heads = one.learner.model.training_outputs(crop.images[None], crop.subsets).heads
        losses.append(total_loss(heads, crop.classes[None], 7.0).item())
    assert one.step() == pytest.approx(np.mean(losses), rel=1e-5)
    assert [group["lr"] for group in one.learner.optimizer.param_groups] == pytest.approx([0.005359], abs=1e-6)


def test_a_loss_that_is_no_number_stops_and_leaves_the_checkpoint(tmp_path: Path) -> None:
    one = trainer(tmp_path)

    def spoil(_: dict[str, float]) -> None:
        one.crops.samples = [replace(lesion_sample(), images=np.full((2, 16, 16, 16), np.nan, np.float16))]

    with pytest.raises(DivergenceError, match=r"at step 2 the loss is nan.*last checkpoint is untouched"):
        one.run(spoil)
    saved = load_checkpoint(tmp_path / "last.ckpt")
    assert saved["state"]["step"] == 2
    assert all(bool(value.isfinite().all()) for value in saved["model"].values())
    again = trainer(tmp_path)
    again.resume()
    again.run(lambda _: None)
    assert again.state.step == 8


def test_a_gradient_that_is_no_number_stops_before_it_reaches_the_weights(tmp_path: Path) -> None:
    one = trainer(tmp_path)
    one.learner.model.head.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(DivergenceError, match="gradient norm"):
        one.step()
    assert all(bool(value.isfinite().all()) for value in one.learner.model.state_dict().values())


def test_exported_weights_are_the_running_mean(tmp_path: Path) -> None:
    one = trainer(tmp_path, replace(RECIPE, epochs=1))
    one.run(lambda _: None)
    for name in ("best.safetensors", "last.safetensors"):
        weights, tensors = load_weights(tmp_path / name, parameter_shapes)
        assert weights.config == CONFIG
        assert weights.card["name"] == "test"
        assert weights.card["steps"] == 2
        assert weights.card["recipe"]["learning_rate"] == 0.01
        assert 0 <= weights.card["validation"]["score"] <= 1
        exported, mean = A2FSeg(CONFIG), A2FSeg(CONFIG)
        exported.load_state_dict(tensors)
        mean.load_state_dict(one.learner.mean)
        images = torch.randn(1, 2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(exported(images, (True, True)), mean(images, (True, True)), atol=5e-3, rtol=5e-3)


def test_training_starts_from_given_weights(tmp_path: Path) -> None:
    torch.manual_seed(3)
    initial = A2FSeg(CONFIG).state_dict()
    one = trainer(tmp_path, initial=initial)
    for name, value in initial.items():
        assert torch.equal(one.learner.model.state_dict()[name], value)
        assert torch.equal(one.learner.mean[name], value)
