"""Bad input given for real to the command, kind by kind, and damaged files to the readers.

    python tests/harm_inputs.py [--fuzz 2500] [--seed 0]

Prints a Markdown table of what was tried and what came of it; exit code 1 if a promise was broken. The test suite does
the same in this process and in a small (`test_harm_inputs.py`). Not collected by pytest.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import functools
import gzip
import io
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import header_dtype as NIFTI1
from nibabel.nifti2 import header_dtype as NIFTI2

COMMAND = (sys.executable, "-m", "a2fseg_cli")
Array = npt.NDArray[Any]
Run = Callable[[Sequence[str], Mapping[str, str], Path], tuple[int, str, str]]


@dataclass(frozen=True)
class Kind:
    """One kind of bad input.

    Attributes:
        group: What is bad.
        name: How.
        code: The exit code that is promised.
        words: What stderr has to say.
        build: Writes the files into a folder and returns the command's arguments.
        env: Variables of the environment.
        lines: The most lines that stderr may have; tables have more.
        leaves: Patterns of files that may be there afterwards, whole and useful.
        by_permission: It needs a user whom file permissions refuse, who is not root.
    """

    group: str
    name: str
    code: int
    words: tuple[str, ...]
    build: Callable[[Path], Sequence[object]]
    env: Mapping[str, str] = field(default_factory=dict)
    lines: int = 3
    leaves: tuple[str, ...] = ()
    by_permission: bool = False

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


def try_kind(kind: Kind, folder: Path, run: Run) -> None:
    """Do the harm in a folder that is empty, by `run(arguments, variables, working folder)`.

    Raises:
        AssertionError: with all that went wrong.
    """
    arguments = [str(argument) for argument in kind.build(folder)]
    before = _snapshot(folder)
    code, _, err = run(arguments, {"A2FSEG_HOME": str(folder / "home"), "A2FSEG_OFFLINE": "1", **kind.env}, folder)
    changed = [path for path, state in _snapshot(folder).items() if before.pop(path, None) != state]
    said, lines = " ".join(err.split()), [line for line in err.splitlines() if line.strip()]
    left = [path for path in changed if not any(fnmatch(path, pattern) for pattern in kind.leaves)]
    problems = [f"exit code {code}, expected {kind.code}"] if code != kind.code else []
    problems += [f"not said: {word!r}" for word in kind.words if word not in said]
    problems += [f"{len(lines)} lines on stderr, expected at most {kind.lines}"] if len(lines) > kind.lines else []
    problems += ["a traceback"] if "Traceback" in err else []
    problems += [f"left behind or changed: {', '.join(left)}"] if left else []
    problems += [f"removed: {', '.join(before)}"] if before else []
    if problems:
        raise AssertionError(f"{kind}: {'; '.join(problems)}\n{' '.join(arguments)}\n{err}")


def _snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return mode, size and time of everything in a folder; of folders only that they are there."""
    found = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        times = (0, 0) if path.is_dir() else (state.st_size, state.st_mtime_ns)
        found[str(path.relative_to(folder))] = (state.st_mode, *times)
    return found


# Files, valid by default; every lie is a keyword.

SHAPE = (16, 18, 17)  # (D, H, W), voxels of 4 mm


def _brain(seed: int = 0, dtype: str = "f4") -> Array:
    """A block of tissue in a background of zeros."""
    array = np.zeros(SHAPE, dtype)
    array[2:14, 2:16, 2:15] = np.random.default_rng(seed).integers(50, 100, (12, 14, 13))
    return array


def _with(array: Array, value: float) -> Array:
    changed = array.copy()
    changed[8, 8, 8] = value
    return changed


def _brain_of_vectors() -> Array:
    return np.stack([_brain(), _brain(1)], axis=-1)


def _labels(value: float = 3, dtype: str = "u1") -> Array:
    array = np.zeros(SHAPE, dtype)
    array[5:10, 5:10, 5:10] = 2
    array[6:8, 6:8, 6:8] = 1
    array[8, 8, 8] = value
    return array


_NIFTI_CODES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "c8": 32, "f8": 64}


def nifti(array: Array | None = None, layout: np.dtype[Any] = NIFTI1, **lies: Any) -> bytes:
    """Return a NIfTI file of an array (D, H, W), its header's fields set otherwise by name."""
    array = _brain() if array is None else array
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
    array = _brain() if array is None else array
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
    array = _brain() if array is None else array
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
def _toy(modalities: tuple[str, ...] = ("t1", "t1c", "t2", "flair")) -> bytes:
    """Return the weights of a tiny random network at 4 mm."""
    from harm_faults import toy_network

    with tempfile.TemporaryDirectory() as folder:
        return toy_network(Path(folder), modalities).read_bytes()


def safetensors(change: Callable[[dict[str, Any]], object] = lambda _: None, body: bytes | None = None) -> bytes:
    """Return the toy weights with their header changed, or other bytes of tensors."""
    whole = _toy()
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


