"""DICOM studies to cases: which series is which sequence, and which of several is meant.

A case is named by the folder that the user gave, never by what the headers say of the patient.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from a2fseg_cli.cases.case import Case, printable_name
from a2fseg_cli.cases.folders import checked_folder, folder_name
from a2fseg_cli.cases.series_choice import SHORTEST_UID, SeriesChoice, Study, case_of_study, is_meant, with_modalities
from a2fseg_cli.dicom.series import Headers, Series, read_headers
from a2fseg_cli.errors import InputError
from a2fseg_cli.modalities import BRATS_MODALITIES


def find_studies(place: Path) -> list[Study]:
    """Return the studies of a folder and all below it, by date; no pixel is read.

    Raises:
        InputError: no such place, or no DICOM in it.
    """
    headers = read_headers(place)
    if not headers.series:
        raise InputError(f"{place}: no DICOM image{_counted(headers)}.")
    grouped: dict[tuple[str, str], list[Series]] = {}
    for one in headers.series:
        grouped.setdefault((one.patient, one.study), []).append(one)
    studies = [
        Study(uid, series[0].date, patient, tuple(series), _common_folder(series), len(headers.damaged))
        for (patient, uid), series in grouped.items()
    ]
    return sorted(studies, key=lambda study: (study.date, study.uid))


def cases_of_dicom(
    place: Path,
    modalities: Sequence[str] = BRATS_MODALITIES,
    choice: SeriesChoice | None = None,
    *,
    single: bool = False,
) -> list[Case]:
    """Return the cases of a folder with DICOM files.

    Where every study lies in one sub-folder, each sub-folder is a patient and gives the name; otherwise the folder is
    one. Two studies of one patient are two cases, with the date behind the name.

    Args:
        place: The folder: of a study, with its series in it or in sub-folders, or of several studies.
        modalities: Those of the network.
        choice: Which series and which study.
        single: Expect one study.

    Returns:
        The cases by name; what is wrong with one is its `problem`.

    Raises:
        InputError: no DICOM; or, expecting one, several studies or patients, which are listed; or no such study.
        UsageError: a series is chosen as something that the network does not know.
    """
    choice = with_modalities(choice or SeriesChoice(), modalities)
    studies = _chosen_studies(place, find_studies(checked_folder(place)), choice.study)
    if single and len(studies) > 1:
        raise InputError(f"{place}: {_several_studies(studies)}")
    units = [(place, studies)] if single else _units(place, studies)
    cases = [case for unit, own in units for case in _cases_of_unit(unit, own, modalities, choice)]
    _check_used(place, choice, studies)
    return sorted(cases, key=lambda case: case.name)


def with_series(case: Case, given: Mapping[str, Series]) -> Case:
    """Return a case with these of its images as DICOM series.

    Raises:
        InputError: the series are of several patients or studies, which are listed.
    """
    if len({(one.patient, one.study) for one in given.values()}) > 1:
        rows = [f"  {modality}: {one.label}, {_study_label(one)}" for modality, one in given.items()]
        patients = len({one.patient for one in given.values()})
        kind = f"{patients} patients" if patients > 1 else "several studies of one patient"
        raise InputError(f"{case.name}: series of {kind}. Expected those of one study.\n" + "\n".join(rows))
    images = {**case.images, **{modality: one.folder for modality, one in given.items()}}
    return replace(case, images=images, series={**case.series, **given})


def _check_used(place: Path, choice: SeriesChoice, studies: Sequence[Study]) -> None:
    """Refuse a choice that names no series. Raises: InputError."""
    for key in choice.series:
        if not any(is_meant(one, key) for study in studies for one in study.series):
            known = ", ".join(dict.fromkeys(one.key for study in studies for one in study.series))
            raise InputError(f"{place}: no series {key}. There are {known}.")


def _chosen_studies(place: Path, studies: list[Study], wanted: str | None) -> list[Study]:
    if wanted is None:
        return studies
    meant = [study for study in studies if wanted in (study.uid, study.date)]
    meant = meant or [study for study in studies if len(wanted) >= SHORTEST_UID and study.uid.endswith(wanted)]
    if not meant:
        rows = "\n".join(f"  {study.label}" for study in studies)
        raise InputError(f"{place}: no study {wanted}. There are:\n{rows}")
    return meant


def _several_studies(studies: Sequence[Study]) -> str:
    patients = list(dict.fromkeys(study.patient for study in studies))
    kind = f"{len(patients)} patients" if len(patients) > 1 else "one patient"
    rows = [
        f"  patient {patients.index(study.patient) + 1}, {study.date or 'no date'}: {len(study.series)} series, "
        f"in {study.folder}, UID ...{study.uid[-8:]}"
        for study in studies
    ]
    text = f"{len(studies)} studies of {kind}. Images of two dates never make one case: choose a study (study)."
    return text + "\n" + "\n".join(rows)


def _units(place: Path, studies: Sequence[Study]) -> list[tuple[Path, list[Study]]]:
    """Return the folders that are patients, each with its studies."""
    tops: dict[str, list[Study]] = {}
    for study in studies:
        below = {os.path.relpath(path, place).split(os.sep)[0] for one in study.series for path in one.files}
        if len(below) != 1 or not (place / (top := next(iter(below)))).is_dir():
            return [(place, list(studies))]
        tops.setdefault(top, []).append(study)
    return [(place / top, own) for top, own in tops.items()]


def _cases_of_unit(unit: Path, studies: Sequence[Study], modalities: Sequence[str], choice: SeriesChoice) -> list[Case]:
    name = printable_name(folder_name(unit))
    if len({study.patient for study in studies}) > 1:
        return [Case(name, {}, problem=f"{unit}: {_several_studies(studies)}", folder=unit)]
    dates = [study.date for study in studies]
    cases = []
    for study in studies:
        own = name
        if len(studies) > 1:
            own += f"_{study.date or 'undated'}"
            own += f"_{study.uid.rsplit('.', 1)[-1]}" if dates.count(study.date) > 1 else ""
        try:
            cases.append(case_of_study(study, own, modalities, choice))
        except InputError as error:  # a choice that fits two of its series
            cases.append(Case(own, {}, problem=str(error), folder=study.folder))
    return cases


def _common_folder(series: Sequence[Series]) -> Path:
    folders = [str(path.parent) for one in series for path in one.files]
    return Path(os.path.commonpath(folders)) if folders else Path()


def _study_label(one: Series) -> str:
    return f"study of {one.date or 'no date'} (UID ...{one.study[-8:]})"


def _counted(headers: Headers) -> str:
    told = [(headers.others, "of another kind"), (len(headers.damaged), "damaged")]
    return "".join(f", {count} files {kind}" for count, kind in told if count)
