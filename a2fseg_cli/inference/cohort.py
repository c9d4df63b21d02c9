"""Many patients, or one: a single network, reading and writing beside it, nothing lost by a kill."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from a2fseg_cli import __version__
from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.images import ReadingOptions
from a2fseg_cli.errors import A2FSegError, ResourceError, UsageError
from a2fseg_cli.files import atomic_write_text, file_state, fingerprint, remove_abandoned
from a2fseg_cli.inference.cleaning import least_volumes
from a2fseg_cli.inference.exports import PatientResult, finish_patient
from a2fseg_cli.inference.index import refuse_other_index, write_index
from a2fseg_cli.inference.options import OutputOptions
from a2fseg_cli.inference.patient import Patient, PatientPrediction, load_patient, segment_patient
from a2fseg_cli.inference.places import Places
from a2fseg_cli.inference.predictor import Segmenter
from a2fseg_cli.inference.prefetch import read_ahead, work_ahead
from a2fseg_cli.inference.segmentation_file import check_segmentation_file
from a2fseg_cli.inference.stats import StatsFile, write_stats
from a2fseg_cli.inference.status import FAILED, OK, RUNNING, SKIPPED, Status, StatusTable
from a2fseg_cli.raw.outputs import possible_files, refuse_among_scans, refuse_others

# A row of the status table is noted after the mask, whose time a file system may round to two seconds.
_SECONDS_OF_NOTING = 2.0


@dataclass(frozen=True)
class Outcome:
    """What became of a patient: its status, and its result or the error that there was."""

    status: Status
    result: PatientResult | None = None
    error: A2FSegError | None = None


@dataclass(frozen=True)
class _Work:
    """A patient on its way: when it began, and the fingerprint of all that its result depends on."""

    case: Case
    settings: str
    began: float

    def status(self, kind: str, reason: str = "", result: PatientResult | None = None) -> Status:
        taken = round(time.perf_counter() - self.began, 2) if kind != RUNNING else 0.0
        volumes, guesses = (result.volumes_ml, "+".join(result.guesses)) if result else (None, "")
        modalities = result.modalities if result else "+".join(self.case.images)
        reason = reason or ("; ".join(self.case.warnings) if kind == OK else "")
        warnings = [text.removeprefix(f"{self.case.name}: ") for text in result.warnings] if result else []
        numbers = (taken, volumes, guesses, "; ".join(warnings))
        return Status(self.case.name, modalities, kind, reason, *numbers, self.settings)


Report = Callable[[Outcome], None]


class Cohort:
    """Segments patients, each into its own files.

    Args:
        segmenter: The loaded network.
        reading: What is made of images that do not fit together.
        options: What to write.
        places: Where to.
        existing: refuse, skip or overwrite: what to do about results that are there. A finished result with
            the same inputs, weights and settings is never computed twice unless `overwrite` is asked for; one
            with others is refused (refuse) or computed again (skip, overwrite).
        with_stats: The results have their `stats`, even if no file of them is written.
        inputs: Files that were read to find the patients; like images and weights they are never written over.
        keep_prepared: Folder for what raw images became, a folder for each patient in it.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        reading: ReadingOptions,
        options: OutputOptions,
        places: Places,
        existing: str = "refuse",
        with_stats: bool = False,
        inputs: Sequence[Path] = (),
        keep_prepared: Path | None = None,
    ) -> None:
        self.inputs = [*inputs, *([Path(reading.brain_mask)] if reading.brain_mask else [])]
        self.segmenter, self.reading, self.options, self.places = segmenter, reading, options, places
        self.existing, self.keep_prepared = existing, keep_prepared
        self.with_stats = with_stats or places.stats is not None
        self._stats = StatsFile(places.stats_file) if places.stats_file and not places.single else None
        self._table: StatusTable | None = None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the results depend on beside inputs, weights and windows."""
        mask = self.reading.brain_mask
        return asdict(self.options) | asdict(self.reading) | {"brain_mask": str(mask) if mask else None}

    def run(self, cases: Sequence[Case], report: Report) -> list[Outcome]:
        """Segment every case that is not finished; report each as it is done, and return all.

        Where cores are to spare, the next patient is read and the last is written while the network works on one.

        Raises:
            UsageError: results of other settings are in the way, or an output is also an input.
        """
        places, config = self.places, self.segmenter.config
        self.options.label_values(config)  # refuses a scheme before any work is done
        least_volumes(config, self.options.remove_small)  # and regions that there are not
        if self.options.attention and not self.segmenter.model.has_attention:
            raise UsageError(f"attention: a network of architecture {config.architecture} has none.")
        of_run = places.of_run(config, self.options, self.segmenter.weights)
        kept = _kept_files(self.keep_prepared, cases, existing=self.existing)
        places.check(cases, config, self.options, [*of_run, *kept], [*self.inputs, self.segmenter.weights.path])
        for folder in {places.output, *(places.segmentation(case).parent for case in cases)} if places.table else ():
            remove_abandoned(folder)
        prints = {case.name: self._fingerprint(case) for case in cases}
        self._table = StatusTable(places.table, [region for region, _ in config.regions], prints)
        finished = {case.name for case in cases if self._is_finished(case, prints[case.name])}
        todo = [case for case in cases if case.name not in finished]
        if self.existing != "overwrite":
            self._refuse_edited(todo)
            refuse_other_index(places)
        if self.existing == "refuse":
            self._refuse_foreign(todo, prints)
            _refuse_others(of_run)
        outcomes: list[Outcome] = []

        def done(outcome: Outcome) -> None:
            outcomes.append(outcome if places.single else replace(outcome, result=None))  # 20 kB of numbers and texts
            report(outcome)

        for case in (case for case in cases if case.name in finished):
            known = self._table.rows[case.name]
            done(Outcome(replace(known, status=SKIPPED, reason="finished before")))
        if not places.single:  # what describes a folder is there from the first patient on, as the status table is
            _write_changed(of_run)
        with closing(self._table), closing(self._stats) if self._stats else nullcontext():
            self._segment(todo, prints, done)
        write_index(places, self._table, [region for region, _ in config.regions])
        if places.single and outcomes[0].result is not None:
            _write_changed(of_run)
        return outcomes

    def _segment(self, cases: Sequence[Case], prints: Mapping[str, str], done: Report) -> None:
        writing: deque[Future[None]] = deque()
        lookahead = work_ahead(self.segmenter.compute)
        attention = self.options.attention or self.places.report is not None
        with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
            for work, patient in self._loaded(cases, prints, reader, lookahead):
                if isinstance(patient, A2FSegError):
                    self._fail(work, patient, done)
                    continue
                while len(writing) > lookahead:
                    writing.popleft().result()
                try:
                    predicted = segment_patient(patient, self.segmenter, attention, self.options.agreement)
                except ResourceError as error:  # too large for this machine; the next one may not be
                    self._fail(work, error, done)
                    continue
                self._note(work.status(RUNNING))
                writing.append(writer.submit(self._finish, work, patient, predicted, done))
            for future in writing:
                future.result()

    def _loaded(
        self, cases: Sequence[Case], prints: Mapping[str, str], reader: ThreadPoolExecutor, lookahead: int
    ) -> Iterator[tuple[_Work, Patient | A2FSegError]]:
        """Yield each case with its patient, or why there is none."""

        def load(case: Case) -> tuple[_Work, Patient | A2FSegError]:
            work = _Work(case, prints[case.name], time.perf_counter())
            try:
                pictures = bool(self.places.preview or self.places.report or self.places.viewer)
                keep = self.keep_prepared / case.name if self.keep_prepared else None
                patient = load_patient(case, self.segmenter.config, self.reading, pictures, keep)
                check_segmentation_file(patient, self.places.files_of(case))
                return work, patient
            except A2FSegError as error:
                return work, error

        return read_ahead(cases, load, reader, lookahead)

    def _finish(self, work: _Work, patient: Patient, predicted: PatientPrediction, done: Report) -> None:
        how = (self.segmenter, self.options, self.places.files_of(work.case), self.with_stats, self.settings)
        self._finished(work, finish_patient(patient, predicted, *how), done)

    def _finished(self, work: _Work, result: PatientResult, done: Report) -> None:
        if self._stats:
            self._stats.add(result.stats | {"fingerprint": work.settings})
        elif self.places.stats_file:
            write_stats(self.places.stats_file, result.stats)
        status = work.status(OK, result=result)
        self._note(status)
        done(Outcome(status, result))

    def _fail(self, work: _Work, error: A2FSegError, done: Report) -> None:
        status = work.status(FAILED, " ".join(str(error).split()))
        if self._stats:
            self._stats.drop(work.case.name)
        self._note(status)
        done(Outcome(status, error=error))

    def _note(self, status: Status) -> None:
        assert self._table is not None
        self._table.note(status)

    def _fingerprint(self, case: Case) -> str:
        """Return a hash of all that a result depends on: input files, weights, settings, version."""
        files = {modality: case.state(modality) for modality in case.images}
        mask = file_state(Path(self.reading.brain_mask)) if self.reading.brain_mask else None
        how = (self.settings, asdict(self.segmenter.inference), self.segmenter.compute.precision)
        return fingerprint(files, case.channels, mask, self.segmenter.weights.sha256, *how, __version__)

    def _files(self, case: Case) -> list[Path]:
        return self.places.of_case(case, self.segmenter.config, self.options)

    def _refuse_edited(self, todo: Sequence[Case]) -> None:
        """Raise where a mask would be made anew that somebody changed since it was written. Raises: UsageError."""
        assert self._table is not None
        for case in todo:
            known, path = self._table.rows.get(case.name), self.places.segmentation(case)
            if known is None or known.status != OK or not known.time or not path.exists():
                continue
            noted = datetime.fromisoformat(known.time).timestamp()
            if path.stat().st_mtime > noted + _SECONDS_OF_NOTING:
                raise UsageError(f"{path} was changed after it was written. Move it away, or overwrite it (overwrite).")

    def _refuse_foreign(self, todo: Sequence[Case], prints: Mapping[str, str]) -> None:
        """Raise where results that this run did not begin are in the way. Raises: UsageError."""
        assert self._table is not None
        ours = {name for name, status in self._table.rows.items() if status.settings == prints.get(name)}
        in_the_way = [path for case in todo if case.name not in ours for path in self._files(case) if path.exists()]
        if self.places.single:
            in_the_way += [path for path in (self.places.stats_file,) if path and path.exists()]
            if in_the_way:
                raise UsageError(f"{in_the_way[0]} exists. Overwrite it (overwrite), or give another name.")
        elif in_the_way:
            raise UsageError(
                f"{in_the_way[0]} exists ({len(in_the_way)} such files), made from other inputs, weights or "
                "settings. Overwrite them (overwrite), have what is outdated made anew (skip_existing), or "
                "give another folder."
            )

    def _is_finished(self, case: Case, settings: str) -> bool:
        assert self._table is not None
        known = self._table.rows.get(case.name)
        if self.existing == "overwrite" or known is None or known.status != OK or known.settings != settings:
            return False
        if self._stats and not self._stats.holds(case.name, settings):
            return False
        if self.keep_prepared and not possible_files(self.keep_prepared / case.name, case.name)[0].exists():
            return False
        try:  # what is written after the segmentation is of it; an older page is of another run
            written = [path.stat().st_mtime_ns for path in self._files(case)]
        except OSError:
            return False
        return min(written) == written[0]


def _kept_files(keep: Path | None, cases: Sequence[Case], existing: str) -> list[Path]:
    """Return what preparation may write. Raises: UsageError: files of others are in the way."""
    if keep is None:
        return []
    refuse_among_scans(keep, [case.folder for case in cases])
    for case in cases if existing != "overwrite" else ():
        refuse_others(keep / case.name, case.name)
    return [path for case in cases for path in possible_files(keep / case.name, case.name)]


def _refuse_others(texts: Mapping[Path, str]) -> None:
    """Refuse files that hold for all patients and say something else than this run's. Raises: UsageError."""
    for path, text in texts.items():
        if path.exists() and not _holds(path, text):
            raise UsageError(f"{path} exists, made by others or with other weights or settings. Allow overwriting it.")


def _write_changed(texts: Mapping[Path, str]) -> None:
    for path, text in texts.items():
        if not _holds(path, text):
            atomic_write_text(path, text)


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False
