"""The series that a segmentation belongs to: its headers in the order of its slices, and the grid they lie on."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.geometry import Geometry, right_angled

if TYPE_CHECKING:
    from pydicom import Dataset

_TO_NIFTI = "Write a .nii.gz instead."
_FRAMES = "PerFrameFunctionalGroupsSequence"
# What the standard wants to be there, even if empty (type 2); files that were anonymised lack some.
_MAY_BE_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
                 "StudyDate", "StudyTime")  # fmt: skip
# Positions are rounded to 0.01 mm at worst; no two slices are as near as that.
_SAME_PLACE_MM = 0.01
# Headers round cosines to six digits and some programs to four.
_SAME_DIRECTION = 1e-3
_SAME_SPACING = 1e-3


def _damage() -> tuple[type[Exception], ...]:
    """Return what pydicom, which reads a value when it is asked for, and highdicom raised on 7,800 damaged headers."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (AttributeError, BytesLengthException, EOFError, IndexError, InvalidDicomError, KeyError,
            NotImplementedError, OSError, OverflowError, TypeError, ValueError, struct.error)  # fmt: skip


@dataclass(frozen=True)
class SourceSeries:
    """Headers of a series.

    Attributes:
        headers: One a slice, in the order of the slices; or that of the one multi-frame file, with the frames of the
            volume alone.
        slice_of_frame: For each header, or each frame of the one header, its slice in `geometry`.
        geometry: The grid.
        frame_numbers: The number of each frame in the multi-frame file, from 1; of single-frame files nothing.
    """

    headers: tuple[Dataset, ...]
    slice_of_frame: npt.NDArray[np.int64]
    geometry: Geometry
    frame_numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Plane:
    """Where a slice lies: its first voxel's centre, the directions (6) of a row and of a column, and their steps."""

    position_mm: npt.NDArray[np.float64]
    orientation: npt.NDArray[np.float64]
    spacing_mm: tuple[float, float]


def read_source_series(files: Sequence[Path], frames: Sequence[int] | None = None) -> SourceSeries:
    """Return the headers of a series and its grid; no voxel is read.

    Args:
        files: Its files in any order; a multi-frame file alone.
        frames: Which frames of a multi-frame file are the volume, from 0; all by default.

    Raises:
        InputError: a file that is no DICOM image with a place in the patient, files of several series, or slices
            that make no volume.
    """
    if not files:
        raise InputError("No file of the series that a DICOM segmentation refers to. Give the files of one series.")
    headers = [_header(path) for path in files]
    with refusing_damage(files[0]):
        return _in_order(headers, files[0], frames)


@contextmanager
def refusing_damage(path: Path) -> Iterator[None]:
    """Make what damaged or missing values of a header raise in the block an error that names the file.

    Raises:
        InputError: as it says.
    """
    try:
        yield
    except _damage() as error:
        raise InputError(
            f"{path}: a DICOM segmentation cannot refer to this series, whose header is damaged or breaks the "
            f"standard's rules. {_TO_NIFTI}"
        ) from error


def _in_order(headers: Sequence[Dataset], path: Path, frames: Sequence[int] | None) -> SourceSeries:
    """Return headers in the order of their slices. Raises: InputError: no volume, or no frame of reference."""
    series = {str(header.get("SeriesInstanceUID") or "") for header in headers}
    if len(series) > 1:
        raise InputError(f"{path.parent}: files of {len(series)} series. A segmentation refers to one. {_TO_NIFTI}")
    multiframe = [_FRAMES in header for header in headers]
    if any(multiframe) and len(headers) > 1:
        raise InputError(f"{path.parent}: {len(headers)} multi-frame files. Expected one. {_TO_NIFTI}")
    numbers = _keep_frames(headers[0], frames) if multiframe[0] else ()
    try:
        planes = _frame_planes(headers[0]) if multiframe[0] else [_plane(header, header, header) for header in headers]
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise InputError(f"{path}: its header does not say where it lies in the patient. {_TO_NIFTI}") from error
    try:
        order, geometry = _stacked(planes, headers[0])
    except ValueError as error:
        raise InputError(f"{path.parent}: its slices make no volume ({error}). {_TO_NIFTI}") from error
    if not headers[0].get("FrameOfReferenceUID"):
        raise InputError(f"{path}: no frame of reference, to which a DICOM segmentation refers. {_TO_NIFTI}")
    if multiframe[0]:
        return SourceSeries((headers[0],), np.argsort(order), geometry, numbers)
    return SourceSeries(tuple(headers[index] for index in order), np.arange(len(order)), geometry)


