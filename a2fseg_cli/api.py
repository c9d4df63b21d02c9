"""What notebooks, scripts and the command line call: the same functions for all three.

Nothing here prints or asks. What a user can mend is an `A2FSegError`; warnings are part of the results.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.images import ReadingOptions, fitted
from a2fseg_cli.cases.overview import CaseOverview
from a2fseg_cli.cases.overview import overview as find_overview
from a2fseg_cli.cases.selection import Selection, select_cases
from a2fseg_cli.cases.shares import share_of
from a2fseg_cli.cluster.connection import connected
from a2fseg_cli.cluster.crew import Crew
from a2fseg_cli.cluster.job import absolute
from a2fseg_cli.core.device import choose_compute
from a2fseg_cli.dicom.places import opened_places
from a2fseg_cli.errors import A2FSegError, UsageError, WeightsError
from a2fseg_cli.imaging.any_image import any_image
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.labels import to_labels
from a2fseg_cli.imaging.segments import Segment
from a2fseg_cli.imaging.writing import write_label_map
from a2fseg_cli.inference.cohort import Outcome
from a2fseg_cli.inference.elsewhere import Elsewhere, compute_of
from a2fseg_cli.inference.exports import cleaned_class_map, summarise
from a2fseg_cli.inference.layouts import PLAIN, layout_named
from a2fseg_cli.inference.options import OutputOptions
from a2fseg_cli.inference.patient import prepared_patient, segment_patient
from a2fseg_cli.inference.places import is_image_name
from a2fseg_cli.inference.predict import Run, run_cases
from a2fseg_cli.inference.predictor import Segmenter, WindowOptions
from a2fseg_cli.modalities import BRATS_MODALITIES
from a2fseg_cli.reporting.label_tables import segments
from a2fseg_cli.weights.cache import resolve_weights
from a2fseg_cli.weights.card import guess_sentence
from a2fseg_cli.weights.file_format import inspect_weights

if TYPE_CHECKING:
    from a2fseg_cli.evaluation.demo import Demo

__all__ = [
    "A2FSegError",
    "Case",
    "OutputOptions",
    "ReadingOptions",
    "Segmentation",
    "Selection",
    "connected",
    "find_cases",
    "load_network",
    "predict",
    "segment",
]


@dataclass(frozen=True)
class Segmentation:
    """A patient's segmentation on the grid of the reference image.

    Attributes:
        labels: (D, H, W) = (z, y, x) uint8 on the file's own axes, in the values of the label scheme.
        geometry: The grid: size, spacing in mm (z, y, x), origin and direction as SimpleITK has them.
        volumes_ml: Region (WT, TC, ET) to its volume.
        guesses: Regions whose volume the given sequences cannot tell, with the Dice (0 to 1) of such guesses.
        modalities: The subset it was made from, e.g. `t1c+flair`.
        warnings: What a user should know before relying on it, in plain words.
    """

    labels: npt.NDArray[np.uint8]
    geometry: Geometry
    volumes_ml: Mapping[str, float]
    guesses: Mapping[str, float]
    modalities: str
    warnings: tuple[str, ...]
    _reference: Path | None = None
    _inputs: tuple[Path, ...] = ()
    _segments: tuple[Segment, ...] = ()

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the label map: .nii.gz, .nii, .nrrd or .mha, whole or not at all. Raises: UsageError, ResourceError.

        Written as NIfTI, it has sform, qform and units of the reference's file, where that was one. As .seg.nrrd, 3D
        Slicer opens it as a segmentation with names and colours.
        """
        target = Path(path)
        if target.exists() and any(target.samefile(read) for read in self._inputs):
            raise UsageError(f"{target} is one of the inputs, which are never written over. Give another name.")
        write_label_map(self.labels, self._reference, self.geometry, target, self._segments)
        return target


def load_network(
    weights: str | PathLike[str] | None = None,
    *,
    device: str = "auto",
    precision: str = "auto",
    window: tuple[int, int, int] | None = None,
    overlap: float = 0.5,
    tta: bool | None = None,
    crew: Crew | None = None,
) -> Segmenter:
    """Return a loaded network, to be used for any number of patients.

    Args:
        weights: A file, or a name in the manifest; the bundled weights by default.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32, bf16 or fp16.
        window: Edges (D, H, W) in voxels of the working grid; planned by default.
        overlap: Least overlap of windows, a share of their edge, 0 to less than 1.
        tta: Test-time mirroring over all three axes (True), none (False), or as the weights say (None).
        crew: From `connected`: `predict` then shares the patients among these workers, whose device and precision
            are meant.

    Raises:
        WeightsError: the weights are missing, damaged or not for this tool.
        UsageError: a device that is not there, or an option's value.
    """
    compute = choose_compute(device, precision) if crew is None else compute_of(crew, device, precision)
    return Segmenter(_weights_file(weights), compute, WindowOptions(window, overlap, tta))


