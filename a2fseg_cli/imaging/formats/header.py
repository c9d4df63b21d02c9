"""What is known of an image file before its voxels are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from a2fseg_cli.imaging.geometry import Geometry


@dataclass(frozen=True)
class Header:
    """What a file says before its voxels are read.

    Attributes:
        geometry: The grid of one volume.
        volumes: Volumes on that grid; 1 for a 3-D file.
        voxel_type: As they are stored.
        voxel_file: Where they lie, the file itself or a second one.
        offset: The byte at which they start; of the unpacked file where all of it is gzip.
        warnings: What a user should know.
        scale: Slope and intercept of the values; None where the stored numbers count.
        text: Whether the header is text, behind which the voxels alone may be packed.
        packed: Whether they are.
    """

    geometry: Geometry
    volumes: int
    voxel_type: np.dtype[Any]
    voxel_file: Path
    offset: int
    warnings: tuple[str, ...] = ()
    scale: tuple[float, float] | None = None
    text: bool = False
    packed: bool = False

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Volumes, D, H, W."""
        return (self.volumes, *self.geometry.size)

    @property
    def voxel_bytes(self) -> int:
        """Bytes that the voxels need, unpacked."""
        return math.prod(self.shape) * self.voxel_type.itemsize
