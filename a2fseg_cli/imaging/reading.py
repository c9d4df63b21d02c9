"""Read images and label maps: files in, arrays (D, H, W) with their geometry out, or one line on why not."""

# SimpleITK has no type hints.
# mypy: allow-untyped-calls

from __future__ import annotations

import math
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.imaging.brain import find_background
from a2fseg_cli.imaging.formats.contract import Format, format_of
from a2fseg_cli.imaging.formats.header import Header
from a2fseg_cli.imaging.formats.limits import MAX_VOXELS, check_extent
from a2fseg_cli.imaging.formats.suffixes import EXTENSIONS
from a2fseg_cli.imaging.geometry import Geometry

_THICK_SLICE_MM = 2.0
THICK_SLICES = "thick slices"
# nibabel saves label maps that were opened as numbers with deviations of 1e-8; float32 arithmetic leaves up to 1e-5.
_LABEL_ROUNDING = 1e-4
# Stored as scaled whole numbers, 0 to 4 in a byte, labels lie up to half a step of 4 / 255 off.
_LARGEST_LABEL_ROUNDING = 0.01


@dataclass(frozen=True)
class MedicalImage:
    """One image: `array` float32 (D, H, W), C-contiguous, in the file's own axis order."""

    array: npt.NDArray[np.float32]
    geometry: Geometry
    path: Path
    warnings: tuple[str, ...] = ()


def read_image(path: Path) -> MedicalImage:
    """Return the image of a file, finite, with everything about it that a user should know as warnings.

    Voxels that are not finite are set to the background's value when all of them lie outside the brain: the
    finite voxels that differ from the background, with holes filled. The background is what the outer faces show.

    Raises:
        InputError: missing, unreadable, damaged, not one 3-D volume of real numbers, empty, or with
            non-finite voxels in the brain.
        ResourceError: does not fit into memory.
    """
    kind, header = _read_header(path)
    return _image(path, path, _one_volume(path, header), kind.read_voxels(path, header)[0])


def image_of(
    name: str | Path, voxels: npt.NDArray[Any], geometry: Geometry, warnings: Sequence[str] = ()
) -> MedicalImage:
    """Return voxels (D, H, W) as an image, checked as those of a file are; `name` stands in messages.

    Raises:
        InputError: no real numbers, empty, or with non-finite voxels in the brain.
    """
    path = Path(name)
    if voxels.dtype.kind not in "biuf":
        raise InputError(f"{path}: voxels of type {voxels.dtype}. Expected real numbers.")
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.ascontiguousarray(voxels, dtype=np.float32)
    array, nonfinite_warnings = _without_nonfinite(path, array)
    if float(array.min()) == float(array.max()):
        raise InputError(f"{path}: empty, every voxel is {float(array.flat[0]):g}. Is it the right file?")
    return MedicalImage(array, geometry, path, (*warnings, *nonfinite_warnings))


def read_channels(path: Path, names: Sequence[str]) -> dict[str, MedicalImage]:
    """Return the volumes of a 4-D file by name, as Decathlon keeps the sequences of a patient in one file.

    Args:
        path: The file.
        names: One for each volume, in the file's order; an empty one or `-` leaves its volume out.

    Raises:
        InputError: as `read_image`, or another number of volumes than names.
        UsageError: no name, or one twice.
    """
    kind, header, kept = _read_channel_header(path, names)
    voxels = kind.read_voxels(path, header)
    places = {name: path.with_name(f"{path.name}, volume {index + 1} ({name})") for name, index in kept.items()}
    return {name: _image(path, places[name], header, voxels[index]) for name, index in kept.items()}


def peek_image(path: Path) -> tuple[Geometry, tuple[str, ...]]:
    """Return the grid of an image file and the warnings that its header alone gives, without its voxels.

    Raises:
        InputError: as `read_image`, as far as the header shows.
    """
    header = _one_volume(path, _read_header(path)[1])
    return header.geometry, header.warnings


def peek_channels(path: Path, names: Sequence[str]) -> tuple[Geometry, tuple[str, ...]]:
    """Return what `peek_image` does, of a file for `read_channels`. Raises: as that, as far as the header shows."""
    header = _read_channel_header(path, names)[1]
    return header.geometry, header.warnings


def read_label_map(path: Path) -> tuple[npt.NDArray[np.int32], Geometry]:
    """Return the labels (D, H, W) of a file and its grid; numbers that are whole but for rounding are labels.

    Raises:
        InputError: as `read_image` (an empty map is none), or values that are no whole numbers.
    """
    kind, header = _read_header(path)
    header = _one_volume(path, header)
    voxels, geometry = kind.read_voxels(path, header)[0], header.geometry
    if voxels.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            whole = np.round(voxels)
            bad = voxels[~(np.abs(voxels - whole) <= _rounding(header))]
        if bad.size:
            raise InputError(f"{path}: a label map with the value {bad.flat[0]:g}. Expected whole numbers.")
        voxels = whole
    limits = np.iinfo(np.int32)
    if voxels.min() < limits.min or voxels.max() > limits.max:
        raise InputError(f"{path}: a label map with values up to {voxels.max()}. Is it the right file?")
    return np.ascontiguousarray(voxels, dtype=np.int32), geometry


