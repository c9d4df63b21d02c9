"""The training loop: one encode, several subsets, the paper's loss; resumable, with validation and weights."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from a2fseg_cli.core.config import ModelConfig, subset_name
from a2fseg_cli.core.device import Compute
from a2fseg_cli.core.losses import total_loss
from a2fseg_cli.core.networks import build_network
from a2fseg_cli.errors import A2FSegError, UsageError, WeightsError
from a2fseg_cli.files import atomic_write_text, csv_text
from a2fseg_cli.imaging.labels import region_dice
from a2fseg_cli.inference.predictor import Predictor
from a2fseg_cli.reporting.charts import write_learning_curves
from a2fseg_cli.training.checkpoint import load_checkpoint, save_checkpoint
from a2fseg_cli.training.data import CropReader, Sample, TrainingCrop, draw_crop, draw_weights
from a2fseg_cli.training.optimizers import make_optimizer
from a2fseg_cli.training.processes import Processes
from a2fseg_cli.training.recipe import Recipe
from a2fseg_cli.weights.file_format import save_weights

VALIDATE_EVERY = 4  # epochs
CHECKPOINT = "last.ckpt"


class DivergenceError(A2FSegError):
    """The loss is no longer a number."""


@dataclass
class State:
    """What a checkpoint holds besides the tensors.

    Attributes:
        step: Steps done.
        elapsed_s: Time trained and validated, over all stretches.
        validation_s: Longest time that a validation took.
        best_score: Best validation score so far.
        rows: One row of `metrics.csv` an epoch.
        finished: Epochs that were validated, where that was due, and exported.
    """

    step: int = 0
    elapsed_s: float = 0.0
    validation_s: float = 0.0
    best_score: float = -1.0
    rows: list[dict[str, float]] = field(default_factory=list)
    finished: int = 0


def read_checkpoint(folder: Path, config: ModelConfig) -> dict[str, Any]:
    """Return the last checkpoint of a run folder. Raises: WeightsError, UsageError when it is of another network."""
    saved = load_checkpoint(folder / CHECKPOINT)
    if saved.keys() != {"config", "model", "optimizer", "mean", "state"}:
        raise WeightsError(f"{folder / CHECKPOINT}: not a checkpoint of this tool.")
    if saved["config"] != config.to_json():
        raise UsageError(f"{folder}: the checkpoint is of another network; resume with the same options.")
    return saved


class Trainer:
    """Trains one network in one run folder.

    Args:
        config: The network.
        recipe: How to train it.
        train: Patients to train on.
        validation: Patients to choose the best weights by; may be empty.
        folder: Run folder: `last.ckpt`, `best.safetensors`, `last.safetensors`, `metrics.csv`.
        compute: Device and precision.
        card: What the weights' card says of the data; scores and hours are added.
        initial: Values to start from, by parameter name; what it does not name starts at random.
        processes: Those that train together, each with its share of a step's crops.
        workers: Threads that draw crops ahead.

    Raises:
        UsageError: the crops of a step cannot be shared evenly by the processes, or an unknown architecture.
    """

    def __init__(
        self,
        config: ModelConfig,
        recipe: Recipe,
        train: Sequence[Sample],
        validation: Sequence[Sample],
        folder: Path,
        compute: Compute,
        card: dict[str, Any],
        initial: Mapping[str, Tensor] | None = None,
        processes: Processes | None = None,
        workers: int = 0,
    ) -> None:
        self.config, self.recipe, self.folder, self.compute, self.card = config, recipe, folder, compute, card
        self.train_samples, self.validation_samples = train, validation
        self.processes = processes or Processes()
        if recipe.batch_size % self.processes.size:
            raise UsageError(
                f"--batch-size {recipe.batch_size}: {self.processes.size} processes share the crops of a step, so it "
                f"must be a multiple of {self.processes.size}."
            )
        self.groups = (
            [config.region_classes(region) for region, _ in config.regions] if recipe.dice_over == "regions" else None
        )
        self.draw_weights = draw_weights(train, config, recipe)
        self.crops = CropReader(self._draw, workers)
        self.state = State()
        torch.manual_seed(recipe.seed)
        self.model = build_network(config)
        self.model.load_state_dict(self.model.state_dict() | dict(initial or {}))
        self.model.to(compute.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.mean = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.optimizer = make_optimizer(self.model.parameters(), recipe)

    @property
    def progress(self) -> float:
        """Share of the training that is done, 0 to 1."""
        if budget := self.recipe.time_budget_s:
            kept = min(0.5 * budget, 2 * self.state.validation_s)  # for the last validation and the files
            return min(1.0, self.state.elapsed_s / (budget - kept))
        return min(1.0, self.state.step / self.recipe.steps)

    @property
    def learning_rate(self) -> float:
        """The rate of the next step: the recipe's times (1 - progress)^0.9."""
        return float(self.recipe.learning_rate * (1 - self.progress) ** 0.9)

    def resume(self) -> None:
        """Go on from the run folder's last checkpoint. Raises: WeightsError, UsageError when it does not fit."""
        saved = read_checkpoint(self.folder, self.config)
        try:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            for name, value in self.mean.items():
                value.copy_(saved["mean"][name])
            self.state = State(**saved["state"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise WeightsError(f"{self.folder / CHECKPOINT}: not a checkpoint of this network; start anew.") from error

    def save(self) -> None:
        """Write the checkpoint, from the first process."""
        if self.processes.rank:
            return
        state = vars(self.state) | {"rows": list(self.state.rows)}
        save_checkpoint(
            self.folder / CHECKPOINT,
            {
                "config": self.config.to_json(),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "mean": self.mean,
                "state": state,
            },
        )

    def _write_rows(self) -> None:
        """Write `metrics.csv` and `curves.png`, from the first process."""
        if not self.processes.rank:
            atomic_write_text(self.folder / "metrics.csv", csv_text(self.state.rows))
            write_learning_curves(self.folder / "curves.png", self.state.rows)

    def run(self, report: Callable[[dict[str, float]], None], stepped: Callable[[float], None] | None = None) -> None:
        """Train to the end, epoch by epoch; after each, validate, save and report its row.

        Args:
            report: Given the row of `metrics.csv` of each epoch.
            stepped: Told the share of the training that is done, after each step.

        Raises:
            DivergenceError: the loss or its gradient is not finite; the last checkpoint stays as it was.
            UsageError: the time budget is too short to validate in.
        """
        try:
            if self.recipe.time_budget_s and self.validation_samples and not self.state.step:
                self._validate()  # the schedule has to know how long it takes
                if self.progress >= 1:
                    raise UsageError(
                        f"--time-budget {self.recipe.time_budget_s:g}s: one validation takes "
                        f"{self.state.validation_s:.1f} s; give more than three times that."
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
        for _ in range(self.recipe.iterations_per_epoch):
            losses.append(self.step())
            self.state.elapsed_s = self.processes.from_first(base + time.perf_counter() - started)
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

    def _finish_epoch(self) -> dict[str, float]:
        """Validate where it is due, write weights and checkpoint, and return the epoch's row."""
        state = self.state
        row = state.rows[-1]
        if self.validation_samples and (self.progress >= 1 or len(state.rows) % VALIDATE_EVERY == 0):
            row |= self._validate()
        if row.get("score", -1.0) > state.best_score:
            state.best_score = row["score"]
            self.export("best.safetensors")
        if self.progress >= 1:  # the validation may have used the time up
            self.export("last.safetensors")
        self._write_rows()
        state.finished = len(state.rows)
        self.save()
        return row

    def _validate(self) -> dict[str, float]:
        """Return what `validate` does, and note the time it took."""
        started, base = time.perf_counter(), self.state.elapsed_s
        scores = self.validate()
        self.state.elapsed_s = self.processes.from_first(base + time.perf_counter() - started)
        self.state.validation_s = max(self.state.validation_s, self.state.elapsed_s - base)
        return scores

    def _draw(self, step: int) -> list[TrainingCrop]:
        mine = self.processes.share(range(self.recipe.batch_size))
        return [
            draw_crop(self.train_samples, self.config, self.recipe, step, index, self.draw_weights) for index in mine
        ]

    def step(self) -> float:
        """Do one step and return its loss: one encode a crop, the full set and some random subsets."""
        recipe, state = self.recipe, self.state
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        share = 0.0
        for crop in self.crops(state.step):
            loss = self._loss(crop) / recipe.batch_size
            loss.backward()  # type: ignore[no-untyped-call]
            share += float(loss.detach())
        parameters = list(self.model.parameters())
        self.processes.sum_gradients(parameters)
        total = self.processes.sum(share)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, recipe.gradient_clip))
        if not math.isfinite(total) or not math.isfinite(norm):
            raise DivergenceError(
                f"{self.folder}: at step {state.step} the loss is {total}, the gradient norm {norm}. The last "
                "checkpoint is untouched; resume with a lower --learning-rate."
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        state.step += 1
        self._average()
        return total

    def _loss(self, crop: TrainingCrop) -> Tensor:
        device = self.compute.device
        with self.compute.autocast():
            outputs = self.model.training_outputs(crop.images[None].to(device), crop.subsets)
        target, weight = crop.classes[None].to(device), self.recipe.foreground_weight
        loss = total_loss(outputs.heads, target, weight, self.groups)
        return loss if outputs.extra_loss is None else loss + outputs.extra_loss

    def _average(self) -> None:
        """Move the running mean of the weights; young means follow faster."""
        decay = min(self.recipe.ema_decay, (1 + self.state.step) / (10 + self.state.step))
        with torch.no_grad():
            new = self.model.state_dict()
            names = list(self.mean)
            torch._foreach_lerp_([self.mean[n] for n in names], [new[n] for n in names], 1 - decay)

    def validate(self) -> dict[str, float]:
        """Return Dice per region for a fixed set of subsets, and `score`, the mean of all of them.

        On the working grid, with the running mean of the weights. The subsets: all modalities, and each one
        alone. A region that is empty in truth and prediction scores 1.
        """
        full = tuple(True for _ in self.config.modalities)
        subsets = list(dict.fromkeys([full, *(tuple(i == k for i in range(len(full))) for k in range(len(full)))]))
        trained = {name: value.clone() for name, value in self.model.state_dict().items()}
        autotune, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False  # brains differ in size
        self.model.load_state_dict(self.mean)
        mine = [self.scores_of(sample, subsets) for sample in self.processes.share(self.validation_samples)]
        self.model.load_state_dict(trained)
        torch.backends.cudnn.benchmark = autotune
        patients = self.processes.collect(mine)
        names = dict.fromkeys(name for patient in patients for name in patient)
        row = {name: float(np.mean([patient[name] for patient in patients if name in patient])) for name in names}
        return row | {"score": float(np.mean(list(row.values())))}

    def scores_of(self, sample: Sample, subsets: Sequence[tuple[bool, ...]]) -> dict[str, float]:
        """Return a patient's Dice by `WT t1+flair`, for those subsets whose modalities it has, on the working grid."""
        possible = [s for s in subsets if all(has or not wanted for has, wanted in zip(sample.present, s, strict=True))]
        predictor = Predictor(self.model, self.compute)
        scores: dict[str, float] = {}
        results = predictor.segment_subsets(sample.images.astype(np.float32), possible)
        for subset, result in zip(possible, results, strict=True):
            name = subset_name(itertools.compress(self.config.modalities, subset), self.config.modalities)
            predicted = result.probabilities.argmax(axis=0).astype(np.uint8)
            dice = region_dice(predicted, sample.classes, self.config)
            scores |= {f"{region} {name}": value for region, value in dice.items()}
        return scores

    def export(self, name: str) -> None:
        """Write the running mean of the weights as one file for `predict --weights`, from the first process."""
        if self.processes.rank:
            return
        trained = {
            "steps": self.state.step,
            "hours": round(self.state.elapsed_s / 3600, 2),
            "network": {
                name: getattr(self.config, name) for name in ("features_per_stage", "spacing_mm", "patch_size")
            },
            "recipe": self.recipe.to_dict(),
            "validation": {k: round(v, 4) for k, v in self._last_scores().items()},
        }
        save_weights(self.folder / name, self.mean, self.config, self.card | trained)

    def _last_scores(self) -> dict[str, float]:
        shown = [row for row in self.state.rows if "score" in row]
        return {k: v for k, v in shown[-1].items() if " " in k or k == "score"} if shown else {}
