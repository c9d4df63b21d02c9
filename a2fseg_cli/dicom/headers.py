"""What one DICOM file says before its pixels: whose it is, which series, and its frames, each a slice in the patient.

The fields have the names and units (seconds) that dcm2niix gives them in its JSON, so that one set of rules reads both.
An enhanced file holds many frames; what it says of each stands in functional groups, shared or of the frame.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2fseg_cli.dicom.places import looks_like_dicom
from a2fseg_cli.dicom.values import (
    clock_of,
    first_number,
    number_at,
    numbers_of,
    seconds_of,
    text_of,
    words_at,
    words_of,
)  # fmt: skip

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_TEXTS = ("Modality", "SOPClassUID", "SeriesDescription", "ProtocolName", "SequenceName", "BodyPartExamined",
          "MRAcquisitionType", "AcquisitionContrast", "ComplexImageComponent", "VolumetricProperties",
          "ContrastBolusAgent", "ContrastBolusRoute", "ContrastBolusIngredient")  # fmt: skip
_LISTS = ("ImageType", "ScanningSequence", "SequenceVariant", "ScanOptions")
_MILLISECONDS = ("RepetitionTime", "EchoTime", "InversionTime")
_NUMBERS = ("DiffusionBValue", "ContrastBolusVolume", "ContrastBolusTotalDose", "FlipAngle", "SliceThickness")
_CLOCKS = ("AcquisitionTime", "SeriesTime", "ContrastBolusStartTime")
_ONE_AT_A_TIME = threading.Lock()
_DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class Slice:
    """One frame of one file.

    Attributes:
        path: The file.
        frame: Its index there, 0 of a file with one.
        uid: SOPInstanceUID of the file.
        instance: InstanceNumber, for messages.
        position_mm: Centre of the first pixel, LPS (x, y, z); None where the file does not say.
        axes: Direction in which columns count (x, y, z), then that of rows.
        spacing_mm: Between rows, between columns (y, x).
        size: Rows, columns.
        slope: Factor of the stored values; with `intercept` it may differ from slice to slice.
        intercept: What is added then.
        own: What may tell images at one place apart: echo, time, acquisition, b-value, kind of image.
    """

    path: Path
    frame: int
    uid: str
    instance: int
    position_mm: tuple[float, ...] | None
    axes: tuple[float, ...] | None
    spacing_mm: tuple[float, ...] | None
    size: tuple[int, int]
    slope: float = 1.0
    intercept: float = 0.0
    own: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FileHeader:
    """One file.

    Attributes:
        patient: Tells patients apart, and says nothing else of them.
        study: StudyInstanceUID.
        date: StudyDate, `20260301`; empty where it is not said.
        series: SeriesInstanceUID.
        number: SeriesNumber.
        frame_of_reference: FrameOfReferenceUID: files with the same one lie in one space.
        fields: As dcm2niix names them; `Clock` is the time of day in seconds at which it was acquired.
        slices: Its frames; none of a file without an image.
    """

    patient: str = field(repr=False)
    study: str
    date: str
    series: str
    number: int | None
    frame_of_reference: str
    fields: Mapping[str, Any] = field(repr=False)
    slices: tuple[Slice, ...] = field(repr=False)


@contextlib.contextmanager
def without_remarks() -> Iterator[None]:
    """Keep pydicom's warnings of values that break a rule and are read all the same; one thread at a time."""
    with _ONE_AT_A_TIME, warnings.catch_warnings():  # the filters are the process's, not the thread's
        warnings.simplefilter("ignore")
        yield