def mended_headers(source: SourceSeries) -> list[Dataset]:
    """Return headers with what a segmentation takes over present, in the place and form where highdicom looks for it.

    Values that the standard allows to be empty are, where they are absent or not valid. Slices have one orientation to
    the last digit, and what frames have in common stands where it is shared: some scanners repeat it in each frame.
    """
    from pydicom.valuerep import DA, TM

    first = source.headers[0]
    for header in source.headers:
        for keyword in _MAY_BE_EMPTY:
            if header.get(keyword) is None:
                setattr(header, keyword, "")
        for keyword, kind in (("PatientBirthDate", DA), ("StudyDate", DA), ("StudyTime", TM)):
            if not _is_valid(kind, header.get(keyword)):
                setattr(header, keyword, "")
        if header.PatientSex not in ("M", "F", "O"):
            header.PatientSex = ""
        if "ImageOrientationPatient" in header:
            header.ImageOrientationPatient = first.ImageOrientationPatient
    measures = first
    if _FRAMES in first:
        shared, frame = first.SharedFunctionalGroupsSequence[0], first[_FRAMES][0]
        for group in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
            if group in frame:
                setattr(shared, group, frame[group].value)
        measures = shared.PixelMeasuresSequence[0]
    if not measures.get("SliceThickness"):
        measures.SliceThickness = round(source.geometry.spacing_mm[0], 6)
    measures.SpacingBetweenSlices = round(source.geometry.spacing_mm[0], 6)  # some scanners write the gap
    return list(source.headers)


def _is_valid(kind: Any, value: Any) -> bool:
    try:
        kind(value)
    except (TypeError, ValueError):
        return False
    return True


def _header(path: Path) -> Dataset:
    from pydicom import dcmread

    if not path.is_file():
        raise InputError(f"{path}: no such file. Give the files of one series.")
    try:
        return dcmread(path, stop_before_pixels=True)
    except _damage() as error:
        raise InputError(
            f"{path}: no DICOM file, or one that is damaged or cannot be read. Export it again."
        ) from error


def _plane(position: Any, orientation: Any, measures: Any) -> _Plane:
    row_mm, column_mm = (float(value) for value in measures.PixelSpacing)
    return _Plane(
        np.array([float(value) for value in position.ImagePositionPatient]),
        np.array([float(value) for value in orientation.ImageOrientationPatient]),
        (row_mm, column_mm),
    )


def _keep_frames(header: Dataset, frames: Sequence[int] | None) -> tuple[int, ...]:
    """Leave only these frames, counted from 0, in a header; return their numbers in the file, from 1."""
    groups = header[_FRAMES].value
    chosen = range(len(groups)) if frames is None else sorted(frames)
    setattr(header, _FRAMES, [groups[index] for index in chosen])
    header.NumberOfFrames = len(chosen)
    return tuple(index + 1 for index in chosen)


def _frame_planes(header: Dataset) -> list[_Plane]:
    """Return where each frame of a multi-frame file lies; what all frames share stands once in it."""
    shared = header.SharedFunctionalGroupsSequence[0]
    groups = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
    return [
        _plane(*((frame if group in frame else shared)[group][0] for group in groups))
        for frame in header[_FRAMES].value
    ]


def _stacked(planes: Sequence[_Plane], header: Dataset) -> tuple[npt.NDArray[np.int64], Geometry]:
    """Return the order of the slices along their normal, and the grid that they make.

    Raises:
        ValueError: they have different directions or spacings, or two lie at one place.
    """
    first = planes[0]
    row, column = (axis / np.linalg.norm(axis) for axis in (first.orientation[:3], first.orientation[3:]))
    normal = np.cross(row, column)
    for plane in planes:
        turned = np.abs(plane.orientation - first.orientation).max() > _SAME_DIRECTION
        if turned or not np.allclose(plane.spacing_mm, first.spacing_mm, rtol=_SAME_SPACING):
            raise ValueError("different directions or spacings")
    positions = np.array([plane.position_mm for plane in planes])
    places = positions @ normal
    order = np.argsort(places)
    if len(planes) > 1 and np.diff(places[order]).min() < _SAME_PLACE_MM:
        raise ValueError("two at one place")
    step_mm = float(np.ptp(places)) / (len(planes) - 1) if len(planes) > 1 else 1.0
    row_mm, column_mm = first.spacing_mm
    steps_mm = np.stack([row * column_mm, column * row_mm, normal * step_mm], axis=1)
    spacing_mm, direction, _ = right_angled(steps_mm, np.array([column_mm, row_mm, step_mm]))
    x, y, z = (float(value) for value in positions[order[0]])
    size = (len(planes), int(header.Rows), int(header.Columns))
    return order, Geometry(size, spacing_mm, (x, y, z), direction)
