"""DICOM series made from arrays, for tests: with pydicom, tag by tag."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
# Rows 4 mm, columns 5 mm, slices 6 mm apart: 16 x 20 x 12 voxels show 64 x 100 x 72 mm.
SIZE, SPACING_MM = (12, 16, 20), (6.0, 4.0, 5.0)
AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
Change = Callable[[int, Dataset], None]

T1 = {"SeriesDescription": "t1_se_tra", "RepetitionTime": 500, "EchoTime": 12, "ScanningSequence": "SE"}
T1C = {**T1, "SeriesDescription": "t1_se_tra_KM", "ContrastBolusAgent": "Gadovist"}
T2 = {"SeriesDescription": "t2_tse_tra", "RepetitionTime": 4500, "EchoTime": 100, "ScanningSequence": "SE"}
FLAIR = {"SeriesDescription": "t2_tirm_tra_dark-fluid", "RepetitionTime": 9000, "EchoTime": 110,
         "InversionTime": 2500, "ScanningSequence": ["SE", "IR"]}  # fmt: skip


def voxels(seed: int, size: Sequence[int] = SIZE) -> np.ndarray:
    """Return 12-bit values that differ everywhere."""
    return np.random.default_rng(seed).integers(0, 4096, tuple(size), dtype=np.uint16)


@dataclass
class Examination:
    """A study of one patient, written series by series."""

    folder: Path
    patient: str = "DOE^JANE"
    date: str = "20260301"
    uid: str = field(default_factory=generate_uid)
    frame: str = field(default_factory=generate_uid)

    def add(
        self,
        number: int,
        tags: dict[str, Any],
        array: np.ndarray | None = None,
        *,
        place: str | None = None,
        change: Change | None = None,
        uid: str | None = None,
        suffix: str = ".dcm",
        clock: str = "",
    ) -> Path:
        """Write a series into a sub-folder and return it; `change` may alter each slice before it is written."""
        folder = self.folder / (f"S{number:03d}" if place is None else place)
        folder.mkdir(parents=True, exist_ok=True)
        array = voxels(number) if array is None else array
        uid = uid or generate_uid()
        present = len(list(folder.iterdir()))
        for index, plane in enumerate(array):
            data = self.header(number, uid, {"AcquisitionTime": clock or f"10{number % 60:02d}00", **tags})
            data.InstanceNumber = index + 1
            data.ImagePositionPatient = [-50.0, -32.0, -36.0 + SPACING_MM[0] * index]
            data.ImageOrientationPatient = [*AXIAL[0], *AXIAL[1]]
            data.PixelSpacing = [SPACING_MM[1], SPACING_MM[2]]
            set_pixels(data, plane)
            if change is not None:
                change(index, data)
            # In the order of their numbers the files are not in the order of the slices.
            place_of = (index * (7 if len(array) % 7 else 13)) % len(array)  # 77 slices would have 11 names
            data.save_as(folder / f"IM{place_of + present:04d}{suffix}", enforce_file_format=True)
        return folder

    def add_image(self, number: int, tags: dict[str, Any], image: sitk.Image) -> Path:
        """Write an image, of whole numbers from 0 on, as a series on its own grid."""
        axes = np.array(image.GetDirection()).reshape(3, 3)

        def on_grid(index: int, data: Dataset) -> None:
            data.ImagePositionPatient = list(image.TransformIndexToPhysicalPoint((0, 0, index)))
            data.ImageOrientationPatient = [*axes[:, 0], *axes[:, 1]]
            data.PixelSpacing = list(image.GetSpacing()[1::-1])
            data.BitsStored, data.HighBit = 16, 15

        return self.add(number, tags, sitk.GetArrayFromImage(image).astype(np.uint16), change=on_grid)

    def header(self, number: int, uid: str, tags: dict[str, Any]) -> Dataset:
        """Return the tags of a file without its pixels."""
        data = Dataset()
        data.SOPClassUID, data.SOPInstanceUID = MR, generate_uid()
        data.PatientName, data.PatientID, data.PatientBirthDate = self.patient, f"ID-{self.patient}", "19500101"
        data.StudyInstanceUID, data.StudyDate, data.SeriesInstanceUID = self.uid, self.date, uid
        data.FrameOfReferenceUID, data.SeriesNumber, data.Modality = self.frame, number, "MR"
        data.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
        for key, value in tags.items():
            setattr(data, key, value)
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        return data


def set_pixels(data: Dataset, pixels: np.ndarray) -> None:
    """Set what describes pixels (rows, columns) or (frames, rows, columns) of 16 bits, 12 of them used."""
    data.Rows, data.Columns = pixels.shape[-2:]
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()


def item(**tags: Any) -> Dataset:
    """Return an item of a sequence."""
    data = Dataset()
    for key, value in tags.items():
        setattr(data, key, value)
    return data


def enhanced(
    study: Examination, number: int, array: np.ndarray, order: Sequence[int], slopes: Sequence[float], **tags: Any
) -> Dataset:
    """Return an enhanced multi-frame file of a FLAIR: frame i is slice `order[i]`, its slope `slopes[i]`."""
    data = study.header(number, generate_uid(), {"SeriesDescription": "FLAIR", **tags})
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = ENHANCED_MR
    set_pixels(data, array[list(order)])
    data.NumberOfFrames = len(order)
    data.EchoPulseSequence, data.InversionRecovery, data.AcquisitionContrast = "SPIN", "YES", "FLUID_ATTENUATED"
    shared = item(
        PlaneOrientationSequence=Items([item(ImageOrientationPatient=[*AXIAL[0], *AXIAL[1]])]),
        PixelMeasuresSequence=Items([item(PixelSpacing=[SPACING_MM[1], SPACING_MM[2]], SliceThickness=6.0)]),
        MRTimingAndRelatedParametersSequence=Items([item(RepetitionTime=9000.0)]),
        MRModifierSequence=Items([item(InversionTimes=2500.0)]),
        MREchoSequence=Items([item(EffectiveEchoTime=110.0)]),
    )
    frames = [
        item(
            PlanePositionSequence=Items([item(ImagePositionPatient=[-50.0, -32.0, -36.0 + 6.0 * index])]),
            PixelValueTransformationSequence=Items([item(RescaleSlope=slope, RescaleIntercept=-1.0)]),
        )
        for index, slope in zip(order, slopes, strict=True)
    ]
    data.SharedFunctionalGroupsSequence = Items([shared])
    data.PerFrameFunctionalGroupsSequence = Items(frames)
    return data
