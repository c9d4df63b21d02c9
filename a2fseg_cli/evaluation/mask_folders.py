"""The folders of masks that are compared: which subset of sequences each one's masks were made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from a2fseg_cli.cases.case import Case
from a2fseg_cli.core.config import subset_name
from a2fseg_cli.errors import InputError, UsageError, some
from a2fseg_cli.evaluation.methods import Method
from a2fseg_cli.evaluation.patient_scores import PREDICTIONS
from a2fseg_cli.evaluation.predictions import find_predictions

Subset = tuple[str, ...]


def folders_of(method: Method, subsets: Sequence[Subset] | None, modalities: Sequence[str]) -> dict[str, Path]:
    """Return subset to folder of its masks: of one subset the method's folder itself or its sub-folder of that name.

    Args:
        method: With a folder.
        subsets: Asked for; None takes masks of whatever a patient has, under the name `predictions`.
        modalities: In the order of the subsets' names.

    Raises:
        UsageError: a subset has no sub-folder, or the folder has some and none was asked for.
        InputError: no such folder.
    """
    folder = method.folder or Path()
    below = _subset_folders(folder, modalities)
    if subsets is None:
        if below:
            raise UsageError(
                f"{folder} ({method.name}): sub-folders of {len(below)} subsets, {some(list(below))}. Say which "
                "subsets are to be scored."
            )
        return {PREDICTIONS: folder}
    asked = [subset_name(subset, modalities) for subset in subsets]
    if len(asked) == 1 and not below:
        return {asked[0]: folder}
    if missing := [name for name in asked if name not in below]:
        raise UsageError(
            f"{folder} ({method.name}): no sub-folder for {len(missing)} of {len(asked)} subsets: {some(missing)}. "
            "Expected one a subset, named like t1c+flair."
        )
    return {name: below[name] for name in asked}


def not_scored(method: Method, scored: Mapping[str, Path], subsets: Sequence[Subset], modalities: Sequence[str]) -> str:
    """Return one line on the subsets that a method's folder holds beside those asked for; empty without any."""
    asked = {*scored, *(subset_name(subset, modalities) for subset in subsets)}
    left = [name for name in _subset_folders(method.folder or Path(), modalities) if name not in asked]
    return f"{method.name}: {len(left)} subsets of its folder were not asked for: {some(left)}" if left else ""


def check_complete(method: Method, subset: str, folder: Path, cases: Sequence[Case]) -> None:
    """Refuse a folder that lacks the mask of a patient: a comparison leaves nobody out unsaid.

    Raises:
        InputError: a patient without a mask.
    """
    files = find_predictions(folder, cases)
    if missing := [case.name for case in cases if not files[case.name]]:
        of = "" if subset == PREDICTIONS else f" from {subset}"
        raise InputError(
            f"{folder}: {method.name} has no mask{of} of {len(missing)} of {len(cases)} patients: {some(missing)}. "
            "Methods are compared on the same patients: add the masks, empty ones where nothing was marked, or name "
            "the patients that all have in a split."
        )


def _subset_folders(folder: Path, modalities: Sequence[str]) -> dict[str, Path]:
    """Return the sub-folders whose names are subsets, in any order and case of the sequences."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of predictions.")
    found = {}
    for place in sorted(folder.iterdir()):
        parts = place.name.lower().split("+")
        if place.is_dir() and set(parts) <= set(modalities) and len(set(parts)) == len(parts):
            found[subset_name(parts, modalities)] = place
    return found