class Bomb:
    """What makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _weights(folder: Path, content: bytes | None = None) -> list[object]:
    return ["--weights", _write(folder / "toy.safetensors", _toy() if content is None else content)]


def _to(folder: Path) -> list[object]:
    return ["-o", folder / "out" / "s.nii.gz", *_weights(folder), "--device", "cpu"]


Content = bytes | Callable[[Path], object]


def _put(path: Path, content: Content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    return path


def _image(name: str, words: str, file: str, content: Content, **more: Any) -> Kind:
    """An image given as FLAIR; its name is said, and `words`."""

    def build(folder: Path) -> Sequence[object]:
        return ["predict", "--flair", _put(folder / file, content), *_to(folder)]

    return Kind("image", name, 3, (file, words), build, **more)


def _lie(name: str, words: str, **lies: Any) -> Kind:
    """A NIfTI header that lies in some fields."""
    return _image(name, words, "flair.nii", nifti(**lies))


def _without_permission(path: Path) -> None:
    path.write_bytes(nifti())
    path.chmod(0)


_GZIPPED = gzip.compress(nifti(), mtime=0)
_WRONG_BYTE = bytes([*_GZIPPED[:900], _GZIPPED[900] ^ 255, *_GZIPPED[901:]])
_TERABYTES = {"dim": (3, 10000, 10000, 10000, 1, 1, 1, 1)}
_FLAT = {"srow": ((-4, -4, 0, 0), (0, 0, 0, 0), (0, 0, 4, 0))}
_NOT_A_NUMBER = {"srow": ((np.nan, 0, 0, 0), (0, -4, 0, 0), (0, 0, 4, 0))}
_FOUR_AXES = {
    "space": None,
    "space_dimension": "4",
    "space_directions": "(4,0,0,0) (0,4,0,0) (0,0,4,0) (0,0,0,1)",
    "space_origin": "(0,0,0,0)",
}
_LIST = {"space_directions": "none (4,0,0) (0,4,0) (0,0,4)", "kinds": "list domain domain domain"}
_NO_FORM = {"sform_code": 0, "qform_code": 0}


def _images() -> Iterator[Kind]:
    yield _image("missing file", "no such file", "flair.nii.gz", lambda path: None)
    yield _image("folder for a file", "a folder", "flair.nii.gz", Path.mkdir)
    yield _image("no permission", "no permission", "flair.nii", _without_permission, by_permission=True)
    yield _image("named pipe", "not a regular file", "flair.nii", os.mkfifo)
    yield _image("a name of 300 letters", "cannot be read", "f" * 300 + ".nii", lambda path: None)
    yield _image("no bytes", "no bytes", "flair.nii.gz", b"")
    yield _image("unknown extension", "unknown file type", "flair.jpg", b"\xff\xd8\xff\xe0 JFIF")
    yield _image("truncated .nii", "truncated", "flair.nii", nifti()[:-1])
    yield _image("ends within the header", "ends within its header", "flair.nii", nifti()[:300])
    yield _image("truncated .nii.gz", "truncated or damaged gzip", "flair.nii.gz", _GZIPPED[:-200])
    yield _image("corrupt gzip", "damaged gzip", "flair.nii.gz", _WRONG_BYTE)
    yield _image("wrong gzip checksum", "damaged gzip", "flair.nii.gz", _GZIPPED[:-8] + bytes(8))
    yield _image("text renamed to .nii", "no NIfTI file", "flair.nii", b"patient,date\n" * 100)
    yield _image("text renamed to .nii.gz", "no NIfTI file", "flair.nii.gz", b"patient,date\n" * 100)
    yield _image("text renamed to .nrrd", "no NRRD file", "flair.nrrd", b"patient,date\n" * 100)
    yield _image("text renamed to .mha", "no MetaImage file", "flair.mha", b"patient,date\n" * 100)
    yield _image("a picture renamed to .nii", "no NIfTI file", "flair.nii", b"\x89PNG\r\n\x1a\n" + bytes(400))
    yield _image("DICOM", "a DICOM file", "flair.dcm", bytes(128) + b"DICM" + bytes(400))
    yield _image("DICOM renamed to .nii", "dcm2niix", "flair.nii", bytes(128) + b"DICM" + bytes(400))
    yield _image("2-D", "2-D", "flair.nii", nifti(_brain()[8]))
    yield _image("2-D .mha", "2-D", "flair.mha", mha(_brain()[8]))
    yield _image("one slice", "2-D, a single slice (17 x 18 x 1)", "flair.nii", nifti(_brain()[8:9]))
    yield _image("4-D", "4-D, 3 volumes. Split it", "flair.nii", nifti(np.stack([_brain()] * 3)))
    yield _image("4-D .mha", "4-D, 3 volumes. Split it", "flair.mha", mha(np.stack([_brain()] * 3)))
    yield _image("4-D .nrrd", "4-D, 3 volumes. Split it", "flair.nrrd", nrrd(np.stack([_brain()] * 3), **_FOUR_AXES))
    yield _image(
        "4-D .nrrd, a list of volumes",
        "a vector image (2 numbers a voxel)",
        "flair.nrrd",
        nrrd(_brain_of_vectors(), **_LIST),
    )
    yield _image("vector", "a vector image (3 numbers a voxel)", "flair.nii", nifti(np.stack([_brain()[None]] * 3)))
    yield _image("vector .mha", "a vector image", "flair.mha", mha(ElementNumberOfChannels="3"))
    yield _image("complex", "an image of the type complex64", "flair.nii", nifti(_brain(dtype="c8")))
    yield _lie("RGB", "an image of the type RGB", datatype=128, bitpix=24)
    yield _lie("RGBA", "an image of the type RGBA", datatype=2304, bitpix=32)
    yield _lie("one bit", "an image of the type binary", datatype=1, bitpix=1)
    yield _image("all zero", "empty, every voxel is 0", "flair.nii", nifti(_brain() * 0))
    yield _image("constant", "empty, every voxel is 7", "flair.nii", nifti(_brain() * 0 + 7))
    yield _image("all NaN", "empty", "flair.nii", nifti(_brain() * np.float32("nan")))
    yield _image(
        "NaN inside the brain", "1 voxels inside the brain are NaN", "flair.nii", nifti(_with(_brain(), np.nan))
    )
    yield _image("infinity inside the brain", "NaN or infinite", "flair.nii", nifti(_with(_brain(), np.inf)))
    yield _image("overflow of the scale", "empty", "flair.nii", nifti(scl_slope=3e38))
    yield _lie("terabytes promised", "10000 x 10000 x 10000 voxels, more than a head has", **_TERABYTES)
    yield _image(
        "terabytes promised by NIfTI-2",
        "more than a head has",
        "flair.nii",
        nifti(layout=NIFTI2, dim=(3, 2**40, 2**40, 2**40, 1, 1, 1, 1)),
    )
    yield _image("terabytes promised by .mha", "more than", "flair.mha", mha(DimSize="10000 10000 10000"))
    yield _image("terabytes promised by .nrrd", "more than", "flair.nrrd", nrrd(sizes="10000 10000 10000"))
    yield _image(
        "gigabytes promised by gzip",
        "bytes promised, the file has",
        "flair.nii.gz",
        gzip.compress(nifti(dim=(3, 1000, 1000, 1000, 1, 1, 1, 1))),
    )
    yield _lie("negative dimension", "damaged header, dimensions", dim=(3, 17, -18, 16, 1, 1, 1, 1))
    yield _lie("dimension of zero", "damaged header, dimensions", dim=(3, 17, 0, 16, 1, 1, 1, 1))
    yield _lie("nine dimensions", "damaged header, dimensions", dim=(9, 17, 18, 16, 1, 1, 1, 1))
    yield _image(
        "negative dimension in .mha",
        "DimSize '17 -18 16' in its header is damaged",
        "flair.mha",
        mha(DimSize="17 -18 16"),
    )
    yield _image(
        "negative dimension in .nrrd",
        "sizes '17 -18 16' in its header is damaged",
        "flair.nrrd",
        nrrd(sizes="17 -18 16"),
    )
    yield _lie("wrong sizeof_hdr", "no NIfTI file", sizeof_hdr=349)
    yield _lie("bad datatype code", "unknown voxel type 99", datatype=99)
    yield _lie("voxel type larger than the bits there are", "bytes promised", datatype=64, bitpix=32)
    yield _lie("vox_offset past the end", "bytes promised", vox_offset=1e6)
    yield _lie("vox_offset before the end of the header", "voxels start at byte 0", vox_offset=0)
    yield _lie("vox_offset that is no number", "voxels start at byte nan", vox_offset=np.nan)
    yield _lie("wrong magic", "an Analyze header", magic=b"abc")
    yield _lie("header of two-file NIfTI", "two-file NIfTI header without flair.img", magic=b"ni1")
    yield _image("Analyze .hdr", "an Analyze header", "flair.hdr", nifti(magic=b""))
    yield _image("the voxels of a pair alone", "flair.hdr: no such file", "flair.img", nifti())
    yield _image("external data of .mha", "another file", "flair.mha", mha(ElementDataFile="/etc/passwd"))
    yield _image("external data of .nrrd", "another file", "flair.nrrd", nrrd(data_file="/etc/passwd"))
    yield _image("unknown type of .mha", "cannot be read", "flair.mha", mha(ElementType="MET_OTHER"))
    yield _image(
        "unknown encoding of .nrrd",
        "encoding 'zip' in its header is damaged or cannot be read",
        "flair.nrrd",
        nrrd(encoding="zip"),
    )
    yield _image("truncated .mha", "truncated or damaged voxels", "flair.mha", mha()[:-1])
    yield _image("truncated .nrrd", "truncated or damaged", "flair.nrrd", nrrd()[:-1])
    yield _image("damaged zlib in .mha", "damaged", "flair.mha", mha(compressed=True)[:-40] + bytes(40))
    yield _image("damaged gzip in .nrrd", "damaged gzip", "flair.nrrd", nrrd(compressed=True)[:-8] + bytes(8))
    yield _lie("singular affine", "two axes coincide", srow=((1, 1, 0, 0), (1, 1, 0, 0), (0, 0, 1, 0)))
    yield _lie(
        "affine with an axis of zero", "the affine is not usable", srow=((4, 0, 0, 0), (0, 0, 0, 0), (0, 0, 4, 0))
    )
    yield _lie("affine of NaN", "the affine is not usable", **_NOT_A_NUMBER)
    yield _lie("spacing of zero", "the affine is not usable", pixdim=(1, 0, 4, 4, 1, 1, 1, 1), **_NO_FORM)
    yield _lie("spacing of NaN", "the affine is not usable", pixdim=(1, np.nan, 4, 4, 1, 1, 1, 1), **_NO_FORM)
    yield _lie("spacing of a kilometre", "1e+06", srow=((1e6, 0, 0, 0), (0, 1e6, 0, 0), (0, 0, 1e6, 0)))
    yield _lie("spacing of a micrometre", "0.001", srow=((1e-3, 0, 0, 0), (0, 1e-3, 0, 0), (0, 0, 1e-3, 0)))
    yield _image("singular directions in .mha", "spacing or direction", "flair.mha", mha(TransformMatrix="1 0 0 " * 3))
    yield _image("line of many letters in .nrrd", "in its header is damaged", "flair.nrrd", nrrd(sizes="(" * 5000))
    yield _image("spacing of zero in .mha", "spacing or direction", "flair.mha", mha(ElementSpacing="4 0 4"))
    yield _image(
        "spacing of NaN in .nrrd",
        "damaged header",
        "flair.nrrd",
        nrrd(space_directions="(nan,0,0) (0,4,0) (0,0,4)"),
    )


def _pair(name: str, words: str, content: bytes, *options: object, code: int = 3) -> Kind:
    """A FLAIR beside a good T1, whose grid or content it should not have."""

    def build(folder: Path) -> Sequence[object]:
        images = ["--t1", _put(folder / "a.nii", nifti()), "--flair", _put(folder / "b.nii", content)]
        return ["predict", *images, *_to(folder), *options]

    return Kind("grid", name, code, ("a.nii", "b.nii", words), build, lines=7)


def _grids() -> Iterator[Kind]:
    moved = ((-4, 0, 0, 30), (0, -4, 0, 0), (0, 0, 4, 0))
    turned = ((4, 0, 0, 0), (0, -4, 0, 0), (0, 0, 4, 0))
    larger = ((-5, 0, 0, 0), (0, -5, 0, 0), (0, 0, 5, 0))
    yield _pair("size", "17 x 18 x 15", nifti(_brain(1)[:15]))
    yield _pair("spacing", "5 x 5 x 5", nifti(_brain(1), pixdim=(1, 5, 5, 5, 1, 1, 1, 1), srow=larger))
    yield _pair("origin", "30.000", nifti(_brain(1), srow=moved))
    yield _pair("direction", "RPS", nifti(_brain(1), srow=turned))
    yield _pair("the same content twice", "are the same image", nifti())
    yield _pair("the same content, other type of voxels", "are the same image", nifti(_brain(dtype="i2")))
    far = nifti(_brain(1), srow=((-4, 0, 0, 900), (0, -4, 0, 900), (0, 0, 4, 900)))
    yield replace(
        _pair("nothing in common to resample", "nothing of it lies", far, "--on-mismatch", "resample"),
        words=("b.nii", "nothing of it lies on the reference's grid"),
    )


def _found(name: str, words: tuple[str, ...], files: Mapping[str, bytes], code: int = 3, **more: Any) -> Kind:
    """A folder `data` to segment."""

    def build(folder: Path) -> Sequence[object]:
        (folder / "data").mkdir()
        for file, content in files.items():
            _write(folder / "data" / file, content)
        return ["predict", folder / "data", *_to(folder)]

    return Kind("folder or table", name, code, words, build, **more)


def _table(name: str, words: str, text: str | bytes, **more: Any) -> Kind:
    """A table of patients; beside it lies a good image, `a.nii`."""

    def build(folder: Path) -> Sequence[object]:
        _write(folder / "a.nii", nifti())
        table = _write(folder / "patients.csv", text if isinstance(text, bytes) else text.encode())
        return ["predict", table, *_to(folder)]

    return Kind("folder or table", name, 3, (words,), build, **more)


def _unreadable_folder(folder: Path) -> Sequence[object]:
    _write(folder / "data" / "t1.nii", nifti())
    (folder / "data").chmod(0)
    return ["predict", folder / "data", *_to(folder)]


def _unreadable_table(folder: Path) -> Sequence[object]:
    _write(folder / "patients.csv", b"case,t1\nA,a.nii\n").chmod(0)
    return ["predict", folder / "patients.csv", *_to(folder)]


def _folders_and_tables() -> Iterator[Kind]:
    def missing(name: str) -> Callable[[Path], Sequence[object]]:
        return lambda folder: ["predict", folder / name, *_to(folder)]

    group = "folder or table"
    good = nifti()
    yield Kind(group, "missing folder", 3, ("nowhere: no such folder",), missing("nowhere"))
    yield Kind(group, "a name of 300 letters", 3, ("n" * 300,), missing("n" * 300))
    yield Kind(group, "unreadable folder", 3, ("data", "cannot be read"), _unreadable_folder, by_permission=True)
    yield Kind(group, "unreadable table", 3, ("patients.csv: cannot be read",), _unreadable_table, by_permission=True)
    yield _found("empty folder", ("data: no image found", "Looked for", "flair, fla"), {})
    yield _found("folder without images", ("data: no image found", "BIDS"), {"notes.txt": b"x", "report.pdf": b"x"})
    yield _found("cohort without images", ("no image found",), {"P1/a.txt": b"x", "P2/b.txt": b"x"})
    yield _found("only a segmentation", ("no image found",), {"P1_seg.nii": nifti(_labels())})
    yield _found("names that name no modality", ("no image found",), {"scan1.nii": good, "scan2.nii": good})
    twice = ("2 candidates for t1", "a_t1.nii", "t1w.nii.gz", "Keep one")
    yield _found("two candidates for a modality", twice, {"a_t1.nii": good, "t1w.nii.gz": good})
    yield _found(
        "an image among them is damaged", ("data/t2.nii", "no NIfTI"), {"t1.nii": good, "t2.nii": b"text" * 99}
    )
    yield _found(
        "patients, and a file to write", ("2 patients", "give a folder"), {"A/t1.nii": good, "B/t1.nii": good}, 2
    )
    yield _table("unknown column", "patients.csv, line 1: unknown column 'pet'", "case,t1,pet\nA,a.nii,\n")
    yield _table("two columns for a modality", "patients.csv, line 1: two columns for t1", "case,t1,t1n\nA,a.nii,\n")
    yield _table("no column case", "patients.csv, line 1: no column case", "t1,t2\na.nii,\n")
    yield _table("missing file in the table", "b.nii: no such file", "case,t1\nA,b.nii\n")
    yield _table(
        "duplicate case", "patients.csv, line 3: case A stands in the table twice", "case,t1\nA,a.nii\nA,a.nii\n"
    )
    yield _table("no case", "patients.csv: no case below the column names", "case,t1\n")
    yield _table("empty table", "patients.csv: an empty table", "")
    yield _table("case without an image", "patients.csv, line 2: case A has no image", "case,t1\nA,\n")
    yield _table("row with too many cells", "patients.csv, line 2: 3 cells, expected 2", "case,t1\nA,a.nii,b.nii\n")
    yield _table("case that leads elsewhere", "patients.csv, line 2: the case is named '../A'", "case,t1\n../A,a.nii\n")
    yield _table("bytes that are no text", "patients.csv: no CSV table in UTF-8", b"case,t1\n\xff\xfe,a.nii\n")
    yield _table("NUL in a path", "patients.csv: no CSV table in UTF-8 (a byte of zero)", "case,t1\nA,a\0.nii\n")
    yield _table("quote that never ends", "patients.csv: no CSV table", 'case,t1\nA,"a.nii\n')


def _evaluate(folder: Path, truth: Content | None, *options: object) -> list[object]:
    """One patient `P1` with T1 and FLAIR, and this truth."""
    data = folder / "data" / "P1"
    for name, seed in (("t1", 0), ("flair", 1)):
        _put(data / f"P1_{name}.nii", nifti(_brain(seed)))
    if truth is not None:
        _put(data / "P1_seg.nii", truth)
    device = () if "--predictions" in options else ("--device", "cpu")
    return ["evaluate", folder / "data", "-o", folder / "out", *device, *_weights(folder), *options]


def _train(folder: Path, truth: Content | None, *options: object) -> list[object]:
    """The same patient to train on."""
    _evaluate(folder, truth)
    network = ("--preset", "tiny", "--features", "4,8", "--spacing", "4", "--patch-size", "16", "--device", "cpu")
    steps = ("--epochs", "1", "--iterations", "1")
    return ["train", folder / "data", "-o", folder / "out", *network, *steps, *options]


def _truths() -> Iterator[Kind]:
    other = nifti(_labels(), srow=((-4, 0, 0, 5), (0, -4, 0, 0), (0, 0, 4, 0)))
    bad: list[tuple[str, tuple[str, ...], Content | None]] = [
        ("unknown label", ("P1_seg.nii", "unknown label 9", "brats2018"), nifti(_labels(9))),
        ("negative label", ("P1_seg.nii", "unknown label -1"), nifti(_labels(-1, "i2"))),
        (
            "labels 3 and 4 together",
            ("P1_seg.nii", "labels 3 and 4 together"),
            nifti(_with(_labels(4), 3) + _corner(4)),
        ),
        ("another size", ("P1_seg.nii", "another grid (17 x 18 x 15)"), nifti(_labels()[:15])),
        ("another place", ("P1_seg.nii", "corners 5 mm away"), other),
        ("values between labels", ("P1_seg.nii", "the value 1.5"), nifti(_labels(1.5, "f4"))),
        ("values that are no number", ("P1_seg.nii", "the value nan"), nifti(_labels(np.nan, "f4"))),
        ("4-D", ("P1_seg.nii", "4-D, 2 volumes"), nifti(np.stack([_labels()] * 2))),
        ("damaged", ("P1_seg.nii", "truncated"), nifti(_labels())[:-9]),
        ("an image's values", ("P1_seg.nii", "unknown label"), nifti()),
        ("missing", ("P1", "a file that ends in seg"), None),
    ]
    for name, words, truth in bad:
        yield Kind("truth", name, 3, words, functools.partial(_evaluate, truth=truth), lines=4)
    for name, words, truth in bad[::4]:
        yield Kind(
            "truth",
            f"{name}, to train on",
            3,
            words,
            functools.partial(_train, truth=truth),
            leaves=("out", "out/cache"),
        )

    def two(folder: Path) -> Sequence[object]:
        _write(folder / "data" / "P1" / "P1_label.nii", nifti(_labels()))
        return _evaluate(folder, nifti(_labels()))

    def predictions(files: Mapping[str, bytes]) -> Callable[[Path], Sequence[object]]:
        def build(folder: Path) -> Sequence[object]:
            (folder / "in").mkdir()
            for name, content in files.items():
                _write(folder / "in" / name, content)
            return _evaluate(folder, nifti(_labels()), "--predictions", folder / "in")

        return build

    good = nifti(_labels())
    yield Kind("truth", "two candidates", 3, ("P1: no truth",), two, lines=4)
    yield Kind("truth", "predictions of nobody", 3, ("in: no prediction for any",), predictions({"x.nii": good}))
    yield Kind(
        "truth", "prediction on another grid", 3, ("P1.nii: another grid",), predictions({"P1.nii": other}), lines=4
    )
    clash = {"P1.nii": good, "P1_seg.nii": good}
    yield Kind("truth", "two predictions", 3, ("2 candidates for P1: P1.nii, P1_seg.nii",), predictions(clash), lines=4)
    yield Kind(
        "truth",
        "prediction with an unknown label",
        3,
        ("P1.nii: unknown label 7",),
        predictions({"P1.nii": nifti(_labels(7))}),
        lines=4,
    )


def _corner(value: int) -> Array:
    array = np.zeros(SHAPE, "u1")
    array[0, 0, 0] = value
    return array


def _bad_weights(name: str, words: str, content: Content | None, by: str = "predict", **more: Any) -> Kind:
    """Weights that are not acceptable, to `predict` or `info`."""

    def build(folder: Path) -> Sequence[object]:
        path = folder / "w.safetensors"
        if content is not None:
            _put(path, content() if isinstance(content, _Lazy) else content)
        if by == "info":
            return ["info", "--weights", path]
        image = _write(folder / "flair.nii", nifti())
        return ["predict", "--flair", image, "-o", folder / "out" / "s.nii.gz", "--weights", path, "--device", "cpu"]

    return Kind("weights", name, 4, ("w.safetensors", words), build, **more)


class _Lazy:
    """Bytes that need the toy network, which is made when they are first wanted."""

    def __init__(self, make: Callable[..., bytes], *arguments: Any) -> None:
        self._make, self._arguments = make, arguments

    def __call__(self, *_: object) -> bytes:
        return self._make(*self._arguments)


def _first(header: dict[str, Any]) -> dict[str, Any]:
    """The header's entry of the tensor that comes first."""
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    return min(tensors, key=lambda entry: entry["data_offsets"])


