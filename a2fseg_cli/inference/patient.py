"""One patient on the way in: files to what the network takes, and what it says."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.images import CaseImages, ReadingOptions, load_images
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import naming_out_of_memory
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.preprocessing import Prepared, prepare
from a2fseg_cli.inference.agreement import Agreement, segment_with_agreement
from a2fseg_cli.inference.predictor import Prediction, Segmenter
from a2fseg_cli.modalities import best_background
from a2fseg_cli.raw.outputs import write_prepared
from a2fseg_cli.raw.prepare import prepare_raw


@dataclass(frozen=True)
class Patient:
    """A patient ready for the network.

    Attributes:
        name: The case.
        files: Modality to file, in the order given.
        reference: The image on whose grid the output lies.
        geometry: That grid.
        background: What a picture shows the segmentation on: modality and voxels on that grid.
        prepared: What the network takes.
        warnings: What the user should know of the input.
        seconds: Time for reading and preparing.
    """

    name: str
    files: Mapping[str, Path]
    reference: Path
    geometry: Geometry
    background: tuple[str, npt.NDArray[np.float32]]
    prepared: Prepared
    warnings: tuple[str, ...]
    seconds: float


def load_patient(
    case: Case, config: ModelConfig, reading: ReadingOptions | None = None, keep: Path | None = None
) -> Patient:
    """Return a patient's images, checked, on the network's grid. Only the files of the case are opened.

    Args:
        case: The patient.
        config: The network's configuration.
        reading: Reference, and what to do with differing grids.
        keep: Folder for what raw images became: registered, without the skull; nothing is written by default.

    Raises:
        InputError: an image that is not acceptable, differing grids, the same content twice.
        UsageError: a modality the network does not know, or a reference that was not given.
        ResourceError: the images do not fit into memory.
    """
    started = time.perf_counter()
    with naming_out_of_memory(f"{case.name} could not be read and prepared"):
        if reading is not None and reading.raw:
            prepared = prepare_raw(case, config.modalities, reading, torch.get_num_threads())
            if keep is not None:
                write_prepared(prepared, keep)
            return prepared_patient(prepared.images, config, started)
        images = load_images(case, config.modalities, reading, torch.get_num_threads())
        return prepared_patient(images, config, started)


def prepared_patient(case: CaseImages, config: ModelConfig, started: float | None = None) -> Patient:
    """Return a patient whose images are in memory on the network's grid.

    Args:
        case: The images.
        config: The network's configuration.
        started: When reading began, by `time.perf_counter`; now by default.

    Raises:
        InputError: an image without contrast.
    """
    started = time.perf_counter() if started is None else started
    threads = torch.get_num_threads()
    prepared = prepare(case.images, config.modalities, config.spacing_mm, threads, case.masks, case.blocks)
    background = best_background(case.images)
    z, y, x = (slice(size // 2, None, size) for size in case.blocks)
    return Patient(
        case.name,
        {m: image.path for m, image in case.images.items()},
        case.reference_path,
        case.geometry,
        (background, case.images[background].array[z, y, x]),
        prepared,
        case.warnings,
        time.perf_counter() - started,
    )


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
