"""A series to an image: voxels (D, H, W) on the scanner's own grid, as a file of another format is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from a2fseg_cli.dicom.headers import without_remarks
from a2fseg_cli.dicom.pixels import read_frames
from a2fseg_cli.dicom.series import Headers, Series, read_headers
from a2fseg_cli.errors import InputError, ResourceError
from a2fseg_cli.imaging.formats.limits import check_extent, check_volume_size
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.reading import MedicalImage, image_of, thickness_warnings


def read_series(series: Series) -> MedicalImage:
    """Return a series as an image, slices along their normal; `path` is its label, for messages.

    Every slice's own slope and intercept are applied: Philips scanners have another one in each.

    Raises:
        InputError: it is no volume (the series' `problem`), a file is truncated or damaged, or it is empty.
        ResourceError: it does not fit into memory.
    """
    geometry, told = peek_series(series)
    try:
        voxels = _voxels(series, geometry)
    except MemoryError as error:
        raise ResourceError(f"{series.label}: does not fit into memory.") from error
    return image_of(display_path(series), voxels, geometry, told)


def peek_series(series: Series) -> tuple[Geometry, tuple[str, ...]]:
    """Return the grid of a series and what its headers give cause to say, without its voxels.

    Raises:
        InputError: it is no volume, or its headers are no head's.
    """
    if series.geometry is None:
        raise InputError(f"{series.label}: {series.problem}.")
    path = display_path(series)
    check_volume_size(path, series.geometry.size)
    check_extent(path, series.geometry)
    copies = (f"{series.label}: {series.copies} files are copies of others and are not read",) if series.copies else ()
    return series.geometry, (*copies, *thickness_warnings(path, series.geometry))


def display_path(series: Series) -> Path:
    """Return a series' label as a path, for what names images by one; no such file exists."""
    return Path(series.label.replace("/", "|"))


def series_in_folder(place: Path) -> Series:
    """Return the one series of a folder, or of one (enhanced) file.

    Raises:
        InputError: none, or several; they are listed.
    """
    headers = read_headers(place)
    volumes = [one for one in headers.series if one.is_volume]
    if len(volumes) == 1 and len({one.uid for one in headers.series}) == 1:
        return volumes[0]
    if len(headers.series) == 1:
        return headers.series[0]
    if not headers.series and headers.damaged == (place,):
        raise InputError(f"{place}: a DICOM file that is damaged. Copy it, or export its series, again.")
    if not headers.series:
        raise InputError(f"{place}: no DICOM image. {_others(headers)}")
    rows = "\n".join(f"  {one.label}: {grid_text(one)}" for one in headers.series)
    raise InputError(f"{place}: {len(headers.series)} series. Expected one; give the folder of one of them.\n{rows}")


def read_series_folder(place: Path) -> MedicalImage:
    """Return the image of a folder with exactly one series. Raises: as `series_in_folder` and `read_series`."""
    return read_series(series_in_folder(place))


def grid_text(series: Series) -> str:
    """Return size, spacing and orientation (x, y, z) of a series in words, or why it has none."""
    if series.geometry is None:
        return str(series.problem)
    grid = series.geometry
    size, spacing = (" x ".join(f"{value:.3g}" for value in values[::-1]) for values in (grid.size, grid.spacing_mm))
    return f"{size} voxels of {spacing} mm, {grid.orientation}"


def _others(headers: Headers) -> str:
    counts = [(headers.others, "of another kind"), (len(headers.damaged), "damaged")]
    told = ", ".join(f"{count} files are {kind}" for count, kind in counts if count)
    return f"{told}." if told else "The folder has no file."


def _voxels(series: Series, geometry: Geometry) -> npt.NDArray[np.float32]:
    voxels = np.empty(geometry.size, np.float32)
    places: dict[Path, list[int]] = {}
    for index, one in enumerate(series.slices):
        places.setdefault(one.path, []).append(index)
    for path, indices in places.items():
        frames = _frames(series, path)
        for index in indices:
            one = series.slices[index]
            if one.frame >= len(frames) or frames.shape[1:] != one.size:
                raise InputError(f"{series.label}, {path.name}: its pixels are not what its header says.")
            voxels[index] = frames[one.frame] * one.slope + one.intercept
    return voxels


def _frames(series: Series, path: Path) -> npt.NDArray[np.generic]:
    try:
        with without_remarks():
            return read_frames(path)
    except ValueError as error:
        raise InputError(f"{series.label}, {path.name}: {error}. Copy or export the series again.") from error
    except OSError as error:
        raise InputError(f"{series.label}, {path.name}: cannot be read: {error.strerror or error}.") from error
