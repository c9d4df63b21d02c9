"""How far a training has come, and what follows from it: the share that is done, and the learning rate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from a2fseg_cli.training.recipe import Recipe


@dataclass
class State:
    """What a checkpoint holds besides the tensors.

    Attributes:
        step: Steps done.
        elapsed_s: Time trained and validated, over all stretches.
        validation_s: Longest time that a validation took.
        best_score: Best validation score so far; below 0 before the first validation.
        rows: One row of `metrics.csv` an epoch.
        finished: Epochs that were validated, where that was due, and exported.
    """

    step: int = 0
    elapsed_s: float = 0.0
    validation_s: float = 0.0
    best_score: float = -1.0
    rows: list[dict[str, float]] = field(default_factory=list)
    finished: int = 0

    def progress(self, recipe: Recipe) -> float:
        """Return the share of the training that is done, 0 to 1."""
        if budget := recipe.time_budget_s:
            kept = min(0.5 * budget, 2 * self.validation_s)  # for the last validation and the files
            return min(1.0, self.elapsed_s / (budget - kept))
        return min(1.0, self.step / recipe.steps)

    def learning_rate(self, recipe: Recipe) -> float:
        """Return the rate of the next step: the recipe's times (1 - progress)^0.9."""
        return float(recipe.learning_rate * (1 - self.progress(recipe)) ** 0.9)

    def last_scores(self) -> dict[str, float]:
        """Return the scores of the last validation, by `score` and `WT t1+flair`; empty before the first."""
        validated = [row for row in self.rows if "score" in row]
        return {k: v for k, v in validated[-1].items() if " " in k or k == "score"} if validated else {}

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values of a checkpoint; the rows are a list of their own."""
        return vars(self) | {"rows": list(self.rows)}
