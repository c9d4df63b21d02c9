"""Patients' raw images prepared once, for any number of runs of the network."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from itertools import chain
from os import PathLike
from pathlib import Path

from a2fseg_cli import __version__
from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.images import ReadingOptions
from a2fseg_cli.cases.selection import Selection, select_cases
from a2fseg_cli.cluster.crew import Crew
from a2fseg_cli.dicom.places import opened_places
from a2fseg_cli.errors import UsageError
from a2fseg_cli.files import check_place, file_state, fingerprint, remove_abandoned
from a2fseg_cli.inference.predict import EXISTING
from a2fseg_cli.inference.preparation import Preparation, prepared_into
from a2fseg_cli.inference.preparation_by_workers import prepared_by_workers
from a2fseg_cli.inference.status import OK, RUNNING, SKIPPED, Status, StatusTable
from a2fseg_cli.raw.outputs import prepared_files, refuse_among_scans


def prepare(
    source: str | PathLike[str] | None = None,
    *,
    output: str | PathLike[str],
    images: Mapping[str, str | PathLike[str]] | None = None,
    selection: Selection | None = None,
    reading: ReadingOptions | None = None,
    existing: str = "refuse",
    threads: int = 1,
    crew: Crew | None = None,
    started: Callable[[int], None] | None = None,
    progress: Callable[[Preparation], None] | None = None,
) -> list[Preparation]:
    """Prepare patients' raw images into a folder, each into a sub-folder of its own, without the network.

    Every image may lie on its own grid and show the whole head; `predict` takes the folder.

    Args:
        source: A patient's folder, a cohort's, or a CSV, as of `predict`.
        output: The folder; `status.csv` in it has a row a patient.
        images: Instead of `source`: the files of one patient by modality.
        selection: Which of the patients found, and which of their files.
        reading: `reference`, `brain_mask` and `drop_unregistered` are followed.
        existing: refuse, skip (redo only what is missing or outdated) or overwrite.
        threads: How many images are worked on at a time.
        crew: Workers that share the patients (`connected`); each takes its own threads.
        started: Told how many patients there are.
        progress: Told what became of each patient.

    Raises:
        UsageError: results that are in the way.
        InputError: nothing was found. What is wrong with a single patient is in its `Preparation`.
        ResourceError: the folder cannot be written.
    """
    whole = Path.absolute if crew is not None else Path  # workers have working folders of their own
    folder = whole(Path(output))
    given = {m: whole(Path(path)) for m, path in images.items()} if images else None
    mask = whole(Path(reading.brain_mask)) if reading and reading.brain_mask else None
    options = replace(reading or ReadingOptions(), raw=True, brain_mask=mask)
    with opened_places(whole(Path(source)) if source is not None else None, given) as (place, files):
        cases = select_cases(place, given=files, selection=selection)
        if mask is not None and len(cases) > 1:
            raise UsageError(f"One mask of the brain (brain_mask) is for one patient; there are {len(cases)}.")
        prints = {case.name: _fingerprint(case, options) for case in cases}
        check_place(folder / "status.csv")
        table = StatusTable(folder / "status.csv", (), prints)
        finished = set() if existing == "overwrite" else _finished(table, prints, folder)
        todo = [case for case in cases if case.name not in finished]
        _refuse_existing(todo, [mask] if mask else [], folder, existing, _begun(table, prints))
        (started or (lambda _: None))(len(cases))
        results: dict[str, Preparation] = {}
        before = (table.rows[case.name] for case in cases if case.name in finished)
        skipped = (Preparation(replace(row, status=SKIPPED, reason="finished before")) for row in before)
        with closing(table):
            for result in chain(skipped, _prepared(todo, prints, folder, options, threads, crew, table)):
                if result.status.status != SKIPPED:
                    table.note(result.status)
                results[result.status.case] = result
                (progress or (lambda _: None))(result)
        return [results[case.name] for case in cases]


def _prepared(
    cases: Sequence[Case],
    prints: Mapping[str, str],
    folder: Path,
    options: ReadingOptions,
    threads: int,
    crew: Crew | None,
    table: StatusTable,
) -> Iterator[Preparation]:
    """Yield what became of each patient as it is done, here or on workers; each is in the table when it is begun."""

    def began(case: Case) -> None:  # after a kill, what lies in its folder is known as this run's
        table.note(Status(case.name, "+".join(case.images), RUNNING, settings=prints[case.name]))

    remove_abandoned(folder)
    if crew is not None:
        yield from prepared_by_workers(crew, [(case, prints[case.name]) for case in cases], folder, options, began)
        return
    for case in cases:
        began(case)
        yield prepared_into(folder / case.name, case, options, threads, prints[case.name])


def _refuse_existing(
    cases: Sequence[Case], inputs: Sequence[Path], folder: Path, existing: str, ours: Collection[str]
) -> None:
    """Refuse results that are in the way, other than ours, and a folder that is the input's. Raises: UsageError."""
    if existing not in EXISTING:
        raise UsageError(f"existing {existing}: expected {', '.join(EXISTING)}.")
    for case in cases:
        own = os.path.realpath(folder / case.name)
        if any(os.path.realpath(path).startswith(own + os.sep) for path in (*case.files, *inputs)):
            raise UsageError(f"{folder / case.name} holds the patient's input. Give another folder.")
    refuse_among_scans(folder, [case.folder for case in cases])
    others = [folder / case.name for case in cases if case.name not in ours]
    in_the_way = [place for place in others if place.exists()]
    if existing == "refuse" and in_the_way:
        raise UsageError(
            f"{in_the_way[0]} exists ({len(in_the_way)} such folders). Overwrite them (overwrite), have what is "
            "outdated made anew (skip_existing), or give another folder."
        )


def _finished(table: StatusTable, prints: Mapping[str, str], folder: Path) -> set[str]:
    ok = {n: row for n, row in table.rows.items() if row.status == OK and row.settings == prints.get(n)}
    return {n for n, row in ok.items() if all(path.exists() for path in _images_and_mask(folder / n, row))}


def _begun(table: StatusTable, prints: Mapping[str, str]) -> set[str]:
    """Return the patients in whose middle a run with the same settings was killed."""
    return {n for n, row in table.rows.items() if row.status == RUNNING and row.settings == prints.get(n)}


def _images_and_mask(folder: Path, row: Status) -> list[Path]:
    """Return the files that a finished patient has: without one of its images it would be taken for another's."""
    names = row.modalities.split("+")
    files = prepared_files(folder, row.case, names, names[0])
    return [files[name] for name in (*names, "brain_mask")]


def _fingerprint(case: Case, options: ReadingOptions) -> str:
    """Return a hash of all that a result depends on."""
    files = {m: case.state(m) for m in case.images}
    mask = file_state(Path(options.brain_mask)) if options.brain_mask else None
    settings = asdict(options) | {"brain_mask": str(options.brain_mask) if options.brain_mask else None}
    return fingerprint(files, case.channels, mask, settings, __version__)
