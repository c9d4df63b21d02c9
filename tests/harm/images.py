"""Images that cannot be taken, alone or beside another."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti2 import header_dtype as NIFTI2

from harm.commands import Content, put, to_output
from harm.files import brain, brain_of_vectors, mha, nifti, nrrd, with_value
from harm.kinds import Kind


def _image(name: str, words: str, file: str, content: Content, **more: Any) -> Kind:
    """An image given as FLAIR; its name is said, and `words`."""

    def build(folder: Path) -> Sequence[object]:
        return ["predict", "--flair", put(folder / file, content), *to_output(folder)]

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

_NOT_A_NUMBER = {"srow": ((np.nan, 0, 0, 0), (0, -4, 0, 0), (0, 0, 4, 0))}

_FOUR_AXES = {
    "space": None,
    "space_dimension": "4",
    "space_directions": "(4,0,0,0) (0,4,0,0) (0,0,4,0) (0,0,0,1)",
    "space_origin": "(0,0,0,0)",
}

_LIST = {"space_directions": "none (4,0,0) (0,4,0) (0,0,4)", "kinds": "list domain domain domain"}

_NO_FORM = {"sform_code": 0, "qform_code": 0}


def image_kinds() -> Iterator[Kind]:
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
    yield _image("DICOM, damaged", "a DICOM file that is damaged", "flair.dcm", bytes(128) + b"DICM" + bytes(400))
    yield _image("damaged DICOM, .nii", "a DICOM file that is damaged", "flair.nii", bytes(128) + b"DICM" + bytes(400))
    yield _image("2-D", "2-D", "flair.nii", nifti(brain()[8]))
    yield _image("2-D .mha", "2-D", "flair.mha", mha(brain()[8]))
    yield _image("one slice", "2-D, a single slice (17 x 18 x 1)", "flair.nii", nifti(brain()[8:9]))
    yield _image("4-D", "4-D, 3 volumes. Split it", "flair.nii", nifti(np.stack([brain()] * 3)))
    yield _image("4-D .mha", "4-D, 3 volumes. Split it", "flair.mha", mha(np.stack([brain()] * 3)))
    yield _image("4-D .nrrd", "4-D, 3 volumes. Split it", "flair.nrrd", nrrd(np.stack([brain()] * 3), **_FOUR_AXES))
    yield _image(
        "4-D .nrrd, a list of volumes",
        "a vector image (2 numbers a voxel)",
        "flair.nrrd",
        nrrd(brain_of_vectors(), **_LIST),
    )
    yield _image("vector", "a vector image (3 numbers a voxel)", "flair.nii", nifti(np.stack([brain()[None]] * 3)))
    yield _image("vector .mha", "a vector image", "flair.mha", mha(ElementNumberOfChannels="3"))
    yield _image("complex", "an image of the type complex64", "flair.nii", nifti(brain(dtype="c8")))
    yield _lie("RGB", "an image of the type RGB", datatype=128, bitpix=24)
    yield _lie("RGBA", "an image of the type RGBA", datatype=2304, bitpix=32)
    yield _lie("one bit", "an image of the type binary", datatype=1, bitpix=1)
    yield _image("all zero", "empty, every voxel is 0", "flair.nii", nifti(brain() * 0))
    yield _image("constant", "empty, every voxel is 7", "flair.nii", nifti(brain() * 0 + 7))
    yield _image("all NaN", "empty", "flair.nii", nifti(brain() * np.float32("nan")))
    yield _image(
        "NaN inside the brain", "1 voxels inside the brain are NaN", "flair.nii", nifti(with_value(brain(), np.nan))
    )
    yield _image("infinity inside the brain", "NaN or infinite", "flair.nii", nifti(with_value(brain(), np.inf)))
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
    alone = _image("the voxels of a pair alone", "", "flair.img", nifti())
    yield replace(alone, words=("flair.hdr: no such file",))
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
        images = ["--t1", put(folder / "a.nii", nifti()), "--flair", put(folder / "b.nii", content)]
        return ["predict", *images, *to_output(folder), *options]

    return Kind("grid", name, code, ("a.nii", "b.nii", words), build, lines=7)


def grid_kinds() -> Iterator[Kind]:
    moved = ((-4, 0, 0, 30), (0, -4, 0, 0), (0, 0, 4, 0))
    turned = ((4, 0, 0, 0), (0, -4, 0, 0), (0, 0, 4, 0))
    larger = ((-5, 0, 0, 0), (0, -5, 0, 0), (0, 0, 5, 0))
    yield _pair("size", "17 x 18 x 15", nifti(brain(1)[:15]))
    yield _pair("spacing", "5 x 5 x 5", nifti(brain(1), pixdim=(1, 5, 5, 5, 1, 1, 1, 1), srow=larger))
    yield _pair("origin", "30.000", nifti(brain(1), srow=moved))
    yield _pair("direction", "RPS", nifti(brain(1), srow=turned))
    yield _pair("the same content twice", "are the same image", nifti())
    yield _pair("the same content, other type of voxels", "are the same image", nifti(brain(dtype="i2")))
    far = nifti(brain(1), srow=((-4, 0, 0, 900), (0, -4, 0, 900), (0, 0, 4, 900)))
    yield replace(
        _pair("nothing in common to resample", "nothing of it lies", far, "--on-mismatch", "resample"),
        words=("b.nii", "nothing of it lies on the reference's grid"),
    )
