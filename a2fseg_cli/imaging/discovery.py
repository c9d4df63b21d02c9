"""Find patients, their modalities and their truth by file and folder names, without opening an image.

Names are read as tokens from their end: `Brats18_T1_study_flair.nii.gz` is a FLAIR. What is known: BraTS
(`_t1ce`, `-t1n`, `-t2W`), BIDS (`sub-01_ce-GD_T1w`, in `anat` and `ses-*`) and bare names (`FLAIR.nii`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from a2fseg_cli.errors import InputError

BRATS_MODALITIES = ("t1", "t1c", "t2", "flair")
EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".mha")

# Other names of a modality, lower case, its own first. Two tokens count as one: `T1_Gd` is `t1gd`.
ALIASES: dict[str, tuple[str, ...]] = {
    "t1": ("t1", "t1n", "t1w"),
    "t1c": ("t1c", "t1ce", "t1gd", "t1wce", "t1wgd", "t1post", "t1cw"),
    "t2": ("t2", "t2w"),
    "flair": ("flair", "fla", "t2f", "t2flair"),
}
TRUTH_COLUMN = "seg"
_TRUTH_WORDS = ("seg", "segmentation", "dseg", "truth", "groundtruth", "gt", "label", "labels")
# A file is no image when one of these ends its name or stands right before the modality.
_NO_IMAGE_WORDS = frozenset(
    (*_TRUTH_WORDS, "mask", "probseg", "roi", "pred", "prediction", "predictions", "prob", "probs", "probability",
     "probabilities", "attention", "uncertainty", "entropy", "overlay", "preview", "regions")
)  # fmt: skip
_OWN_WORD = "a2fseg"
_PREDICTION_WORDS = frozenset((_OWN_WORD, "pred", "prediction", "predictions", "prob", "probs", "attention"))
_NO_TUMOUR_WORDS = frozenset(("brain", "parenchyma", "tissue", "head"))
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


def modality_of(path: Path, modalities: Sequence[str] = BRATS_MODALITIES) -> str | None:
    """Return the modality that a file's name ends in, None when it names none or is no image."""
    named = _read_name(path, modalities)
    return named.modality if named else None


def find_modalities(folder: Path, modalities: Sequence[str] = BRATS_MODALITIES) -> dict[str, Path]:
    """Return the image files of one patient's folder, in the order of `modalities`.

    Raises:
        InputError: no folder, no image in it, or two files for one modality.
    """
    case = _patient_case(folder.resolve().name, _patient_files(_checked(folder)), modalities)
    if case.problem:
        raise InputError(case.problem)
    if not case.images:
        raise InputError(_nothing_found(folder, modalities))
    return case.images


def find_truth(folder: Path) -> Path | None:
    """Return the expert's label map in one patient's folder, None without one.

    Raises:
        InputError: no folder, or two candidates.
    """
    candidates = _truth_files(_patient_files(_checked(folder)))
    if len(candidates) > 1:
        raise InputError(f"{folder}: two candidates for the truth: {_names(candidates)}. Keep one.")
    return candidates[0] if candidates else None


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


