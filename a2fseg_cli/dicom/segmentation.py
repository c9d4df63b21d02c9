"""A DICOM Segmentation (PS3.3, A.51): the outlines as an object that a picture archive files beside the images.

BINARY, one bit a voxel and segment: of the kinds of segmentation it is the one that every viewer reads. LABELMAP
(2024) would be smaller, and few know it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.dicom.source_series import SourceSeries, mended_headers, read_source_series, refusing_damage
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.files import atomic_write_bytes
from a2fseg_cli.imaging.geometry import Geometry, axes_between, largest_corner_offset_mm
from a2fseg_cli.imaging.segments import Code, Segment, concept_of, plain_text

if TYPE_CHECKING:
    import highdicom
    from pydicom import Dataset
    from pydicom.sr.coding import Code as DicomCode

ClassMap = npt.NDArray[np.uint8]

DICOM_SUFFIX = ".dcm"
_NAME = "a2fseg"
_FIRST_SERIES = 1000  # behind those of the scanner: that of series 5 becomes 1005


@dataclass(frozen=True)
class _Algorithm:
    """What made the segmentation: this tool's version, the weights and their sha256, the subset of sequences."""

    version: str
    weights_name: str
    weights_sha256: str
    modalities: str


def check_installed() -> None:
    """Return if DICOM can be written; to be called before the network runs. Raises: UsageError."""
    if find_spec("highdicom") is None:
        raise UsageError(
            "A DICOM segmentation needs the package highdicom, which is not installed. "
            "Run: pip install 'a2fseg[dicom]'. Or choose a name that ends in .nii.gz."
        )


def check_source(geometry: Geometry, source_files: Sequence[Path], source_frames: Sequence[int] | None = None) -> None:
    """Return if a segmentation on this grid can be written for a series; to be called before the network runs.

    Args:
        geometry: As for `write_segmentation`.
        source_files: The same.
        source_frames: The same.

    Raises:
        UsageError, InputError: as `write_segmentation`.
    """
    check_installed()
    with _quietly():
        _turn(geometry, read_source_series(source_files, source_frames), source_files[0])


def write_segmentation(
    classes: ClassMap,
    segments: Sequence[Segment],
    geometry: Geometry,
    source_files: Sequence[Path],
    path: Path,
    *,
    version: str,
    weights_name: str,
    weights_sha256: str,
    modalities: Sequence[str],
    guesses: Collection[str] = (),
    source_frames: Sequence[int] | None = None,
) -> None:
    """Write class indices as a DICOM Segmentation of the series they were made on, whole or not at all.

    Segment k is class k, so numbers do not depend on the label scheme. A class without a voxel is described and has no
    frame: it was looked for. Where no class has a voxel, the frames are there and empty, since the standard wants one
    at least, and the description says so. The object carries who the patient is, as the series does: it could not be
    filed otherwise.

    Args:
        classes: Class indices (D, H, W), 0 background.
        segments: The classes from 1 on.
        geometry: The grid of `classes`: that of the series, its axes in any order.
        source_files: All files of the series.
        path: Where to.
        version: Of this tool.
        weights_name: Of the network's weights.
        weights_sha256: Of their file, hexadecimal.
        modalities: The sequences that the network saw, such as t1c and flair.
        guesses: Abbreviations of classes that these sequences cannot show; their description says so.
        source_frames: Which frames of one multi-frame file are the volume, from 0; all by default.

    Raises:
        UsageError: highdicom is not installed.
        InputError: the source is no series to which a segmentation can refer, or lies on another grid.
        ResourceError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    check_installed()
    with _quietly():
        source = read_source_series(source_files, source_frames)
        frames = _on_frames(classes, geometry, source, source_files[0])
        algorithm = _Algorithm(version, weights_name, weights_sha256, "+".join(modalities))
        described = [_described(n, segment, algorithm, guesses) for n, segment in enumerate(segments, 1)]
        with refusing_damage(source_files[0]):
            data = _encoded(frames, described, source, algorithm)
    atomic_write_bytes(path, data)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep pydicom from warning of values that break a rule: it prints them, and one may be the patient's name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _turn(geometry: Geometry, source: SourceSeries, path: Path) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """Return how to bring an array (D, H, W) to the slices of the source. Raises: InputError: it lies elsewhere."""
    turn = axes_between(geometry, source.geometry)
    if turn is not None:
        return turn
    own, other = (" x ".join(map(str, grid.size[::-1])) for grid in (geometry, source.geometry))
    if own == other:
        own = f"corners up to {largest_corner_offset_mm(geometry, source.geometry):.3g} mm away"
        other = "0.01 mm at most"
    raise InputError(
        f"{path.parent}: the segmentation does not lie on the grid of this series ({own}; expected {other}). "
        "Make it on this series, or write a .nii.gz instead."
    )


def _on_frames(classes: ClassMap, geometry: Geometry, source: SourceSeries, path: Path) -> ClassMap:
    """Return classes (frames, rows, columns) in the order of the source's frames. Raises: InputError: another grid."""
    if classes.shape != geometry.size:
        raise ValueError(f"classes {classes.shape} and geometry {geometry.size} differ in size")
    permutation, flips = _turn(geometry, source, path)
    return np.ascontiguousarray(np.flip(classes.transpose(permutation), flips)[source.slice_of_frame])