def _metadata(**values: str | None) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        for name, value in values.items():
            header["__metadata__"].pop(name)
            if value is not None:
                header["__metadata__"][name] = value

    return change


def _card(text: str) -> _Lazy:
    return _Lazy(safetensors, _metadata(card=text))


def _shifted(by: int) -> Callable[[dict[str, Any]], None]:
    """Move all tensors but the first: below 0 they overlap it, above 0 they leave a gap."""

    def change(header: dict[str, Any]) -> None:
        first = _first(header)
        for name, entry in header.items():
            if name != "__metadata__" and entry is not first:
                entry["data_offsets"] = [offset + by for offset in entry["data_offsets"]]

    return change


def _larger(header: dict[str, Any]) -> None:
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    last = max(tensors, key=lambda entry: entry["data_offsets"])
    last["shape"], last["data_offsets"][1] = [2**40], last["data_offsets"][0] + 2**41


def _renamed(header: dict[str, Any]) -> None:
    header["another.weight"] = header.pop(next(name for name in header if name != "__metadata__"))


def _reshaped(header: dict[str, Any]) -> None:
    entry = _first(header)
    entry["shape"] = [1, *entry["shape"]]


def _nan_body() -> bytes:
    whole = _toy()
    end = 8 + int.from_bytes(whole[:8], "little")
    return safetensors(body=b"\x00\x7e" + whole[end + 2 :])  # 0x7e00 is NaN in float16


