"""Which patients a training works on: those of one or several folders, and their split into parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.case_lists import Split, read_split
from a2fseg_cli.cases.selection import select_cases
from a2fseg_cli.cases.time_points import time_point
from a2fseg_cli.core.config import subset_name
from a2fseg_cli.errors import InputError, UsageError

_VALIDATED = 10  # of the patients outside a fold every tenth is for validation
PARTS = ("train", "validation")  # those of a split that are read; `test` is kept aside
_KNOWN, _LISTS = (*PARTS, "test"), "train, validation and test"  # others are typing errors, such as `val`


@dataclass(frozen=True)
class Patients:
    """The patients of a training.

    Attributes:
        split: Case names by part.
        train: To train on.
        validation: To choose the best weights by; may be empty.
        warnings: What was left out, and what file names leave open.
    """

    split: Split
    train: list[Case]
    validation: list[Case]
    warnings: list[str]


def training_cases(data: Sequence[Path], modalities: Sequence[str]) -> list[Case]:
    """Return the patients of folders, data sets and CSV tables, each by a name that no other has.

    What is wrong with a single one, such as a name that another has too, is its `problem`.

    Raises:
        InputError: nothing was found in one of them, or a table is not acceptable.
    """
    return select_cases(list(data), modalities=modalities, with_truth=True)


def choose_patients(
    data: Sequence[Path],
    modalities: Sequence[str],
    split: Path | None,
    seed: int,
    fold: tuple[int, int] | None = None,
) -> Patients:
    """Return the patients to train on and to validate with.

    Args:
        data: Folders or CSV tables.
        modalities: Of the network.
        split: File with the case names by part; None draws a split.
        seed: Of that draw.
        fold: (K, N): fold K of N is kept aside for testing, as `fold_split` draws it; without `split`.

    Raises:
        UsageError: no such fold, or fewer patients than folds.
        InputError: as `training_cases`; no patient has a truth, or none is for training; a case of the split was not
            found or cannot be used.
    """
    cases = training_cases(data, modalities)
    with_truth = [case.name for case in cases if case.truth and not case.problem]
    if not with_truth:
        places = ", ".join(map(str, data))
        why = next((f" {case.problem}" for case in cases if case.problem), "")
        raise InputError(f"{places}: no patient has a segmentation beside its images (a file that ends in seg).{why}")
    persons = {case.name: time_point(case).subject for case in cases}
    if fold is not None:
        kinds = {case.name: subset_name(case.images, modalities) for case in cases}
        parts = fold_split({name: kinds[name] for name in with_truth}, fold, seed, persons)
    else:
        parts = random_split(with_truth, seed, persons) if split is None else read_split(split)
    if not parts.get("train"):
        raise InputError(f"{split}: no patients to train on: expected a list `train` of names.")
    by_name = {case.name: case for case in cases}
    chosen = [name for part in PARTS for name in parts.get(part, ())]
    if missing := [name for name in chosen if name not in by_name]:
        places = ", ".join(map(str, data))
        raise InputError(
            f"{missing[0]}: named in the split but not found in {places} ({len(missing)} such cases). Give the folder "
            "that holds it too, or take it off the list."
        )
    if broken := [by_name[name].problem for name in chosen if by_name[name].problem]:
        raise InputError(str(broken[0]))
    train, validation = ([by_name[name] for name in parts.get(part, ())] for part in PARTS)
    told = [*_of_split(parts, persons, split), *_warnings(cases, set(chosen))]
    return Patients(parts, train, validation, told)


def random_split(names: Sequence[str], seed: int, persons: Mapping[str, str] | None = None) -> Split:
    """Return 70 % of the persons for training, 10 % for validation, 20 % for testing (the paper's shares).

    Args:
        names: Of the cases.
        seed: Of the drawing.
        persons: Case to whose it is; None where each is another's. All examinations of a person are in one part: what
            was trained on a brain knows it at the next examination.
    """
    groups = _by_person(names, persons or {})
    order = np.random.default_rng(seed).permutation(len(groups))
    shuffled = [list(groups)[index] for index in order]
    validation, test = round(0.1 * len(groups)), round(0.2 * len(groups))
    return {
        "train": _cases(shuffled[validation + test :], groups),
        "validation": _cases(shuffled[:validation], groups),
        "test": _cases(shuffled[validation : validation + test], groups),
    }


def fold_split(
    kinds: Mapping[str, str], fold: tuple[int, int], seed: int, persons: Mapping[str, str] | None = None
) -> Split:
    """Return the parts of one fold of a cross-validation: over all N folds, each case is in `test` once.

    Persons of each kind, who have the same sequences, are dealt to the folds in turn, so that each fold has its share
    of them, give or take one; the folds differ by one person at most. A tenth of the others is for validation, to
    choose the best weights by, since what is chosen by a fold must not be scored on it.

    Args:
        kinds: Case to what its sequences are called, such as `t1c+flair`.
        fold: (K, N), K from 0 to N - 1; N is 2 or more.
        seed: Of the order in which they are dealt; all folds of a cross-validation have the same.
        persons: As of `random_split`.

    Raises:
        UsageError: no such fold, or fewer patients than folds.
    """
    number, count = fold
    if count < 2 or not 0 <= number < count:
        raise UsageError(f"fold {number}/{count}: expected K/N with N at least 2 and K from 0 to N - 1, such as 0/5.")
    groups = _by_person(list(kinds), persons or {})
    if len(groups) < (least := max(count, 3)):  # one to train on, one to choose by, one to score
        raise UsageError(f"fold {number}/{count}: {len(groups)} patients have a truth. Expected {least} or more.")
    random, dealt = np.random.default_rng(seed), list[str]()
    of_groups = {first: sorted({kinds[name] for name in names}) for first, names in groups.items()}
    for kind in sorted(set(map(tuple, of_groups.values()))):
        names = [first for first, of in of_groups.items() if tuple(of) == kind]
        dealt += [names[index] for index in random.permutation(len(names))]
    others = [name for index, name in enumerate(dealt) if index % count != number]
    return {
        "train": _cases([name for index, name in enumerate(others) if index % _VALIDATED], groups),
        "validation": _cases(others[::_VALIDATED], groups),
        "test": _cases(dealt[number::count], groups),
    }


def _by_person(names: Sequence[str], persons: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the cases of each person, by the first of their names, in the order of these."""
    of_persons: dict[str, list[str]] = {}
    for name in sorted(names):
        of_persons.setdefault(persons.get(name, name), []).append(name)
    return {of[0]: of for of in of_persons.values()}


def _of_split(parts: Split, persons: Mapping[str, str], split: Path | None) -> list[str]:
    """Return a line on each list that nothing reads, and one on the persons with examinations in several parts."""
    unread = [f"{split}: the list {name} is not read; expected {_LISTS}" for name in parts if name not in _KNOWN]
    of_parts = [{persons[name] for name in names if name in persons} for names in parts.values()]
    twice = sorted(person for person in set().union(*of_parts) if sum(person in of for of in of_parts) > 1)
    if not twice:
        return unread
    return [*unread, f"{twice[0]} has examinations in several parts of the split ({len(twice)} such persons)."]


def _cases(firsts: Sequence[str], groups: Mapping[str, Sequence[str]]) -> list[str]:
    return sorted(name for first in firsts for name in groups[first])


def _warnings(cases: Sequence[Case], chosen: set[str]) -> list[str]:
    """Return what is left out, and what the names of those to be trained on leave open."""
    warnings: list[str] = []
    for case in cases:
        warnings += case.warnings if case.name in chosen else ()
        if case.problem and case.name not in chosen:
            warnings.append(f"left out: {case.problem}")
    return warnings
