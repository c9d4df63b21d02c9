"""Find patients, their modalities and their truth by file and folder names, without opening an image.

Names are read as tokens from their end: `Brats18_T1_study_flair.nii.gz` is a FLAIR, and `T1_brain.nii.gz` a T1. What
is known: BraTS (`_t1ce`, `-t1n`, `-t2W`), BIDS (`sub-01_ce-GD_T1w`, in `anat` and `ses-*`) and bare names
(`FLAIR.nii`). An image whose name says nothing is left aside with a warning.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.formats.suffixes import EXTENSIONS
from a2fseg_cli.modalities import BRATS_MODALITIES, BY_NAME, MODALITIES

# What may stand behind the modality: steps that leave an image of it.
_PROCESSED_WORDS = frozenset(
    ("brain", "bet", "stripped", "skullstripped", "reg", "registered", "coreg", "coregistered", "n4", "preproc", "norm",
     "resampled")
)  # fmt: skip
# Before the modality these say that another image was brought to it.
_TARGET_WORDS = frozenset(("to", "onto", "in", "on"))
# Before T1 these may mean a contrast agent, or an operation.
_CONTRAST_WORDS = frozenset(("post", "contrast", "enhanced"))
_TRUTH_WORDS = ("seg", "segmentation", "dseg", "truth", "groundtruth", "gt", "label", "labels")
# A file is no image when one of these ends its name or stands right before the modality.
_NO_IMAGE_WORDS = frozenset(
    (*_TRUTH_WORDS, "mask", "probseg", "roi", "pred", "prediction", "predictions", "prob", "probs", "probability",
     "probabilities", "attention", "uncertainty", "entropy", "overlay", "preview", "region", "regions")
)  # fmt: skip
_OWN_WORD = "a2fseg"
_PREDICTION_WORDS = frozenset((_OWN_WORD, "pred", "prediction", "predictions", "prob", "probs", "attention"))
_NO_TUMOUR_WORDS = frozenset(("brain", "parenchyma", "tissue", "head"))
_BIDS_SUFFIXES = frozenset(suffix for modality in MODALITIES for suffix in modality.bids_suffixes)
_SKIPPED_FOLDERS = frozenset(("derivatives", "sourcedata", "code", "stimuli"))
_DEPTH = 3


@dataclass(frozen=True)
class Case:
    """One patient (or one session): image files by modality, in the order of the modalities asked for.

    Attributes:
        name: unique within what was found; fit for a file name.
        truth: the expert's label map beside the images, if there is exactly one.
        problem: why this case cannot be used, in one line; its `images` are then incomplete.
        warnings: what a user should look at.
    """

    name: str
    images: dict[str, Path]
    truth: Path | None = None
    problem: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Named:
    """A file and what its name says: the tokens that name the patient, and the modality."""

    path: Path
    patient: tuple[str, ...]
    modality: str


def image_stem(path: Path) -> str | None:
    """Return the file's name without its image extension, None for any other file."""
    name = path.name.lower()
    for extension in EXTENSIONS:
        if name.endswith(extension) and not name.startswith("."):
            return path.name[: -len(extension)]
    return None


def find_cases(path: Path, modalities: Sequence[str] = BRATS_MODALITIES) -> list[Case]:
    """Return the patients in a folder, by name.

    The folder is one patient (images in it), one patient with sessions, several patients' files side by side
    (`A_t1`, `A_flair`, `B_t1`: the same modality under different names), or a tree with one folder a patient
    (also BIDS, also `HGG/` and `LGG/`). A patient whose files cannot be told apart comes back with its
    `problem`; folders without images are passed over.

    Raises:
        InputError: no folder, or no image anywhere in it.
    """
    cases = _cases_of(_checked(path), modalities)
    if not cases:
        raise InputError(_nothing_found(path, modalities))
    return sorted(_with_unique_names(cases, path), key=lambda case: case.name)


def _tokens(stem: str) -> tuple[str, ...]:
    spelled = re.sub(r"t1\+c?(?![a-z0-9])", "t1c", stem.lower())  # T1 with contrast is written T1+ as well
    return tuple(token for token in re.split(r"[^a-z0-9]+", spelled) if token)


def _aliases(modality: str) -> tuple[str, ...]:
    """Return the words that name a modality, its own name first."""
    others = BY_NAME[modality].aliases if modality in BY_NAME else ()
    return tuple(dict.fromkeys(("".join(_tokens(modality)), *others)))


def modality_words(modalities: Sequence[str]) -> dict[str, str]:
    """Return the modality of every word that names one; a modality's own name before another one's alias."""
    words = {alias: modality for modality in reversed(modalities) for alias in _aliases(modality)}
    return words | {_aliases(modality)[0]: modality for modality in modalities}


