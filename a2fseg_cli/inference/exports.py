"""One patient on the way out: the segmentation and whatever was asked for beside it, files and numbers."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.core.config import ModelConfig, subset_name
from a2fseg_cli.files import atomic_write_bytes, atomic_write_text, json_text
from a2fseg_cli.imaging.labels import region_mask
from a2fseg_cli.imaging.preprocessing import canonical_spacing_mm
from a2fseg_cli.imaging.restoring import Box
from a2fseg_cli.imaging.writing import write_label_map, write_map
from a2fseg_cli.inference.agreement import Agreement
from a2fseg_cli.inference.cleaning import cleaned_classes
from a2fseg_cli.inference.layouts import segmentation_record
from a2fseg_cli.inference.options import OutputOptions, Removal
from a2fseg_cli.inference.patient import Patient, PatientPrediction
from a2fseg_cli.inference.pictures import entropy, scene_of
from a2fseg_cli.inference.places import PatientFiles
from a2fseg_cli.inference.predictor import Prediction, Segmenter
from a2fseg_cli.inference.segmentation_file import write_segmentation_file
from a2fseg_cli.inference.stats import patient_stats
from a2fseg_cli.inference.viewing import patient_viewer
from a2fseg_cli.inference.windows import WindowPlan
from a2fseg_cli.modalities import heading
from a2fseg_cli.reporting.figures import as_jpeg
from a2fseg_cli.reporting.page import PagePictures, page_pictures, patient_page
from a2fseg_cli.reporting.preview import write_preview, write_thumbnail
from a2fseg_cli.reporting.volumes import TissueRow, largest_axial_diameters_mm, tissue_table
from a2fseg_cli.weights.card import expected_dice, guess_sentence, guesses

ClassMap = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PatientResult:
    """What came of a patient.

    Attributes:
        name: The case.
        modalities: Subset used, e.g. `t1c+flair`.
        segmentation: The file written.
        outputs: All files written.
        rows: Voxels and mL of each label and region.
        volumes_ml: Region to volume.
        guesses: Region to the Dice (0 to 1) of a region that these modalities cannot show: its volume is a guess.
        warnings: Of input and output.
        agreement: Dice with the result of each smaller subset; empty unless asked for.
        note: The mean Dice to expect from these modalities by the weights' card, one line, or nothing.
        empty: Whether no voxel was segmented.
        seconds: Time for reading, the network and writing.
        plan: The windows that the network read.
        stats: All of it as plain values, with diameters and what is needed to repeat the run; empty unless asked for.
    """

    name: str
    modalities: str
    segmentation: Path
    outputs: tuple[Path, ...]
    rows: tuple[TissueRow, ...]
    volumes_ml: Mapping[str, float]
    guesses: Mapping[str, float]
    warnings: tuple[str, ...]
    agreement: Agreement
    note: str
    empty: bool
    seconds: Mapping[str, float]
    plan: WindowPlan
    stats: dict[str, Any] = field(default_factory=dict, repr=False)


def cleaned_class_map(
    patient: Patient, prediction: Prediction, segmenter: Segmenter, options: Removal
) -> tuple[ClassMap, list[str]]:
    """Return what is written of a patient, class indices (D, H, W) of the file's grid, and what was changed, in words.

    Changed is what `cleaned_classes` removes.
    """
    mask, changes = cleaned_classes(patient, patient.files, prediction, segmenter, options)
    whole = Box((0, 0, 0), patient.geometry.size)
    return mask.placed(whole), [f"{patient.name}: {change}" for change in changes]


def summarise(
    patient: Patient, predicted: PatientPrediction, classes: ClassMap, segmenter: Segmenter, options: OutputOptions
) -> PatientResult:
    """Return the numbers of a patient; nothing is written, and no file is named.

    Args:
        patient: The patient.
        predicted: What the network says.
        classes: Class indices (D, H, W) on the file's grid.
        segmenter: The network.
        options: In which values labels are written.
    """
    config, card = segmenter.config, segmenter.weights.card
    masks = {region: region_mask(classes, config.region_classes(region)) for region, _ in config.regions}
    unseen = guesses(card, config, patient.files)
    values = options.label_values(config)
    rows = tissue_table(classes, config.classes, values, dict(config.regions), patient.geometry.spacing_mm, unseen)
    return PatientResult(
        name=patient.name,
        modalities=subset_name(patient.files, config.modalities),
        segmentation=Path(),
        outputs=(),
        rows=tuple(rows),
        volumes_ml={r: float(mask.sum()) * patient.geometry.voxel_volume_ml for r, mask in masks.items()},
        guesses=unseen,
        warnings=(*patient.warnings, *_result_warnings(patient.name, masks)),
        agreement=predicted.agreement,
        note=expected_dice(card, config, patient.files),
        empty=not classes.any(),
        seconds={"read": patient.seconds, "network": predicted.seconds},
        plan=predicted.prediction.plan,
    )


def finish_patient(
    patient: Patient,
    predicted: PatientPrediction,
    segmenter: Segmenter,
    options: OutputOptions,
    files: PatientFiles,
    with_stats: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> PatientResult:
    """Bring the network's result back to the file's grid, write what was asked for and return the numbers.

    Args:
        patient: The patient.
        predicted: What the network says.
        segmenter: The network.
        options: What to write.
        files: Where to.
        with_stats: The result has its `stats`; with a report it has them as well.
        settings: What else the result depends on, for the stats.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    started = time.perf_counter()
    config = segmenter.config
    classes, changes = cleaned_class_map(patient, predicted.prediction, segmenter, options)
    result = summarise(patient, predicted, classes, segmenter, options)
    guessed = [row.name for row in result.rows if row.guess and row.label is not None]
    write_segmentation_file(patient, classes, segmenter, options, files, guessed)
    outputs = _write_maps(patient, predicted.prediction, classes, config, options, files)
    result = replace(result, warnings=(*result.warnings, *changes))
    if files.sidecar is not None:
        atomic_write_text(files.sidecar, json_text(_sidecar(result)))
        outputs.append(files.sidecar)
    picture = _draw(patient, classes, config, result, options, predicted.prediction, files)
    outputs += files.pictures
    seconds = {**result.seconds, "write": time.perf_counter() - started}
    result = replace(result, segmentation=files.segmentation, outputs=tuple(outputs), seconds=seconds)
    if not with_stats and files.report is None:
        return result
    stats = patient_stats(
        result, patient, predicted.prediction, segmenter, _diameters(patient, classes, config), settings or {}
    )
    if files.report is not None and picture is not None:
        atomic_write_text(files.report, patient_page(stats, picture, options.colours))
    return replace(result, stats=stats)


