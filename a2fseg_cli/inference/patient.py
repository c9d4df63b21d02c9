"""One patient on the way in: files to what the network takes, and what it says."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.images import CaseImages, ReadingOptions, load_images
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import naming_out_of_memory
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.preprocessing import Prepared, Scalar, canonical_spacing_mm, prepare
from a2fseg_cli.inference.agreement import Agreement, segment_with_agreement
from a2fseg_cli.inference.predictor import Prediction, Segmenter
from a2fseg_cli.modalities import picture_order
from a2fseg_cli.reporting.slices import Backdrop, Frame, grey_limits, with_margin


@dataclass(frozen=True)
class Patient:
    """A patient ready for the network.

    Attributes:
        name: The case.
        files: Modality to file, in the order given.
        reference: The image on whose grid the output lies.
        geometry: That grid.
        prepared: What the network takes.
        warnings: What the user should know of the input.
        seconds: Time for reading and preparing.
        backdrops: What pictures show the segmentation on, by modality, in the order to show: `frame` of each image.
            Empty unless pictures are wanted.
    """

    name: str
    files: Mapping[str, Path]
    reference: Path
    geometry: Geometry
    prepared: Prepared
    warnings: tuple[str, ...]
    seconds: float
    backdrops: Mapping[str, Backdrop] = field(default_factory=dict, repr=False)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel spacing (z, y, x) on canonical axes."""
        return canonical_spacing_mm(self.geometry, self.prepared.route.reorient)

    @property
    def frame(self) -> Frame:
        """What pictures show of the whole volume on canonical axes: the brain's box and a margin."""
        crop = self.prepared.route.crop
        return with_margin(crop.start, crop.stop, crop.shape, self.spacing_mm)

    def framed(self, array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Return what pictures show of an array (D, H, W) on the file's grid, a view."""
        return self.prepared.route.reorient.apply(array)[self.frame]


def load_patient(
    case: Case, config: ModelConfig, reading: ReadingOptions | None = None, pictures: bool = False
) -> Patient:
    """Return a patient's images, checked, on the network's grid. Only the files of the case are opened.

    Args:
        case: The patient.
        config: The network's configuration.
        reading: Reference, and what to do with differing grids.
        pictures: Whether the patient keeps its `backdrops`, which take as much memory as what the network takes.

    Raises:
        InputError: an image that is not acceptable, differing grids, the same content twice.
        UsageError: a modality the network does not know, or a reference that was not given.
        ResourceError: the images do not fit into memory.
    """
    started = time.perf_counter()
    with naming_out_of_memory(f"{case.name} could not be read and prepared"):
        images = load_images(case, config.modalities, reading, torch.get_num_threads())
        return prepared_patient(images, config, started, pictures)


def prepared_patient(
    case: CaseImages, config: ModelConfig, started: float | None = None, pictures: bool = False
) -> Patient:
    """Return a patient whose images are in memory on the network's grid.

    Args:
        case: The images.
        config: The network's configuration.
        started: When reading began, by `time.perf_counter`; now by default.
        pictures: Whether the patient keeps its `backdrops`.

    Raises:
        InputError: an image without contrast.
    """
    started = time.perf_counter() if started is None else started
    prepared = prepare(case.images, config.modalities, config.spacing_mm, torch.get_num_threads(), case.masks)
    patient = Patient(
        case.name,
        {m: image.path for m, image in case.images.items()},
        case.reference_path,
        case.geometry,
        prepared,
        case.warnings,
        0.0,
    )
    backdrops = _backdrops(patient, case) if pictures else {}
    return replace(patient, backdrops=backdrops, seconds=time.perf_counter() - started)


def _backdrops(patient: Patient, case: CaseImages) -> dict[str, Backdrop]:
    """Return the images for pictures; black and white are those of the brain, whatever lies round it."""
    arrays = {name: case.images[name].array for name in picture_order(case.images)}
    return {
        name: Backdrop(np.ascontiguousarray(patient.framed(array)), grey_limits(array[case.masks[name]]))
        for name, array in arrays.items()
    }


@dataclass(frozen=True)
class PatientPrediction:
    """What the network says of a patient.

    Attributes:
        prediction: On the network's grid.
        agreement: How far fewer modalities agree with it; empty unless asked for.
        seconds: Time in the network.
    """

    prediction: Prediction
    agreement: Agreement
    seconds: float


def segment_patient(
    patient: Patient, segmenter: Segmenter, attention: bool = False, agreement: bool = False
) -> PatientPrediction:
    """Run the network on a patient.

    Args:
        patient: The patient.
        segmenter: The loaded network.
        attention: Also return the attention maps, where the network has them.
        agreement: Also compare with the result of every smaller subset of the modalities.

    Raises:
        ResourceError: not even the smallest window fits.
    """
    started = time.perf_counter()
    attention = attention and segmenter.model.has_attention
    compared: Agreement = {}
    if agreement:
        prediction, compared = segment_with_agreement(segmenter, patient.prepared, attention)
    else:
        prediction = segmenter.segment(patient.prepared.images, patient.prepared.present, attention)
    return PatientPrediction(prediction, compared, time.perf_counter() - started)
