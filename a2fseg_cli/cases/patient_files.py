"""The files of one patient: which is which modality, which is the truth, and what cannot be told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from a2fseg_cli.cases.case import Case, too_long
from a2fseg_cli.cases.names import Kind, Reading, image_stem, modality_of, read_series_folder
from a2fseg_cli.cases.sidecar import identify
from a2fseg_cli.cases.truths import derived_truths, truth_files
from a2fseg_cli.imaging.marking import is_marked
from a2fseg_cli.modalities import BRATS_MODALITIES


@dataclass(frozen=True)
class Choice:
    """What is chosen among the files of each patient.

    Attributes:
        modalities: Those of the network, in its order.
        select: Of several files of one modality the one whose name holds these, such as `run-01`; one after another.
        ignore_unknown: Leave aside an image that looks like a sequence and cannot be told, instead of failing.
    """

    modalities: tuple[str, ...] = BRATS_MODALITIES
    select: tuple[str, ...] = ()
    ignore_unknown: bool = False


@dataclass(frozen=True)
class File:
    """An image file, what it is taken for, and the network's modality that this is, if it is one."""

    path: Path
    reading: Reading
    modality: str | None


def read_files(files: Iterable[Path], choice: Choice) -> list[File]:
    """Return what each image file is, by the JSON beside it, its name, or its series' folder; a truth is none."""
    paths = list(files)
    truths = set(truth_files(paths))
    read = []
    for path in paths:
        reading = Reading(Kind.ASIDE) if path in truths else identify(path, choice.modalities)
        if reading.kind is Kind.UNREAD and (series := read_series_folder(path.parent.name)):
            reading = replace(series, patient=(), words=f"folder: {series.words}")
        decided = modality_of(reading.sequence, choice.modalities) if reading.kind is Kind.IMAGE else None
        read.append(File(path, reading, decided if decided in choice.modalities else None))
    return read


def _contrast_by_the_others(files: Sequence[File], choice: Choice) -> list[File]:
    """Return the files with the one "post T1", if it is one, taken for what the others leave: T1c, or T1."""
    doubtful = [file for file in files if file.reading.kind is Kind.UNCLEAR and file.reading.sequence == "t1"]
    plain = [f for f in files if f.reading.kind is Kind.IMAGE and f.reading.sequence == "t1"]
    contrast = [f for f in files if f.reading.kind is Kind.IMAGE and f.reading.sequence == "t1c"]
    if len(doubtful) != 1 or bool(plain) == bool(contrast):
        return list(files)
    sequence, other = ("t1c", plain[0]) if plain else ("t1", contrast[0])
    remark = f"taken as {sequence}, since {other.path.name} is {'t1' if plain else 't1c'}"
    reading = replace(doubtful[0].reading, kind=Kind.IMAGE, sequence=sequence, reason="", remark=remark)
    modality = modality_of(sequence, choice.modalities)
    taken = File(doubtful[0].path, reading, modality if modality in choice.modalities else None)
    return [taken if file is doubtful[0] else file for file in files]


def understood(files: Iterable[File]) -> bool:
    """Whether one of the files at least is an image of the network's modalities."""
    return any(file.modality for file in files)


def not_understood(files: Iterable[File]) -> list[File]:
    """Return the images of which it cannot be told, or is not known to the network, which sequence they are."""
    return [file for file in files if file.reading.kind is not Kind.ASIDE and file.modality is None]


def case_of(name: str, files: Sequence[File], others: Iterable[Path], choice: Choice, folder: Path) -> Case:
    """Return files as one patient, with a problem where it cannot be told which is which.

    Args:
        name: Of the case.
        files: Its images, as `read_files` returns them.
        others: All image files of the patient, among which the truth may be.
        choice: What is chosen among several.
        folder: Where they lie.
    """
    files = _contrast_by_the_others(files, choice)
    images: dict[str, Path] = {}
    decided: dict[str, str] = {}
    problems: list[str] = [problem] if (problem := too_long(name)) else []
    warnings: list[str] = []
    for modality in choice.modalities:
        candidates = [file for file in files if file.modality == modality]
        chosen = _selected(candidates, choice.select)
        if len(chosen) > 1:
            problems.append(f"{candidates[0].path.parent}: {_several(modality, chosen, choice.select)}")
        elif chosen:
            images[modality], decided[modality] = chosen[0].path, chosen[0].reading.words
            if remark := chosen[0].reading.remark:
                warnings.append(f"{chosen[0].path.name}: {remark}")
    if unclear := [file for file in files if _is_unclear(file, choice.modalities)]:
        said = "; ".join(f"{file.path.name} {file.reading.reason}" for file in unclear)
        if choice.ignore_unknown:
            warnings.append(f"{name}: left aside, since it cannot be told which sequence they are: {said}")
        else:
            advice = "Rename them, list the patient in a CSV, or leave them aside (ignore_unknown)."
            problems.append(f"{folder}: it cannot be told which sequence these are: {said}. {advice}")
    warnings += _further_warnings(name, files, choice)
    truth, said_of_truth, where = _truth(name, others, folder)
    if not images and not problems:
        problems.append(nothing_understood(folder, files, choice.modalities))
    return Case(
        name, images, truth, problems[0] if problems else None, (*warnings, *said_of_truth), decided | where, folder
    )