def read_case_table(csv_path: Path, modalities: Sequence[str] = BRATS_MODALITIES) -> list[Case]:
    """Return the patients of a CSV: columns `case`, the modalities (or their aliases), optionally `seg`.

    An empty cell is an absent modality; paths are relative to the table's folder.

    Raises:
        InputError: unreadable, unknown or missing columns, a case twice or without image, with the line.
    """
    try:
        with csv_path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(_numbered_rows(csv_path, file.read()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{csv_path}: cannot be read as a table: {error}.") from error
    if not rows:
        raise InputError(f"{csv_path}: an empty table. Expected columns case, {', '.join(modalities)}.")
    columns = _columns(csv_path, rows[0][1], modalities)
    cases: dict[str, Case] = {}
    for line, cells in rows[1:]:
        case = _table_case(f"{csv_path}, line {line}", csv_path.parent, columns, cells, modalities)
        if case.name in cases:
            raise InputError(f"{csv_path}, line {line}: case {case.name} stands in the table twice.")
        cases[case.name] = case
    if not cases:
        raise InputError(f"{csv_path}: no case below the column names.")
    return list(cases.values())


def _tokens(stem: str) -> tuple[str, ...]:
    return tuple(token for token in re.split(r"[^a-z0-9]+", stem.lower()) if token)


def _aliases(modality: str) -> tuple[str, ...]:
    own = "".join(_tokens(modality))
    return (own, *ALIASES.get(modality, ()))


def _read_name(path: Path, modalities: Sequence[str]) -> _Named | None:
    stem = image_stem(path)
    tokens = _tokens(stem) if stem else ()
    if not tokens or _OWN_WORD in tokens:
        return None
    for width in (2, 1):
        word, patient = "".join(tokens[-width:]), tokens[:-width]
        modality = next((name for name in modalities if word in _aliases(name)), None)
        if len(tokens) < width or modality is None:
            continue
        if {tokens[-1], *patient[-1:]} & _NO_IMAGE_WORDS:
            return None
        return _bids_name(path, stem or "", modalities) or _Named(path, patient, modality)
    return None


def _bids_name(path: Path, stem: str, modalities: Sequence[str]) -> _Named | None:
    """Read `sub-01_ses-1_ce-GD_run-1_T1w`: patient and session from their keys, contrast agent from `ce`."""
    *entities, suffix = stem.lower().split("_")
    keys = dict(entity.split("-", 1) for entity in entities if "-" in entity)
    if "sub" not in keys or suffix not in ("t1w", "t2w", "flair"):
        return None
    word = "t1c" if suffix == "t1w" and "ce" in keys else suffix
    modality = next((name for name in modalities if word in _aliases(name)), None)
    patient = tuple(f"{key}-{keys[key]}" for key in ("sub", "ses") if key in keys)
    return _Named(path, patient, modality) if modality else None


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
    if not folder.exists():
        raise InputError(f"{folder}: no such folder.")
    if not folder.is_dir():
        raise InputError(f"{folder}: a file. Expected a folder.")
    return folder


def _images_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if image_stem(path) and path.is_file())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}.") from error


def _folders_in(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".") and path.name.lower() not in _SKIPPED_FOLDERS
    )


def _own_files(folder: Path) -> list[Path]:
    """Image files of a folder and of its `anat`."""
    anat = [path for path in _folders_in(folder) if path.name.lower() == "anat"]
    return [file for place in (folder, *anat) for file in _images_in(place)]


def _sessions(folder: Path) -> list[Path]:
    return [path for path in _folders_in(folder) if path.name.lower().startswith("ses-")]


def _patient_files(folder: Path) -> list[Path]:
    return [file for place in (folder, *_sessions(folder)) for file in _own_files(place)]


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
    if len(patients := {found.patient for found in named if found.patient}) > 1:
        names = ", ".join(sorted("-".join(patient) for patient in patients))
        warnings.append(f"{name}: taken as one patient, though the files are named differently ({names})")
    truths = _truth_files(files)
    if len(truths) > 1:
        warnings.append(f"{name}: {len(truths)} candidates for the truth, none taken: {_names(truths)}")
    return Case(name, images, truths[0] if len(truths) == 1 else None, warnings=tuple(warnings))


def _cases_of(folder: Path, modalities: Sequence[str]) -> list[Case]:
    name = folder.resolve().name
    files = _own_files(folder)
    groups = _group_by_patient(files, modalities)
    if len(groups) > 1:
        return [_patient_case(patient or name, members, modalities) for patient, members in groups.items()]
    if groups:
        return [_patient_case(name, files, modalities)]
    return _cases_below(folder, modalities, _DEPTH)


def _cases_below(folder: Path, modalities: Sequence[str], depth: int) -> list[Case]:
    """Return one case for every folder with images below `folder`, which has none itself."""
    cases: list[Case] = []
    for place in _folders_in(folder) if depth else ():
        name = f"{folder.resolve().name}_{place.name}" if place.name.lower().startswith("ses-") else place.name
        case = _patient_case(name, _own_files(place), modalities)
        cases += [case] if case.images or case.problem else _cases_below(place, modalities, depth - 1)
    return cases