def _length(length: int) -> bytes:
    return length.to_bytes(8, "little") + _toy()[8:]


def _pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(path.with_name("executed"))))


def _torch_saved(zipped: bool, path: Path) -> None:
    import torch

    torch.save({"state_dict": Bomb(path.with_name("executed"))}, path, _use_new_zipfile_serialization=zipped)


def _zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../escaped", "x")
        archive.writestr("model.safetensors", _toy())


def _tarred(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("../escaped")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))


def _closed(path: Path) -> None:
    path.write_bytes(_toy())
    path.chmod(0)


def _all_weights() -> Iterator[Kind]:
    newer = _Lazy(safetensors, _metadata(format_version="2"))
    yield _bad_weights("missing", "no such weights file", None)
    yield _bad_weights("folder", "no such weights file", Path.mkdir)
    yield _bad_weights("no permission", "cannot be read", _closed, by_permission=True)
    yield _bad_weights("named pipe", "no such weights file", os.mkfifo)
    yield _bad_weights("empty", "looks like an empty file", b"")
    yield _bad_weights("text", "looks like something else", b"weights\n" * 100)
    yield _bad_weights("web page", "looks like a web page", b"<!DOCTYPE html><title>Sign in</title>")
    yield _bad_weights("truncated", "truncated", lambda path: path.write_bytes(_toy()[:-100]))
    yield _bad_weights("truncated header", "truncated", lambda path: path.write_bytes(_toy()[:300]))
    yield _bad_weights(
        "bytes at the end", "7 bytes follow the last tensor", lambda path: path.write_bytes(_toy() + bytes(7))
    )
    yield _bad_weights("pickle with code", "looks like a pickle", _pickled)
    yield _bad_weights(
        "torch.save with code", "PyTorch checkpoint (zip with a pickle)", functools.partial(_torch_saved, True)
    )
    yield _bad_weights("old torch.save with code", "looks like a pickle", functools.partial(_torch_saved, False))
    yield _bad_weights("the same, by info", "looks like a pickle", _pickled, "info")
    yield _bad_weights("zip with ../", "looks like a zip archive", _zipped)
    yield _bad_weights("tar with ../", "looks like a tar archive", _tarred)
    yield _bad_weights("gzip", "looks like a gzip file", lambda path: path.write_bytes(gzip.compress(_toy())))
    yield _bad_weights("header longer than the file", "the header alone should take", _Lazy(_length, 900_000))
    yield _bad_weights("header of 2^63 bytes", "claims 9223372036854775808 bytes", _Lazy(_length, 2**63))
    yield _bad_weights("header that ends early", "header cannot be read", _Lazy(_length, 100))
    yield _bad_weights("header of many megabytes", "the limit is 1048576", _card('{"note": "' + "x" * 4 * 2**20 + '"}'))
    yield _bad_weights("overlapping tensors", "overlaps another tensor", _Lazy(safetensors, _shifted(-2)))
    yield _bad_weights("gap between tensors", "leaves a gap", _Lazy(safetensors, _shifted(2)))
    yield _bad_weights("tensor of terabytes", "truncated", _Lazy(safetensors, _larger))
    yield _bad_weights(
        "size that does not follow",
        "does not follow from its shape",
        _Lazy(safetensors, lambda h: _first(h).update(shape=[3])),
    )
    yield _bad_weights(
        "voxel type of whole numbers",
        "expected F16, BF16 or F32",
        _Lazy(safetensors, lambda h: _first(h).update(dtype="I64")),
    )
    yield _bad_weights("name outside the model", "not the network", _Lazy(safetensors, _renamed))
    yield _bad_weights("wrong shape", "other shapes for", _Lazy(safetensors, _reshaped))
    yield _bad_weights("values that are no numbers", "holds NaN or infinite values", _Lazy(_nan_body))
    yield _bad_weights("newer format", "format version 2, this a2fseg reads up to 1. Upgrade", newer)
    yield _bad_weights("newer format, by info", "Upgrade a2fseg", newer, "info")
    yield _bad_weights("no configuration", "configuration cannot be read", _Lazy(safetensors, _metadata(config=None)))
    yield _bad_weights(
        "configuration of no network", "not one of a network", _Lazy(safetensors, _metadata(config="{}"))
    )
    yield _bad_weights(
        "file of another program", "another program (format 'pt'", _Lazy(safetensors, _metadata(format="pt"))
    )
    deep = '{"initial":' * 5000 + "{}" + "}" * 5000
    yield _bad_weights("card nested without end", "card cannot be read", _card(deep), "info")
    yield _bad_weights("card with a control sequence", "control characters", _card('{"name": "\\u001b[2J"}'), "info")
    for name, text in (
        ("scores that are a list", '{"scores": [1]}'),
        ("scores that are words", '{"scores": {"subsets": {"flair": "good", "t1+t1c+t2+flair": "better"}}}'),
        ("patients that are a number", '{"data": 3}'),
        ("hours without end", '{"hours": ' + "9" * 400 + "}"),
    ):
        for by in ("predict", "info") if "scores" in text else ("info",):
            yield _bad_weights(f"card with {name}, by {by}", "card", _card(text), by)

    def other(folder: Path) -> Sequence[object]:
        image = _write(folder / "flair.nii", nifti())
        return ["predict", "--flair", image, *_to(folder)[:2], *_weights(folder, _toy(("pd", "ct")))]

    def initial(folder: Path) -> Sequence[object]:
        return _train(folder, nifti(_labels()), "--init-weights", _write(folder / "w.safetensors", _toy(("pd", "ct"))))

    def unnamed(folder: Path) -> Sequence[object]:
        return [
            "predict",
            "--flair",
            _write(folder / "flair.nii", nifti()),
            "-o",
            folder / "s.nii",
            "--weights",
            "huge",
        ]

    yield Kind("weights", "of other modalities", 4, ("toy.safetensors", "flair", "pd, ct"), other)
    yield Kind("weights", "of other modalities, to start from", 4, ("w.safetensors", "pd, ct"), initial)
    yield Kind("weights", "name that is not in the manifest", 4, ("'huge': no weights of this name", "tiny"), unnamed)


def _listed(name: str, words: str, content: Content, *options: str, code: int = 4, file: str = "m.json") -> Kind:
    """A manifest to list or download from; its name is said, and `words`."""

    def build(folder: Path) -> Sequence[object]:
        return ["download-weights", "--manifest", _put(folder / "m.json", content), *(options or ("--list",))]

    return Kind("manifest or download", name, code, (file, words), build)