def segment(
    *,
    t1: Any = None,
    t1c: Any = None,
    t2: Any = None,
    flair: Any = None,
    images: Mapping[str, Any] | None = None,
    spacing_mm: Sequence[float] | None = None,
    network: Segmenter | None = None,
    labels: str | None = None,
    reading: ReadingOptions | None = None,
) -> Segmentation:
    """Return the segmentation of one patient from whichever sequences are given.

    Args:
        t1: A path, a SimpleITK image, or an array (D, H, W) = (z, y, x) with `spacing_mm`. Skull-stripped, on one
            grid with the others.
        t1c: The same, T1 with contrast.
        t2: The same.
        flair: The same.
        images: The same by name, of modalities that only your own weights know.
        spacing_mm: Voxel spacing (z, y, x) of arrays, which lie on canonical axes (z to the head, y to the back, x to
            the patient's left).
        network: From `load_network`; the bundled weights by default, loaded anew at each call.
        labels: brats2023 (ET is 3, the default) or brats2018 (ET is 4).
        reading: What is made of images that do not fit together, or have the skull on.

    Raises:
        InputError: an image that is not acceptable; the message says which and why.
        UsageError: no image, or options that contradict each other.
    """
    started = time.perf_counter()
    given = _given({"t1": t1, "t1c": t1c, "t2": t2, "flair": flair}, images or {}, spacing_mm)
    network = network or load_network()
    values = (options := OutputOptions(labels)).label_values(network.config)
    loaded = {m: any_image(m, image, spacing_mm) for m, image in given.items()}
    case = fitted("patient", loaded, network.config.modalities, reading, threads=torch.get_num_threads())
    patient = prepared_patient(case, network.config, started)
    found = segment_patient(patient, network)
    classes, changes = cleaned_class_map(patient, found.prediction, network, options)
    result = summarise(patient, found, classes, network, options)
    told = (guess_sentence(result.guesses, result.modalities), *result.warnings, *changes)
    source = given[case.reference]
    files = tuple(Path(image) for image in given.values() if isinstance(image, str | PathLike))
    return Segmentation(
        labels=to_labels(classes, values),
        geometry=patient.geometry,
        volumes_ml=result.volumes_ml,
        guesses=result.guesses,
        modalities=result.modalities,
        warnings=tuple(text for text in told if text),
        _reference=Path(source) if isinstance(source, str | PathLike) else None,
        _inputs=files,
        _segments=segments(network.config.classes, values),
    )


def _given(named: Mapping[str, Any], images: Mapping[str, Any], spacing_mm: Sequence[float] | None) -> dict[str, Any]:
    """Return the images that were given. Raises: UsageError for none, two of one, or a spacing that is not used."""
    given = {m: image for m, image in named.items() if image is not None}
    if twice := sorted(given.keys() & images.keys()):
        raise UsageError(f"two images for {twice[0]}. Keep one.")
    given |= images
    if not given:
        raise UsageError(f"No image was given. Expected at least one of {', '.join(named)}.")
    if spacing_mm is not None and not any(isinstance(image, np.ndarray) for image in given.values()):
        raise UsageError("spacing_mm is for arrays; files and SimpleITK images have their own.")
    return given


