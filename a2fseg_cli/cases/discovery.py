"""Find patients, their modalities and their truth in a folder, without opening an image.

What each file is, is read from dcm2niix's JSON beside it and from its name (`sidecar`, `names`). A folder with images
is a case, however deep it lies, with a problem where none of them is understood.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from a2fseg_cli.cases.case import Case, printable_name
from a2fseg_cli.cases.folders import case_name, checked_folder, folder_name, folders_in, own_images
from a2fseg_cli.cases.names import aliases, bids_patient, image_stem, is_bids, tokens_of
from a2fseg_cli.cases.patient_files import Choice, File, case_of, not_understood, read_files, understood
from a2fseg_cli.cases.truths import truth_files
from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.formats.suffixes import EXTENSIONS
from a2fseg_cli.modalities import BRATS_MODALITIES


class NoImagesError(InputError):
    """No image of the modalities lies in a folder."""


def find_cases(
    path: Path,
    modalities: Sequence[str] = BRATS_MODALITIES,
    *,
    select: Sequence[str] = (),
    ignore_unknown: bool = False,
) -> list[Case]:
    """Return the patients in a folder, by name.

    The folder is one patient (images in it), one patient with sessions, several patients' files side by side
    (`A_t1`, `A_flair`, `B_t1`: the same modality under different names), or a tree with one folder a patient or an
    examination, at any depth (also BIDS, also `HGG/` and `LGG/`). A patient whose files cannot be told apart comes
    back with its `problem`. A name does not depend on which other patients there are.

    Args:
        path: The folder.
        modalities: Those of the network.
        select: Which of several files of one modality is meant, by a part of its name such as `run-01`.
        ignore_unknown: Leave aside images that look like a sequence and cannot be told, instead of failing.

    Raises:
        InputError: no folder, or no image of the modalities in it.
    """
    choice = Choice(tuple(modalities), tuple(select), ignore_unknown)
    cases = _cases_of(checked_folder(path), choice)
    if not cases:
        raise NoImagesError(_nothing_found(path, modalities))
    return unique(cases)


def unique(cases: Sequence[Case]) -> list[Case]:
    """Return cases by name; those that have the same one get a problem, since their results would be one file."""
    counts: dict[str, list[Case]] = {}
    for case in cases:
        counts.setdefault(case.name, []).append(case)
    told = []
    for name, same in counts.items():
        if len(same) == 1:
            told += same
            continue
        places = ", ".join(str(case.folder or next(iter(case.images.values()), "")) for case in same)
        problem = f"{len(same)} patients are named {name}: {places}. Rename a folder, or list them in a CSV."
        told += [replace(c, name=f"{name} ({i})" if i > 1 else name, problem=problem) for i, c in enumerate(same, 1)]
    return sorted(told, key=lambda case: case.name)


def _cases_of(root: Path, choice: Choice) -> list[Case]:
    """Return the patients of a folder: its own, or those below it."""
    paths = own_images(root)
    files = read_files(paths, choice)
    groups = _group_by_patient(files, paths, choice)
    if len(groups) > 1:
        name = printable_name(folder_name(root))
        return [case_of(patient or name, group, others, choice, root) for patient, group, others in groups]
    below: list[Case] = []
    if not groups:
        below = [case for place in folders_in(root) for case in _cases_below(root, place, choice, {_real(root)})]
    if groups or (not below and any(file.reading.reason for file in not_understood(files))):
        return [case_of(case_name(root, root, paths), files, paths, choice, root)]
    return _with_remark(below, files, choice)


def _cases_below(root: Path, place: Path, choice: Choice, above: Collection[str]) -> list[Case]:
    """Return a case for a folder with images of the modalities, or those below it, or one with a problem."""
    if (real := _real(place)) in above:  # a link to a folder that it lies in
        return []
    try:
        paths = own_images(place)
        files = read_files(paths, choice)
        name = case_name(root, place, [file.path for file in files if file.modality])
        if understood(files):
            return [case_of(name, files, paths, choice, place)]
        inner = [folder for folder in folders_in(place) if folder.name.lower() != "anat"]
    except InputError as error:
        return [Case(case_name(root, place, []), {}, problem=str(error), folder=place)]
    below = [case for folder in inner for case in _cases_below(root, folder, choice, {*above, real})]
    if below or not not_understood(files):
        return _with_remark(below, files, choice)
    return [case_of(name, files, paths, choice, place)]


def _with_remark(cases: list[Case], files: Sequence[File], choice: Choice) -> list[Case]:
    """Return the cases, the first with a warning of images that lie above all of them."""
    if not cases or not (left := not_understood(files)):
        return cases
    names = ", ".join(file.path.name for file in left)
    remark = f"{left[0].path.parent}: left aside, since nothing says which of {', '.join(choice.modalities)}: {names}"
    return [replace(cases[0], warnings=(*cases[0].warnings, remark)), *cases[1:]]


def _real(folder: Path) -> str:
    return os.path.realpath(folder)


def _group_by_patient(
    files: Sequence[File], paths: Sequence[Path], choice: Choice
) -> list[tuple[str, list[File], list[Path]]]:
    """Return name, files and all paths of each patient where one modality appears under several names, else one group.

    A name that another one continues (`P1` and `P1_old`) is the same patient, whose files then clash. Numbers of
    which each stands before one file only are those of series.
    """
    named = [file for file in files if file.modality]
    known = {file.reading.patient for file in named if file.reading.patient}
    roots = {_root(patient, known) for patient in known}
    lone = next(iter(roots)) if len(roots) == 1 else ()
    seen = [(_root(file.reading.patient, roots) or lone, file.modality) for file in named]
    modalities = {modality for _, modality in seen}
    of_series = len({root for root, _ in seen}) == len(seen) and len(modalities) > 1
    if len(set(seen)) == len(modalities) or (of_series and all("".join(root).isdigit() for root, _ in seen)):
        return [("", list(files), list(paths))] if named else []
    groups: dict[tuple[str, ...], tuple[list[File], list[Path]]] = {}
    for file in named:
        mine = groups.setdefault(_root(file.reading.patient, roots) or lone, ([], []))
        mine[0].append(file)
        mine[1].append(file.path)
    written = {root: printable_name(_written_name(of[0][0].path, len(root))) for root, of in groups.items()}
    for truth in truth_files(paths):
        if root := _root(tokens_of(truth.name), roots) or lone:
            groups[root][1].append(truth)
    first = next(iter(groups))
    for other in not_understood(files):  # of nobody: said with the first patient
        groups[_root(tokens_of(other.path.name), roots) or lone or first][0].append(other)
    return [(written[root], *of) for root, of in groups.items()]


def _root(patient: tuple[str, ...], known: Collection[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the shortest known name that `patient` begins with, () for none."""
    return next((patient[:n] for n in range(1, len(patient) + 1) if patient[:n] in known), ())


def _written_name(path: Path, token_count: int) -> str:
    """The first tokens of a file's name, or of what names the patient in a BIDS name, as they are written there."""
    stem = image_stem(path) or ""
    text = bids_patient(stem) if is_bids(stem) else stem
    end = 0
    for match in re.finditer(r"[A-Za-z0-9]+", text):
        if token_count <= 0:
            break
        token_count -= len(tokens_of(match.group()))
        end = match.end()
    return text[:end]


def _nothing_found(folder: Path, modalities: Sequence[str]) -> str:
    wanted = "; ".join(f"{modality}: {', '.join(aliases(modality))}" for modality in modalities)
    return (
        f"{folder}: no image found, neither here nor in its folders. Looked for names with one of "
        f"({wanted}; BIDS names too) and {', '.join(EXTENSIONS)}."
    )
