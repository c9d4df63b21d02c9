"""Find the label maps that another run or tool made of each patient, by their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from a2fseg_cli.cases.bids_names import BidsName, bids_name
from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.names import image_stem
from a2fseg_cli.errors import InputError

# What may follow the case in the name of a prediction, `_seg` as `predict` writes it; not `_seg_prob_WT`.
_SUFFIX = re.compile(r"([_.-]?(seg|segmentation|dseg|pred|prediction|mask|label|labels|a2fseg))*", re.IGNORECASE)
# What follows subject and session in a BIDS derivative, `_space-orig_seg-a2fseg_dseg`.
_BIDS_SUFFIX = re.compile(r"(_(?!ses-)[a-z]+-[0-9A-Za-z+]+)*_dseg")


def find_predictions(folder: Path, cases: Sequence[Case]) -> dict[str, tuple[Path, ...]]:
    """Return the files of each case: `<case>.nii.gz`, `<case>_seg.nii.gz` and the like, or those in `<case>/`.

    In a BIDS derivative they are the subject's `_dseg`, for a case of any other name under the one that `predict`
    gives it there; where two cases have the same one, it is nobody's.

    Raises:
        InputError: no folder, or no file for any case.
    """
    try:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of predictions.")
        names = Counter(str(bids_name(case.name)) for case in cases)
        beside = _by_case(folder, {case.name for case in cases})
        files = {
            case.name: (
                *beside.get(case.name, ()),
                *_in_own_folder(case.name, folder / case.name),
                *(_derivatives_of(name, folder) if (name := bids_name(case.name)) and names[str(name)] == 1 else ()),
            )
            for case in cases
        }
        truths = {case.name: case.truth for case in cases}
        files = {name: _without(truths[name], paths) for name, paths in files.items()}
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be read: {error.strerror}.") from error
    if not any(files.values()):
        raise InputError(
            f"{folder}: no prediction for any of the {len(cases)} patients. Looked for names such as "
            f"{cases[0].name}.nii.gz or {cases[0].name}_seg.nii.gz, and for a BIDS derivative's _dseg."
        )
    return files


def _without(truth: Path | None, paths: Iterable[Path]) -> tuple[Path, ...]:
    """Return the paths that are not the truth itself, which lies there where results are written beside it."""
    return tuple(path for path in paths if truth is None or not path.samefile(truth))


def _by_case(folder: Path, names: Collection[str]) -> dict[str, list[Path]]:
    """Return the files of a folder, read once, by the case that each name begins with and the suffix ends."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        stem = image_stem(path)
        for length in range(1, len(stem or "") + 1):
            if stem and (name := stem[:length]) in names and _SUFFIX.fullmatch(stem, length) and path.is_file():
                files.setdefault(name, []).append(path)
    return files


def _in_own_folder(name: str, own: Path) -> Iterator[Path]:
    """Yield the files of a case's own folder, whose names need not say whose they are."""
    for path in sorted(own.iterdir()) if own.is_dir() else ():
        stem = image_stem(path)
        if stem is not None and _SUFFIX.fullmatch(stem.removeprefix(name)) and path.is_file():
            yield path


def _derivatives_of(name: BidsName, folder: Path) -> Iterator[Path]:
    place = folder / name.folder
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        stem = image_stem(path)
        if stem is not None and stem.startswith(str(name)) and _BIDS_SUFFIX.fullmatch(stem.removeprefix(str(name))):
            yield path
