"""Write label maps and maps on the grid of an input, whole or not at all, the same bytes for the same content."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.cases.discovery import EXTENSIONS
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.files import atomic_write_bytes
from a2fseg_cli.imaging.formats import nifti
from a2fseg_cli.imaging.geometry import Geometry, same_grid
from a2fseg_cli.imaging.marking import marked

# What lays a NIfTI grid in space. Everything else of a reference's header stays behind: descriptions, file
# names and extensions can name a patient.
_GRID_FIELDS = ("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern", "qoffset", "srow")
_TYPES = {
    np.dtype(np.uint8): {"nifti": 2, "nrrd": "uint8", "mha": "MET_UCHAR"},
    np.dtype(np.int16): {"nifti": 4, "nrrd": "int16", "mha": "MET_SHORT"},
    np.dtype(np.float32): {"nifti": 16, "nrrd": "float", "mha": "MET_FLOAT"},
}
_ALIGNED = 2  # NIFTI_XFORM_ALIGNED_ANAT
_COMPRESSION_LEVEL = 5
_NIFTI_DATA_OFFSET = 352
_LARGEST_NIFTI1_SIZE = 2**15 - 1


def check_output_name(path: Path) -> str:
    """Return the image extension of a file to be written, lower case.

    Raises:
        UsageError: it is none that can be written, or `path` is a folder.
    """
    if os.path.isdir(path):  # Path.is_dir raises for a name that is too long
        raise UsageError(f"{path}: a folder. Expected the name of a file to write.")
    for extension in EXTENSIONS:
        if path.name.lower().endswith(extension):
            return extension
    raise UsageError(f"{path}: cannot write this type of file. Choose a name that ends in {', '.join(EXTENSIONS)}.")


def write_label_map(array: npt.NDArray[np.uint8], reference_path: Path | None, geometry: Geometry, path: Path) -> None:
    """Write labels (D, H, W) on the grid of the image `reference_path`, if there is one; its geometry is `geometry`.

    From NIfTI to NIfTI the reference's sform, qform, codes, voxel sizes and units are taken over as they are
    stored. Nothing else of the reference's header is: no description, no names, no extensions. The file says which
    tool wrote it (`marking`).

    Raises:
        UsageError: no image extension, or a folder.
        ResourceError: the disk is full or the place cannot be written; nothing is left behind.
    """
    _write(np.ascontiguousarray(array, np.uint8), reference_path, geometry, path, mark=True)


def write_map(array: npt.NDArray[np.float32], reference_path: Path, geometry: Geometry, path: Path) -> None:
    """Write real numbers (D, H, W), for example probabilities, as `write_label_map` writes labels."""
    _write(np.ascontiguousarray(array, np.float32), reference_path, geometry, path)


def write_image(array: npt.NDArray[np.int16], geometry: Geometry, path: Path) -> None:
    """Write an image of whole numbers (D, H, W) that has no reference. Raises: as `write_label_map`."""
    _write(np.ascontiguousarray(array, np.int16), None, geometry, path)


def _write(
    array: npt.NDArray[Any], reference_path: Path | None, geometry: Geometry, path: Path, *, mark: bool = False
) -> None:
    if array.shape != geometry.size:
        raise ValueError(f"array {array.shape} and geometry {geometry.size} differ in size")
    extension = check_output_name(path)
    if extension == ".nrrd":
        data = _nrrd(array, geometry)
    elif extension == ".mha":
        data = _mha(array, geometry)
    else:
        data = _nifti(path, array, reference_path, geometry)
    if mark:
        data = marked(data, extension)
    if extension == ".nii.gz":
        data = gzip.compress(data, _COMPRESSION_LEVEL, mtime=0)
    atomic_write_bytes(path, data)


def _nifti(path: Path, array: npt.NDArray[Any], reference_path: Path | None, geometry: Geometry) -> bytes:
    if max(array.shape) > _LARGEST_NIFTI1_SIZE:
        raise UsageError(f"{path}: more than {_LARGEST_NIFTI1_SIZE} voxels along an axis. Write .nrrd or .mha instead.")
    fields = np.zeros((), nifti.NIFTI1)
    fields["sizeof_hdr"] = nifti.NIFTI1.itemsize
    fields["regular"] = b"r"
    fields["dim"] = (3, *array.shape[::-1], 1, 1, 1, 1)
    fields["datatype"] = _TYPES[array.dtype]["nifti"]
    fields["bitpix"] = array.dtype.itemsize * 8
    fields["vox_offset"] = _NIFTI_DATA_OFFSET
    fields["scl_slope"] = 1
    fields["magic"] = b"n+1"
    for name, value in (_reference_fields(reference_path, geometry) or _geometry_fields(geometry)).items():
        fields[name] = value
    little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return fields.tobytes().ljust(_NIFTI_DATA_OFFSET, b"\0") + little_endian.tobytes()


def _reference_fields(reference_path: Path | None, geometry: Geometry) -> dict[str, Any] | None:
    """Return the reference's grid fields, None when it is no NIfTI file or no longer has that grid."""
    if reference_path is None or not reference_path.name.lower().endswith((".nii", ".nii.gz")):
        return None
    try:
        header = nifti.read_header(reference_path)
        described, _ = nifti.header_geometry(reference_path, header)
    except InputError:
        return None
    if not same_grid(described, geometry):
        return None
    fields = {name: header.fields[name] for name in _GRID_FIELDS}
    # NIfTI-2 has wider codes, of which NIfTI-1 holds none: such a form is aligned to something.
    codes = {name: int(fields[name]) for name in ("qform_code", "sform_code")}
    return fields | {name: _ALIGNED for name, code in codes.items() if code > np.iinfo(np.int16).max}