def _is_unclear(file: File, modalities: Sequence[str]) -> bool:
    """Whether it cannot be told which of the network's modalities a file is; a T1 or a T1c matters not to T2 alone."""
    if file.reading.kind is not Kind.UNCLEAR:
        return False
    possible = ("t1", "t1c") if file.reading.sequence == "t1" else (file.reading.sequence,)
    return any(sequence is None or modality_of(sequence, modalities) in modalities for sequence in possible)


def nothing_understood(folder: Path, files: Iterable[File], modalities: Sequence[str]) -> str:
    """Return the problem of a folder with images of which none is one of the network's modalities."""
    names = ", ".join(file.path.name + _known(file) for file in not_understood(files))
    wanted = f"one of {', '.join(modalities)} by its name or its JSON"
    return f"{folder}: no image is {wanted}: {names}. Rename them, or list the patient in a CSV."


def _known(file: File) -> str:
    if file.reading.kind is Kind.IMAGE:
        return f" ({file.reading.sequence})"
    return f" ({file.reading.reason})" if file.reading.reason else ""


def _further_warnings(name: str, files: Sequence[File], choice: Choice) -> list[str]:
    warnings = []
    if unread := [file.path for file in files if file.reading.kind is Kind.UNREAD]:
        expected = ", ".join(choice.modalities)
        warnings.append(f"{name}: left aside, since nothing says which of {expected} they are: {_names(unread)}")
    patients = {file.reading.patient for file in files if file.modality and _names_a_patient(file.reading.patient)}
    if len(patients) > 1:
        named = ", ".join(sorted("-".join(patient) for patient in patients))
        warnings.append(f"{name}: taken as one patient, though the files are named differently ({named})")
    return warnings


def _names_a_patient(words: Sequence[str]) -> bool:
    """Whether words before a sequence name a patient; a number alone is that of a series."""
    return bool(words) and not all(word.isdigit() for word in words)


def _selected(candidates: Sequence[File], select: Sequence[str]) -> list[File]:
    """Return the candidates whose names hold each of `select`; one that no name holds chooses nothing."""
    chosen = list(candidates)
    for wanted in select:
        if len(chosen) > 1:
            chosen = [file for file in chosen if _holds(file.path, wanted)] or chosen
    return chosen


def _holds(path: Path, wanted: str) -> bool:
    """Whether a name holds a text as whole words: `run-1` is not in `run-12`."""
    return re.search(rf"(?<![a-z0-9]){re.escape(wanted.lower())}(?![a-z0-9])", path.name.lower()) is not None


def _several(modality: str, candidates: Sequence[File], select: Sequence[str]) -> str:
    names = _names(file.path for file in candidates)
    tried = f" {', '.join(select)} does not decide." if select else ""
    advice = f"Keep one, or choose by a part of its name{_advice(candidates)}."
    return f"{len(candidates)} candidates for {modality}: {names}.{tried} {advice}"


def _advice(candidates: Sequence[File]) -> str:
    """Return what would choose the first of the candidates: the first run, or what only its name has."""
    parts = [re.split(r"[_.\s]+", (image_stem(file.path) or "").lower()) for file in candidates]
    for index, own in enumerate(parts):
        others = {part for other in parts[:index] + parts[index + 1 :] for part in other}
        for part in own:
            if part not in others and not any(_holds(f.path, part) for f in candidates if f is not candidates[index]):
                return f' (select "{part}" takes {candidates[index].path.name})'
    return ""


def _truth(name: str, files: Iterable[Path], folder: Path) -> tuple[Path | None, list[str], dict[str, str]]:
    """Return the truth, what a user should know about it, and where it lies if not beside the images."""
    candidates = truth_files(files)
    own = [path for path in candidates if is_marked(path)]
    experts = [path for path in candidates if path not in own]
    where: dict[str, str] = {}
    warnings = []
    if own:
        warnings.append(f"{name}: not taken for the truth, since a2fseg wrote it: {_names(own)}")
    if not experts:
        experts = [path for path in derived_truths(folder) if not is_marked(path)]
        where = {"seg": f"derivatives: {experts[0]}"} if len(experts) == 1 else {}
    if len(experts) > 1:
        warnings.append(f"{name}: {len(experts)} candidates for the truth, none taken: {_names(experts)}")
    return experts[0] if len(experts) == 1 else None, warnings, where


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(path.name for path in paths)
