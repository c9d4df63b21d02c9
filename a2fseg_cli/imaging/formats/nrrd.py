"""NRRD (.nrrd) in one file, raw or gzip: the header.

Read here and not by ITK, whose parser of this format writes past its buffers when a damaged header has a long line,
and takes voxels with a wrong checksum for good ones. Field names after the format's definition
(teem.sourceforge.net/nrrd/format.html).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.formats.limits import MAX_DIMENSIONS, check_capacity, check_volume_size
from a2fseg_cli.imaging.formats.voxel_block import VoxelBlock
from a2fseg_cli.imaging.geometry import Geometry, right_angled, shear_warning

# The names that the definition has for each type of voxel.
_SCALAR_TYPES = {
    name: code
    for code, names in {
        "i1": ("signed char", "int8", "int8_t"),
        "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
        "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
        "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
        "i4": ("int", "signed int", "int32", "int32_t"),
        "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
        "i8": (
            "longlong",
            "long long",
            "long long int",
            "signed long long",
            "signed long long int",
            "int64",
            "int64_t",
        ),
        "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
        "f4": ("float",),
        "f8": ("double",),
    }.items()
    for name in names
}
_ALIASES = {"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip", "axismins": "axis mins",
            "axismaxs": "axis maxs", "centerings": "centers", "samplespacing": "spacings"}  # fmt: skip
_COMPRESSED = {"raw": False, "gz": True, "gzip": True}
# What turns the axes of a space into those of LPS; spaces that are not the patient's stay as they are, as in ITK.
_TO_LPS = {
    name: flips
    for names, flips in (
        (("right-anterior-superior", "ras", "right-anterior-superior-time", "rast"), (-1, -1, 1)),
        (("left-anterior-superior", "las", "left-anterior-superior-time", "last"), (1, -1, 1)),
    )
    for name in names
}
_LONGEST_HEADER = 2**16


def read_header(path: Path) -> VoxelBlock:
    """Return where the voxels lie, from the checked header of a .nrrd file.

    Raises:
        InputError: no NRRD in one file, not a volume of one number a voxel, or damaged.
    """
    fields, data_offset = _fields(path)
    if "data file" in fields:
        raise InputError(f"{path}: its voxels lie in another file. Convert it to one .nrrd or .nii.gz file.")
    encoding, endian = fields.get("encoding", "").lower(), fields.get("endian", "").lower()
    skips = any(fields.get(name, "0") != "0" for name in ("line skip", "byte skip"))
    if (
        encoding not in _COMPRESSED
        or fields.get("type") not in _SCALAR_TYPES
        or (endian not in ("little", "big") and not _SCALAR_TYPES[fields["type"]].endswith("1"))
        or skips
    ):
        raise InputError(f"{path}: voxels of a type or encoding that cannot be read. Convert it to .nii.gz.")
    voxel_type = np.dtype(_SCALAR_TYPES[fields["type"]]).newbyteorder(">" if endian == "big" else "<")
    geometry, warnings = _geometry(path, fields)
    block = VoxelBlock(geometry, voxel_type, data_offset, _COMPRESSED[encoding], warnings)
    check_capacity(path, block.bytes, compressed=block.compressed)
    return block


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the header's `field: value` lines and the byte after the empty line that ends it."""
    with path.open("rb") as file:
        start = file.read(_LONGEST_HEADER)
    end = re.search(rb"\r?\n\r?\n", start)
    magic, *lines = start[: end.start()].decode("latin-1").splitlines() if end else [""]
    if end is None or not re.fullmatch(r"NRRD000[1-5]", magic):
        raise InputError(f"{path}: no .nrrd file in one piece, or a damaged one. Convert it again.")
    pairs = [line.partition(": ") for line in lines if not line.startswith("#") and ":=" not in line]
    fields = {_ALIASES.get(name.strip().lower(), name.strip().lower()): value.strip() for name, _, value in pairs}
    if len(fields) < len(pairs):
        raise InputError(f"{path}: damaged .nrrd header, a field stands in it twice. Convert it again.")
    return fields, end.end()


def _geometry(path: Path, fields: Mapping[str, str]) -> tuple[Geometry, tuple[str, ...]]:
    try:
        counts = [int(word) for word in fields["sizes"].split()]
        if len(counts) != int(fields["dimension"]) or min(counts) < 1 or len(counts) > MAX_DIMENSIONS:
            raise ValueError("sizes and dimension differ")
        axes = _axes(fields, len(counts))
        if not axes:
            raise ValueError("no axis in space")
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: damaged .nrrd header. Copy or convert the file again.") from error
    spatial, others = list(axes)[:3], [axis for axis in range(len(counts)) if axis not in list(axes)[:3]]
    if (number := math.prod(counts[axis] for axis in others)) > 1:
        if others[0] < spatial[0]:
            raise InputError(f"{path}: a vector image ({number} numbers a voxel). Expected one number.")
        raise InputError(f"{path}: 4-D, {number} volumes. Split it and give the volume of one modality.")
    if len(spatial) < 3:
        raise InputError(f"{path}: {len(spatial)}-D. Expected a 3-D volume.")
    width, height, depth = (counts[axis] for axis in spatial)
    size = check_volume_size(path, (depth, height, width))
    try:
        vectors = np.array([axes[axis][:3] for axis in spatial])
        flips = np.array(_TO_LPS.get(fields.get("space", "").lower(), (1, 1, 1)))
        x, y, z = (float(value) + 0.0 for value in _origin(fields, vectors) * flips)
        # An axis is a row of the file's, and a column of the direction.
        spacing_mm, direction, shear = right_angled((vectors * flips).T)
        return Geometry(size, spacing_mm, (x, y, z), direction), shear_warning(path.name, shear)
    except ValueError as error:
        raise InputError(f"{path}: damaged .nrrd header, spacing or direction is not usable.") from error


def _axes(fields: Mapping[str, str], dimension: int) -> dict[int, npt.NDArray[np.float64]]:
    """Return the step (mm) along each axis that lies in space. Raises: ValueError."""
    if "space directions" in fields:
        words = re.findall(r"none|\([^()]*\)", fields["space directions"])
        if len(words) != dimension:
            raise ValueError("space directions and dimension differ")
        return {axis: _vector(word) for axis, word in enumerate(words) if word != "none"}
    steps = [float(word) for word in fields.get("spacings", "1 " * dimension).split()]
    kinds = fields.get("kinds", "domain " * dimension).split()
    if len(steps) != dimension or len(kinds) != dimension:
        raise ValueError("spacings or kinds and dimension differ")
    inside = [axis for axis, kind in enumerate(kinds) if kind.lower() in ("domain", "space", "???", "none")]
    units = np.eye(max(3, len(inside)))
    return {axis: units[place] * (1 if math.isnan(steps[axis]) else steps[axis]) for place, axis in enumerate(inside)}


def _vector(word: str) -> npt.NDArray[np.float64]:
    return np.array([float(number) for number in word.strip("()").split(",")])


def _origin(fields: Mapping[str, str], vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the centre of the first voxel, in the file's space. Raises: ValueError."""
    if "space origin" in fields:
        origin = _vector(fields["space origin"])
        if len(origin) < 3:
            raise ValueError("the origin has fewer than three numbers")
        return origin[:3]
    if "axis mins" not in fields or "space directions" in fields:
        return np.zeros(3)
    mins = np.array([float(word) for word in fields["axis mins"].split()[-3:]])
    centred = fields.get("centers", "cell").split()[-1].lower() != "node"
    return mins + 0.5 * np.diag(vectors) if centred else mins
