"""What was found of each patient, file by file, from the headers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.images import ReadingOptions
from a2fseg_cli.dicom.reading import display_path, peek_series
from a2fseg_cli.dicom.series import Series
from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.one_grid import check_same_grid
from a2fseg_cli.imaging.reading import peek_channels, peek_image


@dataclass(frozen=True)
class FileRow:
    """One image of one patient.

    Attributes:
        case: The patient.
        modality: What it was taken for; `-` for a DICOM series that is left aside.
        decided: What decided that.
        file: Where it lies; of a DICOM series its number and description.
        size: Voxels (D, H, W); empty where the file cannot be read.
        spacing_mm: (z, y, x); empty likewise.
        orientation: Three letters, as SimpleITK has them.
        warnings: What a user should know of it.
        problem: Why it cannot be used, or None.
    """

    case: str
    modality: str
    file: str
    decided: str = ""
    size: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    orientation: str = ""
    warnings: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class CaseOverview:
    """What was found of one patient.

    Attributes:
        case: The patient.
        files: Its images.
        warnings: What a user should know of them together.
        problem: Why the patient cannot be used, or None.
    """

    case: str
    files: tuple[FileRow, ...]
    warnings: tuple[str, ...]
    problem: str | None

    @property
    def problems(self) -> list[str]:
        """Everything that keeps the patient from being used."""
        return [text for text in (self.problem, *(row.problem for row in self.files)) if text]


def overview(cases: Sequence[Case], options: ReadingOptions) -> list[CaseOverview]:
    """Return what was found; no voxel is read.

    Args:
        cases: The patients.
        options: Reference, and whether differing grids will be put on one.
    """
    return [_of_case(case, options) for case in cases]


def _of_case(case: Case, options: ReadingOptions) -> CaseOverview:
    rows, grids = [], {}
    for modality in case.images:
        decided = case.decided.get(modality, "")
        try:
            grid, warnings = _peek(case, modality)
            grids[modality] = (Path(_place(case, modality)), grid)
            place = (decided, grid.size, grid.spacing_mm, grid.orientation)
            rows.append(FileRow(case.name, modality, _place(case, modality), *place, warnings))
        except InputError as error:
            rows.append(FileRow(case.name, modality, _place(case, modality), decided, problem=str(error)))
    rows += [_row_aside(case.name, series, why) for series, why in case.aside]
    if options.brain_mask is not None:
        peek_image(Path(options.brain_mask))
    problem, warnings, reference = case.problem, case.warnings, options.reference
    if problem is None and reference is not None and reference not in case.images:
        problem = f"reference {reference}: not among the images found ({', '.join(case.images)})"
    if problem is None and len(grids) > 1 and not options.raw:
        try:
            check_same_grid({reference: grids[reference], **grids} if reference in grids else grids)
        except InputError as error:
            if options.on_mismatch == "resample":
                warnings = (*warnings, "grids differ: will be resampled")
            else:
                problem = str(error)
    return CaseOverview(case.name, tuple(rows), warnings, problem)


def _peek(case: Case, modality: str) -> tuple[Geometry, tuple[str, ...]]:
    if modality in case.series:
        return peek_series(case.series[modality])
    path = case.images[modality]
    return peek_channels(path, case.channels) if case.channels else peek_image(path)


def _place(case: Case, modality: str) -> str:
    return str(display_path(case.series[modality])) if modality in case.series else str(case.images[modality])


def _row_aside(name: str, series: Series, why: str) -> FileRow:
    """Return a series that is not used; that it is no volume is then no problem."""
    grid = series.geometry
    place = (grid.size, grid.spacing_mm, grid.orientation) if grid else ()
    return FileRow(name, "-", series.label, why, *place)
