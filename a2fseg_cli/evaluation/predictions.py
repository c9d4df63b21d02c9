"""Find the label maps that another run or tool made of each patient, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.names import image_stem
from a2fseg_cli.errors import InputError

# What may follow the case in the name of a prediction, `_seg` as `predict` writes it; not `_seg_prob_WT`.
_SUFFIX = re.compile(r"([_.-]?(seg|segmentation|dseg|pred|prediction|mask|label|labels|a2fseg))*", re.IGNORECASE)


def find_predictions(folder: Path, cases: Sequence[Case]) -> dict[str, tuple[Path, ...]]:
    """Return the files of each case: `<case>.nii.gz`, `<case>_seg.nii.gz` and the like, or those in `<case>/`.

    Raises:
        InputError: no folder, or no file for any case.
    """
    try:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of predictions.")
        files = {case.name: tuple(_predictions_of(case.name, folder)) for case in cases}
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be read: {error.strerror}.") from error
    if not any(files.values()):
        raise InputError(
            f"{folder}: no prediction for any of the {len(cases)} patients. Looked for names such as "
            f"{cases[0].name}.nii.gz or {cases[0].name}_seg.nii.gz."
        )
    return files


def _predictions_of(name: str, folder: Path) -> Iterator[Path]:
    own = folder / name
    for place in (folder, own) if own.is_dir() else (folder,):
        for path in sorted(place.iterdir()):
            stem = image_stem(path)
            if stem is None or not path.is_file():
                continue
            rest = stem.removeprefix(name) if stem.startswith(name) else stem if place == own else None
            if rest is not None and _SUFFIX.fullmatch(rest):
                yield path
