"""What an image file may claim before memory is set aside for it."""

from __future__ import annotations

import math
from pathlib import Path

from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.geometry import Geometry

# 1024 x 1024 x 1024: above every MRI of a head, below what a few bytes of gzip may make a machine allocate.
MAX_VOXELS = 2**30
# NRRD's own limit; a header may claim thousands.
MAX_DIMENSIONS = 16
# A millimetre, and a cube of 58 cm.
MIN_EDGE_MM, MAX_EXTENT_MM3 = 1.0, 2e8
# One byte of deflate can stand for at most 1032 bytes (258 bytes in 2 bits).
_DEFLATE_LIMIT = 1032


def check_volume_size(path: Path, size: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return `size` (D, H, W) when it is a volume's.

    Raises:
        InputError: a single slice, or more than `MAX_VOXELS`.
    """
    text = " x ".join(map(str, size[::-1]))
    if min(size) < 2:
        raise InputError(f"{path}: 2-D, a single slice ({text}). Expected a 3-D volume.")
    if math.prod(size) > MAX_VOXELS:
        raise InputError(f"{path}: {text} voxels, more than a head has. Is the header damaged?")
    return size


def check_extent(path: Path, geometry: Geometry) -> Geometry:
    """Return the grid when a head, or a part of one, could fill it.

    The network's voxels are of its own spacing: of an image of 240 cubic metres there would be 240 thousand million.

    Raises:
        InputError: an edge below `MIN_EDGE_MM`, or all above `MAX_EXTENT_MM3`.
    """
    edges_mm = [count * mm for count, mm in zip(geometry.size, geometry.spacing_mm, strict=True)]
    if min(edges_mm) < MIN_EDGE_MM or math.prod(edges_mm) > MAX_EXTENT_MM3:
        size, spacing = (
            " x ".join(f"{value:g}" for value in values[::-1]) for values in (geometry.size, geometry.spacing_mm)
        )
        raise InputError(f"{path}: {size} voxels of {spacing} mm are no head. Correct the spacing in its header.")
    return geometry


def check_capacity(path: Path, promised_bytes: int, *, compressed: bool) -> None:
    """Accept a header that promises no more uncompressed bytes than the file can hold.

    Raises:
        InputError: it promises more.
    """
    held = path.stat().st_size
    if promised_bytes > held * (_DEFLATE_LIMIT if compressed else 1):
        raise InputError(
            f"{path}: truncated, or a damaged header: {promised_bytes} bytes promised, the file has {held}. "
            "Copy it again."
        )
