"""Patients' raw images prepared once, for any number of runs of the network."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path

from a2fseg_cli import __version__
from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.images import ReadingOptions
from a2fseg_cli.cases.selection import Selection, select_cases
from a2fseg_cli.dicom.places import opened_places
from a2fseg_cli.errors import A2FSegError, UsageError, naming_out_of_memory
from a2fseg_cli.files import check_place, file_state, fingerprint
from a2fseg_cli.inference.predict import EXISTING
from a2fseg_cli.inference.status import FAILED, OK, SKIPPED, Status, StatusTable
from a2fseg_cli.modalities import BRATS_MODALITIES
from a2fseg_cli.raw.outputs import prepared_files, refuse_among_scans, remove_prepared, write_prepared
from a2fseg_cli.raw.prepare import prepare_raw


@dataclass(frozen=True)
class Preparation:
    """What became of a patient.

    Attributes:
        status: A row of the table.
        files: What was written.
        warnings: What a user should know of it.
        error: Why it could not be prepared.
    """

    status: Status
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    error: A2FSegError | None = field(default=None, repr=False)


def prepare(
    source: str | PathLike[str] | None = None,
    *,
    output: str | PathLike[str],
    images: Mapping[str, str | PathLike[str]] | None = None,
    selection: Selection | None = None,
    reading: ReadingOptions | None = None,
    existing: str = "refuse",
    threads: int = 1,
    started: Callable[[int], None] | None = None,
    progress: Callable[[Preparation], None] | None = None,
) -> list[Preparation]:
    """Prepare patients' raw images into a folder, each into a sub-folder of its own, without the network.

    Every image may lie on its own grid and show the whole head. `predict` takes the folder as it is.

    Args:
        source: A patient's folder, a cohort's, or a CSV, as of `predict`.
        output: The folder; `status.csv` in it has a row a patient.
        images: Instead of `source`: the files of one patient by modality.
        selection: Which of the patients found, and which of their files.
        reading: `reference`, `brain_mask` and `drop_unregistered` are followed.
        existing: refuse, skip (redo only what is missing or outdated) or overwrite.
        threads: How many images are worked on at a time.
        started: Told how many patients there are.
        progress: Told what became of each patient.

    Raises:
        UsageError: results that are in the way.
        InputError: nothing was found. What is wrong with a single patient is in its `Preparation`.
        ResourceError: the folder cannot be written.
    """
    options = replace(reading or ReadingOptions(), raw=True)
    folder = Path(output)
    given = {m: Path(path) for m, path in images.items()} if images else None
    with opened_places(Path(source) if source is not None else None, given) as (place, files):
        cases = select_cases(place, given=files, selection=selection)
        if options.brain_mask is not None and len(cases) > 1:
            raise UsageError(f"One mask of the brain (brain_mask) is for one patient; there are {len(cases)}.")
        prints = {case.name: _fingerprint(case, options) for case in cases}
        check_place(folder / "status.csv")
        table = StatusTable(folder / "status.csv", (), prints)
        finished = set() if existing == "overwrite" else _finished(table, prints, folder)
        todo = [case for case in cases if case.name not in finished]
        _refuse_existing(todo, [Path(options.brain_mask)] if options.brain_mask else [], folder, existing)
        if started:
            started(len(cases))
        results = []
        with closing(table):
            for case in cases:
                if case.name in finished:
                    result = Preparation(replace(table.rows[case.name], status=SKIPPED, reason="finished before"))
                else:
                    result = _prepared(case, folder / case.name, options, threads, prints[case.name])
                    table.note(result.status)
                results.append(result)
                if progress:
                    progress(result)
        return results


def _refuse_existing(cases: Sequence[Case], inputs: Sequence[Path], folder: Path, existing: str) -> None:
    """Refuse results that are in the way, and a folder that is the input's. Raises: UsageError."""
    if existing not in EXISTING:
        raise UsageError(f"existing {existing}: expected {', '.join(EXISTING)}.")
    for case in cases:
        own = os.path.realpath(folder / case.name)
        if any(os.path.realpath(path).startswith(own + os.sep) for path in (*case.files, *inputs)):
            raise UsageError(f"{folder / case.name} holds the patient's input. Give another folder.")
    refuse_among_scans(folder, [case.folder for case in cases])
    in_the_way = [folder / case.name for case in cases if (folder / case.name).exists()]
    if existing == "refuse" and in_the_way:
        raise UsageError(
            f"{in_the_way[0]} exists ({len(in_the_way)} such folders). Overwrite them (overwrite), have what is "
            "outdated made anew (skip_existing), or give another folder."
        )


def _finished(table: StatusTable, prints: Mapping[str, str], folder: Path) -> set[str]:
    ok = {n: row for n, row in table.rows.items() if row.status == OK and row.settings == prints.get(n)}
    return {n for n, row in ok.items() if all(path.exists() for path in _images_and_mask(folder / n, row))}


def _images_and_mask(folder: Path, row: Status) -> list[Path]:
    """Return the files that a finished patient has: without one of its images it would be taken for another's."""
    names = row.modalities.split("+")
    files = prepared_files(folder, row.case, names, names[0])
    return [files[name] for name in (*names, "brain_mask")]


def _prepared(case: Case, folder: Path, options: ReadingOptions, threads: int, settings: str) -> Preparation:
    """Return what became of one patient, its files written."""
    started = time.perf_counter()

    def status(kind: str, names: Sequence[str], reason: str = "", warnings: Sequence[str] = ()) -> Status:
        seconds = round(time.perf_counter() - started, 2)
        told = "; ".join(text.removeprefix(f"{case.name}: ") for text in warnings)
        return Status(case.name, "+".join(names), kind, reason, seconds, warnings=told, settings=settings)

    try:
        with naming_out_of_memory(f"{case.name} could not be read and prepared"):
            patient = prepare_raw(case, BRATS_MODALITIES, options, threads)
        files = write_prepared(patient, folder)
    except A2FSegError as error:
        with suppress(A2FSegError):  # what was made of other images would be taken for this patient's
            remove_prepared(folder, case.name)
        return Preparation(status(FAILED, list(case.images), " ".join(str(error).split())), error=error)
    images = patient.images
    return Preparation(
        status(OK, list(images.images), "; ".join(case.warnings), images.warnings), tuple(files), images.warnings
    )


def _fingerprint(case: Case, options: ReadingOptions) -> str:
    """Return a hash of all that a result depends on."""
    files = {m: case.state(m) for m in case.images}
    mask = file_state(Path(options.brain_mask)) if options.brain_mask else None
    settings = asdict(options) | {"brain_mask": str(options.brain_mask) if options.brain_mask else None}
    return fingerprint(files, case.channels, mask, settings, __version__)
