"""NIfTI-1 and NIfTI-2, in one file or as a pair (.hdr, .img), by nibabel.

What stands here and not in nibabel: the checks of a header before memory is set aside for it; units other than
millimetres, which nibabel leaves to its user; the place of a grid without a form, which is that of ITK and not around
the middle; a quaternion that is too long by rounding, which nibabel refuses; and the nearest right-angled grid.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.imaging.formats.header import Header
from a2fseg_cli.imaging.formats.limits import check_capacity, check_volume_size
from a2fseg_cli.imaging.formats.streams import is_gzip, read_start
from a2fseg_cli.imaging.formats.streams import read_voxels as read_voxels
from a2fseg_cli.imaging.geometry import Geometry, largest_corner_offset_mm, right_angled, same_grid, shear_warning

_NIFTI1_BYTES, _NIFTI2_BYTES = 348, 540
_MILLIMETRES_PER_UNIT = {1: 1000.0, 3: 0.001}
_DISAGREEMENT_TOLERANCE_MM = 0.01
# What lays a NIfTI grid in space. Everything else of a reference's header stays behind: descriptions, file names and
# extensions can name a patient.
_GRID_FIELDS = ("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x",
                "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z")  # fmt: skip
_SCANNER, _ALIGNED = 1, 2
_MILLIMETRES = 2
_DATA_OFFSET = 352
_LARGEST_NIFTI1_SIZE = 2**15 - 1
_TO_RAS = np.array([[-1.0], [-1.0], [1.0]])

# nibabel's types are loose around header fields.
NiftiHeader = Any


def sniff(start: bytes) -> bool:
    """Tell whether a file starts with the size of a NIfTI header."""
    return _layout(start) is not None


def read_header(path: Path) -> Header:
    """Return the checked header: sform before qform before voxel sizes.

    Raises:
        InputError: no NIfTI, no image of one number a voxel, more voxels than the file can hold, or an affine that is
            not invertible or not finite.
    """
    fields = _fields(path)
    size, volumes = _size(path, [int(n) for n in fields["dim"]])
    voxel_type = _voxel_type(path, fields)
    voxel_file = _voxel_file(path, fields)
    offset, least = float(fields["vox_offset"]), 0 if voxel_file != path else int(fields["sizeof_hdr"])
    if not (math.isfinite(offset) and least <= offset <= 2**31):
        raise InputError(f"{path}: damaged header, voxels start at byte {offset:g}. Copy or convert the file again.")
    geometry, warnings = _geometry(path, fields, size)
    header = Header(geometry, volumes, voxel_type, voxel_file, int(offset), warnings, _scale(fields))
    check_capacity(voxel_file, header.offset + header.voxel_bytes, compressed=is_gzip(voxel_file))
    return header


def encode(array: npt.NDArray[Any], geometry: Geometry, reference: Path | None, path: Path) -> bytes:
    """Return a NIfTI-1 file, with the grid fields of a NIfTI reference on that grid as they are stored there.

    Raises:
        UsageError: an axis is too long for NIfTI-1.
    """
    from nibabel.nifti1 import Nifti1Header

    if max(array.shape) > _LARGEST_NIFTI1_SIZE:
        raise UsageError(f"{path}: more than {_LARGEST_NIFTI1_SIZE} voxels along an axis. Write .nrrd or .mha instead.")
    fields = Nifti1Header(endianness="<")
    fields.set_data_dtype(array.dtype)
    fields.set_data_shape(array.shape[::-1])
    fields["regular"], fields["vox_offset"], fields["scl_slope"], fields["scl_inter"] = b"r", _DATA_OFFSET, 1, 0
    if not _take_grid(fields, reference, geometry):
        _set_grid(fields, geometry)
    little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return bytes(fields.binaryblock).ljust(_DATA_OFFSET, b"\0") + little_endian.tobytes()


def _layout(start: bytes) -> tuple[int, str] | None:
    """Return the header's size and byte order; None where its first number is no header's size."""
    for order in ("<", ">"):
        size = struct.unpack_from(f"{order}i", start)[0] if len(start) >= 4 else 0
        if size in (_NIFTI1_BYTES, _NIFTI2_BYTES):
            return size, order
    return None


def _fields(path: Path) -> NiftiHeader:
    """Return nibabel's header, unchecked. Raises: InputError: there is none."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    start = read_start(path, _NIFTI2_BYTES)
    if (layout := _layout(start)) is None:
        raise InputError(f"{path}: no NIfTI file, whatever its name says. Convert the image again.")
    size, order = layout
    if len(start) < size:
        raise InputError(f"{path}: the file ends within its header ({len(start)} bytes). Copy it again.")
    kind = Nifti1Header if size == _NIFTI1_BYTES else Nifti2Header
    fields: NiftiHeader = kind(start[:size], endianness=order, check=False)  # type: ignore[no-untyped-call]
    if bytes(fields["magic"])[:3] not in (b"n+1", b"n+2", b"ni1", b"ni2"):
        raise InputError(
            f"{path}: an Analyze header, which does not say where left is. Convert the scanner's data to .nii.gz again."
        )
    return fields


