"""What an image file may claim before memory is set aside for it."""

from __future__ import annotations

import math
from pathlib import Path

from a2fseg_cli.errors import InputError

# 1024 x 1024 x 1024: above every MRI of a head, below what a few bytes of gzip may make a machine allocate.
MAX_VOXELS = 2**30
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
