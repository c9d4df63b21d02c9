"""Which patients a command works on, for predict, evaluate and train alike: found or given, then narrowed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from a2fseg_cli.cases.case import Case, printable_name, too_long
from a2fseg_cli.cases.case_lists import read_case_table, split_part
from a2fseg_cli.cases.discovery import NoImagesError, find_cases, unique
from a2fseg_cli.cases.names import image_stem
from a2fseg_cli.cases.nnunet import find_dataset, is_dataset
from a2fseg_cli.cases.series_choice import SeriesChoice
from a2fseg_cli.cases.studies import cases_of_dicom, with_series
from a2fseg_cli.cases.volumes import cases_of_volumes, channel_modalities
from a2fseg_cli.dicom.places import holds_dicom, holds_images, is_zip
from a2fseg_cli.dicom.reading import series_in_folder
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.modalities import BRATS_MODALITIES

Source = Path | Sequence[Path]
# Choices among the files of folders.
_AMONG_FILES = ("select", "ignore_unknown")


@dataclass(frozen=True)
class Selection:
    """Which of the patients that are found, and which of their files.

    Attributes:
        split: FILE or FILE:NAME of a JSON with lists of case names; only the cases of this list.
        require: Modalities whose absence is a problem of the case.
        ignore_unknown: Leave aside images that look like a sequence and cannot be told, instead of failing the case.
        select: Which of several files of one modality is meant, by a part of its name such as `run-01`.
        channels: Modality of each volume of 4-D files, in their order; `-` is a volume that is not used.
        case_name: Name of the one patient.
        series: Modality of a DICOM series by its number, its key (`5b`), its UID or the end of it; `-` leaves it aside.
        study: Of several DICOM studies: its UID, the end of it, or its date.
        prefer: thinnest takes the DICOM series with the thinnest slices of several; None refuses.
    """

    split: str | None = None
    require: tuple[str, ...] = ()
    ignore_unknown: bool = False
    select: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    case_name: str | None = None
    series: Mapping[str, str] = field(default_factory=dict)
    study: str | None = None
    prefer: str | None = None

    @property
    def series_choice(self) -> SeriesChoice:
        """Which DICOM series are meant. Raises: UsageError for an unknown preference."""
        return SeriesChoice(self.series, self.study, self.prefer, self.ignore_unknown)

    def __post_init__(self) -> None:
        """Refuse one word where several are meant. Raises: UsageError."""
        for name in ("require", "select", "channels"):
            if isinstance(getattr(self, name), str):
                raise UsageError(f"{name} {getattr(self, name)!r}: expected a tuple of texts.")


def select_cases(
    source: Source | None,
    *,
    modalities: Sequence[str] = BRATS_MODALITIES,
    given: Mapping[str, Path] | None = None,
    selection: Selection | None = None,
    with_truth: bool = False,
    single: bool = False,
) -> list[Case]:
    """Return the patients of one or several sources, or the one whose files are given.

    Args:
        source: A folder (a patient, a cohort, BIDS, nnU-Net's raw data set or its `imagesTr`), a CSV, a 4-D file with
            `channels`, or several of these; None for `given`.
        modalities: Those of the network, in its order.
        given: File of each modality of one patient.
        selection: Which of them, and which of their files.
        with_truth: Of nnU-Net's data sets only the folders that have labels.
        single: One patient is expected: several DICOM studies are then refused, with a list.

    Returns:
        The cases by name. What is wrong with a single one is its `problem`.

    Raises:
        UsageError: the source is an image, or parameters contradict each other.
        InputError: nothing was found, or a table, a split or a data set is not acceptable.
    """
    selection = selection or Selection()
    channels, require, case_name = selection.channels, selection.require, selection.case_name
    if unknown := [name for name in require if name not in modalities]:
        raise UsageError(f"require {', '.join(unknown)}: expected some of {', '.join(modalities)}.")
    sources = [] if source is None else [source] if isinstance(source, Path) else list(source)
    if bool(sources) == bool(given):
        raise UsageError("Give either images one by one, or a folder or CSV.")
    channel_modalities(channels, modalities)  # refused before anything is looked for
    cases: list[Case] = [_given_case(given)] if given else []
    for place in sources:
        if _is_dicom_place(place, modalities):
            _refuse(selection, ("select", "channels"), "DICOM series are told apart by their headers")
            own = cases_of_dicom(place, modalities, selection.series_choice, single=single)
        else:
            _refuse(selection, ("series", "study", "prefer"), f"{place} holds no DICOM series, or images beside them")
            own = _cases_of_source(place, modalities, selection, with_truth)
        cases += _with_zips(place, own)
    cases = unique(cases)
    if case_name is not None:
        cases = [_renamed(cases, case_name)]
    if selection.split is not None:
        cases = _of_split(cases, selection.split)
    return [_with_required(case, require) for case in cases]


def _is_dicom_place(place: Path, modalities: Sequence[str]) -> bool:
    """Whether a place holds DICOM and no image of another format but masks and maps, which a run may have put there."""
    if not holds_dicom(place):
        return False
    if not holds_images(place):
        return True
    try:
        find_cases(place, modalities)
    except NoImagesError:
        return True
    return False


def _with_zips(place: Path, cases: list[Case]) -> list[Case]:
    """Return the cases of a folder, the first with a warning of zips in it, which may be patients and are not read."""
    zips = _zips(place)
    if not cases or not zips:
        return cases
    names = ", ".join(zips[:3]) + (", ..." if len(zips) > 3 else "")
    text = f"{place}: {len(zips)} zip files in it are not read ({names}). Unpack them, or give each by itself"
    return [replace(cases[0], warnings=(*cases[0].warnings, text)), *cases[1:]]


def _zips(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if is_zip(path)) if os.path.isdir(place) else []


def _given_case(given: Mapping[str, Path]) -> Case:
    """Return images given one by one, files or folders with a DICOM series each, as a case. Raises: InputError."""
    first = next(iter(given.values()))
    name = printable_name(image_stem(first) or first.name.split(".")[0])
    series = {modality: series_in_folder(place) for modality, place in given.items() if holds_dicom(place)}
    case = Case(name, dict(given), decided=dict.fromkeys(given, "given"))
    return with_series(case, series) if series else case


def _cases_of_source(source: Path, modalities: Sequence[str], selection: Selection, with_truth: bool) -> list[Case]:
    channels = selection.channels
    # Both are false as well where the source cannot be looked at, which `find_cases` explains.
    is_file = os.path.isfile(source)
    if is_file and source.suffix.lower() == ".csv":
        if channels:
            raise UsageError("A CSV names a file for each modality (channels). Give 4-D files by folder or alone.")
        _refuse(selection, _AMONG_FILES, "a CSV names its files")
        return read_case_table(source, modalities)
    if is_file and not channels:
        expected = ", ".join(modalities)
        raise UsageError(f"{source}: one file. Expected a folder, a .csv, or an image by its sequence: {expected}.")
    if not is_file and is_dataset(source):
        _refuse(selection, _AMONG_FILES, "a data set of nnU-Net tells its files by numbers")
        return find_dataset(source, modalities, channels=channels, with_truth=with_truth)
    if channels:
        _refuse(selection, _AMONG_FILES, "channels tell what is in 4-D files")
        return cases_of_volumes(source, modalities, channels)
    try:
        return find_cases(source, modalities, select=selection.select, ignore_unknown=selection.ignore_unknown)
    except NoImagesError as error:
        if zips := _zips(source):
            raise InputError(
                f"{source}: no image, but {len(zips)} zip files. Give one by itself: {zips[0]}."
            ) from error
        raise


def _refuse(selection: Selection, names: Sequence[str], why: str) -> None:
    """Refuse choices where nothing would follow them. Raises: UsageError."""
    for name in names:
        if getattr(selection, name):
            raise UsageError(f"There is nothing to choose ({name}): {why}.")


def _renamed(cases: Sequence[Case], name: str) -> Case:
    if len(cases) != 1:
        raise UsageError(f"case_name {name}: {len(cases)} patients were found; a name is for one.")
    if not name or name in (".", "..") or set(name) & set("/\\\0") or printable_name(name) != name or too_long(name):
        raise UsageError(f"case_name {printable_name(name[:80])!r}: expected a name that can be a file name.")
    return replace(cases[0], name=name)


def _of_split(cases: Sequence[Case], split: str) -> list[Case]:
    """Return the cases of a split's list. Raises: UsageError, or InputError for a case that is not there."""
    where, names = split_part(split)
    wanted = set(names)
    if missing := sorted(wanted - {case.name for case in cases}):
        raise InputError(f"{where}: {len(missing)} cases are not in the data: {', '.join(missing)}.")
    return [case for case in cases if case.name in wanted]


def _with_required(case: Case, require: Sequence[str]) -> Case:
    missing = [name for name in require if name not in case.images]
    if case.problem or not missing:
        return case
    there = ", ".join(case.images)
    return replace(case, problem=f"{case.name}: no {', '.join(missing)}, which is required; there is {there}.")