def _size(path: Path, dim: list[int]) -> tuple[tuple[int, int, int], int]:
    """Return the grid's size (D, H, W) and the number of volumes; a fourth axis of 0 is none, as in other tools."""
    if not 1 <= dim[0] <= 7 or min(dim[1 : min(dim[0], 3) + 1]) < 1 or min(dim[1 : dim[0] + 1]) < 0:
        raise InputError(f"{path}: damaged header, dimensions {dim}. Copy or convert the file again.")
    width, height, depth, volumes, *others = [max(n, 1) for n in dim[1 : dim[0] + 1]] + [1] * (7 - dim[0])
    if math.prod(others) > 1:
        raise InputError(f"{path}: a vector image ({math.prod(others)} numbers a voxel). Expected one number.")
    return check_volume_size(path, (depth, height, width)), volumes


def _voxel_type(path: Path, fields: NiftiHeader) -> np.dtype[Any]:
    from nibabel.nifti1 import data_type_codes

    code = int(fields["datatype"])
    try:
        voxel_type: np.dtype[Any] = fields.get_data_dtype()
    except KeyError as error:
        raise InputError(
            f"{path}: damaged header, unknown voxel type {code}. Copy or convert the file again."
        ) from error
    if voxel_type.kind not in "iuf":
        raise InputError(
            f"{path}: an image of the type {data_type_codes.label[code]}. Expected one real number a voxel."
        )
    return voxel_type


def _voxel_file(path: Path, fields: NiftiHeader) -> Path:
    if bytes(fields["magic"])[:2] == b"n+":
        return path
    image = path.with_suffix(".IMG" if path.suffix.isupper() else ".img")
    if not os.path.isfile(image):
        raise InputError(f"{path}: a two-file NIfTI header without {image.name} beside it. Copy both files.")
    return image


def _scale(fields: NiftiHeader) -> tuple[float, float] | None:
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept) or (slope, intercept) == (1, 0):
        return None
    return slope, intercept


