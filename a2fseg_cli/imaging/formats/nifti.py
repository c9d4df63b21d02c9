"""NIfTI-1 and NIfTI-2 single files: header, voxels, and the choice between sform and qform.

ITK prefers the qform in some cases and refuses sheared sforms, so the header is read here: the sform counts
when its code is above 0, then the qform, then the bare voxel sizes. Field layout after the NIfTI-1 and
NIfTI-2 standards (nifti1.h, nifti2.h).
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.formats.limits import check_capacity, check_volume_size
from a2fseg_cli.imaging.geometry import Geometry, largest_corner_offset_mm, right_angled, shear_warning

NIFTI1 = np.dtype(
    [
        ("sizeof_hdr", "<i4"),
        ("data_type", "S10"),
        ("db_name", "S18"),
        ("extents", "<i4"),
        ("session_error", "<i2"),
        ("regular", "S1"),
        ("dim_info", "u1"),
        ("dim", "<i2", 8),
        ("intent_p", "<f4", 3),
        ("intent_code", "<i2"),
        ("datatype", "<i2"),
        ("bitpix", "<i2"),
        ("slice_start", "<i2"),
        ("pixdim", "<f4", 8),
        ("vox_offset", "<f4"),
        ("scl_slope", "<f4"),
        ("scl_inter", "<f4"),
        ("slice_end", "<i2"),
        ("slice_code", "u1"),
        ("xyzt_units", "u1"),
        ("cal_max", "<f4"),
        ("cal_min", "<f4"),
        ("slice_duration", "<f4"),
        ("toffset", "<f4"),
        ("glmax", "<i4"),
        ("glmin", "<i4"),
        ("descrip", "S80"),
        ("aux_file", "S24"),
        ("qform_code", "<i2"),
        ("sform_code", "<i2"),
        ("quatern", "<f4", 3),
        ("qoffset", "<f4", 3),
        ("srow", "<f4", (3, 4)),
        ("intent_name", "S16"),
        ("magic", "S4"),
    ]
)
NIFTI2 = np.dtype(
    [
        ("sizeof_hdr", "<i4"),
        ("magic", "S8"),
        ("datatype", "<i2"),
        ("bitpix", "<i2"),
        ("dim", "<i8", 8),
        ("intent_p", "<f8", 3),
        ("pixdim", "<f8", 8),
        ("vox_offset", "<i8"),
        ("scl_slope", "<f8"),
        ("scl_inter", "<f8"),
        ("cal_max", "<f8"),
        ("cal_min", "<f8"),
        ("slice_duration", "<f8"),
        ("toffset", "<f8"),
        ("slice_start", "<i8"),
        ("slice_end", "<i8"),
        ("descrip", "S80"),
        ("aux_file", "S24"),
        ("qform_code", "<i4"),
        ("sform_code", "<i4"),
        ("quatern", "<f8", 3),
        ("qoffset", "<f8", 3),
        ("srow", "<f8", (3, 4)),
        ("slice_code", "<i4"),
        ("xyzt_units", "<i4"),
        ("intent_code", "<i4"),
        ("intent_name", "S16"),
        ("dim_info", "u1"),
        ("unused", "S15"),
    ]
)

# Voxel types by NIfTI code; the codes for several numbers a voxel are known only to be refused by name.
SCALAR_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"
}  # fmt: skip
_REFUSED_TYPES = {
    1: "a one-bit", 32: "a complex", 128: "an RGB colour", 1536: "a 128-bit", 1792: "a complex", 2048: "a complex",
    2304: "an RGBA colour",
}  # fmt: skip
_MILLIMETRES_PER_UNIT = {1: 1000.0, 3: 0.001}
_DISAGREEMENT_TOLERANCE_MM = 0.01


@dataclass(frozen=True)
class NiftiHeader:
    """What a NIfTI header says about the voxels and where they lie.

    `fields` is the header as read, in its own byte order; `size` is (D, H, W).
    """

    fields: Any
    size: tuple[int, int, int]
    voxel_type: np.dtype[Any]

    @property
    def data_offset(self) -> int:
        """Byte at which the voxels start."""
        return int(self.fields["vox_offset"])

    @property
    def data_bytes(self) -> int:
        """Bytes that the voxels need, uncompressed."""
        return math.prod(self.size) * self.voxel_type.itemsize


_HEADER_SIZES = {NIFTI1.itemsize: NIFTI1, NIFTI2.itemsize: NIFTI2}


def _open(path: Path) -> BinaryIO | gzip.GzipFile:
    """Open plain or gzip, by content: a `.nii` that is gzip inside, and the reverse, are common and harmless."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else path.open("rb")


