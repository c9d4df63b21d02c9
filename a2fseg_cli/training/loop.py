"""The training loop: one encode, several subsets, the paper's loss; epochs with validation, files and resuming."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.device import Compute
from a2fseg_cli.core.losses import total_loss
from a2fseg_cli.core.network import Network
from a2fseg_cli.core.networks import build_network
from a2fseg_cli.errors import A2FSegError, UsageError, WeightsError
from a2fseg_cli.training.crops import CropReader, TrainingCrop
from a2fseg_cli.training.data import Sample
from a2fseg_cli.training.optimizers import make_optimizer
from a2fseg_cli.training.processes import Processes
from a2fseg_cli.training.recipe import Recipe
from a2fseg_cli.training.run_folder import BEST, CHECKPOINT, LAST, RunFolder
from a2fseg_cli.training.state import State
from a2fseg_cli.training.validation import validation_scores

VALIDATE_EVERY = 4  # epochs


class DivergenceError(A2FSegError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Setup:
    """All that a training needs.

    Attributes:
        config: The network.
        recipe: How to train it.
        train: Patients to train on.
        validation: Patients to choose the best weights by; may be empty.
        folder: Where its files go.
        compute: Device and precision.
        card: What the weights' card says of the data; scores and hours are added.
        initial: Values to start from, by parameter name; what it does not name starts at random.
        processes: Those that train together, each with its share of a step's crops.
        workers: Threads that draw crops before they are needed.
    """

    config: ModelConfig
    recipe: Recipe
    train: Sequence[Sample]
    validation: Sequence[Sample]
    folder: RunFolder
    compute: Compute
    card: Mapping[str, Any] = field(default_factory=dict)
    initial: Mapping[str, Tensor] = field(default_factory=dict)
    processes: Processes = field(default_factory=Processes)
    workers: int = 0


class Learner:
    """A network, its optimiser and the running mean of its weights: what one step changes.

    Args:
        model: The network, as it starts where `setup.initial` says nothing.
        setup: Of it the recipe, the device, the initial values and the processes.
    """

    def __init__(self, model: Network, setup: Setup) -> None:
        config, self.recipe, self.compute = setup.config, setup.recipe, setup.compute
        self.processes = setup.processes
        self.groups = (
            [config.region_classes(region) for region, _ in config.regions]
            if self.recipe.dice_over == "regions"
            else None
        )
        self.model = model
        self.model.load_state_dict(self.model.state_dict() | dict(setup.initial))
        self.model.to(self.compute.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.mean = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.optimizer = make_optimizer(self.model.parameters(), self.recipe)

    def backward(self, crops: Sequence[TrainingCrop], progress: float) -> tuple[float, float]:
        """Return the loss of a step's crops, of all processes, and the gradient's norm before it was clipped.

        Args:
            crops: This process's.
            progress: Share of the training that is done.
        """
        share = 0.0
        for crop in crops:
            loss = self._loss(crop, progress) / self.recipe.batch_size
            loss.backward()  # type: ignore[no-untyped-call]
            share += float(loss.detach())
        parameters = list(self.model.parameters())
        self.processes.sum_gradients(parameters)
        total = self.processes.sum(share)
        return total, float(torch.nn.utils.clip_grad_norm_(parameters, self.recipe.gradient_clip))

    def update(self, learning_rate: float, step: int) -> None:
        """Move the weights, then their running mean; young means follow faster. Args: step: Its number, from 1."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(self.recipe.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            new = self.model.state_dict()
            names = list(self.mean)
            torch._foreach_lerp_([self.mean[n] for n in names], [new[n] for n in names], 1 - decay)

    def _loss(self, crop: TrainingCrop, progress: float) -> Tensor:
        device = self.compute.device
        with self._compute_for(crop.images.shape[1]).autocast():
            outputs = self.model.training_outputs(crop.images[None].to(device), crop.subsets, progress)
        target, weight = crop.classes[outputs.voxels][None].to(device), self.recipe.foreground_weight
        loss = total_loss(outputs.heads, target, weight, self.groups)
        return loss if outputs.extra_loss is None else loss + outputs.extra_loss

    def _compute_for(self, depth: int) -> Compute:
        """Return how to compute a crop so many voxels deep: on a CPU in fp32 where the deepest maps are two deep.

        For the weights of 3 x 3 x 3 over those, oneDNN's gradient in bf16 (torch 2.13, AVX512) reads memory that
        nobody wrote, and came out anything up to infinite. In depths of 1 and 3 to 8 it was right, and so is fp32.
        """
        shallow = self.compute.device.type == "cpu" and depth <= 2 * self.model.config.stride
        return replace(self.compute, precision="fp32") if shallow else self.compute

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "mean": self.mean}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave. Raises: KeyError, RuntimeError and others when it does not fit."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        for name, value in self.mean.items():
            value.copy_(saved["mean"][name])