def _manifests() -> Iterator[Kind]:
    def entry(**changes: Any) -> bytes:
        return manifest({key: value for key, value in (ENTRY | changes).items() if value is not None})

    yield _listed("missing", "no such manifest file", lambda path: None)
    yield _listed("folder", "no such manifest file", Path.mkdir)
    yield _listed("empty", "not a manifest", b"")
    yield _listed("not JSON", "not a manifest", b"<html><body>403</body></html>")
    yield _listed("nested without end", "nested too deeply", b'{"version": ' + b"[" * 100_000)
    yield _listed("a list", "not a JSON object", b"[]")
    yield _listed("more than a megabyte", "more than 1048576 bytes", b" " * 2**21)
    yield _listed("newer version", "manifest version 2, this a2fseg reads 1. Upgrade", manifest(version=2))
    yield _listed(".. in a name", "file '../toy.safetensors'", entry(file="../toy.safetensors"))
    yield _listed("absolute path", "file '/etc/toy.safetensors'", entry(file="/etc/toy.safetensors"))
    yield _listed("another file type", "does not end in .safetensors", entry(file="toy.pt"))
    yield _listed("file:// URL", "expected https, found file", entry(urls=["file:///etc/passwd"]))
    yield _listed("http:// URL", "http is not encrypted", entry(urls=["http://weights.invalid/x"]))
    yield _listed("password in a URL", "user name or password", entry(urls=["https://me:secret@weights.invalid/x"]))
    yield _listed("no sha256", "sha256 must be", entry(sha256=None))
    yield _listed("short sha256", "sha256 must be", entry(sha256="ab"))
    yield _listed("no size", "size_bytes must be", entry(size_bytes=None))
    yield _listed("control sequence in a text", "control characters", entry(description="\x1b[2J"))
    yield _listed("the same name twice", "occurs twice", manifest(ENTRY, ENTRY))
    yield _listed("name that is not there", "'huge': no weights of this name", manifest(), "huge")
    yield _listed("no default", "no default weights", manifest(ENTRY, ENTRY | {"name": "b"}), "--quiet")
    yield _listed(
        "not downloaded yet", "these weights are not on this machine", manifest(), "toy", "--verify", file="toy"
    )
    yield _listed("download while offline", "A2FSEG_OFFLINE is set", manifest(), "toy", file="toy")
    yield _listed(
        "options that exclude each other",
        "--list and --verify exclude",
        manifest(),
        "--list",
        "--verify",
        code=2,
        file="",
    )

    def at(url: str) -> Callable[[Path], Sequence[object]]:
        return lambda _: ["download-weights", "--list", "--manifest", url]

    online = {"A2FSEG_OFFLINE": "0"}
    group = "manifest or download"
    yield Kind(group, "manifest at a file:// URL", 4, ("expected https, found file",), at("file:///etc/passwd"), online)
    yield Kind(group, "manifest at a http:// URL", 4, ("not encrypted",), at("http://weights.invalid/m.json"), online)

    def imported(content: Content, *name: str, home: Content | None = None) -> Callable[[Path], Sequence[object]]:
        def build(folder: Path) -> Sequence[object]:
            path = _put(folder / "by-post.bin", content)
            sha256 = _sha256(b"good")
            table = _write(folder / "m.json", manifest(ENTRY | {"sha256": sha256, "size_bytes": 4}))
            if home is not None:
                _put(folder / "home", home)
            return ["download-weights", *name, "--manifest", table, "--from-file", path]

        return build

    yield Kind(group, "wrong hash of a file", 4, ("by-post.bin: not toy: sha256 is",), imported(b"evil", "toy"))
    yield Kind(group, "file that nobody lists", 4, ("by-post.bin: no weights in",), imported(b"evil"))
    yield Kind(group, "folder to import", 4, ("by-post.bin: is a folder",), imported(Path.mkdir, "toy"))
    yield Kind(group, "nothing to import", 4, ("by-post.bin: no such",), imported(lambda path: None, "toy"))
    no_place = ("home", "cannot be written", "A2FSEG_HOME")
    yield Kind(group, "cache that is a file", 5, no_place, imported(b"good", "toy", home=b"mine"))


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _predict(
    *options: object, then: Callable[[Path], Sequence[object]] = lambda _: ()
) -> Callable[[Path], Sequence[object]]:
    """A good FLAIR with these options, and those that `then` returns."""

    def build(folder: Path) -> Sequence[object]:
        image = _write(folder / "flair.nii", nifti())
        return ["predict", "--flair", image, *_to(folder), *options, *then(folder)]

    return build


def _outputs() -> Iterator[Kind]:
    def to(name: str, *options: object, before: Callable[[Path], object] = lambda _: None) -> Any:
        def then(folder: Path) -> Sequence[object]:
            before(folder / name)
            return ["-o", folder / name, *options]

        return _predict(then=then)

    def beside(option: str, name: str, before: Callable[[Path], object] = lambda _: None) -> Any:
        def then(folder: Path) -> Sequence[object]:
            before(folder / name)
            return [option, folder / name]

        return _predict(then=then)

    def mine(path: Path) -> None:
        _write(path, b"mine")

    def parent(path: Path) -> None:
        _write(path.parent, b"mine")

    def closed(path: Path) -> None:
        path.parent.mkdir()
        path.parent.chmod(0o500)

    def shut(path: Path) -> None:
        path.parent.mkdir()
        path.parent.chmod(0)

    group = "output"
    yield Kind(group, "exists", 2, ("s.nii.gz exists", "--overwrite"), to("s.nii.gz", before=mine))
    yield Kind(group, "unknown extension", 2, ("s.xyz", ".nii.gz"), to("s.xyz"))
    yield Kind(group, "folder where a file should be", 2, ("results", "a folder"), to("results", before=Path.mkdir))
    yield Kind(group, "folder named like an image", 2, ("r.nii.gz",), to("r.nii.gz", "--overwrite", before=Path.mkdir))
    yield Kind(
        group, "parent is a file", 5, ("there/s.nii.gz: cannot be written",), to("there/s.nii.gz", before=parent)
    )
    yield Kind(
        group,
        "read-only folder",
        5,
        ("there/s.nii.gz: cannot be written",),
        to("there/s.nii.gz", before=closed),
        by_permission=True,
    )
    yield Kind(
        group,
        "closed folder",
        5,
        ("there/s.nii.gz: cannot be written",),
        to("there/s.nii.gz", before=shut),
        by_permission=True,
    )
    yield Kind(group, "a name of 300 letters", 5, ("cannot be written",), to("s" * 300 + ".nii"))
    yield Kind(group, "an input", 2, ("flair.nii",), to("flair.nii", "--overwrite"))
    yield Kind(group, "none given", 2, ("-o seg.nii.gz",), lambda folder: _predict()(folder)[:3])
    yield Kind(group, "preview exists", 2, ("p.png exists",), beside("--preview", "p.png", mine))
    yield Kind(
        group,
        "preview in a file",
        5,
        ("there/p.png", "cannot be written"),
        beside("--preview", "there/p.png", parent),
    )
    yield Kind(group, "statistics exist", 2, ("s.json exists",), beside("--stats", "s.json", mine))
    yield Kind(group, "statistics of an unknown type", 2, ("s.txt", ".json or .csv"), beside("--stats", "s.txt"))
    yield Kind(
        group,
        "statistics in a file",
        5,
        ("there/s.json", "cannot be written"),
        beside("--stats", "there/s.json", parent),
    )

    def cohort(folder: Path) -> Sequence[object]:
        _evaluate(folder, None)
        _write(folder / "results", b"mine")
        return ["predict", folder / "data", "-o", folder / "results", *_weights(folder), "--device", "cpu"]

    def scores(folder: Path) -> Sequence[object]:
        _write(folder / "out", b"mine")
        return _evaluate(folder, nifti(_labels()))

    def run_folder(folder: Path) -> Sequence[object]:
        _write(folder / "out", b"mine")
        return _train(folder, nifti(_labels()))

    def demo(folder: Path) -> Sequence[object]:
        return ["demo", "-o", _write(folder / "out", b"mine"), "--device", "cpu"]

    yield Kind(group, "file where a cohort's folder should be", 5, ("results", "cannot be written"), cohort, lines=4)
    yield Kind(group, "file where scores should be", 5, ("out", "cannot be written"), scores, lines=4)
    yield Kind(group, "file where a run should be", 5, ("out", "cannot be written"), run_folder)
    yield Kind(group, "file where the demo should be", 5, ("out", "cannot be written"), demo)


