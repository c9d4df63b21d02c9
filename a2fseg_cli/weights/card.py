"""How weights came about, as their card tells it: one stage a training, each started from the one before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
