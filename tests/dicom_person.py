"""DICOM series of a person who does not exist, made by pydicom."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

PERSON = {
    "PatientName": "DOE^JANE",
    "PatientID": "MRN-4711-0815",
    "PatientBirthDate": "19500203",
    "PatientSex": "F",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.1",
    "StudyDate": "20240311",
    "StudyTime": "101500",
    "StudyID": "S77",
    "AccessionNumber": "ACC-90210",
    "ReferringPhysicianName": "HOUSE^GREG",
}
# A head turned by 10 degrees: exact to the 16 characters that DICOM has for a number.
COSINE, SINE = 0.98480775301221, 0.17364817766693
OBLIQUE = (1.0, 0.0, 0.0, 0.0, COSINE, SINE)


def series(
    folder: Path,
    voxels: np.ndarray,
    spacing_mm: tuple[float, float, float] = (3.0, 0.5, 0.75),
    orientation: tuple[float, ...] = OBLIQUE,
    origin_mm: tuple[float, float, float] = (-10.0, 20.0, 30.0),
    number: int = 5,
    **tags: object,
) -> list[Path]:
    """Write voxels (D, H, W) as one file a slice and return the files, in an order that is not that of the slices."""
    folder.mkdir(parents=True)
    normal = np.cross(orientation[:3], orientation[3:])
    uid = generate_uid()
    paths = []
    for index, plane in enumerate(voxels.astype(np.uint16)):
        header = _header(MRImageStorage, uid, number, plane.shape)
        header.InstanceNumber = index + 1
        header.ImageOrientationPatient = list(orientation)
        header.ImagePositionPatient = [round(float(v), 10) for v in origin_mm + normal * spacing_mm[0] * index]
        header.PixelSpacing = [spacing_mm[1], spacing_mm[2]]
        header.SliceThickness = spacing_mm[0]
        header.ScanningSequence, header.SequenceVariant, header.ScanOptions = "SE", "NONE", ""
        header.MRAcquisitionType, header.EchoTime, header.RepetitionTime = "2D", 10, 500
        header.EchoTrainLength = 1
        header.PixelData = plane.tobytes()
        paths.append(_saved(header, folder / f"{7 * index % 997:03}.dcm", tags))
    return sorted(paths)


def multiframe(
    path: Path,
    voxels: np.ndarray,
    order: tuple[int, ...],
    spacing_mm: tuple[float, float, float] = (3.0, 0.5, 0.75),
    repeated: bool = False,
) -> Path:
    """Write voxels (D, H, W) as one enhanced MR file whose frame i is the slice `order[i]`.

    Args:
        path: The file.
        voxels: Of all slices.
        order: Which slice each frame is.
        spacing_mm: Of the voxels (z, y, x).
        repeated: Whether what all frames share is repeated in each, as Philips does.
    """
    header = _header(EnhancedMRImageStorage, generate_uid(), 6, voxels.shape[1:])
    header.NumberOfFrames = len(order)
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [spacing_mm[1], spacing_mm[2]], spacing_mm[0]
    orientation.ImageOrientationPatient = list(OBLIQUE)
    shared = Dataset()
    if not repeated:
        shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    header.SharedFunctionalGroupsSequence = [shared]
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    frames = []
    for index in order:
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = [round(float(v), 10) for v in (-10.0, 20.0, 30.0) + normal * spacing_mm[0] * index]
        frame.PlanePositionSequence = [place]
        if repeated:
            frame.PixelMeasuresSequence, frame.PlaneOrientationSequence = [measures], [orientation]
        frames.append(frame)
    header.PerFrameFunctionalGroupsSequence = frames
    header.PixelData = voxels.astype(np.uint16)[list(order)].tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    return _saved(header, path, {})


def _header(kind: str, series_uid: str, number: int, shape: tuple[int, ...]) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    for keyword, value in PERSON.items():
        setattr(header, keyword, value)
    header.SOPClassUID, header.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    header.Modality, header.SeriesInstanceUID, header.SeriesNumber = "MR", series_uid, number
    header.FrameOfReferenceUID, header.PositionReferenceIndicator = "1.2.826.0.1.3680043.8.498.2", ""
    header.Manufacturer, header.ImageType = "ACME", ["ORIGINAL", "PRIMARY", "M", "NONE"]
    header.Rows, header.Columns = shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
    return header


def _saved(header: FileDataset, path: Path, tags: dict[str, object]) -> Path:
    header = copy.copy(header)
    with pydicom.config.disable_value_validation():
        for keyword, value in tags.items():
            if keyword in header:
                delattr(header, keyword)
            if value is not None:
                setattr(header, keyword, value)
        header.save_as(path, enforce_file_format=True)
    return path
