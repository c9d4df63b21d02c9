"""Write label maps and maps on the grid of an input, whole or not at all, the same bytes for the same content."""

from __future__ import annotations

import gzip
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.errors import UsageError
from a2fseg_cli.files import atomic_write_bytes
from a2fseg_cli.imaging.formats.contract import format_for
from a2fseg_cli.imaging.formats.suffixes import GZIPPED, WRITABLE
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.marking import marked
from a2fseg_cli.imaging.segments import SLICER_SUFFIX, Segment, with_slicer_fields

_COMPRESSION_LEVEL = 5


def check_output_name(path: Path, *others: str) -> str:
    """Return the image extension of a file to be written, lower case.

    Args:
        path: Its name.
        others: Endings that another writer takes.

    Raises:
        UsageError: it is none that can be written, or `path` is a folder.
    """
    if os.path.isdir(path):  # Path.is_dir raises for a name that is too long
        raise UsageError(f"{path}: a folder. Expected the name of a file to write.")
    if extensions := [extension for extension in (*WRITABLE, *others) if path.name.lower().endswith(extension)]:
        return max(extensions, key=len)
    raise UsageError(
        f"{path}: cannot write this type of file. Choose a name that ends in {', '.join((*WRITABLE, *others))}."
    )


def write_label_map(
    array: npt.NDArray[np.uint8],
    reference_path: Path | None,
    geometry: Geometry,
    path: Path,
    segments: Sequence[Segment] = (),
) -> None:
    """Write labels (D, H, W) on the grid of the image `reference_path`, if there is one; its geometry is `geometry`.

    From NIfTI to NIfTI the reference's sform, qform, codes, voxel sizes and units are taken over as they are
    stored. Nothing else of the reference's header is: no description, no names, no extensions. The file says which
    tool wrote it (`marking`). A name that ends in `.seg.nrrd` gets names, codes and colours of `segments` for
    3D Slicer.

    Raises:
        UsageError: no image extension, or a folder.
        ResourceError: the disk is full or the place cannot be written; nothing is left behind.
    """
    _write(np.ascontiguousarray(array, np.uint8), reference_path, geometry, path, segments, mark=True)


def write_map(array: npt.NDArray[np.float32], reference_path: Path | None, geometry: Geometry, path: Path) -> None:
    """Write real numbers (D, H, W), for example probabilities, as `write_label_map` writes labels."""
    _write(np.ascontiguousarray(array, np.float32), reference_path, geometry, path)


def write_image(array: npt.NDArray[np.int16], geometry: Geometry, path: Path) -> None:
    """Write an image of whole numbers (D, H, W) that has no reference. Raises: as `write_label_map`."""
    _write(np.ascontiguousarray(array, np.int16), None, geometry, path)


def _write(
    array: npt.NDArray[Any],
    reference_path: Path | None,
    geometry: Geometry,
    path: Path,
    segments: Sequence[Segment] = (),
    *,
    mark: bool = False,
) -> None:
    if array.shape != geometry.size:
        raise ValueError(f"array {array.shape} and geometry {geometry.size} differ in size")
    extension = check_output_name(path)
    data = format_for(path).encode(array, geometry, reference_path, path)
    if extension == SLICER_SUFFIX and segments:
        data = with_slicer_fields(data, segments, geometry.size)
    if mark:
        data = marked(data, extension)
    if extension in GZIPPED:
        data = gzip.compress(data, _COMPRESSION_LEVEL, mtime=0)
    atomic_write_bytes(path, data)