def _group_by_patient(files: Sequence[Path], modalities: Sequence[str]) -> dict[str, list[Path]]:
    """Return files by patient where one modality appears under several patients' names, else as one group.

    A name that another one continues (`P1` and `P1_old`) is the same patient, whose files then clash.
    """
    named = [found for path in files if (found := _read_name(path, modalities))]
    patients: list[tuple[str, ...]] = []
    for patient in sorted({found.patient for found in named}, key=lambda tokens: (not tokens, len(tokens), tokens)):
        if not any(patient[: len(known)] == known for known in patients) and (patient or not patients):
            patients.append(patient)
    groups: dict[str, list[Path]] = {}
    modalities_seen: list[tuple[str, str]] = []
    for found in named:
        root = next((known for known in patients if found.patient[: len(known)] == known), ())
        key = _written_name(found, len(root))
        groups.setdefault(key, []).append(found.path)
        modalities_seen.append((key, found.modality))
    repeated = len({modality for _, modality in set(modalities_seen)}) < len(set(modalities_seen))
    if not repeated:
        return {"": list(files)} if named else {}
    for truth in _truth_files(files):
        key = max(
            (key for key in groups if _tokens(truth.name)[: len(_tokens(key))] == _tokens(key)), key=len, default=""
        )
        if key in groups:
            groups[key].append(truth)
    return groups


def _written_name(found: _Named, token_count: int) -> str:
    """The patient's part of a file name as written, without the separator after it."""
    if found.patient[:1] and found.patient[0].startswith("sub-"):
        return "_".join(found.patient[:token_count])
    tokens = list(re.finditer(r"[A-Za-z0-9]+", found.path.name))[:token_count]
    return found.path.name[: tokens[-1].end()] if tokens else ""


def _with_unique_names(cases: Sequence[Case], root: Path) -> list[Case]:
    """Put the folders above before names that occur twice (`HGG/1`, `LGG/1`)."""
    names = [case.name for case in cases]
    unique = []
    for case in cases:
        name = case.name
        if names.count(name) > 1 and case.images:
            folder = next(iter(case.images.values())).parent
            name = "_".join(part for part in folder.relative_to(root).parts if part.lower() != "anat") or name
        unique.append(Case(name, case.images, case.truth, case.problem, case.warnings))
    return unique


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _nothing_found(folder: Path, modalities: Sequence[str]) -> str:
    wanted = "; ".join(f"{modality}: {', '.join(dict.fromkeys(_aliases(modality)))}" for modality in modalities)
    return (
        f"{folder}: no image found, neither here nor in its folders. Looked for names that end in one of "
        f"({wanted}; BIDS names too) with {', '.join(EXTENSIONS)}."
    )


def _numbered_rows(csv_path: Path, text: str) -> Iterable[tuple[int, list[str]]]:
    first = text.splitlines()[0] if text.strip() else ""
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    for cells in reader:
        if cells:
            yield reader.line_num, [cell.strip() for cell in cells]


def _columns(csv_path: Path, cells: Sequence[str], modalities: Sequence[str]) -> list[str]:
    """Return for each column `case`, a modality or `seg`."""
    known = {"case": "case", TRUTH_COLUMN: TRUTH_COLUMN}
    known |= {alias: modality for modality in modalities for alias in (modality, *_aliases(modality))}
    columns = [known.get(cell.lower(), "") for cell in cells]
    expected = f"Expected case, {', '.join(modalities)}, and optionally {TRUTH_COLUMN}"
    for cell, column in zip(cells, columns, strict=True):
        if not column:
            raise InputError(f"{csv_path}, line 1: unknown column {cell!r}. {expected}.")
        if columns.count(column) > 1:
            raise InputError(f"{csv_path}, line 1: two columns for {column}. {expected}.")
    if "case" not in columns:
        raise InputError(f"{csv_path}, line 1: no column case. {expected}.")
    return columns


def _table_case(
    where: str, folder: Path, columns: Sequence[str], cells: Sequence[str], modalities: Sequence[str]
) -> Case:
    if len(cells) != len(columns):
        raise InputError(f"{where}: {len(cells)} cells, expected {len(columns)}.")
    row = dict(zip(columns, cells, strict=True))
    name = row["case"]
    if not name or name in (".", "..") or re.search(r"[/\\\0]", name):
        raise InputError(f"{where}: the case is named {name!r}. Expected a name that can be a file name.")
    images = {modality: folder / Path(row[modality]).expanduser() for modality in modalities if row.get(modality)}
    if not images:
        raise InputError(f"{where}: case {name} has no image. Give at least one of {', '.join(modalities)}.")
    truth = row.get(TRUTH_COLUMN)
    return Case(name, images, folder / Path(truth).expanduser() if truth else None)