def _options() -> Iterator[Kind]:
    group = "option"

    def option(words: str, *options: object, code: int = 2, name: str = "", **more: Any) -> Kind:
        return Kind(group, name or " ".join(map(str, options)), code, (words,), _predict(*options), **more)

    def data(words: str, *options: object, code: int = 2, name: str = "") -> Kind:
        return Kind(
            group,
            name or f"evaluate {' '.join(map(str, options))}",
            code,
            (words,),
            functools.partial(_evaluate, truth=nifti(_labels()))
            if not options
            else lambda folder: _evaluate(folder, nifti(_labels()), *options),
        )

    def split(words: tuple[str, ...], content: bytes | None, suffix: str, code: int, name: str) -> Kind:
        def build(folder: Path) -> Sequence[object]:
            if content is not None:
                _write(folder / "split.json", content)
            return _evaluate(folder, nifti(_labels()), "--split", f"{folder / 'split.json'}{suffix}")

        return Kind(group, name, code, words, build)

    yield option("pd", "--image", "pd=flair.nii", name="unknown modality")
    yield option("expected NAME=FILE", "--image", "flair.nii")
    yield option("--window big: expected one or three positive numbers", "--window", "big")
    yield option("--window 0", "--window", "0")
    yield option("--window 16,16", "--window", "16,16")
    yield option("--threads -2: expected 1 to", "--threads", "-2")
    yield option("--threads 0: expected 1 to", "--threads", "0")
    yield option("--threads 99999999999", "--threads", "99999999999")
    yield option("Invalid value for '--threads'", "--threads", "many", lines=8)
    yield option("--device abacus: expected auto, cpu, cuda", "--device", "abacus")
    yield option("--device cuda:one", "--device", "cuda:one")
    yield option("--device cuda:99: found", "--device", "cuda:99", code=5)
    yield option("--precision int8: expected auto, fp32", "--precision", "int8")
    yield option("--precision fp16 needs a GPU", "--precision", "fp16")
    yield option("--overlap 1.0: expected 0 up to", "--overlap", "1")
    yield option("--overlap -0.5", "--overlap", "-0.5")
    yield option("--overlap nan", "--overlap", "nan")
    yield option("--labels brats1999: expected brats2018 or brats2023", "--labels", "brats1999")
    yield option("--on-mismatch guess: expected error or resample", "--on-mismatch", "guess")
    yield option("--reference t1c: not among the images given (flair)", "--reference", "t1c")
    yield option("exclude each other", "--skip-existing", "--overwrite")
    yield option("No such option", "--colour", lines=8)
    yield Kind(group, "folder and flags", 2, ("not both",), lambda folder: ["predict", folder, *_predict()(folder)[1:]])
    yield Kind(group, "neither folder nor flags", 2, ("or neither",), lambda folder: ["predict", *_to(folder)])
    yield Kind(
        group,
        "an image without its modality",
        2,
        ("one file", "--flair"),
        lambda folder: ["predict", _write(folder / "a.nii", nifti()), *_to(folder)],
    )
    yield data("--part-id 2: expected 0 to 1", "--num-parts", 2, "--part-id", 2, name="part out of range")
    yield data("--part-id -1: expected 0 to 1", "--num-parts", 2, "--part-id", -1)
    yield data("--num-parts 0", "--num-parts", 0, "--part-id", 0)
    yield data("--num-parts and --part-id need each other", "--part-id", 0)
    yield data("--num-parts and --part-id need each other", "--num-parts", 2)
    yield data("Unknown policy 'brats1999'; expected one of brats2020", "--policy", "brats1999")
    yield data("--metrics beauty: expected some of dice", "--metrics", "dice,beauty")
    yield data("--subset t1+pet: expected some of t1, t1c, t2, flair", "--subset", "t1+pet")
    yield data("--subset t1+t1", "--subset", "t1+t1")
    yield data("labels brats1999: expected auto", "--labels", "brats1999")
    yield data("--compare nature: expected paper", "--compare", "nature")
    yield data("--figure P9: no such patient", "--figure", "P9")
    yield data("--write-card", "--write-card", "w.safetensors")
    yield data("exclude each other", "--all-subsets", "--subset", "t1")
    yield data("no such folder of predictions", "--predictions", "nowhere", code=3)
    two = b'{"train": ["P1"], "test": ["P1x"]}'
    yield split(("--split", "split.json:NAME", "train, test"), two, "", 2, "split without the name")
    yield split(("NAME one of train, test",), two, ":dev", 2, "split with an unknown name")
    yield split(("split.json, test: 1 cases are not in the data: P1x",), two, ":test", 3, "split of other patients")
    yield split(("split.json: not a JSON file",), None, "", 3, "split that is missing")
    yield split(("split.json: not a JSON file",), b"train: P1", "", 3, "split that is not JSON")
    yield split(("split.json: not a JSON file",), b"[" * 100_000, "", 3, "split nested without end")
    yield split(("split.json: expected a JSON object",), b'{"test": "P1"}', ":test", 3, "split that is no list")
    yield split(
        ("split.json: P1 stands in it twice",), b'{"a": ["P1"], "b": ["P1"]}', ":a", 3, "split with a case twice"
    )
    parts = {"SLURM_ARRAY_TASK_COUNT": "two", "SLURM_ARRAY_TASK_ID": "1"}
    words = ("SLURM_ARRAY_TASK_COUNT and SLURM_ARRAY_TASK_ID: expected whole numbers",)
    yield Kind(
        group,
        "SLURM variables that are no numbers",
        2,
        words,
        functools.partial(_evaluate, truth=nifti(_labels())),
        parts,
    )
    demo = lambda *options: lambda folder: ["demo", "-o", folder / "out", "--device", "cpu", *options]  # noqa: E731
    yield Kind(
        group, "demo of an unknown modality", 2, ("--modalities pet: expected some of t1",), demo("--modalities", "pet")
    )
    yield Kind(group, "demo of a negative seed", 2, ("--seed -1: expected 0 or more",), demo("--seed", "-1"))


def _trainings() -> Iterator[Kind]:
    group = "training"
    good = nifti(_labels())

    def train(words: str, *options: object, code: int = 2, name: str = "", **more: Any) -> Kind:
        return Kind(
            group, name or " ".join(map(str, options)), code, (words,), lambda f: _train(f, good, *options), **more
        )

    def split(words: str, text: str, name: str, code: int = 3) -> Kind:
        def build(folder: Path) -> Sequence[object]:
            return _train(folder, good, "--split", _write(folder / "split.json", text.encode()))

        return Kind(group, name, code, (words,), build)

    def resume(name: str, words: tuple[str, ...], code: int, *options: object, **saved: Any) -> Kind:
        def build(folder: Path) -> Sequence[object]:
            arguments = _train(folder, good, "--resume", *options)
            (folder / "out").mkdir()
            for file, content in saved.items():
                _put(folder / "out" / file.replace("_", "."), content)
            return arguments

        return Kind(group, name, code, words, build, leaves=("out/cache*", "out/config.json", "out/split.json"))

    yield Kind(group, "no truth", 3, ("data", "no patient has a segmentation"), functools.partial(_train, truth=None))
    yield Kind(
        group,
        "no patients",
        3,
        ("empty: no image found",),
        lambda folder: ["train", _folder(folder / "empty"), "-o", folder / "out"],
    )
    yield split(
        "split.json: P1 stands in it twice", '{"train": ["P1"], "validation": ["P1"]}', "split with a case twice"
    )
    yield split("split.json", '{"train": []}', "split with nobody to train on")
    yield split("P9: named in the split but not found", '{"train": ["P9"]}', "split with a case that is not there")
    yield split("expected a JSON object", '{"train": "P1"}', "split that is no list")
    yield split("split.json: not a JSON file", "train", "split that is not JSON")
    yield train("edges must be multiples of 2, at least 4; got (7, 7, 7)", "--patch-size", "7")
    yield train("--patch-size large: expected one or three", "--patch-size", "large")
    yield train("--preset huge: expected paper, small, tiny", "--preset", "huge")
    yield train("--features 2,wide", "--features", "2,wide")
    yield train("features_per_stage needs", "--features", "0,4")
    yield train("--spacing -1", "--spacing", "-1")
    yield train("spacing_mm needs three values of 0.1 to 20", "--spacing", "1000")
    yield train("distinct names", "--modalities", "t1,t1")
    yield train("letters, digits", "--modalities", "t1,../t2")
    yield train("--labels core: expected name=value", "--labels", "core")
    yield train("label values are 0", "--labels", "core=999")
    yield train("--labels core=1,core=2: expected name=value", "--labels", "core=1,core=2")
    yield train("region all must consist of", "--regions", "all=core")
    yield train("optimizer must be adam, adamw or muon", "--optimizer", "sgd")
    yield train("learning rate must lie in (0, 10); got nan", "--learning-rate", "nan")
    yield train("epochs, iterations and batch size must be at least 1", "--epochs", "0")
    yield train("the seed must be 0 or more", "--seed", "-1")
    yield train("--time-budget soon: expected a time such as 2h", "--time-budget", "soon")
    yield train("--time-budget", "--time-budget", "9" * 400 + "h", name="--time-budget of 400 digits")
    yield train("--workers -1: expected 0 or more", "--workers", "-1")
    yield train("name '../x' must be letters", "--name", "../x")
    yield train("licence must be one line", "--licence", "two\nlines")
    yield train("none.safetensors: no such weights file", "--init-weights", "none.safetensors", code=4)
    yield Kind(
        group,
        "weights with code to start from",
        4,
        ("w.safetensors", "looks like a pickle"),
        lambda folder: _train(folder, good, "--init-weights", _put(folder / "w.safetensors", _pickled)),
    )
    yield resume("resume of nothing", ("out/last.ckpt: no checkpoint to resume from",), 4)
    yield resume(
        "resume with other options",
        ("config.json differs from these options",),
        2,
        last_ckpt=_checkpoint(),
        config_json=b"{}",
    )
    yield resume(
        "resume of another network",
        ("out", "the checkpoint is of another network"),
        2,
        last_ckpt=_checkpoint(config="{}"),
    )
    yield resume("resume of other tensors", ("last.ckpt", "not a checkpoint"), 4, last_ckpt=_checkpoint(own=True))
    yield resume("resume of text", ("last.ckpt: not a checkpoint of this tool",), 4, last_ckpt=b"text" * 100)
    yield resume("resume of a pickle with code", ("last.ckpt: not a checkpoint of this tool",), 4, last_ckpt=_pickled)
    yield resume(
        "resume of a torch.save with code",
        ("last.ckpt: not a checkpoint",),
        4,
        last_ckpt=functools.partial(_torch_saved, True),
    )

    def again(folder: Path) -> Sequence[object]:
        _write(folder / "out" / "last.ckpt", b"mine")
        return _train(folder, good)

    yield Kind(group, "a run is there already", 2, ("out holds a run already. Give --resume",), again)
    join = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    for name, words, env in (
        ("WORLD_SIZE that is no number", "WORLD_SIZE two: expected a whole number", {"WORLD_SIZE": "two"}),
        ("WORLD_SIZE below 1", "WORLD_SIZE -2: expected a whole number from 1", {"WORLD_SIZE": "-2"}),
        ("WORLD_SIZE without RANK", "RANK is not set: start several processes with torchrun", {"WORLD_SIZE": "2"}),
        ("RANK that is no number", "RANK first: expected a whole number", {"WORLD_SIZE": "2", "RANK": "first", **join}),
        ("RANK out of range", "RANK 5: expected a whole number from 0 to 1", {"WORLD_SIZE": "2", "RANK": "5", **join}),
        (
            "MASTER_PORT that is no number",
            "MASTER_PORT x: expected",
            {"WORLD_SIZE": "2", "RANK": "0", **join, "MASTER_PORT": "x"},
        ),
    ):
        yield Kind(group, name, 2, (words,), functools.partial(_train, truth=good), env)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _checkpoint(config: str = "", own: bool = False) -> Content:
    def write(path: Path) -> None:
        import torch

        from a2fseg_cli.core.config import PRESETS

        mine = replace(
            PRESETS["tiny"], features_per_stage=(4, 8), spacing_mm=(4.0,) * 3, patch_size=(16,) * 3
        ).to_json()
        torch.save({"config": mine if own else config, "model": {}, "optimizer": {}, "mean": {}, "state": {}}, path)

    return write


