"""MetaImage, in one file (.mha) or with its voxels beside it (.mhd). Field names after the MetaIO documentation."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import numpy.typing as npt

from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.formats.header import Header
from a2fseg_cli.imaging.formats.itk import (
    COUNTS,
    LONGEST_HEADER,
    NUMBERS,
    Stored,
    checked_fields,
    read_grid,
    second_file,
)
from a2fseg_cli.imaging.formats.streams import read_start
from a2fseg_cli.imaging.formats.streams import read_voxels as read_voxels
from a2fseg_cli.imaging.geometry import Geometry

_GRID = {
    "NDims": r"\d{1,2}",
    "DimSize": COUNTS,
    **dict.fromkeys(("ElementSpacing", "ElementSize", "Offset", "Position", "Origin"), NUMBERS),
    **dict.fromkeys(("TransformMatrix", "Rotation", "Orientation"), NUMBERS),
    "ElementNumberOfChannels": r"\d{1,4}",
    "ElementType": r"MET_[A-Z_]{1,30}",
}
_TYPES = {"u1": "MET_UCHAR", "i2": "MET_SHORT", "f4": "MET_FLOAT"}
_COMPRESSION_LEVEL = 5


def sniff(start: bytes) -> bool:
    """Tell whether a file starts with a field of this format."""
    return re.match(rb"\s*(ObjectType|NDims|Comment|BinaryData|DimSize)\s*=", start) is not None


def read_header(path: Path) -> Header:
    """Return the checked header. Raises: InputError: as `itk.read_grid`, or voxels stored in a way that is not read."""
    fields, offset = _fields(path)
    if not _is_true(fields, "BinaryData", "True") or fields.get("HeaderSize", "0") != "0":
        raise InputError(f"{path}: voxels written as text, or not behind the header (HeaderSize). Convert the file.")
    grid = checked_fields(path, fields, _GRID)
    name, axes = fields["ElementDataFile"], len(grid.get("DimSize", "").split())
    expected = {"ElementSpacing": axes, "ElementSize": axes, "Offset": axes, "Position": axes, "Origin": axes}
    expected |= dict.fromkeys(("TransformMatrix", "Rotation", "Orientation"), axes**2)
    # MetaIO takes what it finds behind a list that is too short, and prints when a field is missing.
    if (
        "ElementType" not in grid
        or grid.get("NDims") != str(axes)
        or any(len(grid[key].split()) != expected[key] for key in expected & grid.keys())
    ):
        raise InputError(
            f"{path}: damaged header, a field is missing or no list of NDims numbers. Copy or convert it again."
        )
    file, offset = (path, offset) if name.upper() == "LOCAL" else (second_file(path, name), 0)
    big_endian = _is_true(fields, "BinaryDataByteOrderMSB") or _is_true(fields, "ElementByteOrderMSB")
    stored = Stored(file, offset, _is_true(fields, "CompressedData"), big_endian)
    lines = [f"{key} = {value}" for key, value in grid.items()]
    return read_grid(
        path, "MetaImageIO", "\n".join(["ObjectType = Image", *lines, "ElementDataFile = LOCAL", ""]), stored
    )


def encode(array: npt.NDArray[Any], geometry: Geometry, reference: Path | None, path: Path) -> bytes:
    """Return the file of an array (D, H, W); nothing of the reference.

    Written here, since ITK writes to a path only, where a full disk leaves half a file.
    """
    voxels = zlib.compress(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(), _COMPRESSION_LEVEL)
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {len(voxels)}",
        f"TransformMatrix = {_joined(geometry.direction_matrix.T.ravel().tolist())}",
        f"Offset = {_joined(geometry.origin_mm)}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {_joined(geometry.spacing_mm[::-1])}",
        f"DimSize = {_joined(array.shape[::-1])}",
        f"ElementType = {_TYPES[array.dtype.str[1:]]}",
        "ElementDataFile = LOCAL",
    ]
    return ("\n".join(lines) + "\n").encode() + voxels


def _joined(values: Any) -> str:
    return " ".join(map(str, values))


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the header's `key = value` lines and the byte after the last, `ElementDataFile`."""
    start = read_start(path, LONGEST_HEADER)
    fields: dict[str, str] = {}
    position = 0
    while sniff(start) and (end := start.find(b"\n", position)) >= 0:
        key, equals, value = start[position:end].decode("latin-1").partition("=")
        if not equals:
            break
        position = end + 1
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            return fields, position
    raise InputError(f"{path}: no MetaImage file, or a damaged one. Convert it again.")


def _is_true(fields: dict[str, str], key: str, default: str = "False") -> bool:
    return fields.get(key, default)[:1] in ("T", "t", "1")  # as MetaIO