def _sidecar(result: PatientResult) -> dict[str, Any]:
    """Return what the JSON beside a segmentation says of it."""
    return segmentation_record(f"Outlines of a brain tumour, from {result.modalities}") | {
        "Modalities": result.modalities.split("+"),
        "RegionsThatAreAGuess": list(result.guesses),
        "Warnings": list(result.warnings),
    }


def _draw(
    patient: Patient,
    classes: ClassMap,
    config: ModelConfig,
    result: PatientResult,
    options: OutputOptions,
    prediction: Prediction,
    files: PatientFiles,
) -> PagePictures | None:
    """Write the preview, the viewer and what an index shows; return the pictures of the page, None without one."""
    if files.preview is None and files.report is None and files.viewer is None:
        return None
    guesses = [row.name for row in result.rows if row.guess and row.label is not None]
    unsure = prediction if files.report is not None or files.viewer is not None else None
    scene = scene_of(patient, classes, config, guesses, options.colours, unsure)
    file = io.BytesIO()
    given = ", ".join(map(heading, result.modalities.split("+")))
    write_preview(file, scene, f"{patient.name}, segmented from {given}")
    if files.preview is not None:
        atomic_write_bytes(files.preview, file.getvalue())
    if files.thumbnail is not None:
        write_thumbnail(files.thumbnail, scene)
    if files.viewer is not None:
        remarks = (guess_sentence(result.guesses, result.modalities), *result.warnings)
        page = patient_viewer(patient, scene, tuple(filter(None, remarks)), as_jpeg(file.getvalue()))
        atomic_write_text(files.viewer, page)
    return page_pictures(scene, file.getvalue(), patient.registration) if files.report is not None else None


def _diameters(patient: Patient, classes: ClassMap, config: ModelConfig) -> dict[str, tuple[float, float]]:
    """Return the two largest axial diameters of each region, mm."""
    reorient = patient.prepared.route.reorient
    spacing_mm = canonical_spacing_mm(patient.geometry, reorient)
    masks = {region: region_mask(classes, config.region_classes(region)) for region, _ in config.regions}
    return {region: largest_axial_diameters_mm(reorient.apply(mask), spacing_mm) for region, mask in masks.items()}


def _write_maps(
    patient: Patient,
    prediction: Prediction,
    classes: ClassMap,
    config: ModelConfig,
    options: OutputOptions,
    files: PatientFiles,
) -> list[Path]:
    """Write the masks and maps asked for; return all image files, the segmentation first, as `PatientFiles.images`."""
    outputs = files.images(config, patient.files, options)
    remaining, route = iter(outputs[1:]), patient.prepared.route
    grid = (patient.reference, patient.geometry)
    members = [config.region_classes(region) for region, _ in config.regions]
    for indices in members if options.regions else ():
        write_label_map(region_mask(classes, indices).astype(np.uint8), *grid, next(remaining))
    for indices in members if options.probabilities else ():
        write_map(_share(route.to_file(prediction.probabilities[list(indices)].sum(axis=0))), *grid, next(remaining))
    if options.uncertainty:
        write_map(_share(route.to_file(entropy(prediction.probabilities))), *grid, next(remaining))
    for weight in prediction.attention.values() if options.attention else ():
        write_map(_share(route.to_file(weight)), *grid, next(remaining))
    return outputs


def _share(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a map within 0 to 1: what smooths it before thick slices are made of it overshoots by 0.001."""
    return np.clip(array, 0, 1)


def _result_warnings(name: str, masks: Mapping[str, npt.NDArray[np.bool_]]) -> list[str]:
    if not any(mask.any() for mask in masks.values()):
        return [f"{name}: no tumour was found"]
    return [f"{name}: no voxel of {region}" for region, mask in masks.items() if not mask.any()]