def _read_name(path: Path, modalities: Sequence[str]) -> _Named | None:
    stem = image_stem(path)
    tokens = _tokens(stem) if stem else ()
    if not stem or _OWN_WORD in tokens:
        return None
    words = modality_words(modalities)
    if bids := _read_bids_name(stem):
        patient, word = bids
        return _Named(path, patient, words[word]) if word in words and not _is_derived(tokens, 1) else None
    while tokens and tokens[-1] in _PROCESSED_WORDS:
        tokens = tokens[:-1]
    for width in (2, 1):
        word = "".join(tokens[-width:])
        if len(tokens) >= width and word in words:
            is_target = bool(_TARGET_WORDS & set(tokens[:-width][-1:]))
            return None if is_target or _is_derived(tokens, width) else _Named(path, tokens[:-width], words[word])
    return None


def _unread(files: Iterable[Path], modalities: Sequence[str]) -> list[Path]:
    """Return the images whose names say neither a modality, BraTS's included, nor a mask, a map or a result."""
    other, known = _NO_IMAGE_WORDS | {_OWN_WORD}, tuple(dict.fromkeys((*modalities, *BRATS_MODALITIES)))
    return [path for path in files if not other & set(_tokens(path.name)) and _read_name(path, known) is None]


def _is_derived(tokens: Sequence[str], width: int) -> bool:
    """Whether the word of `width` tokens that ends a name, or the token before it, speaks of a mask or map."""
    return bool({tokens[-1], *tokens[:-width][-1:]} & _NO_IMAGE_WORDS)


def _read_bids_name(stem: str) -> tuple[tuple[str, ...], str] | None:
    """Return patient and modality word of `sub-01_ses-1_ce-GD_run-1_T1w`: the contrast agent is the key `ce`."""
    *entities, suffix = stem.lower().split("_")
    values = dict(entity.split("-", 1) for entity in entities if "-" in entity)
    if suffix not in _BIDS_SUFFIXES or not values.keys() & {
        "sub",
        "ce",
    }:
        return None
    patient = "_".join(f"{key}-{values[key]}" for key in ("sub", "ses") if key in values)
    return _tokens(patient), "t1c" if "ce" in values and suffix.startswith("t1") else suffix


def _truth_files(files: Iterable[Path]) -> list[Path]:
    found = []
    for path in files:
        tokens = _tokens(image_stem(path) or "")
        if not tokens or (tokens[-1] not in _TRUTH_WORDS and "".join(tokens[-2:]) != "groundtruth"):
            continue
        if not _PREDICTION_WORDS & set(tokens) and not _NO_TUMOUR_WORDS & set(tokens[-3:-1]):
            found.append(path)
    return found


def _checked(folder: Path) -> Path:
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{folder}: no such folder.") from error
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}.") from error
    if not is_folder:
        raise InputError(f"{folder}: a file. Expected a folder.")
    return folder


def _entries(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and wanted(path))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}.") from error


def _images_in(folder: Path) -> list[Path]:
    """Return a folder's images; a link that leads nowhere is one that reading will report, a pipe or a device none."""
    return _entries(folder, lambda path: image_stem(path) is not None and (path.is_file() or not path.exists()))


def _folders_in(folder: Path) -> list[Path]:
    return _entries(folder, lambda path: path.name.lower() not in _SKIPPED_FOLDERS and path.is_dir())


def _own_files(folder: Path) -> list[Path]:
    """Image files of a folder and of its `anat`."""
    anat = [path for path in _folders_in(folder) if path.name.lower() == "anat"]
    return [file for place in (folder, *anat) for file in _images_in(place)]


def _folder_name(folder: Path) -> str:
    """Return the name that the user gave a folder, a link's own included; `.` has one too."""
    return os.path.basename(os.path.abspath(folder))


def _is_session(folder: Path) -> bool:
    return folder.name.lower().startswith("ses-")


def _patient_case(name: str, files: Sequence[Path], modalities: Sequence[str]) -> Case:
    """Return the files as one patient, with a problem where one modality has two of them."""
    named = [found for path in files if (found := _read_name(path, modalities))]
    images: dict[str, Path] = {}
    for modality in modalities:
        candidates = [found.path for found in named if found.modality == modality]
        if len(candidates) > 1:
            folder = candidates[0].parent
            problem = f"{folder}: {len(candidates)} candidates for {modality}: {_names(candidates)}. Keep one."
            return Case(name, images, problem=problem)
        if candidates:
            images[modality] = candidates[0]
    warnings = []
    if unread := _unread(files, modalities):
        expected = ", ".join(modalities)
        warnings.append(f"{name}: left aside, since their names do not say which of {expected}: {_names(unread)}")
    for found in named:
        if found.modality == "t1" and found.patient[-1:] and found.patient[-1] in _CONTRAST_WORDS:
            warnings.append(f"{found.path.name}: taken as t1 without contrast; a T1 with it is named t1c")
    if len(patients := {found.patient for found in named if found.patient}) > 1:
        names = ", ".join(sorted("-".join(patient) for patient in patients))
        warnings.append(f"{name}: taken as one patient, though the files are named differently ({names})")
    truths = _truth_files(files)
    if len(truths) > 1:
        warnings.append(f"{name}: {len(truths)} candidates for the truth, none taken: {_names(truths)}")
    return Case(name, images, truths[0] if len(truths) == 1 else None, warnings=tuple(warnings))