def _read(path: Path, offset: int, count: int, *, to_end: bool = False) -> bytes:
    """Return up to `count` bytes from `offset`; with `to_end` the gzip checksum is checked as well."""
    try:
        with _open(path) as file:
            if offset:
                file.seek(offset)
            data = file.read(count)
            if to_end and isinstance(file, gzip.GzipFile):
                file.read(2**16)
            return data
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: truncated or damaged gzip data. Copy or convert the file again.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}.") from error


def read_header(path: Path) -> NiftiHeader:
    """Return the checked header of a NIfTI file.

    Raises:
        InputError: no NIfTI, not a volume of one number a voxel, or more voxels than the file can hold.
    """
    start = _read(path, 0, NIFTI2.itemsize)
    fields = _parse(path, start)
    size = _volume_size(path, [int(n) for n in fields["dim"]])
    header = NiftiHeader(fields, size, _voxel_type(path, fields))
    _check_capacity(path, header)
    return header


def _parse(path: Path, start: bytes) -> Any:
    for order in ("<", ">"):
        layout = _HEADER_SIZES.get(int.from_bytes(start[:4], "little" if order == "<" else "big"))
        if layout is None:
            continue
        if len(start) < layout.itemsize:
            raise InputError(f"{path}: the file ends within its header ({len(start)} bytes). Copy it again.")
        fields = np.frombuffer(start, layout.newbyteorder(order), count=1)[0]
        if fields["magic"][:3] not in (b"n+1", b"n+2"):
            raise InputError(
                f"{path}: an Analyze or two-file NIfTI header (.hdr/.img). Convert it to one .nii or .nii.gz file."
            )
        return fields
    raise InputError(f"{path}: no NIfTI file, whatever its name says. Expected .nii, .nii.gz, .nrrd or .mha content.")


def _volume_size(path: Path, dim: list[int]) -> tuple[int, int, int]:
    if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1:
        raise InputError(f"{path}: damaged header, dimensions {dim}. Copy or convert the file again.")
    counts = dim[1 : dim[0] + 1] + [1] * (7 - dim[0])
    if math.prod(counts[4:]) > 1:
        raise InputError(f"{path}: a vector image ({math.prod(counts[4:])} numbers a voxel). Expected one number.")
    if counts[3] > 1:
        raise InputError(f"{path}: 4-D, {counts[3]} volumes. Split it and give the volume of one modality.")
    width, height, depth = counts[:3]
    return check_volume_size(path, (depth, height, width))


def _voxel_type(path: Path, fields: Any) -> np.dtype[Any]:
    code = int(fields["datatype"])
    if code in _REFUSED_TYPES:
        raise InputError(f"{path}: {_REFUSED_TYPES[code]} image. Expected one real number a voxel.")
    if code not in SCALAR_TYPES:
        raise InputError(f"{path}: damaged header, unknown voxel type {code}. Copy or convert the file again.")
    return np.dtype(SCALAR_TYPES[code]).newbyteorder(fields.dtype["dim"].base.byteorder)


def _check_capacity(path: Path, header: NiftiHeader) -> None:
    offset = float(header.fields["vox_offset"])
    if not (math.isfinite(offset) and header.fields.dtype.itemsize <= offset <= 2**31):
        raise InputError(f"{path}: damaged header, voxels start at byte {offset:g}. Copy or convert the file again.")
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    check_capacity(path, header.data_offset + header.data_bytes, compressed=compressed)


def read_voxels(path: Path, header: NiftiHeader) -> npt.NDArray[Any]:
    """Return the voxels (D, H, W): the file's type, or float64 where the header asks to scale.

    Raises:
        InputError: the file ends early or its gzip data are damaged.
    """
    data = _read(path, header.data_offset, header.data_bytes, to_end=True)
    if len(data) < header.data_bytes:
        raise InputError(f"{path}: truncated, {len(data)} of {header.data_bytes} bytes of voxels. Copy it again.")
    voxels = np.frombuffer(data, header.voxel_type).reshape(header.size)
    slope, intercept = float(header.fields["scl_slope"]), float(header.fields["scl_inter"])
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept) or (slope, intercept) == (1, 0):
        return voxels
    with np.errstate(all="ignore"):
        scaled: npt.NDArray[np.float64] = voxels.astype(np.float64) * slope + intercept
    return scaled