def read_file(path: Path, known: dict[str, FileHeader]) -> FileHeader | None:
    """Return what a DICOM file says, None for a file of another kind and for a directory (DICOMDIR).

    Args:
        path: The file.
        known: One file of each series read so far, by UID; what holds for a series is taken from there, which saves
            half the time. The file is added where it is the first.

    Raises:
        ValueError: DICOM that cannot be read.
        OSError: a file that cannot be read.
    """
    from pydicom import dcmread

    with path.open("rb") as file:
        start = file.read(140)
    if not looks_like_dicom(start):
        return None
    try:
        data = dcmread(path, stop_before_pixels=True, force=True)
        if str(getattr(data.file_meta, "MediaStorageSOPClassUID", "")) == _DIRECTORY:
            return None
        return _header(path, data, known)
    except OSError:
        raise
    except Exception as error:  # pydicom raises what its parser meets: struct.error, KeyError, NotImplementedError
        raise ValueError(f"damaged: {error}") from error


def _header(path: Path, data: Dataset, known: dict[str, FileHeader]) -> FileHeader:
    series, study = text_of(data, "SeriesInstanceUID"), text_of(data, "StudyInstanceUID")
    if not series or not study:
        raise ValueError("no UID of a series or a study")
    identity = text_of(data, "PatientID") or f"{text_of(data, 'PatientName')} {text_of(data, 'PatientBirthDate')}"
    patient = hashlib.sha256(identity.encode("utf-8", "replace")).hexdigest()
    first = known.get(series)
    if first is not None and (first.patient, first.study) == (patient, study):
        return replace(first, slices=_slices(path, data, dict(first.fields)))
    fields = _fields(data)
    number = number_at(data, "SeriesNumber")
    header = FileHeader(
        patient,
        study,
        text_of(data, "StudyDate") or text_of(data, "SeriesDate") or text_of(data, "AcquisitionDate"),
        series,
        None if number is None else int(number),
        text_of(data, "FrameOfReferenceUID"),
        fields,
        _slices(path, data, fields),
    )
    known[series] = header
    return header


def _fields(data: Dataset) -> dict[str, Any]:
    fields: dict[str, Any] = {key: text for key in _TEXTS if (text := text_of(data, key))}
    fields |= {key: words for key in _LISTS if (words := words_at(data, key))}
    fields |= {key: ms / 1000 for key in _MILLISECONDS if (ms := number_at(data, key)) is not None}
    fields |= {key: number for key in _NUMBERS if (number := number_at(data, key)) is not None}
    seconds = {key: clock for key in _CLOCKS if (clock := clock_of(text_of(data, key))) is not None}
    moment = clock_of(text_of(data, "AcquisitionDateTime")[8:])
    clock = next((seconds[key] for key in ("AcquisitionTime", "SeriesTime") if key in seconds), moment)
    fields |= {"Clock": clock, "InjectionClock": seconds.get("ContrastBolusStartTime")}
    fields["SamplesPerPixel"] = int(number_at(data, "SamplesPerPixel") or 1)
    fields["PhotometricInterpretation"] = text_of(data, "PhotometricInterpretation")
    for item in data.get("ContrastBolusAgentSequence") or ():
        fields.setdefault("ContrastBolusAgent", text_of(item, "CodeMeaning") or "given")
    if pulses := _enhanced_pulses(data):
        fields.setdefault("ScanningSequence", pulses)
    if name := text_of(data, "PulseSequenceName"):
        fields.setdefault("SequenceName", name)
    return fields


def _enhanced_pulses(data: Dataset) -> list[str]:
    """Return what an enhanced file says of its pulses, in the words of ScanningSequence."""
    echoes = {"SPIN": ["SE"], "GRADIENT": ["GR"], "BOTH": ["SE", "GR"]}.get(text_of(data, "EchoPulseSequence"), [])
    planar = ["EP"] if text_of(data, "EchoPlanarPulseSequence") == "YES" else []
    return [*echoes, *planar, *(["IR"] if text_of(data, "InversionRecovery") == "YES" else [])]