def _cases_of(folder: Path, modalities: Sequence[str]) -> list[tuple[Path, Case]]:
    """Return the patients of a folder, each with the folder that its name stands for."""
    name = _folder_name(folder)
    files = _own_files(folder)
    groups = _group_by_patient(files, modalities)
    if len(groups) > 1:
        return [(folder, _patient_case(patient or name, paths, modalities)) for patient, paths in groups]
    if groups:
        return [(folder, _patient_case(name, files, modalities))]
    return _cases_below(folder, modalities, _DEPTH)


def _cases_below(folder: Path, modalities: Sequence[str], depth: int) -> list[tuple[Path, Case]]:
    """Return one case for every folder with images below `folder`, which has none itself."""
    found: list[tuple[Path, Case]] = []
    for place in _folders_in(folder) if depth else ():
        name = f"{_folder_name(folder)}_{place.name}" if _is_session(place) else place.name
        try:
            case = _patient_case(name, _own_files(place), modalities)
            has_files = bool(case.images or case.problem)
            found += [(place, case)] if has_files else _cases_below(place, modalities, depth - 1)
        except InputError as error:
            found.append((place, Case(name, {}, problem=str(error))))
    return found


def _group_by_patient(files: Sequence[Path], modalities: Sequence[str]) -> list[tuple[str, list[Path]]]:
    """Return files by patient's name where one modality appears under several names, else all as one group.

    A name that another one continues (`P1` and `P1_old`) is the same patient, whose files then clash.
    """
    named = [found for path in files if (found := _read_name(path, modalities))]
    known = {found.patient for found in named if found.patient}
    roots = {_root(patient, known) for patient in known}
    lone = next(iter(roots)) if len(roots) == 1 else ()
    seen = {(_root(found.patient, roots) or lone, found.modality) for found in named}
    if len(seen) == len({modality for _, modality in seen}):
        return [("", list(files))] if named else []
    groups: dict[tuple[str, ...], list[Path]] = {}
    for found in named:
        groups.setdefault(_root(found.patient, roots) or lone, []).append(found.path)
    written = {root: _written_name(paths[0], len(root)) for root, paths in groups.items()}
    for truth in _truth_files(files):
        groups.get(_root(_tokens(truth.name), roots) or lone, []).append(truth)
    first = next(iter(groups.values()))
    for other in _unread(files, modalities):  # of nobody: said with the first patient
        groups.get(_root(_tokens(other.name), roots) or lone, first).append(other)
    return [(written[root], paths) for root, paths in groups.items()]


def _root(patient: tuple[str, ...], known: Collection[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the shortest known name that `patient` begins with, () for none."""
    return next((patient[:n] for n in range(1, len(patient) + 1) if patient[:n] in known), ())


def _written_name(path: Path, token_count: int) -> str:
    """The first tokens of a file's name, or of what names the patient in a BIDS name, as they are written there."""
    text = path.name
    if _read_bids_name(image_stem(path) or ""):
        text = "_".join(part for part in text.split("_") if part.lower().partition("-")[0] in ("sub", "ses"))
    tokens = list(re.finditer(r"[A-Za-z0-9]+", text))[:token_count]
    return text[: tokens[-1].end()] if tokens else ""


def _with_unique_names(found: Sequence[tuple[Path, Case]], root: Path) -> list[Case]:
    """Put the folders above before names that occur twice (`HGG/1`, `LGG/1`).

    Raises:
        InputError: two patients have the same name even then.
    """
    counts = Counter(case.name for _, case in found)
    cases: dict[str, Case] = {}
    for folder, case in found:
        name = case.name if counts[case.name] == 1 else "_".join(folder.relative_to(root).parts) or case.name
        if name in cases:
            raise InputError(f"{folder}: a second patient named {name}. Rename one folder, or list them in a CSV.")
        cases[name] = replace(case, name=name)
    return list(cases.values())


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _nothing_found(folder: Path, modalities: Sequence[str]) -> str:
    wanted = "; ".join(f"{modality}: {', '.join(_aliases(modality))}" for modality in modalities)
    return (
        f"{folder}: no image found, neither here nor in its folders. Looked for names that end in one of "
        f"({wanted}; BIDS names too) with {', '.join(EXTENSIONS)}."
    )