def _geometry_fields(geometry: Geometry) -> dict[str, Any]:
    """Return NIfTI fields for a grid: sform and qform alike, code 1 (scanner), millimetres, RAS."""
    to_ras = np.array([[-1.0], [-1.0], [1.0]])
    axes = geometry.direction_matrix * to_ras
    spacing = np.asarray(geometry.spacing_mm[::-1])
    origin = np.asarray(geometry.origin_mm) * to_ras[:, 0]
    handedness = -1.0 if np.linalg.det(axes) < 0 else 1.0
    return {
        "pixdim": (handedness, *spacing, 0, 0, 0, 0),
        "xyzt_units": 2,
        "qform_code": 1,
        "sform_code": 1,
        "quatern": _quaternion(axes * (1, 1, handedness)),
        "qoffset": origin,
        "srow": np.hstack([axes * spacing, origin[:, None]]),
    }


def _quaternion(rotation: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (b, c, d) of the unit quaternion, a >= 0, nearest to a rotation matrix.

    It is the eigenvector of the largest eigenvalue of a symmetric 4 x 4 matrix (Bar-Itzhack, J. Guid. Control
    Dyn. 23(6), 2000), which holds for half turns and for matrices that are not quite orthonormal alike.
    """
    m = rotation
    symmetric = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2], m[2, 1] - m[1, 2]],
            [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2], m[0, 2] - m[2, 0]],
            [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m[0, 0] + m[1, 1] + m[2, 2]],
        ]
    )
    best = np.linalg.eigh(symmetric)[1][:, -1]
    imaginary: npt.NDArray[np.float64] = best[:3] * (-1 if best[3] < 0 else 1) + 0.0
    return imaginary


def _nrrd(array: npt.NDArray[Any], geometry: Geometry) -> bytes:
    vectors = geometry.direction_matrix.T * np.asarray(geometry.spacing_mm[::-1])[:, None]
    lines = [
        "NRRD0004",
        f"type: {_TYPES[array.dtype]['nrrd']}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {_numbers(array.shape[::-1])}",
        "space directions: " + " ".join(f"({_numbers(vector, ',')})" for vector in vectors.tolist()),
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: ({_numbers(geometry.origin_mm, ',')})",
    ]
    voxels = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return ("\n".join(lines) + "\n\n").encode() + gzip.compress(voxels, _COMPRESSION_LEVEL, mtime=0)


def _mha(array: npt.NDArray[Any], geometry: Geometry) -> bytes:
    voxels = zlib.compress(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(), _COMPRESSION_LEVEL)
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {len(voxels)}",
        f"TransformMatrix = {_numbers(geometry.direction_matrix.T.ravel().tolist())}",
        f"Offset = {_numbers(geometry.origin_mm)}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {_numbers(geometry.spacing_mm[::-1])}",
        f"DimSize = {_numbers(array.shape[::-1])}",
        f"ElementType = {_TYPES[array.dtype]['mha']}",
        "ElementDataFile = LOCAL",
    ]
    return ("\n".join(lines) + "\n").encode() + voxels


def _numbers(values: Any, separator: str = " ") -> str:
    return separator.join(map(str, values))
