"""The stored values of a DICOM file's frames, whatever way they are packed.

GDCM, through SimpleITK, unpacks what is compressed. It is given the pixels alone, without the tags around them: of an
enhanced file it would apply the first frame's slope to all frames, and of some MR files no slope at all.
"""

# SimpleITK has no type hints.
# mypy: allow-untyped-calls

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_KEPT = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
         "PhotometricInterpretation", "PixelData")  # fmt: skip
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_MULTI_FRAME_WORDS = "1.2.840.10008.5.1.4.1.1.7.3"
_MULTI_FRAME_BYTES = "1.2.840.10008.5.1.4.1.1.7.2"


def read_frames(path: Path) -> npt.NDArray[Any]:
    """Return the stored values (frames, rows, columns) of a file, without slope and intercept.

    Raises:
        ValueError: truncated or damaged, or packed in a way that is not known.
        OSError: it cannot be read.
    """
    from pydicom import dcmread

    try:
        data = dcmread(path, force=True)
        frames = int(data.get("NumberOfFrames") or 1)
        shape = (frames, int(data.Rows), int(data.Columns))
        if "PixelData" not in data:
            raise ValueError("truncated, without pixels")
        syntax = data.file_meta.get("TransferSyntaxUID")
        if syntax is not None and syntax.is_encapsulated:
            return _unpacked(data, shape)
        return _plain(data, shape)
    except (OSError, ValueError, MemoryError):
        raise
    except Exception as error:  # pydicom raises what its parser meets: struct.error, KeyError, AttributeError
        raise ValueError(f"damaged ({error})") from error


def _plain(data: Dataset, shape: tuple[int, int, int]) -> npt.NDArray[Any]:
    allocated, stored = int(data.BitsAllocated), int(data.get("BitsStored") or data.BitsAllocated)
    if allocated not in (8, 16, 32) or not 0 < stored <= allocated:
        raise ValueError(f"pixels of {allocated} bits. Expected 8, 16 or 32")
    syntax = data.file_meta.get("TransferSyntaxUID")
    order = ">" if syntax is not None and not syntax.is_little_endian else "<"
    raw: bytes = data.PixelData
    needed = math.prod(shape) * allocated // 8
    if len(raw) < needed:
        raise ValueError(f"truncated, {needed} bytes of pixels promised, {len(raw)} are there")
    values = np.frombuffer(raw[:needed], f"{order}u{allocated // 8}").reshape(shape)
    # Old scanners keep drawings in the bits above those of the value.
    values = values.astype(values.dtype.newbyteorder("=")) >> (int(data.get("HighBit") or stored - 1) + 1 - stored)
    if stored < allocated:
        values &= np.array(2**stored - 1, values.dtype)
    if not int(data.get("PixelRepresentation") or 0):
        return values
    signed = values.view(f"i{allocated // 8}")
    free = allocated - stored
    return (signed << free) >> free  # the value's own sign, over the free bits


def _unpacked(data: Dataset, shape: tuple[int, int, int]) -> npt.NDArray[Any]:
    import SimpleITK as sitk
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, generate_uid

    alone = Dataset()
    for keyword in _KEPT:
        if keyword in data:
            setattr(alone, keyword, data[keyword].value)
    alone["PixelData"].VR, alone["PixelData"].is_undefined_length = "OB", True
    words = _MULTI_FRAME_WORDS if int(data.BitsAllocated) > 8 else _MULTI_FRAME_BYTES
    alone.SOPClassUID = UID(words if shape[0] > 1 else _SECONDARY_CAPTURE)
    alone.SOPInstanceUID = generate_uid()
    if shape[0] > 1:
        alone.NumberOfFrames = shape[0]
    alone.file_meta = FileMetaDataset()
    alone.file_meta.TransferSyntaxUID = data.file_meta.TransferSyntaxUID
    alone.file_meta.MediaStorageSOPClassUID = alone.SOPClassUID
    alone.file_meta.MediaStorageSOPInstanceUID = alone.SOPInstanceUID
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    with tempfile.TemporaryDirectory(prefix="a2fseg-") as folder:  # mode 0700
        copy = os.path.join(folder, "pixels.dcm")
        alone.save_as(copy, enforce_file_format=True)
        reader.SetFileName(copy)
        try:
            values: npt.NDArray[Any] = sitk.GetArrayFromImage(reader.Execute())
        except RuntimeError as error:
            name = data.file_meta.TransferSyntaxUID.name
            raise ValueError(f"truncated, damaged, or packed in a way that is not known ({name})") from error
    if values.size != math.prod(shape):
        raise ValueError(f"{values.size} pixels, {math.prod(shape)} promised")
    return values.reshape(shape)