def _described(
    number: int, segment: Segment, algorithm: _Algorithm, guesses: Collection[str]
) -> highdicom.seg.SegmentDescription:
    """Return what the object says of a segment: codes, colour, and the algorithm that made it."""
    import highdicom
    from pydicom.sr.codedict import codes

    concept = concept_of(segment)
    made_by = highdicom.AlgorithmIdentificationSequence(
        _NAME,
        codes.cid7162.ArtificialIntelligence,
        plain_text(algorithm.version),
        parameters={
            "weights": plain_text(algorithm.weights_name),
            "sha256": algorithm.weights_sha256,
            "modalities": algorithm.modalities,
        },
    )
    description = highdicom.seg.SegmentDescription(
        number,
        plain_text(segment.name),
        _code(concept.category),
        _code(concept.type),
        highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        made_by,
        tracking_uid=highdicom.UID(),
        tracking_id=plain_text(f"{_NAME} {segment.abbreviation}"),
        anatomic_regions=[_code(concept.region)] if concept.region else None,
        display_color=highdicom.color.CIELabColor.from_rgb(*segment.colour),
    )
    if segment.abbreviation in guesses:
        description.SegmentDescription = "A guess: the sequences used cannot show it."
    return description


def _encoded(
    frames: ClassMap,
    described: Sequence[highdicom.seg.SegmentDescription],
    source: SourceSeries,
    algorithm: _Algorithm,
) -> bytes:
    """Return the file."""
    import highdicom
    from pydicom import config

    headers = mended_headers(source)
    software: Any = tuple(  # highdicom's type has room for one text only, its code for several
        plain_text(text) for text in (f"{_NAME} {algorithm.version}", f"weights {algorithm.weights_name}")
    )
    marked = "Brain tumour" if frames.any() else "No tumour marked"
    # An accession number of 20 characters, where 16 are allowed, goes along as it is: it has to be the study's.
    with config.disable_value_validation():
        dataset = highdicom.seg.Segmentation(
            headers,
            frames,
            highdicom.seg.SegmentationTypeValues.BINARY,
            described,
            series_instance_uid=highdicom.UID(),
            series_number=_FIRST_SERIES + _series_number(headers[0]),
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer=_NAME,
            manufacturer_model_name=_NAME,
            software_versions=software,
            # A program has none; what tells one from another is the weights. 64 digits are the most that fit.
            device_serial_number=plain_text(algorithm.weights_sha256) or "none",
            content_label="BRAIN_TUMOUR",
            content_description=plain_text(f"{marked}, by a program from {algorithm.modalities}. For research"),
            series_description=plain_text(f"{_NAME} brain tumour from {algorithm.modalities}, for research"),
            content_qualification=highdicom.ContentQualificationValues.RESEARCH,
            omit_empty_frames=bool(frames.any()),
        )
        dataset.ContentCreatorName = ""  # nobody; dcmqi warns where it is not there
        _renumber_frames(dataset, source.frame_numbers)
        file = io.BytesIO()
        dataset.save_as(file)
    return file.getvalue()


def _renumber_frames(dataset: Dataset, numbers: Sequence[int]) -> None:
    """Refer to the frames of a multi-frame source by their numbers in its file, not among those of the volume."""
    images = [
        image
        for frame in (dataset.PerFrameFunctionalGroupsSequence if numbers else ())
        for derivation in frame.DerivationImageSequence
        for image in derivation.SourceImageSequence
    ]
    for image in {id(image): image for image in images}.values():  # the segments of a slice share one
        image.ReferencedFrameNumber = numbers[image.ReferencedFrameNumber - 1]


def _series_number(header: Dataset) -> int:
    """Return the source's number, 0 where it has none that a person would count."""
    try:
        number = int(header.get("SeriesNumber") or 0)
    except (TypeError, ValueError):
        return 0
    return number if 0 <= number < 10**6 else 0


def _code(code: Code) -> DicomCode:
    from pydicom.sr.coding import Code as DicomCode

    return DicomCode(code.value, code.scheme, code.meaning)
