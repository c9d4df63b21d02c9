"""NRRD, in one file (.nrrd) or with its voxels beside it (.nhdr).

Field names after the format's definition (teem.sourceforge.net/nrrd/format.html).
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import numpy.typing as npt

from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.formats.header import Header
from a2fseg_cli.imaging.formats.itk import (
    COUNTS,
    LONGEST_HEADER,
    NUMBER,
    NUMBERS,
    Stored,
    checked_fields,
    read_grid,
    second_file,
)
from a2fseg_cli.imaging.formats.streams import read_start
from a2fseg_cli.imaging.formats.streams import read_voxels as read_voxels
from a2fseg_cli.imaging.geometry import Geometry

_ALIASES = {"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip", "axismins": "axis mins",
            "axismaxs": "axis maxs", "centerings": "centers"}  # fmt: skip
_VECTOR = rf"\(\s*{NUMBER}(?:\s*,\s*{NUMBER}){{0,15}}\s*\)"
_WORDS = r"[A-Za-z0-9?-]{1,30}(?:\s+[A-Za-z0-9?-]{1,30}){0,15}"
_GRID = {
    "type": r"[a-z0-9_ ]{1,30}",
    "dimension": r"\d{1,2}",
    "space": r"[A-Za-z-]{1,40}",
    "space dimension": r"\d{1,2}",
    "sizes": COUNTS,
    "spacings": NUMBERS,
    "axis mins": NUMBERS,
    "axis maxs": NUMBERS,
    "centers": _WORDS,
    "kinds": _WORDS,
    "space directions": rf"(?:none|{_VECTOR})(?:\s+(?:none|{_VECTOR})){{0,15}}",
    "space origin": _VECTOR,
    "endian": "little|big",
    "encoding": "raw|gz|gzip",
}
# ITK reads these as if they were LPS.
_MISREAD_SPACES = ("right-anterior-superior-time", "rast", "left-anterior-superior-time", "last")
_TYPES = {"u1": "uint8", "i2": "int16", "f4": "float"}
_COMPRESSION_LEVEL = 5


def sniff(start: bytes) -> bool:
    """Tell whether a file starts with the format's name and version."""
    return re.match(rb"NRRD000[1-5]\r?\n", start) is not None


def read_header(path: Path) -> Header:
    """Return the checked header. Raises: InputError: as `itk.read_grid`, or voxels stored in a way that is not read."""
    fields, offset = _fields(path)
    if any(fields.get(name, "0") != "0" for name in ("line skip", "byte skip")):
        raise InputError(f"{path}: voxels that do not follow the header (skip). Convert the file to .nii.gz.")
    if fields.get("space", "").lower() in _MISREAD_SPACES:
        raise InputError(f"{path}: axes of the space {fields['space']}, which is not read. Convert it to .nii.gz.")
    words = {name: fields[name].lower() for name in ("encoding", "endian") if name in fields}
    grid = checked_fields(path, {"encoding": ""} | fields | words, _GRID)
    axes = len(grid.get("sizes", "").split())
    per_axis = [
        grid[name].split() for name in ("spacings", "axis mins", "axis maxs", "centers", "kinds") if name in grid
    ]
    if grid.get("dimension") != str(axes) or any(len(words) != axes for words in per_axis):
        raise InputError(f"{path}: damaged header, lists of another length than dimension. Convert the file again.")
    file, offset = (second_file(path, fields["data file"]), 0) if "data file" in fields else (path, offset)
    stored = Stored(file, offset, grid["encoding"] != "raw", grid.get("endian") == "big")
    lines = [f"{name}: {value}" for name, value in grid.items()]
    header = read_grid(path, "NrrdImageIO", "\n".join(["NRRD0005", *lines, "", ""]), stored)
    if header.voxel_type.itemsize > 1 and "endian" not in grid:
        raise InputError(f"{path}: the header does not say the order of bytes (endian). Convert the file again.")
    return header


def encode(array: npt.NDArray[Any], geometry: Geometry, reference: Path | None, path: Path) -> bytes:
    """Return the file of an array (D, H, W); nothing of the reference.

    Written here, since ITK writes to a path only, where a full disk leaves half a file.
    """
    rows = zip(geometry.direction_matrix.T.tolist(), geometry.spacing_mm[::-1], strict=True)
    lines = [
        "NRRD0004",
        f"type: {_TYPES[array.dtype.str[1:]]}",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: " + " ".join(map(str, array.shape[::-1])),
        "space directions: " + " ".join(_vector(axis_mm) for axis_mm in ([n * mm for n in axis] for axis, mm in rows)),
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(geometry.origin_mm)}",
    ]
    voxels = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return ("\n".join(lines) + "\n\n").encode() + gzip.compress(voxels, _COMPRESSION_LEVEL, mtime=0)


def _vector(values: Any) -> str:
    return f"({','.join(map(str, values))})"


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the header's `field: value` lines and the byte after the empty line that ends it, or the file's end."""
    start = read_start(path, LONGEST_HEADER)
    end = re.search(rb"\r?\n\r?\n", start)
    if not sniff(start) or (end is None and len(start) == LONGEST_HEADER):
        raise InputError(f"{path}: no NRRD file, or a damaged one. Convert it again.")
    _, *lines = start[: end.start() if end else len(start)].decode("latin-1").splitlines()
    pairs = [line.partition(": ") for line in lines if not line.startswith("#") and ":=" not in line]
    fields = {_ALIASES.get(name.strip().lower(), name.strip().lower()): value.strip() for name, _, value in pairs}
    if len(fields) < len(pairs):
        raise InputError(f"{path}: damaged header, a field stands in it twice. Convert it again.")
    return fields, end.end() if end else len(start)