KINDS: tuple[Kind, ...] = (
    *_images(),
    *_grids(),
    *_folders_and_tables(),
    *_truths(),
    *_all_weights(),
    *_manifests(),
    *_outputs(),
    *_options(),
    *_trainings(),
)


# Fuzzing: valid files, damaged at random, to the readers.

FORMATS = ("nii", "nii.gz", "nrrd", "mha", "label map", "weights", "manifest", "mgz")
_PATIENCE_S = 30
_SPARE_BYTES = 2**30

Random = np.random.Generator


@dataclass
class Tally:
    """What came of the damaged files of one format.

    Attributes:
        accepted: Read as whole, to finite values.
        refused: Refused with an error of the tool's own.
        failures: Everything else: a traceback, a crash, a hang.
        slowest_s: The longest that one file took.
        slowest: Its number.
        extra_mib: How far the process grew while it read.
    """

    accepted: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest: int = -1
    extra_mib: float = 0.0

    @property
    def tried(self) -> int:
        """Files in all."""
        return self.accepted + self.refused + len(self.failures)


def fuzz(count: int, seed: int, folder: Path) -> dict[str, Tally]:
    """Damage `count` valid files and read each; return what came of them, by format.

    Each format is read in a process of its own, which may take 1 GiB more than at its start and 30 s a file; where it
    dies, that file has failed and another process goes on behind it. Failed files stay in `folder`.
    """
    tallies = {}
    for index, format_ in enumerate(FORMATS):
        share = count // len(FORMATS) + (index < count % len(FORMATS))
        tallies[format_] = _fuzz_format(format_, share, seed, folder)
    return tallies


def _fuzz_format(format_: str, count: int, seed: int, folder: Path) -> Tally:
    tally, first = Tally(), 0
    while first < count:
        arguments = ["--child", format_, "--first", first, "--fuzz", count, "--seed", seed, "--folder", folder]
        command = [sys.executable, "-W", "error", __file__, *map(str, arguments)]
        limit_s = 60 + _PATIENCE_S * (count - first)
        child = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit_s, check=False
        )
        reports = [json.loads(line) for line in child.stdout.splitlines()]
        for report in reports:
            if "mib" in report:
                tally.extra_mib = max(tally.extra_mib, report["mib"])
                continue
            if report["seconds"] > tally.slowest_s:
                tally.slowest_s, tally.slowest = report["seconds"], first
            tally.accepted += report["outcome"] == "accepted"
            tally.refused += report["outcome"] == "refused"
            if report["outcome"] not in ("accepted", "refused"):
                tally.failures.append(f"{format_} {first}: {report['outcome']}")
            first += 1
        if not reports or first < count:
            if child.returncode == 0 or not reports:
                raise RuntimeError(f"the child that reads {format_} cannot work:\n{child.stderr}")
            tally.failures.append(f"{format_} {first}: ended with {child.returncode}\n{child.stderr[-2000:]}")
            first += 1
        elif child.stderr:  # libraries in C++ write there past Python
            tally.failures.append(f"{format_}: said on stderr\n{child.stderr[-2000:]}")
    return tally


def _child(format_: str, first: int, count: int, seed: int, folder: Path) -> None:
    """Read the damaged files from number `first` on; print a line of JSON for each."""
    from a2fseg_cli.errors import InputError, WeightsError

    path = folder / f"{format_.replace(' ', '-')}-{first}{_suffix(format_)}"
    path.write_bytes(_valid(format_, np.random.default_rng(0)))
    _read(format_, path)  # loads what the reader needs
    start_mib = _peak_mib()
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    if pages:
        limit = pages * resource.getpagesize() + _SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print(json.dumps({"mib": 0.0}), flush=True)
    for index in range(first, count):
        faulthandler.dump_traceback_later(_PATIENCE_S, exit=True)
        path.write_bytes(damaged(format_, np.random.default_rng([seed, FORMATS.index(format_), index])))
        began = time.perf_counter()
        try:
            _read(format_, path)
            outcome = "accepted"
        except (InputError, WeightsError):
            outcome = "refused"
        except Exception:
            outcome = traceback.format_exc()
            shutil.copy(path, folder / f"failed-{index}-{path.name}")
        seconds = time.perf_counter() - began
        print(json.dumps({"outcome": outcome, "seconds": seconds}), flush=True)
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps({"mib": _peak_mib() - start_mib}), flush=True)
    path.unlink()


def _peak_mib() -> float:
    """The most memory that this process has had; Linux's ru_maxrss begins with its parent's."""
    if sys.platform == "linux":
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _suffix(format_: str) -> str:
    return {"label map": ".nii.gz", "weights": ".safetensors", "manifest": ".json"}.get(format_, f".{format_}")


def _read(format_: str, path: Path) -> None:
    """Read a file as the commands do. Raises: what the readers raise; AssertionError for what no image can be."""
    if format_ == "manifest":
        from a2fseg_cli.weights.manifest import read_manifest

        read_manifest(path)
    elif format_ == "weights":
        from a2fseg_cli.core.a2fseg import parameter_shapes
        from a2fseg_cli.weights.file_format import inspect_weights, load_weights

        inspect_weights(path)
        _, tensors = load_weights(path, parameter_shapes)
        assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    elif format_ == "label map":
        from a2fseg_cli.core.config import ModelConfig
        from a2fseg_cli.imaging.label_maps import read_classes

        label_map = read_classes(path, ModelConfig())
        assert label_map.classes.shape == label_map.geometry.size
        assert label_map.classes.max() <= 3
    else:
        from a2fseg_cli.imaging.reading import peek_image, read_image

        geometry, _ = peek_image(path)
        image = read_image(path)
        assert image.array.shape == image.geometry.size == geometry.size
        assert np.isfinite(image.array).all()


def _valid(format_: str, random: Random) -> bytes:
    if format_ == "manifest":
        return manifest(ENTRY, ENTRY | {"name": "b", "default": True, "preset": "tiny"})
    if format_ == "weights":
        return _toy()
    array = _labels(3) if format_ == "label map" else _brain(dtype=str(random.choice(["f4", "i2", "u1"])))
    compressed = bool(random.integers(2))
    if format_ == "nrrd":
        return nrrd(array, compressed)
    if format_ == "mha":
        return mha(array, compressed)
    if format_ == "mgz":
        return mgh(array)
    return nifti(array, NIFTI2 if random.integers(4) == 0 else NIFTI1)


def damaged(format_: str, random: Random) -> bytes:
    """Return a valid file of a format with one to three damages."""
    data = _valid(format_, random)
    special = {
        "mgz": (),
        "nrrd": (_text_header,),
        "mha": (_text_header,),
        "weights": (_safetensors_header,),
        "manifest": (_json,),
    }
    ways = [*special.get(format_, (_nifti_fields, _nifti_fields, _byte_order)) * 3, *_BYTES]
    for _ in range(int(random.integers(1, 4))):
        data = ways[int(random.integers(len(ways)))](data, random)
    if format_ in ("nii.gz", "mgz", "label map"):
        data = gzip.compress(data, 1, mtime=0)
        if random.integers(2):
            data = _BYTES[int(random.integers(len(_BYTES)))](data, random)
    return data