def predict(
    source: str | PathLike[str] | None = None,
    *,
    output: str | PathLike[str],
    images: Mapping[str, str | PathLike[str]] | None = None,
    network: Segmenter | None = None,
    selection: Selection | None = None,
    reading: ReadingOptions | None = None,
    options: OutputOptions | None = None,
    preview: str | PathLike[str] | None = None,
    report: str | PathLike[str] | None = None,
    viewer: str | PathLike[str] | None = None,
    stats: str | PathLike[str] | None = None,
    existing: str = "refuse",
    with_stats: bool = False,
    layout: str = "plain",
    label_file: bool = False,
    keep_prepared: str | PathLike[str] | None = None,
    longitudinal: str | PathLike[str] | None = None,
    num_parts: int | None = None,
    part_id: int | None = None,
    started: Callable[[int, str, bool], None] | None = None,
    progress: Callable[[Outcome], None] | None = None,
) -> Run:
    """Segment a patient or a cohort into files, as the command does.

    Args:
        source: A patient's folder, a cohort's, a CSV with the columns case, t1, t1c, t2, flair, or a zip of DICOM.
        output: A file for one patient, or a folder.
        images: Instead of `source`: the files of one patient by modality, the reference first.
        network: From `load_network`; the bundled weights by default.
        selection: Which of the patients found, and which of their files.
        reading: What is made of images that do not fit together.
        options: What is written beside the segmentations.
        preview: A PNG for one patient, or a folder.
        report: An HTML page for one patient, or a folder.
        viewer: An HTML page with the images inside for one patient, or a folder.
        stats: A file that ends in .json or .csv.
        existing: refuse, skip (redo only what is missing or outdated) or overwrite.
        with_stats: The results have their `stats`, even if no file of them is written.
        layout: plain, or bids: the folder becomes a BIDS derivative.
        label_file: Also write names and colours of the labels for ITK-SNAP.
        keep_prepared: Folder for what raw images became, registered and without the skull.
        longitudinal: A folder for the table, plots and pages of persons with two or more examinations.
        num_parts: Work on one of so many parts of the cohort; SLURM arrays and torchrun are asked by default.
        part_id: Which part, from 0.
        started: Told how many patients there are, which share of the cohort they are, in words, and whether the
            result is one patient's file.
        progress: Told what became of each patient.

    Raises:
        A2FSegError: nothing could be begun, or why the one patient could not be segmented.
    """
    network = network or load_network()
    if isinstance(network.compute, Elsewhere):  # workers have working folders of their own
        source, preview, report, viewer = (absolute(path) for path in (source, preview, report, viewer))
        output, keep_prepared = Path(output).absolute(), absolute(keep_prepared)
        images = {m: Path(path).absolute() for m, path in (images or {}).items()} or None
        reading = replace(reading, brain_mask=absolute(reading.brain_mask)) if reading else None
    known = network.config.modalities
    if unknown := [m for m in images or {} if m in BRATS_MODALITIES and m not in known]:
        takes = ", ".join(known)
        raise WeightsError(f"{network.weights.path}: made for {takes}, not for {', '.join(unknown)}. Take others.")
    with opened_places(_path(source), _paths(images)) as (place, given):
        one = is_image_name(Path(output))
        cases = select_cases(place, given=given, modalities=known, selection=selection, single=one)
        naming = layout_named(layout)
        naming.check(Path(output), cases)  # all of them: two patients of one name may be in two shares
        share = share_of(cases, num_parts, part_id)
        single = naming is PLAIN and (bool(images) or (len(cases) == 1 and one))
        if started:
            started(len(share.cases), share.words, single)
        return run_cases(
            share.cases,
            network,
            Path(output),
            reading=reading,
            options=options,
            preview=_path(preview),
            report=_path(report),
            viewer=_path(viewer),
            stats=_path(stats),
            existing=existing,
            with_stats=with_stats,
            share=(share.parts, share.part, share.words),
            single=single,
            inputs=[path for path in (_path(source), _split_file(selection)) if path and path.is_file()],
            layout=layout,
            label_file=label_file,
            keep_prepared=_path(keep_prepared),
            longitudinal=_path(longitudinal),
            progress=progress,
        )


def _path(path: str | PathLike[str] | None) -> Path | None:
    return Path(path) if path is not None else None


def overview(
    source: str | PathLike[str] | None = None,
    *,
    images: Mapping[str, str | PathLike[str]] | None = None,
    weights: str | PathLike[str] | None = None,
    selection: Selection | None = None,
    reading: ReadingOptions | None = None,
) -> list[CaseOverview]:
    """Return what `predict` would work on, from names and headers alone.

    Args:
        source: As of `predict`.
        images: As of `predict`.
        weights: Whose modalities are looked for.
        selection: As of `predict`.
        reading: As of `predict`.
    """
    modalities = inspect_weights(_weights_file(weights)).config.modalities
    with opened_places(_path(source), _paths(images)) as (place, given):
        cases = select_cases(place, given=given, modalities=modalities, selection=selection)
        return find_overview(cases, reading or ReadingOptions())


def demo(
    output: str | PathLike[str],
    *,
    network: Segmenter | None = None,
    modalities: Sequence[str] = ("t1c", "flair"),
    seed: int = 0,
) -> Demo:
    """Make a synthetic patient, segment it from some of its sequences and score the result.

    Args:
        output: Folder for everything.
        network: From `load_network`; the bundled weights by default.
        modalities: Which of the sequences are used.
        seed: Another one makes another patient.
    """
    from a2fseg_cli.evaluation.demo import run_demo

    return run_demo(Path(output), network or load_network(), modalities, seed)


def _split_file(selection: Selection | None) -> Path | None:
    """Return the file of a selection's split, `FILE` or `FILE:NAME`."""
    if selection is None or selection.split is None:
        return None
    whole = Path(selection.split)
    return whole if whole.is_file() else Path(selection.split.rsplit(":", 1)[0])


def _paths(images: Mapping[str, str | PathLike[str]] | None) -> dict[str, Path] | None:
    return {m: Path(path) for m, path in images.items()} if images else None


def _weights_file(weights: str | PathLike[str] | None) -> Path:
    return resolve_weights(weights if weights is None or isinstance(weights, str) else Path(weights))


def find_cases(
    source: str | PathLike[str] | Sequence[str | PathLike[str]], *, selection: Selection | None = None
) -> list[Case]:
    """Return the patients of a folder, a CSV or a data set, and which file is which sequence; no image is opened.

    Args:
        source: A patient's folder, a cohort's, BIDS, nnU-Net's raw data set, or a CSV; or several of these.
        selection: Which of the patients, and which of their files.

    Raises:
        InputError: nothing was found. What is wrong with a single patient is its `problem`.
    """
    sources = [source] if isinstance(source, str | PathLike) else source
    return select_cases([Path(place) for place in sources], selection=selection)
