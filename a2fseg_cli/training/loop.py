"""The training loop: one encode, several subsets, the paper's loss; resumable, with validation and weights."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from a2fseg_cli.core.config import ModelConfig, subset_name
from a2fseg_cli.core.device import Compute
from a2fseg_cli.core.losses import total_loss
from a2fseg_cli.core.model import A2FSeg
from a2fseg_cli.core.sliding_window import plan_windows, run_windows
from a2fseg_cli.errors import A2FSegError, UsageError, WeightsError
from a2fseg_cli.files import atomic_write_text
from a2fseg_cli.imaging.labels import region_dice
from a2fseg_cli.reporting.charts import write_learning_curves
from a2fseg_cli.training.augmentation import augment
from a2fseg_cli.training.checkpoint import load_checkpoint, save_checkpoint
from a2fseg_cli.training.data import Sample, random_crop, random_subset
from a2fseg_cli.training.optimizers import make_optimizer
from a2fseg_cli.training.recipe import Recipe
from a2fseg_cli.weights.file_format import save_weights


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
    """

    step: int = 0
    elapsed_s: float = 0.0
    validation_s: float = 0.0
    best_score: float = -1.0
    rows: list[dict[str, float]] = field(default_factory=list)


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
        initial: Weights to start from, by parameter name; None for random ones.
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
        initial: dict[str, Tensor] | None = None,
    ) -> None:
        self.config, self.recipe, self.folder, self.compute, self.card = config, recipe, folder, compute, card
        self.train_samples, self.validation_samples = train, validation
        self.state = State()
        torch.manual_seed(recipe.seed)
        self.model = A2FSeg(config)
        if initial is not None:
            self.model.load_state_dict(initial)
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
        saved = load_checkpoint(self.folder / "last.ckpt")
        if saved.keys() != {"config", "model", "optimizer", "mean", "state"}:
            raise WeightsError(f"{self.folder / 'last.ckpt'}: not a checkpoint of this tool.")
        if saved["config"] != self.config.to_json():
            raise UsageError(f"{self.folder}: the checkpoint is of another network; resume with the same options.")
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        for name, value in self.mean.items():
            value.copy_(saved["mean"][name])
        self.state = State(**saved["state"])

    def save(self) -> None:
        """Write the checkpoint, `metrics.csv` and `curves.png`."""
        state = vars(self.state) | {"rows": list(self.state.rows)}
        save_checkpoint(
            self.folder / "last.ckpt",
            {
                "config": self.config.to_json(),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "mean": self.mean,
                "state": state,
            },
        )
        if self.state.rows:
            names = list(dict.fromkeys(name for row in self.state.rows for name in row))
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.state.rows)
            atomic_write_text(self.folder / "metrics.csv", text.getvalue())
            write_learning_curves(self.folder / "curves.png", self.state.rows)

    def run(self, report: Callable[[dict[str, float]], None]) -> None:
        """Train to the end, epoch by epoch; after each, validate, save and report its row.

        Raises:
            DivergenceError: the loss or its gradient is not finite; the last checkpoint stays as it was.
        """
        while self.progress < 1:
            losses, started = [], time.perf_counter()
            base = self.state.elapsed_s
            for _ in range(self.recipe.iterations_per_epoch):
                losses.append(self.step())
                self.state.elapsed_s = base + time.perf_counter() - started
                if self.progress >= 1:
                    break
            row: dict[str, float] = {
                "epoch": len(self.state.rows) + 1,
                "step": self.state.step,
                "hours": self.state.elapsed_s / 3600,
                "loss": float(np.mean(losses)),
                "learning_rate": self.learning_rate,
            }
            last = self.progress >= 1
            if self.validation_samples and (last or len(self.state.rows) % 4 == 3):
                before = time.perf_counter()
                row |= self.validate()
                self.state.validation_s = max(self.state.validation_s, time.perf_counter() - before)
                self.state.elapsed_s = base + time.perf_counter() - started
            self.state.rows.append(row)
            if row.get("score", -1.0) > self.state.best_score:
                self.state.best_score = row["score"]
                self.export("best.safetensors")
            if last:
                self.export("last.safetensors")
            self.save()
            report(row)

    def step(self) -> float:
        """Do one step and return its loss: one encode a crop, the full set and some random subsets."""
        recipe, state = self.recipe, self.state
        random = np.random.default_rng([recipe.seed, state.step])
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        total = 0.0
        for _ in range(recipe.batch_size):
            sample = self.train_samples[int(random.integers(len(self.train_samples)))]
            images, classes = random_crop(sample, self.config.window, recipe.foreground_share, random)
            if recipe.augment:
                images, classes = augment(images, classes, random)
            subsets = [sample.present, *(random_subset(sample.present, random) for _ in range(recipe.random_subsets))]
            loss = self._loss(images, classes, subsets) / recipe.batch_size
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.gradient_clip))
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

    def _loss(self, images: Tensor, classes: Tensor, subsets: Sequence[Sequence[bool]]) -> Tensor:
        device = self.compute.device
        with self.compute.autocast():
            features = self.model.encode(images[None].to(device), subsets[0])
            outputs = list(self.model.fuse_subsets(features, subsets, training=True))
            single = list(self.model.modality_logits(features).values())
        pairs = [(output.average_logits, output.logits) for output in outputs if output.average_logits is not None]
        return total_loss(single, pairs, classes[None].to(device), self.recipe.foreground_weight)

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
        subsets = [full, *(tuple(i == k for i in range(len(full))) for k in range(len(full)))]
        trained = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.mean)
        scores: dict[str, list[float]] = {}
        for sample in self.validation_samples:
            for subset, logits in zip(subsets, self._predict(sample, subsets), strict=True):
                name = subset_name(
                    (m for m, flag in zip(self.config.modalities, subset, strict=True) if flag), self.config.modalities
                )
                if logits is None:
                    continue
                predicted = logits.argmax(dim=0).to(torch.uint8).numpy()
                for region, dice in region_dice(predicted, sample.classes, self.config).items():
                    scores.setdefault(f"{region} {name}", []).append(dice)
        self.model.load_state_dict(trained)
        row = {name: float(np.mean(values)) for name, values in scores.items()}
        return row | {"score": float(np.mean(list(row.values())))}

    def _predict(self, sample: Sample, subsets: Sequence[tuple[bool, ...]]) -> Iterator[Tensor | None]:
        """Yield the logits of each subset whose modalities the patient has, None for the others."""
        possible = [s for s in subsets if all(has or not wanted for has, wanted in zip(sample.present, s, strict=True))]
        images = torch.from_numpy(sample.images.astype(np.float32))
        z, y, x = images.shape[1:]
        plan = plan_windows((z, y, x), self.config.stride, max_voxels=4e6)

        def predict(window: Tensor) -> Iterator[Tensor]:
            features = self.model.encode(window, sample.present)
            for output in self.model.fuse_subsets(features, possible):
                yield output.logits

        with torch.inference_mode(), self.compute.autocast():
            results = iter(run_windows(predict, images, plan, self.compute.device))
        for subset in subsets:
            yield next(results) if subset in possible else None

    def export(self, name: str) -> None:
        """Write the running mean of the weights as one file for `predict --weights`."""
        trained = {
            "steps": self.state.step,
            "hours": round(self.state.elapsed_s / 3600, 2),
            "recipe": self.recipe.to_dict(),
            "validation": {k: round(v, 4) for k, v in self._last_scores().items()},
        }
        save_weights(self.folder / name, self.mean, self.config, self.card | trained)

    def _last_scores(self) -> dict[str, float]:
        shown = [row for row in self.state.rows if "score" in row]
        return {k: v for k, v in shown[-1].items() if " " in k or k == "score"} if shown else {}
