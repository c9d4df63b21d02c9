"""Which file is the expert's label map, by its name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from a2fseg_cli.cases import words
from a2fseg_cli.cases.names import bids_entities, image_stem

# Pipelines whose `_dseg` is the brain's tissue, which has the values of a tumour: 1, 2 and 3.
_TISSUE_PIPELINES = re.compile(
    r"[fs]mriprep|nibabies|freesurfer|fastsurfer|mriqc|qsiprep|aslprep|micapipe|synthseg|cat12"
)


def truth_files(files: Iterable[Path]) -> list[Path]:
    """Return the files whose names say that they are a truth, those of this tool's own included."""
    return [path for path in files if (stem := image_stem(path)) is not None and _names_a_truth(stem)]


def _names_a_truth(stem: str) -> bool:
    tokens = [token for token in re.split(r"[^a-z0-9]+", stem.lower()) if token]
    if tokens[:2] == ["vsd", "brain"]:  # BRATS 2013 and 2015: OT is the "other" file, the truth
        return "ot" in tokens
    if not tokens or (tokens[-1] not in words.TRUTHS | {"manuallycorrected"} and "".join(tokens[-2:]) != "groundtruth"):
        return False
    return not words.PREDICTIONS & set(tokens) and not words.NO_TUMOUR & set(tokens[-3:-1])


def derived_truths(place: Path) -> list[Path]:
    """Return the truths of a BIDS subject, or of its session, in the data set's `derivatives/*/`.

    Args:
        place: The folder of the subject (`sub-01`) or the session (`sub-01/ses-1`).
    """
    parts = Path(os.path.abspath(place)).parts
    subject = max((i for i, part in enumerate(parts) if part.lower().startswith("sub-")), default=0)
    root = Path(*parts[:subject])  # the data set's, or a pipeline's folder in its derivatives
    derivatives = root.parent if root.parent.name == "derivatives" else root / "derivatives"
    if not subject or not derivatives.is_dir():
        return []
    wanted = dict(part.lower().split("-", 1) for part in parts[subject:] if part.lower().startswith(("sub-", "ses-")))
    truths = []
    for pipeline in sorted(derivatives.iterdir()):
        if _TISSUE_PIPELINES.search(pipeline.name.lower()):
            continue
        for path in _below(pipeline / parts[subject]):
            stem = image_stem(path)
            if stem is None or not _names_a_truth(stem):
                continue
            values = bids_entities(stem)
            if all(values.get(key, value) == value for key, value in wanted.items()) and values.get("sub"):
                truths.append(path)
    return truths


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders.sort()
        yield from (Path(place) / name for name in sorted(files))
