"""Headers of text (.nrrd, .nhdr, .mha, .mhd): the grid by ITK, the voxels by `streams`.

ITK is given a copy of the lines that describe the grid, each in the form that the format has for it. Given the file
itself, its parsers write past their buffers (NRRD, a long line) or end the process (MetaImage, some damaged headers,
and file names that are no text); its readers take voxels that failed to unpack for good ones, with a line on stderr,
and allocate what a damaged header promises.
"""

# SimpleITK has no type hints.
# mypy: allow-untyped-calls

from __future__ import annotations

import math
import os
import re
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from a2fseg_cli.errors import InputError, ResourceError
from a2fseg_cli.imaging.formats.header import Header
from a2fseg_cli.imaging.formats.limits import check_capacity, check_volume_size
from a2fseg_cli.imaging.geometry import Geometry, right_angled, shear_warning

LONGEST_HEADER = 2**16
# The most axes that NRRD knows; a header may claim thousands.
_AXES = 16
# ITK reads numbers into fixed buffers; sixteen axes of sixteen numbers each are none that a file has.
_LONGEST_VALUE = 1024
NUMBER = r"(?:[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[Nn]a[Nn])"
NUMBERS = rf"{NUMBER}(?:\s+{NUMBER}){{0,255}}"
COUNTS = rf"[1-9]\d{{0,8}}(?:\s+[1-9]\d{{0,8}}){{0,{_AXES - 1}}}"
# NRRD's parser keeps its errors in one list of the process: of three runs over 3,000 damaged headers in eight threads,
# two ended in a crash.
_ONE_AT_A_TIME = threading.Lock()
_PIXELS = {"float": "f", "signed": "i", "unsigned": "u"}


@dataclass(frozen=True)
class Stored:
    """Where and how the voxels behind a text header lie."""

    file: Path
    offset: int
    packed: bool
    big_endian: bool


def checked_fields(path: Path, fields: Mapping[str, str], patterns: Mapping[str, str]) -> dict[str, str]:
    """Return the fields that have a pattern, in its order. Raises: InputError: a value that does not fit it."""
    for name, value in fields.items():
        if name in patterns and (len(value) > _LONGEST_VALUE or not re.fullmatch(patterns[name], value, re.ASCII)):
            text = f"{name} {value[:40]!r}"
            raise InputError(f"{path}: {text} in its header is damaged or cannot be read. Copy or convert it again.")
    return {name: fields[name] for name in patterns if name in fields}


def second_file(path: Path, name: str) -> Path:
    """Return the file beside `path` that a header names. Raises: InputError: anything but a file there."""
    beside = os.path.join(path.parent, name)
    # No other folder, no list of files, no numbered files; Path.is_file raises for a name that is too long.
    if not re.fullmatch(r"[^/\\%\0]+", name) or name.upper().startswith("LIST") or not os.path.isfile(beside):
        raise InputError(f"{path}: its voxels lie in another file ({name[:40]}), and none of that name is beside it.")
    return Path(beside)


@np.errstate(all="ignore")  # of numbers in a damaged header, which are refused
def read_grid(path: Path, reader_name: str, lines: str, stored: Stored) -> Header:
    """Return the header of a file whose grid these lines describe.

    Raises:
        InputError: ITK does not understand them, or it is no image of one number a voxel, or more than the file holds.
    """
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    try:
        with tempfile.NamedTemporaryFile(suffix=path.suffix.lower()) as copy, _ONE_AT_A_TIME:
            copy.write(lines.encode("ascii"))
            copy.flush()
            reader.SetImageIO(reader_name)
            reader.SetFileName(copy.name)
            reader.ReadImageInformation()
    except OSError as error:
        raise ResourceError(f"{path}: its header cannot be copied to be read ({error.strerror or error}).") from error
    except RuntimeError as error:
        raise InputError(
            f"{path}: damaged header, or one that cannot be read. Copy or convert the file again."
        ) from error
    counts, dimensions = reader.GetSize(), reader.GetDimension()
    pixel = re.fullmatch(
        r"(?:vector of )?(\d+)-bit (float|signed|unsigned).*", sitk.GetPixelIDValueAsString(reader.GetPixelIDValue())
    )
    if reader.GetNumberOfComponents() > 1:
        raise InputError(
            f"{path}: a vector image ({reader.GetNumberOfComponents()} numbers a voxel). Expected one number."
        )
    if dimensions < 3:
        raise InputError(f"{path}: {dimensions}-D. Expected a 3-D volume.")
    if pixel is None:
        raise InputError(f"{path}: voxels of a type that cannot be read. Convert the file to .nii.gz.")
    voxel_type = np.dtype(f"{'>' if stored.big_endian else '<'}{_PIXELS[pixel[2]]}{int(pixel[1]) // 8}")
    width, height, depth = counts[:3]
    size = check_volume_size(path, (depth, height, width))
    direction = np.asarray(reader.GetDirection()).reshape(dimensions, dimensions)[:3, :3]
    spacing = np.asarray(reader.GetSpacing())[:3]
    try:
        spacing_mm, direction_, shear = right_angled(direction * spacing, spacing)
        x, y, z = (float(value) + 0.0 for value in reader.GetOrigin()[:3])
        geometry = Geometry(size, spacing_mm, (x, y, z), direction_)
    except ValueError as error:
        raise InputError(f"{path}: damaged header, spacing or direction is not usable.") from error
    header = Header(
        geometry, math.prod(counts[3:]), voxel_type, stored.file, stored.offset, shear_warning(path.name, shear),
        text=True, packed=stored.packed,
    )  # fmt: skip
    check_capacity(stored.file, header.voxel_bytes, compressed=stored.packed)
    return header