def _slices(path: Path, data: Dataset, fields: dict[str, Any]) -> tuple[Slice, ...]:
    size = (int(number_at(data, "Rows") or 0), int(number_at(data, "Columns") or 0))
    if min(size) < 1:
        return ()
    frames = data.get("PerFrameFunctionalGroupsSequence") or ()
    if not frames:
        count = int(number_at(data, "NumberOfFrames") or 1)
        return tuple(_slice(path, index, size, (data,), (data,), fields) for index in range(count))
    shared = (data.get("SharedFunctionalGroupsSequence") or (None,))[0]
    _add_group_times(fields, [group for group in (frames[0], shared) if group is not None])
    sources = [[group for group in (frame, shared) if group is not None] for frame in frames]
    return tuple(_slice(path, index, size, (data,), groups, fields) for index, groups in enumerate(sources))


# Where an enhanced file keeps what an old one has at its top: sequence, tag.
_GROUPS = {
    "ImagePositionPatient": ("PlanePositionSequence", "ImagePositionPatient"),
    "ImageOrientationPatient": ("PlaneOrientationSequence", "ImageOrientationPatient"),
    "PixelSpacing": ("PixelMeasuresSequence", "PixelSpacing"),
    "RescaleSlope": ("PixelValueTransformationSequence", "RescaleSlope"),
    "RescaleIntercept": ("PixelValueTransformationSequence", "RescaleIntercept"),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "InversionTime": ("MRModifierSequence", "InversionTimes"),
    "RepetitionTime": ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
    "ImageType": ("MRImageFrameTypeSequence", "FrameType"),
    "TemporalPositionIdentifier": ("FrameContentSequence", "TemporalPositionIndex"),
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
}


def _slice(
    path: Path, index: int, size: tuple[int, int], top: Sequence[Dataset], groups: Sequence[Dataset], fields: Any
) -> Slice:
    data = top[0]
    own = {
        "image type": tuple(words_of(_look(data, groups, "ImageType"))),
        "echo": seconds_of(_look(data, groups, "EchoTime")),
        "inversion": seconds_of(_look(data, groups, "InversionTime")),
        "temporal position": first_number(_look(data, groups, "TemporalPositionIdentifier")),
        "acquisition": first_number(_look(data, groups, "AcquisitionNumber")),
        "b-value": first_number(_look(data, groups, "DiffusionBValue")),
    }
    slope, intercept = (first_number(_look(data, groups, key)) for key in ("RescaleSlope", "RescaleIntercept"))
    return Slice(
        path,
        index,
        text_of(data, "SOPInstanceUID"),
        int(number_at(data, "InstanceNumber") or 0) if len(groups) and groups[0] is data else index + 1,
        numbers_of(_look(data, groups, "ImagePositionPatient"), 3),
        numbers_of(_look(data, groups, "ImageOrientationPatient"), 6),
        numbers_of(_look(data, groups, "PixelSpacing"), 2),
        size,
        1.0 if slope is None else slope,
        0.0 if intercept is None else intercept,
        {key: value for key, value in own.items() if value not in (None, ())},
    )


def _add_group_times(fields: dict[str, Any], groups: Sequence[Dataset]) -> None:
    """Add what only the functional groups of an enhanced file say of the whole."""
    for key in _MILLISECONDS:
        if (seconds := seconds_of(_in_groups(groups, key))) is not None:
            fields.setdefault(key, seconds)
    if (b_value := first_number(_in_groups(groups, "DiffusionBValue"))) is not None:
        fields.setdefault("DiffusionBValue", b_value)


def _look(data: Dataset, groups: Sequence[Dataset], key: str) -> Any:
    """Return a value of a frame: of an old file at the top, of an enhanced one in its groups, or else at the top."""
    if groups and groups[0] is data:
        return data.get(key)
    value = _in_groups(groups, key)
    return data.get(key) if value is None else value


def _in_groups(groups: Sequence[Dataset], key: str) -> Any:
    sequence, tag = _GROUPS[key]
    for group in groups:
        for item in group.get(sequence) or ():
            if (value := item.get(tag)) is not None:
                return value
    return None
