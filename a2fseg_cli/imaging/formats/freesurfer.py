"""FreeSurfer's MGH, plain or gzip (.mgz), by nibabel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.formats.header import Header
from a2fseg_cli.imaging.formats.limits import check_capacity, check_volume_size
from a2fseg_cli.imaging.formats.streams import is_gzip, read_start
from a2fseg_cli.imaging.formats.streams import read_voxels as read_voxels
from a2fseg_cli.imaging.geometry import Geometry, right_angled, shear_warning

# The first number is the format's version.
_VERSION = (1).to_bytes(4, "big")
_HEADER_BYTES = 284
_TO_RAS = np.array([[-1.0], [-1.0], [1.0], [1.0]])


def sniff(start: bytes) -> bool:
    """Tell whether a file starts with the version, an axis of a plausible length behind it."""
    return start.startswith(_VERSION) and 0 < int.from_bytes(start[4:8], "big") < 2**16


@np.errstate(all="ignore")  # of numbers in a damaged header, which are refused
def read_header(path: Path) -> Header:
    """Return the checked header.

    Raises:
        InputError: no MGH, no image of one number a voxel, more voxels than the file can hold, or an unusable grid.
    """
    from nibabel.freesurfer.mghformat import MGHHeader
    from nibabel.spatialimages import HeaderDataError

    start = read_start(path, _HEADER_BYTES)
    if not sniff(start) or len(start) < _HEADER_BYTES:
        raise InputError(f"{path}: no MGH file, or a damaged one. Copy or convert the file again.")
    fields = MGHHeader(start, check=False)
    width, height, depth, volumes = (int(n) for n in fields["dims"])
    if min(width, height, depth, volumes) < 1:
        raise InputError(f"{path}: damaged header, a dimension below 1. Copy or convert the file again.")
    size = check_volume_size(path, (depth, height, width))
    try:
        voxel_type = np.dtype(fields.get_data_dtype())
        affine = np.asarray(fields.get_affine(), np.float64) * _TO_RAS
        spacing_mm, direction, shear = right_angled(affine[:3, :3], np.abs(np.asarray(fields["delta"], np.float64)))
        x, y, z = (float(value) + 0.0 for value in affine[:3, 3])
        geometry = Geometry(size, spacing_mm, (x, y, z), direction)
    except (HeaderDataError, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: damaged header, its type of voxels or its grid is not usable. Convert it again."
        ) from error
    header = Header(geometry, volumes, voxel_type, path, _HEADER_BYTES, shear_warning(path.name, shear))
    check_capacity(path, header.offset + header.voxel_bytes, compressed=is_gzip(path))
    return header


def encode(array: npt.NDArray[Any], geometry: Geometry, reference: Path | None, path: Path) -> bytes:
    """Return the file of an array (D, H, W); nothing of the reference."""
    from nibabel.freesurfer.mghformat import MGHImage

    affine = np.eye(4)
    affine[:3, :3] = geometry.direction_matrix * geometry.spacing_mm[::-1]
    affine[:3, 3] = geometry.origin_mm
    return MGHImage(array.T, affine * _TO_RAS).to_bytes()
