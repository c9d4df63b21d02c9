"""A patient with a mask that exists: read and checked together, for looking at and for measuring; no network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.images import CaseImages, ReadingOptions, load_images
from a2fseg_cli.cases.selection import Selection, select_cases
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.dicom.places import opened
from a2fseg_cli.dicom.reading import peek_series
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.imaging.formats.suffixes import DICOM
from a2fseg_cli.imaging.geometry import Geometry, axes_between, same_grid
from a2fseg_cli.imaging.label_maps import LabelMap, check_on_grid, read_classes
from a2fseg_cli.imaging.reading import peek_channels, peek_image, read_image

_ROUNDING = 1e-3  # of an uncertainty that was stored as scaled whole numbers


@dataclass(frozen=True)
class MarkedCase:
    """A patient's images and a mask, on one grid.

    Attributes:
        images: The images, on the mask's grid.
        mask: The classes, on that grid; None without a mask.
        warnings: What a user should know of both.
    """

    images: CaseImages
    mask: LabelMap | None
    warnings: tuple[str, ...]


def load_marked(
    source: Path, seg: Path | None, config: ModelConfig, labels: str = "auto", selection: Selection | None = None
) -> MarkedCase:
    """Return a patient with a mask.

    The skull may be on, and sequences that lie on another grid than the mask are resampled to its own.

    Args:
        source: The patient's folder, one of DICOM series too, a zip of these, or a CSV with one patient.
        seg: The mask, a label map.
        config: Whose modalities and classes.
        labels: In which values the mask is written: auto, a scheme, or an order such as `NCR=2,ED=1,ET=3`.
        selection: Which of several files of a sequence, and so on.

    Raises:
        InputError: none or several patients, an image or a mask that is not acceptable, or a mask on the grid of none
            of the images.
        UsageError: parameters that contradict each other, or no such scheme.
    """
    if seg is not None and seg.name.lower().endswith(DICOM):
        raise InputError(f"{seg}: a DICOM object. Save the mask as .nii.gz or .seg.nrrd, and give that.")
    with opened(source) as place:
        return _load(place, seg, config, labels, selection)


def _load(source: Path, seg: Path | None, config: ModelConfig, labels: str, selection: Selection | None) -> MarkedCase:
    """Return what `load_marked` does, of a folder or a CSV."""
    cases = select_cases(source, modalities=config.modalities, selection=selection, single=True)
    if len(cases) != 1:
        named = ", ".join(case.name for case in cases[:5]) + ", ..." * (len(cases) > 5)
        raise UsageError(f"{source}: {len(cases)} patients ({named}). Give the folder of one.")
    (case,) = cases
    if case.problem:
        raise InputError(case.problem)
    mask = read_classes(seg, config, labels) if seg is not None else None
    reference = _on_same_grid(case, mask) if mask else None
    reading = ReadingOptions("resample", reference, allow_skull=True)
    images = load_images(case, config.modalities, reading)
    if mask:
        mask = check_on_grid(mask, images.reference_path, images.geometry)
    notes = (mask.note,) if mask and mask.note else ()
    return MarkedCase(images, mask, (*images.warnings, *notes))


def read_uncertainty(path: Path, marked: MarkedCase) -> npt.NDArray[np.float32]:
    """Return an uncertainty (D, H, W), 0 (sure) to 1, on the grid of the images.

    Raises:
        InputError: not acceptable, on another grid, or with values outside 0 to 1.
    """
    image, images = read_image(path), marked.images
    low, high = float(image.array.min()), float(image.array.max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise InputError(f"{path}: values from {low:.3g} to {high:.3g}. Expected an uncertainty, 0 (sure) to 1.")
    turn = axes_between(image.geometry, images.geometry)
    if turn is None:
        raise InputError(f"{path}: another grid than {images.reference_path}. Bring it to that grid first.")
    return np.ascontiguousarray(np.flip(image.array.transpose(turn[0]), turn[1]))


def _on_same_grid(case: Case, mask: LabelMap) -> str | None:
    """Return the first sequence on whose grid the mask lies, None where it lies on that of none."""
    return next((name for name, grid in _grids(case).items() if _alike(mask.geometry, grid)), None)


def _grids(case: Case) -> dict[str, Geometry]:
    if case.channels:
        names = [name if name in case.images else "-" for name in case.channels]
        grid = peek_channels(next(iter(case.images.values())), names)[0]
        return dict.fromkeys(case.images, grid)
    return {
        name: peek_series(case.series[name])[0] if name in case.series else peek_image(path)[0]
        for name, path in case.images.items()
    }


def _alike(one: Geometry, other: Geometry) -> bool:
    return same_grid(one, other) or axes_between(one, other) is not None
