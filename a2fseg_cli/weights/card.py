"""What the card of weights tells: the trainings, each started from the one before, and the scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from a2fseg_cli.core.config import ModelConfig, subset_name

# What a card says of a training, and what is kept of it in the cards of those that start from its weights.
STAGE = ("name", "steps", "hours", "network", "recipe")


def stages(card: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the trainings that led to the weights, the first one first.

    A card comes from outside: fields may be missing or of any type that JSON has, and are given as they are.
    """
    trainings: list[Mapping[str, Any]] = []
    stage: Any = card
    while isinstance(stage, Mapping):
        trainings.append({key: stage[key] for key in STAGE if key in stage})
        stage = stage.get("initial")
    return trainings[::-1]


def hours_in_all(card: Mapping[str, Any]) -> float:
    """Return the hours of all trainings that led to the weights; those that a card does not tell count 0."""
    hours = [stage.get("hours") for stage in stages(card)]
    return sum(float(value) for value in hours if isinstance(value, int | float))


def expected_dice(card: Mapping[str, Any], config: ModelConfig, present: Iterable[str]) -> str:
    """Return in one line the mean Dice that the card gives for the present modalities, and on how many patients.

    With the 95 % intervals of the means and the means by kind of patient, where the card has them, and what the absent
    modalities cost. Nothing where this subset was not scored.
    """
    scores = _mapping(card.get("scores"))
    subsets = _mapping(scores.get("subsets"))
    here = subset_name(present, config.modalities)
    full = subset_name(config.modalities, config.modalities)
    regions = [region for region, _ in config.regions if _percent(_mapping(subsets.get(here)).get(region))]
    if not regions:
        return ""
    count = _patients(scores, here)
    whom = f"{count} test patient{'s' * (count != 1)}" if isinstance(count, int) else "the test patients"
    absent = ", ".join(m for m in config.modalities if m not in here.split("+"))
    intervals = _mapping(_mapping(scores.get("intervals_95")).get(here))
    dice = ", ".join(f"{_dice(subsets[here], [r])}{interval_text(intervals.get(r))}" for r in regions)
    line = f"Without {absent}" if absent else "From all sequences"
    line += f" the mean Dice {'(95 % interval) ' * ('(' in dice)}on {whom} is {dice} %"
    if here != full and (whole := _dice(_mapping(subsets.get(full)), regions)):
        line += f"; from all sequences {whole} %"
    kinds = [
        f"{kind} ({_patients(of_kind, here)}) {dice} %"
        for kind, of_kind in _mapping(scores.get("kinds")).items()
        if (dice := _dice(_mapping(_mapping(_mapping(of_kind).get("subsets")).get(here)), regions))
    ]
    return f"{line}." + (f" By kind of patient: {'; '.join(kinds)}." if kinds else "")


def _patients(scores: Mapping[str, Any], subset: str) -> Any:
    """Return on how many patients the means of a subset rest: where some lack sequences, not on all."""
    return _mapping(scores.get("patients_of_subsets")).get(subset, scores.get("patients", "?"))


def _dice(row: Mapping[str, Any], regions: Iterable[str]) -> str:
    """Return `WT 92, TC 79` of those regions that have a number."""
    return ", ".join(f"{region} {text}" for region in regions if (text := _percent(row.get(region))))


def interval_text(interval: Any) -> str:
    """Return ` (89 to 94)`, in %, of an interval in a card; nothing of anything else."""
    texts = [_percent(end) for end in interval] if isinstance(interval, list) else []
    return f" ({texts[0]} to {texts[1]})" if len(texts) == 2 and all(texts) else ""


def _percent(share: Any) -> str:
    return f"{100 * share:.0f}" if type(share) in (int, float) and math.isfinite(share) else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


# Directions in which a card may have predictions mirrored, and the axis of arrays (z, y, x) that each reverses.
DIRECTIONS = {"head-foot": 0, "front-back": 1, "left-right": 2}


def mirrored_axes(card: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the axes (0, 1, 2 for z, y, x) over whose flips these weights' predictions are averaged; none by default.

    `mirrored` in the card holds names of `DIRECTIONS`; what is no such name counts as nothing.
    """
    names = card.get("mirrored")
    return tuple(axis for name, axis in DIRECTIONS.items() if isinstance(names, list) and name in names)


def absent_below_ml(card: Mapping[str, Any], config: ModelConfig, present: Iterable[str]) -> dict[str, float]:
    """Return below how many mL in all these weights rather invent a region than find it; none by default.

    `absent_below_ml` in the card holds volumes by region and by a modality that must be present, such as
    `{"ET": {"t1c": 0.2}}`: where T1c is given, an ET of less than 0.2 mL counts as none. What is no such volume counts
    as nothing.
    """
    rules, here = card.get("absent_below_ml"), set(present)
    least: dict[str, float] = {}
    for region, _ in config.regions:
        volumes = rules.get(region) if isinstance(rules, Mapping) else None
        known = [ml for m, ml in volumes.items() if m in here] if isinstance(volumes, Mapping) else []
        numbers = [float(ml) for ml in known if type(ml) in (int, float) and 0 < ml < math.inf]
        if numbers:
            least[region] = max(numbers)
    return least


# Below this mean Dice on the test patients a region's volume is called a guess; more is asked of TC and ET without
# T1c, since enhancement shows on no other sequence. The bundled weights find them without T1c with 49 to 57 and 29 to
# 35 %, and with it with 73 to 81 and 57 to 66 %.
GUESS_BELOW, UNSEEN_GUESS_BELOW = 0.5, 0.7


def guesses(card: Mapping[str, Any], config: ModelConfig, present: Iterable[str]) -> dict[str, float]:
    """Return the regions that the present modalities cannot show, with their mean Dice (0 to 1) in the card.

    Where the card has no score of this subset, or of the region in it, TC and ET without T1c are guesses as well, of a
    Dice that nobody knows (NaN).
    """
    names = tuple(present)
    row = card.get("scores", {}).get("subsets", {}).get(subset_name(names, config.modalities))
    unseen = ("TC", "ET") if "t1c" in config.modalities and "t1c" not in names else ()
    if row is None:
        return {region: math.nan for region, _ in config.regions if region in unseen}
    asked = {region: UNSEEN_GUESS_BELOW if region in unseen else GUESS_BELOW for region, _ in config.regions}
    dice = {region: math.nan if row.get(region) is None else float(row[region]) for region in asked}
    unknown = {region for region in unseen if math.isnan(dice.get(region, 0))}
    return {region: value for region, value in dice.items() if value < asked[region] or region in unknown}


def guess_sentence(guessed: Mapping[str, float], modalities: str) -> str:
    """Return in plain words which volumes not to rely on, or nothing."""
    if not guessed:
        return ""
    *before, last = guessed
    named = f"{', '.join(before)} and {last}" if before else last
    verb = "is a guess" if len(guessed) == 1 else "are guesses"
    if any(math.isnan(value) for value in guessed.values()):
        return f"{named} {verb}: {modalities} cannot show them, and the card of these weights has no scores of it."
    dice = " and ".join(f"{100 * value:.0f} %" for value in guessed.values())
    return f"{named} {verb}: from {modalities} these weights found {named} with a mean Dice of {dice}."