def _place(data: bytes, random: Random) -> int:
    """A byte, as often among the first 400, where headers are, as anywhere."""
    return int(random.integers(max(1, min(len(data), 400) if random.integers(2) else len(data))))


def _truncated(data: bytes, random: Random) -> bytes:
    return data[: _place(data, random)]


def _flipped(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 9)) if data else 0):
        changed[_place(data, random)] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _appended(data: bytes, random: Random) -> bytes:
    return data + random.bytes(int(random.integers(1, 2000)))


def _duplicated(data: bytes, random: Random) -> bytes:
    start, length = _place(data, random), int(random.integers(1, 500))
    return data[: start + length] + data[start:]


def _zeroed(data: bytes, random: Random) -> bytes:
    start, length = _place(data, random), int(random.integers(1, 500))
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


_BYTES = (_truncated, _flipped, _appended, _duplicated, _zeroed)


def _nifti_fields(data: bytes, random: Random) -> bytes:
    """One to four fields of a NIfTI header with values of all kinds."""
    layout = NIFTI1 if data[:2] == b"\x5c\x01" else NIFTI2
    if len(data) < layout.itemsize:
        return data
    fields = np.frombuffer(data, layout, 1).copy()
    names = ("sizeof_hdr", "dim", "datatype", "bitpix", "pixdim", "vox_offset", "scl_slope", "scl_inter", "xyzt_units",
             "qform_code", "sform_code", "quatern_b", "qoffset_x", "srow_x", "srow_z", "magic")  # fmt: skip
    for name in random.choice(names, int(random.integers(1, 5))):
        values = fields[name].reshape(-1)
        if values.dtype.kind == "S":
            values[0] = random.bytes(3)
            continue
        kind = np.finfo(values.dtype) if values.dtype.kind == "f" else np.iinfo(values.dtype)
        special = [
            kind.min,
            kind.max,
            *(n for n in (-1, 0, 1, 2, 3, 8, 16, 64, 100, 1000) if kind.min <= n <= kind.max),
        ]
        special += [np.nan, np.inf, -np.inf, 1e-30, 1e30, 0.5] if values.dtype.kind == "f" else []
        for _ in range(int(random.integers(1, 4))):
            values[int(random.integers(values.size))] = special[int(random.integers(len(special)))]
        fields[name] = values.reshape(fields[name].shape)
    return fields.tobytes() + data[layout.itemsize :]


def _byte_order(data: bytes, random: Random) -> bytes:
    """The header in the other byte order, or its first field alone."""
    layout = NIFTI1 if data[:2] == b"\x5c\x01" else NIFTI2
    if len(data) < layout.itemsize:
        return data
    if random.integers(2):
        return data[3::-1] + data[4:]
    return np.frombuffer(data, layout, 1).byteswap().tobytes() + data[layout.itemsize :]


_VALUES = (
    "", "0", "1", "-1", "3", "4", "9999999999999999999999", "2147483648", "nan", "inf", "1e308", "-1e-308", "0x10",
    "1 1", "3 3 3", "0 0 0", "17 18 16", "-17 18 16", "99999 99999 99999", "1 0 0 0 1 0 0 0 1", "0 0 0 0 0 0 0 0 0",
    "nan nan nan nan nan nan nan nan nan", "(1,0,0) (0,1,0) (0,0,1)", "(0,0,0) (0,0,0) (0,0,0)",
    "(nan,0,0) none (1e40,0,0)", "none none none", "True", "False", "LOCAL", "LIST", "/dev/zero", "../other.raw",
    "a%03d.raw 0 100000 1", "MET_DOUBLE", "MET_UCHAR", "MET_FLOAT_ARRAY", "double", "int8", "block", "uint64", "raw",
    "gzip", "bzip2", "hex", "ascii", "txt", "big", "left-posterior-superior", "right-anterior-superior",
    "scanner-xyz-time", "domain list domain", "%s%n%x", "x" * 70_000, "(" * 3000, "\0", "\xff\xfe",
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20",
)  # fmt: skip


def _text_header(data: bytes, random: Random) -> bytes:
    """One to three lines of a text header: another value, another key, away, twice, or moved."""
    head, separator, body = data.partition(b"\n\n" if data[:4] == b"NRRD" else b"LOCAL\n")
    lines = head.split(b"\n")
    for _ in range(int(random.integers(1, 4))):
        at = int(random.integers(len(lines)))
        key, colon, _ = lines[at].partition(b":" if data[:4] == b"NRRD" else b"=")
        value = _VALUES[int(random.integers(len(_VALUES)))].encode("latin-1")
        way = int(random.integers(8))
        if way == 5:
            lines.insert(int(random.integers(len(lines) + 1)), lines[at])
        elif way == 6 and len(lines) > 1:
            lines.insert(int(random.integers(len(lines))), lines.pop(at))
        elif way == 7 and len(lines) > 1:
            del lines[at]
        else:
            lines[at] = key + colon + b" " + value
    return b"\n".join(lines) + separator + body


_JSON = (
    "null", "true", "-1", "0", "1", "2", "1.5", "1e999", "NaN", "9" * 400, "9" * 5000, "18446744073709551616", '""',
    '"x"', '"\\ud800"', '"\\u001b[31m"', '"../x"', '"' + "x" * 3000 + '"', "[]", "{}", "[[]]", "[1, 2]",
    '{"a": 1, "a": 2}', "[" * 100_000, '{"a":' * 3000 + "1" + "}" * 3000, '"F16"', '"F64"', '["t1"]', "[4096, 4096]",
    "[0, 0, 0]",
)  # fmt: skip
_MARK = "\x07here"


def _json(data: bytes, random: Random) -> bytes:
    """One value of a JSON text, wherever it lies, replaced by one of another kind, left out, or under another key."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return data
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    walk(value)
    if not places:
        return data
    node, key = places[int(random.integers(len(places)))]
    way = int(random.integers(6))
    if way == 0:
        del node[key]
    elif way == 1 and isinstance(node, dict):
        node["another"] = node.pop(key)
    elif isinstance(node[key], str) and node[key].startswith("{"):  # JSON within JSON: configuration and card
        node[key] = _json(node[key].encode(), random).decode()
    else:
        node[key] = _MARK
    return json.dumps(value).replace(json.dumps(_MARK), _JSON[int(random.integers(len(_JSON)))]).encode()


def _safetensors_header(data: bytes, random: Random) -> bytes:
    """The header's JSON changed, with its length kept true or not."""
    end = 8 + int.from_bytes(data[:8], "little")
    if end > len(data):
        return data
    if random.integers(6) == 0:
        lie = [0, 1, 7, end - 9, end, len(data), 2**20, 2**31, 2**63, 2**64 - 1][int(random.integers(10))]
        return lie.to_bytes(8, "little") + data[8:]
    text = _json(data[8:end], random)
    return len(text).to_bytes(8, "little") + text + data[end:]


def run_command(arguments: Sequence[str], env: Mapping[str, str], folder: Path) -> tuple[int, str, str]:
    """Run the command in a process of its own; root gives up to read what permissions forbid."""
    ran = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=_obey_permissions if sys.platform == "linux" and os.geteuid() == 0 else None,
    )
    return ran.returncode, ran.stdout, ran.stderr


def _obey_permissions() -> None:
    """Take CAP_DAC_OVERRIDE (1) and CAP_DAC_READ_SEARCH (2) from what this process may start (PR_CAPBSET_DROP, 24)."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (1, 2):
        libc.prctl(24, capability, 0, 0, 0)


def main() -> int:
    """Try everything, print the table; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--fuzz", type=int, default=2500, metavar="COUNT", help="damaged files in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", choices=FORMATS, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options.child, options.first, options.fuzz, options.seed, options.folder)
        return 0
    failures: list[str] = []
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        for number, kind in enumerate(KINDS):
            folder = Path(place) / str(number)
            folder.mkdir()
            row = rows.setdefault(kind.group, [0, 0, 0.0])
            row[0] += 1
            began = time.perf_counter()
            try:
                try_kind(kind, folder, run_command)
                row[1] += 1
            except (AssertionError, subprocess.TimeoutExpired) as error:
                failures.append(str(error))
            row[2] = max(row[2], time.perf_counter() - began)
            print(f"[{number + 1}/{len(KINDS)}] {kind}", file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
        kept = Path(tempfile.mkdtemp(prefix="harm-inputs-"))
        tallies = fuzz(options.fuzz, options.seed, kept)
    print("| bad input | tried | refused as promised | accepted | failed | slowest s | extra MiB |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for group, (tried, refused, slowest) in rows.items():
        print(f"| {group} | {tried:.0f} | {refused:.0f} | | {tried - refused:.0f} | {slowest:.1f} | |")
    for format_, tally in tallies.items():
        cells = (tally.tried, tally.refused, tally.accepted, len(tally.failures))
        print(f"| damaged {format_} | {' | '.join(map(str, cells))} | {tally.slowest_s:.3f} | {tally.extra_mib:.0f} |")
        failures += tally.failures
    for failure in failures:
        print(f"\n{failure}")
    if any(kept.iterdir()):
        print(f"\nThe damaged files that failed: {kept}")
    else:
        kept.rmdir()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