def header_geometry(path: Path, header: NiftiHeader) -> tuple[Geometry, tuple[str, ...]]:
    """Return the grid that the header describes (sform before qform before voxel sizes), and warnings.

    Raises:
        InputError: the transformation that counts is not invertible or not finite.
    """
    fields = header.fields
    scale = _millimetres(header)
    has_sform, has_qform = int(fields["sform_code"]) > 0, int(fields["qform_code"]) > 0
    warnings: list[str] = []
    if has_sform:
        sform = np.asarray(fields["srow"], np.float64) * scale
        geometry, shear = _affine_geometry(path, header, sform)
        warnings += shear_warning(path.name, shear)
        if has_qform:
            warnings += _disagreement(path, header, geometry, sform, scale)
        return geometry, tuple(warnings)
    if has_qform:
        return _affine_geometry(path, header, _qform(fields) * scale)[0], ()
    sizes = np.abs(np.asarray(fields["pixdim"], np.float64)[1:4]) * scale
    affine = np.hstack([np.diag(sizes * (-1, -1, 1)), np.zeros((3, 1))])
    geometry, _ = _affine_geometry(path, header, affine)
    return geometry, (f"{path.name}: no orientation in the header (sform and qform code 0); taken as LPS",)


def _disagreement(
    path: Path, header: NiftiHeader, geometry: Geometry, sform: npt.NDArray[np.float64], scale: float
) -> list[str]:
    qform = _qform(header.fields) * scale
    try:
        other, _ = _affine_geometry(path, header, qform)
    except InputError:
        return [f"{path.name}: unusable qform; the sform is used"]
    offset = largest_corner_offset_mm(geometry, other)
    if offset <= _DISAGREEMENT_TOLERANCE_MM:
        return []
    return [
        f"{path.name}: sform and qform disagree by up to {offset:.4g} mm; the sform is used. "
        f"sform {_rows(sform)}, qform {_rows(qform)}"
    ]


def _rows(affine: npt.NDArray[np.float64]) -> str:
    return "[" + "; ".join(" ".join(f"{value:.4g}" for value in row) for row in affine) + "]"


def _qform(fields: Any) -> npt.NDArray[np.float64]:
    """Return the qform (3, 4), RAS, in the header's unit: quaternion to matrix as in nifti1.h, method 2."""
    b, c, d = (float(value) for value in fields["quatern"])
    rest = 1.0 - (b * b + c * c + d * d)
    if rest < 1e-7:
        # A half turn: a is 0 and the rest has lost digits in float32.
        length = math.sqrt(b * b + c * c + d * d) or 1.0
        a, b, c, d = 0.0, b / length, c / length, d / length
    else:
        a = math.sqrt(rest)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    sizes = np.abs(np.asarray(fields["pixdim"], np.float64)[1:4])
    sizes[2] *= -1.0 if float(fields["pixdim"][0]) < 0 else 1.0
    with np.errstate(all="ignore"):  # of a damaged header, refused next
        rotation = rotation * sizes
    return np.hstack([rotation, np.asarray(fields["qoffset"], np.float64).reshape(3, 1)])


def _affine_geometry(path: Path, header: NiftiHeader, affine: npt.NDArray[np.float64]) -> tuple[Geometry, float]:
    """Return the grid of an affine (3, 4), RAS, and how far its axes are from being orthonormal."""
    declared = np.abs(np.asarray(header.fields["pixdim"], np.float64)[1:4]) * _millimetres(header)
    try:
        spacing, direction, shear = right_angled(affine[:, :3] * np.array([[-1], [-1], [1]]), declared)
        x, y, z = (float(value) for value in affine[:, 3] * (-1, -1, 1) + 0.0)
        return Geometry(header.size, spacing, (x, y, z), direction), shear
    except ValueError as error:
        raise InputError(
            f"{path}: damaged header, the affine is not usable ({error}): {_rows(affine)}. Convert the file again."
        ) from error


def _millimetres(header: NiftiHeader) -> float:
    """Return the length of the header's unit in mm."""
    return _MILLIMETRES_PER_UNIT.get(int(header.fields["xyzt_units"]) & 7, 1.0)