def _read_header(path: Path) -> tuple[Format, Header]:
    """Return the format of a file and its checked header, with all that it gives cause to say."""
    _check_file(path)
    if path.suffix.lower() == ".img":
        path = path.with_suffix(".HDR" if path.suffix.isupper() else ".hdr")
    kind = format_of(path)
    header = kind.read_header(path)
    check_extent(path, header.geometry)
    return kind, replace(header, warnings=(*header.warnings, *thickness_warnings(path, header.geometry)))


def _one_volume(path: Path, header: Header) -> Header:
    """Return the header of a file with one volume. Raises: InputError: it has more."""
    if header.volumes > 1:
        raise InputError(
            f"{path}: 4-D, {header.volumes} volumes. Split it, or say with channels which volume is which modality."
        )
    return header


def _read_channel_header(path: Path, names: Sequence[str]) -> tuple[Format, Header, dict[str, int]]:
    """Return the format and header of a 4-D file and the index of each volume that has a name."""
    named = [name for name in names if name not in ("", "-")]
    if not named or len(set(named)) < len(named):
        raise UsageError(f"channels {','.join(names)}: expected a name for each volume, every name once.")
    kind, header = _read_header(path)
    if header.volumes != len(names):
        counts = f"channels names {len(names)} volumes, the file has {header.volumes}"
        raise InputError(f"{path}: {counts}. Name every volume, and put - for one that is left out.")
    if math.prod(header.shape) > MAX_VOXELS:
        raise InputError(f"{path}: {math.prod(header.shape)} voxels, more than all images of a head have.")
    return kind, header, {name: index for index, name in enumerate(names) if name in named}


def _image(path: Path, place: Path, header: Header, voxels: npt.NDArray[Any]) -> MedicalImage:
    """Return one volume (D, H, W) of a file as an image; messages say that it is at `place`."""
    return replace(image_of(place, voxels, header.geometry, header.warnings), path=path)


def _rounding(header: Header) -> float:
    """Return how far from a whole number a label may be stored."""
    if header.scale is None or header.voxel_type.kind == "f":
        return _LABEL_ROUNDING
    return max(_LABEL_ROUNDING, min(_LARGEST_LABEL_ROUNDING, 0.501 * abs(header.scale[0])))


def _check_file(path: Path) -> None:
    """Raise what can be said before any format is looked at."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a pipe would block
            raise InputError(f"{path}: not a regular file. Expected one image file ({', '.join(EXTENSIONS)}).")
        with path.open("rb") as file:
            start = file.read(132)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: a folder. Expected one image file ({', '.join(EXTENSIONS)}).") from error
    except PermissionError as error:
        raise InputError(f"{path}: no permission to read it.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}.") from error
    if start[128:132] == b"DICM":
        raise InputError(f"{path}: a DICOM file. Give the folder of its series.")
    if not start:
        raise InputError(f"{path}: the file has no bytes. Copy it again.")


def background(array: npt.NDArray[np.float32]) -> np.float32:
    """Return the value of what surrounds the tissue, not counting voxels that are not finite; 0 where none does."""
    surrounding = find_background(array)
    return np.float32(surrounding.level if surrounding else 0)


def _without_nonfinite(path: Path, array: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    finite = np.isfinite(array)
    if finite.all():
        return array, ()
    import SimpleITK as sitk

    outside = background(array)
    brain = (finite & (array != outside)).astype(np.uint8)
    filled = sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(brain), True, 1)).astype(bool)
    inside, total = int(np.count_nonzero(~finite & filled)), int(np.count_nonzero(~finite))
    if inside:
        raise InputError(f"{path}: {inside} voxels inside the brain are NaN or infinite. Repair or convert the image.")
    warning = f"{path.name}: {total} NaN or infinite voxels outside the brain set to {outside:g}"
    return np.where(finite, array, outside), (warning,)


def thickness_warnings(path: Path, geometry: Geometry) -> tuple[str, ...]:
    """Return what a user should know of thick slices, if they are; `path` stands in the message."""
    if max(geometry.spacing_mm) <= _THICK_SLICE_MM + 1e-6:  # 2 mm in metres is 2.0000001 in float32
        return ()
    spacing = " x ".join(f"{value:.3g}" for value in geometry.spacing_mm[::-1])
    return (f"{path.name}: {THICK_SLICES} ({spacing} mm); expect a coarser result than from 1 mm images",)
