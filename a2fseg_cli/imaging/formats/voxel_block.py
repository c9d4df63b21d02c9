"""Voxels that lie in a file in one block, raw or compressed, behind a header of text (.nrrd, .mha)."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.geometry import Geometry


@dataclass(frozen=True)
class VoxelBlock:
    """The grid, how its voxels are stored from byte `offset` to the end of the file, and what a user should know."""

    geometry: Geometry
    voxel_type: np.dtype[Any]
    offset: int
    compressed: bool
    warnings: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Bytes that the voxels need, uncompressed."""
        return math.prod(self.geometry.size) * self.voxel_type.itemsize


def read_block(path: Path, block: VoxelBlock) -> npt.NDArray[Any]:
    """Return the voxels (D, H, W) in the file's type.

    Raises:
        InputError: the file ends early or its compressed data are damaged.
    """
    with path.open("rb") as file:
        file.seek(block.offset)
        data = file.read() if block.compressed else file.read(block.bytes)
    if block.compressed:
        unpacker = zlib.decompressobj(wbits=47)  # zlib or gzip, by content; the checksums of both are compared
        try:
            data = unpacker.decompress(data, block.bytes + 1)
        except zlib.error as error:
            raise InputError(f"{path}: damaged compressed data. Copy or convert the file again.") from error
    if len(data) != block.bytes or (block.compressed and not unpacker.eof):
        raise InputError(f"{path}: truncated or damaged voxels, expected {block.bytes} bytes. Copy it again.")
    return np.frombuffer(data, block.voxel_type).reshape(block.geometry.size)
