"""One patient on the way out: the segmentation and whatever was asked for beside it, files and numbers."""

from __future__ import annotations

import io
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from a2fseg_cli.cases.discovery import Case
from a2fseg_cli.core.config import ModelConfig, subset_name
from a2fseg_cli.errors import UsageError
from a2fseg_cli.files import atomic_write_bytes, atomic_write_text
from a2fseg_cli.imaging.labels import SCHEMES, region_mask, scheme_values, to_labels
from a2fseg_cli.imaging.preprocessing import canonical_spacing_mm
from a2fseg_cli.imaging.restoring import Box, classes_to_file
from a2fseg_cli.imaging.writing import check_output_name, write_label_map, write_map
from a2fseg_cli.inference.agreement import Agreement, attention_inside, found_classes
from a2fseg_cli.inference.patient import OutputOptions, Patient, PatientPrediction
from a2fseg_cli.inference.predictor import Prediction, Segmenter
from a2fseg_cli.reporting.overlay import write_preview
from a2fseg_cli.reporting.page import patient_page
from a2fseg_cli.reporting.volumes import TissueRow, largest_axial_diameters_mm, tissue_table
from a2fseg_cli.versions import versions
from a2fseg_cli.weights.card import subset_cost


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
        warnings: Of input and output.
        agreement: Dice with the result of each smaller subset; empty unless asked for.
        note: What the absent modalities cost on the test patients, one line, or nothing.
        empty: Whether no voxel was segmented.
        seconds: Time for reading, the network and writing.
        stats: All of it as plain values, with diameters and what is needed to repeat the run; empty unless asked for.
    """

    name: str
    modalities: str
    segmentation: Path
    outputs: tuple[Path, ...]
    rows: tuple[TissueRow, ...]
    volumes_ml: Mapping[str, float]
    warnings: tuple[str, ...]
    agreement: Agreement
    note: str
    empty: bool
    seconds: Mapping[str, float]
    stats: dict[str, Any] = field(default_factory=dict, repr=False)


def output_stem(segmentation: Path) -> str:
    """Return the file name without its image extension. Raises: UsageError for an unknown extension."""
    return segmentation.name[: -len(check_output_name(segmentation))]


def planned_outputs(
    segmentation: Path, config: ModelConfig, names: Mapping[str, Path], settings: OutputOptions
) -> list[Path]:
    """Return every image file that a run will write, the segmentation first."""
    stem = output_stem(segmentation)
    kinds = [
        f"{kind}_{region}"
        for kind, on in (("region", settings.regions), ("prob", settings.probabilities))
        if on
        for region, _ in config.regions
    ]
    kinds += ["uncertainty"] if settings.uncertainty else []
    kinds += [f"attention_{m}" for m in config.modalities if settings.attention and m in names]
    return [segmentation, *(segmentation.with_name(f"{stem}_{kind}.nii.gz") for kind in kinds)]


def check_outputs(planned: Iterable[Path], cases: Iterable[Case]) -> None:
    """Refuse outputs of which two have one name, or one that of an image or a truth.

    Raises:
        UsageError: they do; that is never allowed.
    """
    names = [os.path.realpath(path) for path in planned]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"{twice[0]} is the name of two outputs. Give each its own.")
    inputs = {os.path.realpath(path) for case in cases for path in (*case.images.values(), case.truth) if path}
    if clash := [name for name in names if name in inputs]:
        raise UsageError(f"{clash[0]} is one of the inputs, which are never written over. Give another name.")


def label_values(config: ModelConfig, settings: OutputOptions) -> tuple[int, ...]:
    """Return the voxel value written for each class. Raises: UsageError for an unknown scheme."""
    if settings.labels not in SCHEMES:
        raise UsageError(f"--labels {settings.labels}: expected {' or '.join(SCHEMES)}.")
    return scheme_values(config, settings.labels)


def finish_patient(
    patient: Patient,
    found: PatientPrediction,
    segmenter: Segmenter,
    settings: OutputOptions,
    output: Path,
    preview: Path | None = None,
    report: Path | None = None,
    with_stats: bool = False,
) -> PatientResult:
    """Bring the network's result back to the file's grid, write what was asked for and return the numbers.

    Args:
        patient: The patient.
        found: What the network found.
        segmenter: The network.
        settings: What to write.
        output: The segmentation.
        preview: A PNG with overlays.
        report: An HTML page.
        with_stats: The result has its `stats`; with a report it has them as well.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    started = time.perf_counter()
    segmentation = found.segmentation
    config, reorient = segmenter.config, patient.prepared.route.reorient
    grid = Box((0, 0, 0), patient.geometry.size)
    classes = classes_to_file(patient.prepared.route, segmentation.probabilities).placed(grid)
    outputs = _write_images(patient, segmentation, classes, config, settings, output)
    canonical_mm = canonical_spacing_mm(patient.geometry, reorient)
    subset = subset_name(patient.files, config.modalities)
    picture = io.BytesIO()
    if preview is not None or report is not None:
        name, image = patient.shown
        title = f"{patient.name}: {subset}"
        shown = (reorient.apply(image), reorient.apply(classes))
        write_preview(picture, *shown, canonical_mm, config.classes, title=title, background_name=name)
    if preview is not None:
        atomic_write_bytes(preview, picture.getvalue())
    outputs += [path for path in (preview, report) if path is not None]
    masks = {region: region_mask(classes, config.region_classes(region)) for region, _ in config.regions}
    values = label_values(config, settings)
    result = PatientResult(
        name=patient.name,
        modalities=subset,
        segmentation=output,
        outputs=tuple(outputs),
        rows=tuple(tissue_table(classes, config.classes, values, dict(config.regions), patient.geometry.spacing_mm)),
        volumes_ml={r: float(mask.sum()) * patient.geometry.voxel_volume_ml for r, mask in masks.items()},
        warnings=(*patient.warnings, *_result_warnings(patient.name, masks)),
        agreement=found.agreement,
        note=subset_cost(segmenter.weights.card, config, patient.files),
        empty=not classes.any(),
        seconds={"read": patient.seconds, "network": found.seconds, "write": time.perf_counter() - started},
    )
    if not with_stats and report is None:
        return result
    diameters = {r: largest_axial_diameters_mm(reorient.apply(mask), canonical_mm) for r, mask in masks.items()}
    stats = _stats(result, patient, segmentation, segmenter, settings, diameters)
    if report is not None:
        atomic_write_text(report, patient_page(stats, picture.getvalue()))
    return replace(result, stats=stats)