@np.errstate(all="ignore")  # of numbers in a damaged header, which are refused
def _geometry(path: Path, fields: NiftiHeader, size: tuple[int, int, int]) -> tuple[Geometry, tuple[str, ...]]:
    """Return the grid and what a user should know of it. Raises: InputError: the form that counts is not usable."""
    scale = _MILLIMETRES_PER_UNIT.get(int(fields["xyzt_units"]) & 7, 1.0)
    spacing = np.abs(np.asarray(fields["pixdim"], np.float64)[1:4]) * scale

    def grid(affine: npt.NDArray[np.float64]) -> tuple[Geometry, float]:
        try:
            spacing_mm, direction, shear = right_angled(affine[:, :3] * _TO_RAS, spacing)
            x, y, z = (float(value) for value in affine[:, 3] * _TO_RAS[:, 0] + 0.0)
            return Geometry(size, spacing_mm, (x, y, z), direction), shear
        except ValueError as error:
            raise InputError(
                f"{path}: damaged header, the affine is not usable ({error}): {_rows(affine)}. Convert the file again."
            ) from error

    has_sform, has_qform = int(fields["sform_code"]) > 0, int(fields["qform_code"]) > 0
    if has_sform:
        sform = fields.get_sform()[:3] * scale
        geometry, shear = grid(sform)
        warnings = shear_warning(path.name, shear)
        if not has_qform:
            return geometry, warnings
        qform = _qform(fields) * scale
        try:
            offset = largest_corner_offset_mm(geometry, grid(qform)[0])
        except InputError:
            return geometry, (*warnings, f"{path.name}: unusable qform; the sform is used")
        if offset <= _DISAGREEMENT_TOLERANCE_MM:
            return geometry, warnings
        both = f"sform {_rows(sform)}, qform {_rows(qform)}"
        text = f"{path.name}: sform and qform disagree by up to {offset:.4g} mm; the sform is used. {both}"
        return geometry, (*warnings, text)
    if has_qform:
        return grid(_qform(fields) * scale)[0], ()
    affine = np.hstack([np.diag(spacing) * _TO_RAS, np.zeros((3, 1))])
    return grid(affine)[0], (f"{path.name}: no orientation in the header (sform and qform code 0); taken as LPS",)


def _rows(affine: npt.NDArray[np.float64]) -> str:
    return "[" + "; ".join(" ".join(f"{value:.4g}" for value in row) for row in affine) + "]"


def _qform(fields: NiftiHeader) -> npt.NDArray[np.float64]:
    """Return the qform (3, 4), RAS, in the header's unit, as method 2 of nifti1.h."""
    from nibabel.quaternions import quat2mat

    imaginary = np.array([float(fields[f"quatern_{axis}"]) for axis in "bcd"])
    sizes = np.abs(np.asarray(fields["pixdim"], np.float64)[1:4])
    sizes[2] *= -1.0 if float(fields["pixdim"][0]) < 0 else 1.0
    rest = 1.0 - float(imaginary @ imaginary)
    # A half turn: the real part is 0 and the rest has lost digits in float32; quat2mat makes it of length 1.
    rotation = quat2mat([math.sqrt(rest) if rest >= 1e-7 else 0.0, *imaginary]) * sizes
    return np.hstack([rotation, [[float(fields[f"qoffset_{axis}"])] for axis in "xyz"]])


def _take_grid(fields: NiftiHeader, reference: Path | None, geometry: Geometry) -> bool:
    """Copy the reference's grid fields; False when it is no NIfTI file or no longer has that grid."""
    try:
        if reference is None or not sniff(read_start(reference, 4)):
            return False
        theirs = _fields(reference)
        if not same_grid(read_header(reference).geometry, geometry):
            return False
    except InputError:
        return False
    for name in _GRID_FIELDS:
        fields[name] = theirs[name]
    for name in ("qform_code", "sform_code"):
        # NIfTI-2 has wider codes, of which NIfTI-1 holds none: such a form is aligned to something.
        code = int(theirs[name])
        fields[name] = code if code <= np.iinfo(np.int16).max else _ALIGNED
    return True


def _set_grid(fields: NiftiHeader, geometry: Geometry) -> None:
    """Set sform and qform alike, code 1 (scanner), millimetres, RAS."""
    spacing = np.asarray(geometry.spacing_mm[::-1])
    affine = np.eye(4)
    affine[:3, :3] = geometry.direction_matrix * _TO_RAS * spacing
    affine[:3, 3] = np.asarray(geometry.origin_mm) * _TO_RAS[:, 0]
    fields.set_qform(affine, _SCANNER)
    fields.set_sform(affine, _SCANNER)
    fields["pixdim"][1:4] = spacing
    fields["pixdim"][4:] = 0
    fields["xyzt_units"] = _MILLIMETRES
