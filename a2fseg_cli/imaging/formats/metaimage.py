"""MetaImage (.mha): the header.

Read here and not by ITK, whose parser of this format writes to stderr, takes voxels that failed to decompress
for good ones, and ends the process on some damaged headers. Field names after the MetaIO documentation.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.formats.limits import MAX_DIMENSIONS, check_capacity, check_volume_size
from a2fseg_cli.imaging.formats.voxel_block import VoxelBlock
from a2fseg_cli.imaging.geometry import Geometry, right_angled, shear_warning

_SCALAR_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_LONGEST_HEADER = 2**16


def read_header(path: Path) -> VoxelBlock:
    """Return where the voxels lie, from the checked header of a .mha file.

    Raises:
        InputError: no MetaImage in one file, not a volume of one number a voxel, or damaged.
    """
    fields, data_offset = _fields(path)
    if fields["ElementDataFile"].upper() != "LOCAL":
        raise InputError(f"{path}: its voxels lie in another file. Convert it to one .mha or .nii.gz file.")
    if fields.get("ElementNumberOfChannels", "1") != "1" or fields.get("ElementType", "").endswith("_ARRAY"):
        raise InputError(f"{path}: a vector image. Expected one number a voxel.")
    if fields.get("ElementType") not in _SCALAR_TYPES or not _is_true(fields, "BinaryData", "True"):
        raise InputError(f"{path}: voxels of a type, or written as text, that cannot be read. Convert the file.")
    if fields.get("HeaderSize", "0") != "0":
        raise InputError(f"{path}: its voxels do not follow the header (HeaderSize). Convert it to .nii.gz.")
    big_endian = _is_true(fields, "BinaryDataByteOrderMSB") or _is_true(fields, "ElementByteOrderMSB")
    voxel_type = np.dtype(_SCALAR_TYPES[fields["ElementType"]]).newbyteorder(">" if big_endian else "<")
    geometry, warnings = _geometry(path, fields)
    block = VoxelBlock(geometry, voxel_type, data_offset, _is_true(fields, "CompressedData"), warnings)
    check_capacity(path, block.bytes, compressed=block.compressed)
    return block


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the header's `key = value` lines and the byte after the last, `ElementDataFile`."""
    with path.open("rb") as file:
        start = file.read(_LONGEST_HEADER)
    fields: dict[str, str] = {}
    position = 0
    while (end := start.find(b"\n", position)) >= 0:
        key, equals, value = start[position:end].decode("latin-1").partition("=")
        if not equals:
            break
        position = end + 1
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            return fields, position
    raise InputError(f"{path}: no .mha file, or a damaged one. Convert it again.")


def _is_true(fields: dict[str, str], key: str, default: str = "False") -> bool:
    return fields.get(key, default)[:1] in ("T", "t", "1")  # as MetaIO


def _geometry(path: Path, fields: dict[str, str]) -> tuple[Geometry, tuple[str, ...]]:
    try:
        counts = [int(word) for word in fields["DimSize"].split()]
        dimensions = len(counts)
        if dimensions != int(fields["NDims"]) or min(counts) < 1 or dimensions > MAX_DIMENSIONS:
            raise ValueError("DimSize and NDims differ")
        spacing = _numbers(fields, ("ElementSpacing", "ElementSize"), np.ones(dimensions))
        origin = _numbers(fields, ("Offset", "Position", "Origin"), np.zeros(dimensions))
        axes = _numbers(fields, ("TransformMatrix", "Rotation", "Orientation"), np.eye(dimensions))
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: damaged .mha header. Copy or convert the file again.") from error
    if math.prod(counts[3:]) > 1:
        raise InputError(f"{path}: 4-D, {math.prod(counts[3:])} volumes. Split it and give the volume of one modality.")
    if dimensions < 3:
        raise InputError(f"{path}: {dimensions}-D. Expected a 3-D volume.")
    width, height, depth = counts[:3]
    size = check_volume_size(path, (depth, height, width))
    steps = axes.reshape(dimensions, dimensions)[:3, :3].T * spacing[:3]  # its rows are the file axes
    try:
        spacing_mm, direction, shear = right_angled(steps, spacing[:3])
        x, y, z = (float(value) for value in origin[:3])
        return Geometry(size, spacing_mm, (x, y, z), direction), shear_warning(path.name, shear)
    except ValueError as error:
        raise InputError(f"{path}: damaged .mha header, spacing or direction is not usable.") from error


def _numbers(
    fields: dict[str, str], keys: tuple[str, ...], default: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the numbers of the first key that is there. Raises: ValueError for another count than the default's."""
    words = next((fields[key].split() for key in keys if key in fields), None)
    values = default.ravel() if words is None else np.array([float(word) for word in words])
    if values.size != default.size:
        raise ValueError(f"expected {default.size} numbers for {keys[0]}")
    return values