def _write_images(
    patient: Patient,
    segmentation: Prediction,
    classes: npt.NDArray[np.uint8],
    config: ModelConfig,
    settings: OutputOptions,
    output: Path,
) -> list[Path]:
    """Write the segmentation and the maps asked for; return the files, in the order of `planned_outputs`."""
    outputs = planned_outputs(output, config, patient.files, settings)
    remaining, route = iter(outputs), patient.prepared.route
    grid = (patient.reference, patient.geometry)
    write_label_map(to_labels(classes, label_values(config, settings)), *grid, next(remaining))
    members = [config.region_classes(region) for region, _ in config.regions]
    for indices in members if settings.regions else ():
        write_label_map(region_mask(classes, indices).astype(np.uint8), *grid, next(remaining))
    for indices in members if settings.probabilities else ():
        write_map(route.to_file(segmentation.probabilities[list(indices)].sum(axis=0)), *grid, next(remaining))
    if settings.uncertainty:
        write_map(route.to_file(_entropy(segmentation.probabilities)), *grid, next(remaining))
    for weight in segmentation.attention.values() if settings.attention else ():
        write_map(route.to_file(weight), *grid, next(remaining))
    return outputs


def _entropy(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the entropy over the classes (C, d, h, w) as a share of its largest value, log C: (d, h, w)."""
    logarithms = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    entropy: npt.NDArray[np.float32] = -(probabilities * logarithms).sum(axis=0) / np.float32(
        np.log(len(probabilities))
    )
    return entropy


def _result_warnings(name: str, masks: Mapping[str, npt.NDArray[np.bool_]]) -> list[str]:
    if not any(mask.any() for mask in masks.values()):
        return [f"{name}: no tumour was found"]
    return [f"{name}: no voxel of {region}" for region, mask in masks.items() if not mask.any()]


def _stats(
    result: PatientResult,
    patient: Patient,
    segmentation: Prediction,
    segmenter: Segmenter,
    settings: OutputOptions,
    diameters_mm: Mapping[str, Any],
) -> dict[str, Any]:
    weights = segmentation.attention
    inside = attention_inside(weights, found_classes(segmentation), segmenter.config.classes) if weights else {}
    return {
        "case": result.name,
        "modalities": result.modalities,
        "inputs": {m: str(path) for m, path in patient.files.items()},
        "outputs": [str(path) for path in result.outputs],
        "labels": [vars(row) for row in result.rows],
        "volumes_ml": dict(result.volumes_ml),
        "largest_axial_diameters_mm": dict(diameters_mm),
        "warnings": list(result.warnings),
        "note": result.note,
        "mean_attention": inside,
        "agreement_with_fewer": {subset: dict(dice) for subset, dice in result.agreement.items()},
        "settings": vars(settings) | {"overlap": segmenter.inference.overlap, "tta": segmenter.inference.tta},
        "windows": {"edges": list(segmentation.plan.window), "count": len(segmentation.plan.starts)},
        "weights": {"file": segmenter.weights.path.name, "sha256": segmenter.weights.sha256},
        "device": {
            "name": str(segmenter.compute.device),
            "precision": segmenter.compute.precision,
            "reason": segmenter.compute.reason,
            "threads": torch.get_num_threads(),
        },
        "seconds": {step: round(value, 3) for step, value in result.seconds.items()},
        "versions": versions(),
    }
