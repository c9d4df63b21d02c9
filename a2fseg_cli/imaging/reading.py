"""Read images and label maps: files in, arrays (D, H, W) with their geometry out, or one line on why not."""

# SimpleITK has no type hints.
# mypy: allow-untyped-calls

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.cases.discovery import EXTENSIONS
from a2fseg_cli.errors import InputError, ResourceError
from a2fseg_cli.imaging.formats import metaimage, nifti, nrrd
from a2fseg_cli.imaging.formats.limits import check_extent
from a2fseg_cli.imaging.formats.voxel_block import VoxelBlock, read_block
from a2fseg_cli.imaging.geometry import Geometry, largest_corner_offset_mm, same_grid

_THICK_SLICE_MM = 2.0
# An adult brain with its cerebrospinal fluid has at most about 2 litres, a head 3.5 and more.
_LARGEST_BRAIN_ML = 2500.0
_SMALLEST_BACKGROUND = 0.15


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
    finite voxels that differ from the background, with holes filled. The background is the value that all
    corners share, else 0.

    Raises:
        InputError: missing, unreadable, damaged, not one 3-D volume of real numbers, empty, or with
            non-finite voxels in the brain.
        ResourceError: does not fit into memory.
    """
    return image_of(path, *_read_voxels(path))


def image_of(
    name: str | Path, voxels: npt.NDArray[Any], geometry: Geometry, warnings: Sequence[str] = ()
) -> MedicalImage:
    """Return voxels (D, H, W) as an image, checked as those of a file are; `name` stands in messages.

    Raises:
        InputError: empty, or with non-finite voxels in the brain.
    """
    path = Path(name)
    with np.errstate(over="ignore", invalid="ignore"):
        array = np.ascontiguousarray(voxels, dtype=np.float32)
    array, nonfinite_warnings = _without_nonfinite(path, array)
    if float(array.min()) == float(array.max()):
        raise InputError(f"{path}: empty, every voxel is {float(array.flat[0]):g}. Is it the right file?")
    return MedicalImage(
        array, geometry, path, (*warnings, *nonfinite_warnings, *_skull_warnings(path, array, geometry))
    )


def peek_image(path: Path) -> tuple[Geometry, tuple[str, ...]]:
    """Return the grid of an image file and the warnings that its header alone gives, without its voxels.

    Raises:
        InputError: as `read_image`, as far as the header shows.
    """
    geometry, warnings, _ = _read_header(path)
    return geometry, warnings


def read_label_map(path: Path) -> tuple[npt.NDArray[np.int32], Geometry]:
    """Return the labels (D, H, W) of a file and its grid; floating-point files count when all values are whole.

    Raises:
        InputError: as `read_image` (an empty map is none), or values that are no whole numbers.
    """
    voxels, geometry, _ = _read_voxels(path)
    if voxels.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            bad = voxels[~(np.isfinite(voxels) & (voxels == np.round(voxels)))]
        if bad.size:
            raise InputError(f"{path}: a label map with the value {bad.flat[0]:g}. Expected whole numbers.")
    limits = np.iinfo(np.int32)
    if voxels.min() < limits.min or voxels.max() > limits.max:
        raise InputError(f"{path}: a label map with values up to {voxels.max()}. Is it the right file?")
    return np.ascontiguousarray(voxels, dtype=np.int32), geometry


def check_same_grid(images: Mapping[str, tuple[Path, Geometry]]) -> None:
    """Accept images by name (modality) that all lie on the grid of the first.

    Raises:
        InputError: they do not; the message is a table of all.
    """
    geometries = [geometry for _, geometry in images.values()]
    if all(same_grid(geometries[0], other) for other in geometries[1:]):
        return
    header = ("", "file", "size", "spacing mm", "origin mm", "orientation", "corner offset mm")
    rows = [header, *(_grid_row(name, path, other, geometries[0]) for name, (path, other) in images.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    raise InputError(
        "The images do not lie on one grid (x, y, z; offset of the furthest corner against the first). "
        "Co-register them, or use --on-mismatch resample.\n" + "\n".join(lines)
    )


def _grid_row(name: str, path: Path, geometry: Geometry, first: Geometry) -> tuple[str, ...]:
    tilt = geometry.obliqueness_deg
    return (
        name,
        path.name,
        " x ".join(map(str, geometry.size[::-1])),
        " x ".join(f"{value:.4g}" for value in geometry.spacing_mm[::-1]),
        ", ".join(f"{value:.2f}" for value in geometry.origin_mm),
        geometry.orientation + (f", {tilt:.2f}° oblique" if tilt > 0.005 else ""),
        f"{largest_corner_offset_mm(first, geometry):.3f}",
    )


def check_distinct(images: Mapping[str, MedicalImage]) -> None:
    """Accept images by modality of which no two have the same voxels.

    Raises:
        InputError: two do; both are named.
    """
    names = list(images)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            a, b = images[first].array, images[second].array
            # Every thousandth voxel tells different images apart at once; only equal ones are compared in full.
            if a.shape == b.shape and np.array_equal(a[::10, ::10, ::10], b[::10, ::10, ::10]) and np.array_equal(a, b):
                raise InputError(
                    f"{first} and {second} are the same image: {images[first].path} and {images[second].path}. "
                    "Give every modality its own file, or leave one out."
                )


def resample_to(image: MedicalImage, geometry: Geometry) -> MedicalImage:
    """Return the image on another grid: linear interpolation in the patient's space, its background outside.

    Raises:
        InputError: nothing of it lies there.
    """
    import SimpleITK as sitk

    source = sitk.GetImageFromArray(image.array)
    _set_itk_geometry(source, image.geometry)
    resampled = sitk.Resample(
        source,
        list(geometry.size[::-1]),
        sitk.Transform(),
        sitk.sitkLinear,
        list(geometry.origin_mm),
        list(geometry.spacing_mm[::-1]),
        list(geometry.direction),
        float(outside := background(image.array)),
        sitk.sitkFloat32,
    )
    array = sitk.GetArrayFromImage(resampled)
    if (array == outside).all():
        raise InputError(f"{image.path}: nothing of it lies on the reference's grid. Co-register the images.")
    return replace(image, array=array, geometry=geometry)


def _read_voxels(path: Path) -> tuple[npt.NDArray[Any], Geometry, tuple[str, ...]]:
    """Return the voxels in the file's own type (D, H, W), their grid, and what the header gives cause to say."""
    geometry, warnings, header = _read_header(path)
    try:
        voxels = read_block(path, header) if isinstance(header, VoxelBlock) else nifti.read_voxels(path, header)
    except MemoryError as error:
        raise ResourceError(f"{path}: its voxels do not fit into memory.") from error
    return voxels, geometry, warnings


