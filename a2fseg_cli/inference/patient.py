"""One patient on the way in: files to what the network takes, and what it finds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import UsageError, naming_out_of_memory
from a2fseg_cli.imaging.geometry import Geometry, largest_corner_offset_mm, same_grid
from a2fseg_cli.imaging.preprocessing import Prepared, prepare
from a2fseg_cli.imaging.reading import check_distinct, check_same_grid, read_image, resample_to
from a2fseg_cli.inference.agreement import Agreement, segment_with_agreement
from a2fseg_cli.inference.predictor import Prediction, Segmenter


@dataclass(frozen=True)
class OutputOptions:
    """What to write, and what to do with images that do not share a grid. All of it changes the output.

    Attributes:
        labels: Label scheme of the segmentation, a key of SCHEMES; other tasks' labels are in the weights.
        regions: Also write one mask a region.
        probabilities: Also write one probability map a region.
        uncertainty: Also write the entropy of the classes, 0 (sure) to 1 (every class as likely).
        attention: Also write the mean attention weight of each modality.
        agreement: Also compare with the result of every smaller subset of the modalities.
        on_mismatch: error, or resample: put every image on the reference's grid.
        reference: Modality whose grid the output has; None takes the first given.
    """

    labels: str = "brats2023"
    regions: bool = False
    probabilities: bool = False
    uncertainty: bool = False
    attention: bool = False
    agreement: bool = False
    on_mismatch: str = "error"
    reference: str | None = None


@dataclass(frozen=True)
class Patient:
    """A patient ready for the network.

    Attributes:
        name: The case.
        files: Modality to file, in the order given.
        reference: The image on whose grid the output lies.
        shown: What a preview shows, on the file's grid.
        prepared: What the network takes.
        warnings: What the user should know of the input.
        seconds: Time for reading and preparing.
    """

    name: str
    files: Mapping[str, Path]
    reference: Path
    geometry: Geometry
    shown: tuple[str, npt.NDArray[np.float32]]
    prepared: Prepared
    warnings: tuple[str, ...]
    seconds: float


def load_patient(
    name: str, files: Mapping[str, Path], config: ModelConfig, settings: OutputOptions, warnings: Sequence[str] = ()
) -> Patient:
    """Return a patient's images, checked, on the network's grid. Only the files given are opened.

    Args:
        name: The case.
        files: Modality to file.
        config: The network's configuration.
        settings: Reference and what to do with differing grids.
        warnings: What finding the files gave rise to; the images' own are added.

    Raises:
        InputError: an image that is not acceptable, differing grids, the same content twice.
        UsageError: a modality the network does not know, or a reference that was not given.
        ResourceError: the images do not fit into memory.
    """
    unknown = [m for m in files if m not in config.modalities]
    if unknown or not files:
        raise UsageError(
            f"{name}: found {', '.join(unknown) or 'no modality'}; the weights take {', '.join(config.modalities)}."
        )
    reference = settings.reference or next(iter(files))
    if reference not in files:
        raise UsageError(f"--reference {reference}: not among the images given ({', '.join(files)}).")
    with naming_out_of_memory(f"{name} could not be read and prepared"):
        return _read(name, files, config, reference, settings.on_mismatch == "resample", warnings)


def _read(
    name: str,
    files: Mapping[str, Path],
    config: ModelConfig,
    reference: str,
    resample: bool,
    warnings: Sequence[str],
) -> Patient:
    started = time.perf_counter()
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        images = dict(zip(files, pool.map(read_image, files.values()), strict=True))
    grid = images[reference].geometry
    warnings = [*warnings, *(warning for image in images.values() for warning in image.warnings)]
    if resample:
        moved = {m: i for m, i in images.items() if not same_grid(i.geometry, grid)}
        images |= {m: resample_to(image, grid) for m, image in moved.items()}
        offsets = {m: largest_corner_offset_mm(i.geometry, grid) for m, i in moved.items()}
        warnings += [
            f"{i.path}: resampled to the grid of {images[reference].path} (corners up to {offsets[m]:.4g} mm apart)"
            for m, i in moved.items()
        ]
    else:
        first = {reference: images[reference], **images}
        check_same_grid({m: (image.path, image.geometry) for m, image in first.items()})
    check_distinct(images)
    prepared = prepare(images, config.modalities, config.spacing_mm, threads)
    shown = next((m for m in ("flair", "t2", "t1c", "t1") if m in images), next(iter(images)))
    return Patient(
        name,
        dict(files),
        files[reference],
        grid,
        (shown, images[shown].array),
        prepared,
        tuple(dict.fromkeys(warnings)),
        time.perf_counter() - started,
    )


@dataclass(frozen=True)
class PatientPrediction:
    """What the network found, how long it took, and, if asked for, how far fewer modalities agree with it."""

    segmentation: Prediction
    agreement: Agreement
    seconds: float


def segment_patient(
    patient: Patient, segmenter: Segmenter, settings: OutputOptions, with_attention: bool = False
) -> PatientPrediction:
    """Run the network on a patient.

    Args:
        patient: The patient.
        segmenter: The loaded network.
        settings: What will be written.
        with_attention: The attention, where the network has one, is wanted even if its maps are not written.

    Raises:
        ResourceError: not even the smallest window fits.
        UsageError: attention maps are to be written of a network that has none.
    """
    if settings.attention and not segmenter.model.has_attention:
        raise UsageError(f"attention: a network of architecture {segmenter.config.architecture} has none.")
    started = time.perf_counter()
    agreement: Agreement = {}
    attention = settings.attention or with_attention
    if settings.agreement:
        result, agreement = segment_with_agreement(segmenter, patient.prepared, attention)
    else:
        result = segmenter.segment(patient.prepared.images, patient.prepared.present, attention)
    return PatientPrediction(result, agreement, time.perf_counter() - started)
