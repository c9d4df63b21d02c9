"""What the card of weights tells: the trainings, each started from the one before, and the scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from a2fseg_cli.core.config import ModelConfig, subset_name

# What a card says of a training, and what is kept of it in the cards of those that start from its weights.
STAGE = ("name", "steps", "hours", "network", "recipe")


def stages(card: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the trainings that led to the weights, the first one first.

    A card comes from outside: fields may be missing or of any type that JSON has, and are given as they are.
    """
    found: list[Mapping[str, Any]] = []
    stage: Any = card
    while isinstance(stage, Mapping):
        found.append({key: stage[key] for key in STAGE if key in stage})
        stage = stage.get("initial")
    return found[::-1]


def hours_in_all(card: Mapping[str, Any]) -> float:
    """Return the hours of all trainings that led to the weights; those that a card does not tell count 0."""
    hours = [stage.get("hours") for stage in stages(card)]
    return sum(float(value) for value in hours if isinstance(value, int | float))


def subset_cost(card: Mapping[str, Any], config: ModelConfig, present: Iterable[str]) -> str:
    """Return in one line what the absent modalities cost, from the scores in the weights' card; else nothing."""
    here = subset_name(present, config.modalities)
    scores = card.get("scores", {})
    subsets = scores.get("subsets", {})
    full = subset_name(config.modalities, config.modalities)
    if here == full or here not in subsets or full not in subsets:
        return ""
    pairs = [(r, subsets[full].get(r), subsets[here].get(r)) for r, _ in config.regions]
    known = [(r, a, b) for r, a, b in pairs if a is not None and b is not None]
    if not known:
        return ""
    changes = ", ".join(f"{r} {100 * a:.0f} to {100 * b:.0f}" for r, a, b in known)
    absent = ", ".join(m for m in config.modalities if m not in here.split("+"))
    count = scores.get("patients")
    return f"without {absent}: Dice {changes} (% on {count if isinstance(count, int) else 'the'} test patients)"
