"""What lies in a folder: images, sub-folders, and the name that a patient gets by where the images lie."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from a2fseg_cli.cases.case import printable_name
from a2fseg_cli.cases.names import image_stem, read_series_folder
from a2fseg_cli.errors import InputError

# Of BIDS: nobody's images, or other kinds of images of a patient.
_SKIPPED = frozenset(("derivatives", "sourcedata", "code", "stimuli"))
_OTHER_KINDS = frozenset(("dwi", "func", "fmap", "perf", "pet", "meg", "eeg", "ieeg", "beh", "mrs", "micr", "nirs"))
# Folders above the patients' that say what is done with them, or a tumour's grade, not who they are.
_GROUP = re.compile(
    r"h?l?gg|[hl]g|train(ing)?|val(id(ation)?)?|test(ing)?|(training|validation|testing)_?data|(miccai[-_])?brats\d.*data.*"
)
# Times of an examination, which mean nothing without the patient's name.
_TIME = re.compile(r"ses-.*|(week|visit|timepoint|tp|month|day|baseline|follow-?up|fu)([-_ ]?\d.*)?")
# BRATS 2013 and 2015, and the copies of BraTS 2020 and 2021 on Kaggle, have a folder around each image.
_AROUND_AN_IMAGE = re.compile(r"vsd\.brain.*|.*\.nii(\.gz)?")


def checked_folder(folder: Path) -> Path:
    """Return a folder that is one. Raises: InputError for anything else."""
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


def images_in(folder: Path) -> list[Path]:
    """Return a folder's images; a link that leads nowhere is one that reading will report, a pipe or a device none."""
    return _entries(folder, lambda path: image_stem(path) is not None and (path.is_file() or not path.exists()))


def folders_in(folder: Path) -> list[Path]:
    """Return the folders in which patients may lie. Raises: InputError when it cannot be read."""
    skipped = _SKIPPED | (_OTHER_KINDS if folder.name.lower().startswith(("sub-", "ses-")) else frozenset())
    return _entries(folder, lambda path: path.name.lower() not in skipped and path.is_dir())


def own_images(folder: Path) -> list[Path]:
    """Return the images of a folder, of its `anat`, and of folders around one image each, such as those of series."""
    files = images_in(folder)
    for place in folders_in(folder):
        name = place.name.lower()
        if name == "anat":
            files += images_in(place)
        elif _AROUND_AN_IMAGE.fullmatch(name) or read_series_folder(name):
            inside = images_in(place)
            files += inside if len(inside) == 1 and not folders_in(place) else []
    return files


def folder_name(folder: Path) -> str:
    """Return the name that the user gave a folder, a link's own included; `.` has one too."""
    return os.path.basename(os.path.abspath(folder))


def case_name(root: Path, place: Path, files: Sequence[Path]) -> str:
    """Return a case's name by where its images lie below `root`, whatever else lies there.

    The folders' names are joined, `Patient-001_week-000`. Those above that only group patients (`HGG`, `training`) fall
    away where the folder is the patient's own: it has a letter and a digit, and every file's name begins with it. A
    time directly below `root` gets the name of `root`, which then is the patient.
    """
    parts = list(place.relative_to(root).parts) if place != root else []
    parts = [part for part in parts if part.lower() != "anat"]
    if not parts:
        return printable_name(folder_name(root))
    own = parts[-1]
    names_a_patient = re.search(r"[^\W\d_]", own) and re.search(r"\d", own) and not _TIME.fullmatch(own.lower())
    if names_a_patient and files and all(path.name.startswith(own) for path in files):
        while len(parts) > 1 and _GROUP.fullmatch(parts[0].lower()):
            parts = parts[1:]
    if _TIME.fullmatch(parts[0].lower()):
        parts = [folder_name(root), *parts]
    return printable_name("_".join(parts))