class Trainer:
    """Trains one network, epoch by epoch; its files follow each epoch.

    Args:
        setup: All that it needs.

    Raises:
        UsageError: the crops of a step cannot be shared evenly by the processes, `draw` does not fit the patients, or
            an unknown architecture.
    """

    def __init__(self, setup: Setup) -> None:
        recipe, processes = setup.recipe, setup.processes
        if recipe.batch_size % processes.size:
            raise UsageError(
                f"batch_size {recipe.batch_size}: {processes.size} processes share the crops of a step, so it "
                f"must be a multiple of {processes.size}."
            )
        self.setup, self.state = setup, State()
        self.crops = CropReader(setup.train, setup.config, recipe, processes, setup.workers)
        torch.manual_seed(recipe.seed)
        self.learner = Learner(build_network(setup.config), setup)

    @property
    def progress(self) -> float:
        """Share of the training that is done, 0 to 1."""
        return self.state.progress(self.setup.recipe)

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return self.state.learning_rate(self.setup.recipe)

    def resume(self) -> None:
        """Go on from the run folder's last checkpoint. Raises: WeightsError, UsageError when it does not fit."""
        saved = self.setup.folder.read_checkpoint(self.setup.config)
        try:
            self.learner.load_state_dict(saved)
            self.state = State(**saved["state"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            file = self.setup.folder.path / CHECKPOINT
            raise WeightsError(f"{file}: not a checkpoint of this network; start anew.") from error

    def save(self) -> None:
        """Write the checkpoint."""
        self.setup.folder.save_checkpoint(self.setup.config, self.learner.state_dict(), self.state)

    def run(self, report: Callable[[dict[str, float]], None], stepped: Callable[[float], None] | None = None) -> None:
        """Train to the end, epoch by epoch; after each, validate, save and report its row.

        Args:
            report: Given the row of `metrics.csv` of each epoch.
            stepped: Told the share of the training that is done, after each step.

        Raises:
            DivergenceError: the loss or its gradient is not finite; the last checkpoint stays as it was.
            UsageError: the time budget is too short to validate in.
        """
        budget_s = self.setup.recipe.time_budget_s
        try:
            if budget_s and self.setup.validation and not self.state.step:
                self._validate()  # the schedule has to know how long it takes
                if self.progress >= 1:
                    raise UsageError(
                        f"time_budget_s {budget_s:g}: one validation takes {self.state.validation_s:.1f} s; "
                        "give more than three times that."
                    )
            if self.state.finished < len(self.state.rows):  # interrupted in between
                report(self._finish_epoch())
            while self.progress < 1:
                self._train_epoch(stepped or (lambda _: None))
                self.save()
                report(self._finish_epoch())
        finally:
            self.crops.close()

    def _train_epoch(self, stepped: Callable[[float], None]) -> None:
        losses, started, base = [], time.perf_counter(), self.state.elapsed_s
        for _ in range(self.setup.recipe.iterations_per_epoch):
            losses.append(self.step())
            self.state.elapsed_s = self.setup.processes.from_first(base + time.perf_counter() - started)
            stepped(self.progress)
            if self.progress >= 1:
                break
        self.state.rows.append(
            {
                "epoch": len(self.state.rows) + 1,
                "step": self.state.step,
                "hours": self.state.elapsed_s / 3600,
                "loss": float(np.mean(losses)),
                "learning_rate": self.learning_rate,
            }
        )

    def step(self) -> float:
        """Do one step and return its loss: one encode a crop, the full set and some random subsets.

        Raises:
            DivergenceError: the loss or its gradient is not finite; the weights stay as they were.
        """
        state, rate = self.state, self.learning_rate
        draw = np.random.SeedSequence([self.setup.recipe.seed, state.step, self.setup.processes.rank])
        torch.manual_seed(int(draw.generate_state(1)[0]))  # samples of U-HVED and dropout of mmFormer, resumed or not
        loss, norm = self.learner.backward(self.crops(state.step), self.progress)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise DivergenceError(
                f"{self.setup.folder.path}: at step {state.step} the loss is {loss}, the gradient norm {norm}. The "
                "last checkpoint is untouched; start another run with a lower learning_rate."
            )
        state.step += 1
        self.learner.update(rate, state.step)
        return loss

    def _finish_epoch(self) -> dict[str, float]:
        """Validate where it is due, write weights and checkpoint, and return the epoch's row."""
        state, folder = self.state, self.setup.folder
        row = state.rows[-1]
        if self.setup.validation and (self.progress >= 1 or len(state.rows) % VALIDATE_EVERY == 0):
            row |= self._validate()
        if row.get("score", -1.0) > state.best_score:
            state.best_score = row["score"]
            self.export(BEST)
        if self.progress >= 1:  # the validation may have used the time up
            self.export(LAST)
        folder.write_rows(state.rows)
        state.finished = len(state.rows)
        self.save()
        return row

    def _validate(self) -> dict[str, float]:
        """Return what `validate` does, and note the time it took."""
        started, base = time.perf_counter(), self.state.elapsed_s
        scores = self.validate()
        self.state.elapsed_s = self.setup.processes.from_first(base + time.perf_counter() - started)
        self.state.validation_s = max(self.state.validation_s, self.state.elapsed_s - base)
        return scores

    def validate(self) -> dict[str, float]:
        """Return the scores of the running mean of the weights, as `validation_scores` gives them."""
        setup, learner = self.setup, self.learner
        return validation_scores(learner.model, learner.mean, setup.validation, setup.compute, setup.processes)

    def export(self, name: str) -> None:
        """Write the running mean of the weights as one file with its card."""
        config, state = self.setup.config, self.state
        trained = {
            "steps": state.step,
            "hours": round(state.elapsed_s / 3600, 2),
            "network": {name: getattr(config, name) for name in ("features_per_stage", "spacing_mm", "patch_size")},
            "recipe": self.setup.recipe.to_dict(),
            "validation": {k: round(v, 4) for k, v in state.last_scores().items()},
        }
        self.setup.folder.write_weights(name, self.learner.mean, config, {**self.setup.card, **trained})
