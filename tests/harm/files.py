"""Files of all formats, valid by default; every lie in them is a keyword."""

from __future__ import annotations

import functools
import gzip
import json
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import header_dtype as NIFTI1

Array = npt.NDArray[Any]

SHAPE = (16, 18, 17)  # (D, H, W), voxels of 4 mm


def brain(seed: int = 0, dtype: str = "f4") -> Array:
    """A block of tissue in a background of zeros."""
    array = np.zeros(SHAPE, dtype)
    array[2:14, 2:16, 2:15] = np.random.default_rng(seed).integers(50, 100, (12, 14, 13))
    return array


def with_value(array: Array, value: float) -> Array:
    changed = array.copy()
    changed[8, 8, 8] = value
    return changed


def brain_of_vectors() -> Array:
    return np.stack([brain(), brain(1)], axis=-1)


def label_map(value: float = 3, dtype: str = "u1") -> Array:
    array = np.zeros(SHAPE, dtype)
    array[5:10, 5:10, 5:10] = 2
    array[6:8, 6:8, 6:8] = 1
    array[8, 8, 8] = value
    return array


def corner(value: int) -> Array:
    array = np.zeros(SHAPE, "u1")
    array[0, 0, 0] = value
    return array


_NIFTI_CODES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "c8": 32, "f8": 64}


def nifti(array: Array | None = None, layout: np.dtype[Any] = NIFTI1, **lies: Any) -> bytes:
    """Return a NIfTI file of an array (D, H, W), its header's fields set otherwise by name."""
    array = brain() if array is None else array
    offset = layout.itemsize + 4
    fields = np.zeros((), layout)
    told: dict[str, Any] = {
        "sizeof_hdr": layout.itemsize,
        "dim": (array.ndim, *array.shape[::-1], *[1] * (7 - array.ndim)),
        "datatype": _NIFTI_CODES[array.dtype.str[1:]],
        "bitpix": 8 * array.dtype.itemsize,
        "pixdim": (1, 4, 4, 4, 1, 1, 1, 1),
        "vox_offset": offset,
        "scl_slope": 1,
        "xyzt_units": 2,
        "sform_code": 1,
        "srow": ((-4, 0, 0, 0), (0, -4, 0, 0), (0, 0, 4, 0)),
        "magic": b"n+1" if layout is NIFTI1 else b"n+2\0\r\n\x1a\n",
    }
    told |= lies
    told["srow_x"], told["srow_y"], told["srow_z"] = told.pop("srow")
    for name, value in told.items():
        fields[name] = value
    return fields.tobytes().ljust(offset, b"\0") + array.tobytes()


def mha(array: Array | None = None, compressed: bool = False, **lies: str | None) -> bytes:
    """Return a MetaImage, its header's lines set otherwise by name, or left out."""
    array = brain() if array is None else array
    lines: dict[str, str | None] = {
        "ObjectType": "Image",
        "NDims": str(array.ndim),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": str(compressed),
        "TransformMatrix": " ".join(map(str, np.eye(array.ndim, dtype=int).ravel())),
        "Offset": " ".join(["0"] * array.ndim),
        "ElementSpacing": " ".join(["4"] * array.ndim),
        "DimSize": " ".join(map(str, array.shape[::-1])),
        "ElementType": {"u1": "MET_UCHAR", "i2": "MET_SHORT", "f4": "MET_FLOAT"}[array.dtype.str[1:]],
        **lies,
    }
    lines["ElementDataFile"] = lines.pop("ElementDataFile", "LOCAL")
    text = "".join(f"{key} = {value}\n" for key, value in lines.items() if value is not None)
    return text.encode() + (zlib.compress(array.tobytes()) if compressed else array.tobytes())


def nrrd(array: Array | None = None, compressed: bool = False, **lies: str | None) -> bytes:
    """Return a NRRD file, its header's lines set otherwise by name (with _ for a blank), or left out."""
    array = brain() if array is None else array
    axes = ["({},{},{})".format(*row) for row in np.eye(3, dtype=int) * 4]
    lines: dict[str, str | None] = {
        "type": {"u1": "uint8", "i2": "int16", "f4": "float"}[array.dtype.str[1:]],
        "dimension": str(array.ndim),
        "space": "left-posterior-superior",
        "space_dimension": None,
        "sizes": " ".join(map(str, array.shape[::-1])),
        "space_directions": " ".join(axes + ["none"] * (array.ndim - 3)),
        "endian": "little",
        "encoding": "gzip" if compressed else "raw",
        "space_origin": "(0,0,0)",
        **lies,
    }
    text = "".join(f"{key.replace('_', ' ')}: {value}\n" for key, value in lines.items() if value is not None)
    return f"NRRD0004\n{text}\n".encode() + (gzip.compress(array.tobytes()) if compressed else array.tobytes())


def mgh(array: Array) -> bytes:
    """Return an MGH file of an array (D, H, W)."""
    from nibabel.freesurfer import MGHImage

    return MGHImage(array.T, np.diag([-4.0, -4.0, 4.0, 1.0])).to_bytes()


@functools.cache
def toy(modalities: tuple[str, ...] = ("t1", "t1c", "t2", "flair")) -> bytes:
    """Return the weights of a tiny random network at 4 mm."""
    from toys import toy_network

    with tempfile.TemporaryDirectory() as folder:
        return toy_network(Path(folder), modalities).read_bytes()


def safetensors(change: Callable[[dict[str, Any]], object] = lambda _: None, body: bytes | None = None) -> bytes:
    """Return the toy weights with their header changed, or other bytes of tensors."""
    whole = toy()
    end = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:end])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + (whole[end:] if body is None else body)


ENTRY = {
    "name": "toy",
    "file": "toy.safetensors",
    "sha256": "ab" * 32,
    "size_bytes": 1000,
    "licence": "CC0-1.0",
    "description": "Random",
    "urls": ["https://weights.invalid/toy.safetensors"],
}


def manifest(*entries: Mapping[str, Any], **lies: Any) -> bytes:
    """Return a manifest of such entries."""
    return json.dumps({"version": 1, "weights": entries or [ENTRY], **lies}).encode()
