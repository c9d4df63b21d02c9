"""An image in whatever form a script has it: a path, a SimpleITK image, an array with its spacing."""

# SimpleITK has no type hints.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.reading import MedicalImage, image_of, read_image


def any_image(name: str, image: Any, spacing_mm: Sequence[float] | None) -> MedicalImage:
    """Return what was given as an image.

    Args:
        name: The modality, for messages.
        image: A path, a SimpleITK image, or an array (D, H, W).
        spacing_mm: Of an array, (z, y, x); it lies on canonical axes.

    Raises:
        InputError: not one 3-D volume of real numbers, or one that is not acceptable.
        UsageError: of another type, or an array without a spacing.
    """
    if isinstance(image, str | PathLike):
        return read_image(Path(image))
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or 0 in image.shape:
            raise InputError(f"{name}: an array of shape {image.shape}. Expected (D, H, W).")
        try:
            z, y, x = map(float, spacing_mm or ())
            geometry = Geometry((image.shape[0], image.shape[1], image.shape[2]), (z, y, x))
        except (TypeError, ValueError) as error:
            raise UsageError(f"{name}: an array needs spacing_mm, three numbers above 0 (z, y, x).") from error
        return image_of(name, image, geometry)
    import SimpleITK as sitk

    if not isinstance(image, sitk.Image):
        raise UsageError(f"{name}: {type(image).__name__}. Expected a path, a SimpleITK image or an array.")
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"{name}: not one 3-D image of single values.")
    size, spacing = image.GetSize()[::-1], image.GetSpacing()[::-1]
    geometry = Geometry(size, spacing, image.GetOrigin(), image.GetDirection())
    return image_of(name, sitk.GetArrayFromImage(image), geometry)