def _read_header(path: Path) -> tuple[Geometry, tuple[str, ...], VoxelBlock | nifti.NiftiHeader]:
    """Return the grid, what the header gives cause to say, and where the voxels lie."""
    _check_file(path)
    name = path.name.lower()
    header: VoxelBlock | nifti.NiftiHeader
    if name.endswith((".nrrd", ".mha")):
        header = nrrd.read_header(path) if name.endswith(".nrrd") else metaimage.read_header(path)
        geometry, warnings = header.geometry, header.warnings
    else:
        header = nifti.read_header(path)
        geometry, warnings = nifti.header_geometry(path, header)
    return check_extent(path, geometry), (*warnings, *_thickness_warnings(path, geometry)), header


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
        raise InputError(f"{path}: a DICOM file. Convert the series to NIfTI first, for example with dcm2niix.")
    if not start:
        raise InputError(f"{path}: the file has no bytes. Copy it again.")
    if not path.name.lower().endswith(EXTENSIONS):
        raise InputError(f"{path}: unknown file type. Expected {', '.join(EXTENSIONS)}.")


def _set_itk_geometry(image: Any, geometry: Geometry) -> None:
    image.SetSpacing(geometry.spacing_mm[::-1])
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection(geometry.direction)


def background(array: npt.NDArray[np.float32]) -> np.float32:
    """Return the value that all eight corners share, not counting those that are not finite; 0 where they differ."""
    corners = array[np.ix_((0, -1), (0, -1), (0, -1))]
    values = np.unique(corners[np.isfinite(corners)])
    return np.float32(values[0] if values.size == 1 else 0)


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


def _thickness_warnings(path: Path, geometry: Geometry) -> tuple[str, ...]:
    if max(geometry.spacing_mm) <= _THICK_SLICE_MM + 1e-6:  # 2 mm in metres is 2.0000001 in float32
        return ()
    spacing = " x ".join(f"{value:.3g}" for value in geometry.spacing_mm[::-1])
    return (f"{path.name}: thick slices ({spacing} mm); expect a coarser result than from 1 mm images",)


def _skull_warnings(path: Path, array: npt.NDArray[np.float32], geometry: Geometry) -> tuple[str, ...]:
    tissue = int(np.count_nonzero(array != background(array)))
    empty = 1 - tissue / array.size
    volume_ml = tissue * geometry.voxel_volume_ml
    if empty >= _SMALLEST_BACKGROUND and volume_ml <= _LARGEST_BRAIN_ML:
        return ()
    return (
        f"{path.name}: background not zero, or skull present (background {empty:.0%} of voxels, the rest "
        f"{volume_ml:.0f} mL): the network was trained on skull-stripped images",
    )
