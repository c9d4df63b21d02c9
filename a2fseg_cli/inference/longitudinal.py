"""After a run: the examinations of each person side by side, measured on the masks that were written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from a2fseg_cli import __version__
from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.time_points import TimePoint, several_time_points
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import InputError, ResourceError, UsageError
from a2fseg_cli.files import atomic_write_bytes, atomic_write_text, check_place
from a2fseg_cli.imaging.geometry import axes_to_canonical
from a2fseg_cli.imaging.labels import region_mask, to_classes
from a2fseg_cli.imaging.preprocessing import Reorient, canonical_spacing_mm
from a2fseg_cli.imaging.reading import read_label_map
from a2fseg_cli.inference.options import OutputOptions
from a2fseg_cli.inference.status import FAILED, Status
from a2fseg_cli.reporting.longitudinal import Measurement, longitudinal_csv, longitudinal_page, longitudinal_plot
from a2fseg_cli.reporting.volumes import largest_axial_diameters_mm, tissue_table

TABLE = "longitudinal.csv"
_HEADING = "subject,session,date,case,modalities,"


def check_time_points(folder: Path, cases: Sequence[Case]) -> None:
    """Refuse what is known beforehand not to work.

    Args:
        folder: Where the table, plots and pages go.
        cases: The patients.

    Raises:
        InputError: no person with two examinations.
        UsageError: a table of something else is in the way.
        ResourceError: the folder cannot be written.
    """
    check_place(folder / TABLE)
    if not several_time_points(cases):
        raise InputError(
            f"longitudinal: none of the {len(cases)} patients has two examinations. Expected names such as "
            "sub-01_ses-1, PATIENT/week-012, PATIENT/2019-01-31, or a CSV with the columns subject, session, date."
        )
    try:
        known = (folder / TABLE).read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ResourceError(f"{folder / TABLE}: cannot be read ({error.strerror}).") from error
    if not known.startswith(_HEADING):
        raise UsageError(f"{folder / TABLE} exists and is no table of examinations; move it away.")


def write_longitudinal(
    folder: Path,
    cases: Sequence[Case],
    statuses: Mapping[str, Status],
    segmentations: Mapping[str, Path],
    config: ModelConfig,
    options: OutputOptions,
) -> tuple[list[Path], list[str]]:
    """Write the table of all persons with two or more examinations, and a plot and a page of each.

    What was written by an earlier run is replaced: it follows from the masks.

    Args:
        folder: Where to.
        cases: The patients.
        statuses: What became of each, by the case's name.
        segmentations: Mask of each.
        config: Classes and regions.
        options: In which values the masks are written.

    Returns:
        The files, the table first, and what a user should know: examinations that failed are missing.

    Raises:
        InputError: a mask cannot be read.
        ResourceError: the folder cannot be written.
    """
    written, notes, everything = [folder / TABLE], [], []
    for subject, points in several_time_points(cases).items():
        failed = [case.name for _, case in points if statuses[case.name].status == FAILED]
        if failed:
            notes.append(f"{subject}: missing in what is shown over time, since they failed: {', '.join(failed)}")
        measured = [
            measure(point, statuses[case.name], segmentations[case.name], config, options)
            for point, case in points
            if case.name not in failed
        ]
        everything += measured
        if len(measured) < 2:
            continue
        plot = longitudinal_plot(measured)
        stem = folder / f"longitudinal_{subject}"
        files = [stem.with_name(f"{stem.name}{ending}") for ending in (".png", ".html")]
        atomic_write_bytes(files[0], plot)
        atomic_write_text(files[1], longitudinal_page(measured, plot, __version__))
        written += files
    atomic_write_text(folder / TABLE, longitudinal_csv(everything))
    return written, notes


def measure(
    point: TimePoint, status: Status, segmentation: Path, config: ModelConfig, options: OutputOptions
) -> Measurement:
    """Return what a mask that was written measures.

    Args:
        point: Whose examination, and which.
        status: What became of it.
        segmentation: The mask.
        config: Classes and regions.
        options: In which values the mask is written.

    Raises:
        InputError: the mask cannot be read.
    """
    labels, geometry = read_label_map(segmentation)
    values = options.label_values(config)
    classes = to_classes(labels, values, str(segmentation))
    guesses = status.guesses.split("+") if status.guesses else []
    rows = tissue_table(classes, config.classes, values, dict(config.regions), geometry.spacing_mm, guesses)
    reorient = Reorient(*axes_to_canonical(geometry))
    regions = [region for region, _ in config.regions]
    diameters = None
    if "ET" in regions:
        enhancing = np.ascontiguousarray(reorient.apply(region_mask(classes, config.region_classes("ET"))))
        diameters = largest_axial_diameters_mm(enhancing, canonical_spacing_mm(geometry, reorient))
    volumes = {row.name: row.volume_ml for row in rows}  # ET is a class and a region, of the same voxels
    guessed = list(dict.fromkeys(row.name for row in rows if row.guess))
    return Measurement(point, status.case, status.modalities, volumes, regions, diameters, guessed)
