"""Several images of one patient: on one grid, and each another one."""

# SimpleITK has no type hints.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.geometry import Geometry, largest_corner_offset_mm, same_grid
from a2fseg_cli.imaging.reading import MedicalImage, background
from a2fseg_cli.imaging.rigid_grid import itk_image


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
        "Have them registered (raw), or set on_mismatch to resample.\n" + "\n".join(lines)
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

    resampled = sitk.Resample(
        itk_image(image.array, image.geometry),
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
