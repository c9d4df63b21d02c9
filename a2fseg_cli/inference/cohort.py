"""Many patients: one model, reading and writing beside the network, a status table that survives a kill."""

from __future__ import annotations

import csv
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from a2fseg_cli import __version__
from a2fseg_cli.cases.discovery import Case
from a2fseg_cli.errors import A2FSegError, InputError, ResourceError, UsageError
from a2fseg_cli.files import atomic_write_text, csv_text, file_state, fingerprint, remove_abandoned
from a2fseg_cli.inference.exports import PatientResult, check_outputs, finish_patient, planned_outputs
from a2fseg_cli.inference.patient import OutputOptions, Patient, PatientPrediction, load_patient, segment_patient
from a2fseg_cli.inference.predictor import Segmenter
from a2fseg_cli.inference.prefetch import read_ahead, work_ahead
from a2fseg_cli.inference.stats_file import StatsFile

OK, FAILED, SKIPPED, RUNNING = "ok", "failed", "skipped", "running"
_COLUMNS = ("case", "modalities", "status", "reason", "seconds")
_LAST = ("settings", "time")  # behind the volumes


@dataclass(frozen=True)
class Status:
    """One line of `status.csv`.

    Attributes:
        case: The patient.
        modalities: Subset used, e.g. `t1c+flair`.
        status: ok, failed, skipped, or running: noted before the first file is written, so that after a kill
            what lies there is known as this run's own.
        reason: Why it failed or was skipped.
        seconds: From reading to the last file.
        volumes_ml: Region to volume.
        settings: Fingerprint of inputs, weights and settings; a result is only "finished" for the same one.
        time: When this was noted, UTC; of several tables the latest counts.
    """

    case: str
    modalities: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    volumes_ml: Mapping[str, float] | None = None
    settings: str = ""
    time: str = ""


def state_of(case: Case, segmenter: Segmenter, settings: OutputOptions) -> str:
    """Return a hash of all that a result depends on: input files, weights, settings, version."""
    files = {m: file_state(path) for m, path in case.images.items()}
    how = (asdict(settings), asdict(segmenter.inference), segmenter.compute.precision)
    return fingerprint(files, segmenter.weights.sha256, *how, __version__)


Report = Callable[[Status, PatientResult | None], None]


class Cohort:
    """Segments the patients of a cohort into a folder.

    Args:
        segmenter: The loaded network.
        settings: What to write.
        folder: Output folder; `<case>_seg.nii.gz` and the status table go here.
        previews: Folder for one preview a patient, or None.
        reports: Folder for one page a patient, or None.
        existing: refuse, skip or overwrite: what to do about results that are there. A finished result with
            the same inputs, weights and settings is never computed twice unless `overwrite` is asked for; one
            with others is refused (refuse) or computed again (skip, overwrite).
        status_name: Name of the status table; parts of a cohort have one each, and know what the others finished.
        stats: Where the numbers of every patient go; a patient that is not in it is not finished.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        settings: OutputOptions,
        folder: Path,
        previews: Path | None = None,
        reports: Path | None = None,
        existing: str = "refuse",
        status_name: str = "status.csv",
        stats: StatsFile | None = None,
    ) -> None:
        self.segmenter, self.settings, self.folder = segmenter, settings, folder
        self.previews, self.reports = previews, reports
        self.existing, self.status_path = existing, folder / status_name
        self.stats = stats
        self.statuses: dict[str, Status] = {}
        self._lock = threading.Lock()

    def output(self, case: Case) -> Path:
        """Return where a case's segmentation goes."""
        return self.folder / f"{case.name}_seg.nii.gz"

    def run(self, cases: Sequence[Case], report: Report) -> None:
        """Segment every case that is not finished; report each as it is done.

        Where cores are to spare, the next patient is read and the last is written while the network works on one.

        Raises:
            UsageError: results of other settings are in the way, or an output is also an input.
        """
        remove_abandoned(self.folder)
        tables = [self.status_path, *([self.stats.path] if self.stats else [])]
        check_outputs([*(path for case in cases for path in self._outputs(case)), *tables], cases)
        prints = {case.name: state_of(case, self.segmenter, self.settings) for case in cases}
        self.statuses = self._known(prints)
        finished = [case for case in cases if self._is_finished(case, prints[case.name])]
        todo = [case for case in cases if case not in finished]
        if self.existing == "refuse":
            ours = {name for name, status in self.statuses.items() if status.settings == prints.get(name)}
            foreign = [case for case in todo if case.name not in ours]
            in_the_way = [path for case in foreign for path in self._outputs(case) if path.exists()]
            if in_the_way:
                raise UsageError(
                    f"{in_the_way[0]} exists ({len(in_the_way)} such files), made from other inputs, weights or "
                    "settings. Give --overwrite, --skip-existing or another -o."
                )
        for case in finished:
            done = self.statuses[case.name]
            report(replace(done, status=SKIPPED, reason="finished before"), None)
        writing: deque[Future[None]] = deque()
        ahead = work_ahead(self.segmenter.compute)
        with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
            for case, patient, began in self._loaded(todo, reader, ahead):
                if isinstance(patient, A2FSegError):
                    self._fail(case, patient, began, prints, report)
                    continue
                while len(writing) > ahead:
                    writing.popleft().result()
                try:
                    found = segment_patient(patient, self.segmenter, self.settings, self.reports is not None)
                except ResourceError as error:  # too large for this machine; the next one may not be
                    self._fail(case, error, began, prints, report)
                    continue
                self._note(Status(case.name, "+".join(case.images), RUNNING, settings=prints[case.name]))
                writing.append(writer.submit(self._finish, case, patient, found, began, prints, report))
            for future in writing:
                future.result()

    def _loaded(
        self, cases: Sequence[Case], reader: ThreadPoolExecutor, ahead: int
    ) -> Iterator[tuple[Case, Patient | A2FSegError, float]]:
        """Yield each case with its patient, or why there is none."""

        def load(case: Case) -> tuple[Case, Patient | A2FSegError, float]:
            began = time.perf_counter()
            try:
                if case.problem:
                    raise InputError(case.problem)
                patient = load_patient(case.name, case.images, self.segmenter.config, self.settings, case.warnings)
                return case, patient, began
            except A2FSegError as error:
                return case, error, began

        return read_ahead(cases, load, reader, ahead)

    def _finish(
        self,
        case: Case,
        patient: Patient,
        found: PatientPrediction,
        began: float,
        prints: Mapping[str, str],
        report: Report,
    ) -> None:
        beside = (self._preview(case), self._page(case), self.stats is not None)
        result = finish_patient(patient, found, self.segmenter, self.settings, self.output(case), *beside)
        if self.stats:
            self.stats.add(result.stats | {"fingerprint": prints[case.name]})
        taken = round(time.perf_counter() - began, 2)
        status = Status(case.name, result.modalities, OK, "", taken, result.volumes_ml, prints[case.name])
        self._note(status)
        report(status, result)

    def _fail(self, case: Case, error: A2FSegError, began: float, prints: Mapping[str, str], report: Report) -> None:
        taken = round(time.perf_counter() - began, 2)
        reason = " ".join(str(error).split())
        status = Status(case.name, "+".join(case.images), FAILED, reason, taken, None, prints[case.name])
        self._note(status)
        report(status, None)

    def _note(self, status: Status) -> None:
        with self._lock:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            self.statuses[status.case] = replace(status, time=now)
            self._write_statuses()

    def _preview(self, case: Case) -> Path | None:
        return self.previews / f"{case.name}.png" if self.previews else None

    def _page(self, case: Case) -> Path | None:
        return self.reports / f"{case.name}.html" if self.reports else None

    def _outputs(self, case: Case) -> list[Path]:
        images = planned_outputs(self.output(case), self.segmenter.config, case.images, self.settings)
        return images + [path for path in (self._preview(case), self._page(case)) if path]

    def _is_finished(self, case: Case, settings: str) -> bool:
        known = self.statuses.get(case.name)
        if self.existing == "overwrite" or known is None or known.status != OK or known.settings != settings:
            return False
        if self.stats and not self.stats.holds(case.name, settings):
            return False
        try:  # what is written after the segmentation is of it; an older page is of another run
            written = [path.stat().st_mtime_ns for path in self._outputs(case)]
        except OSError:
            return False
        return min(written) == written[0]

    def _known(self, cases: Iterable[str]) -> dict[str, Status]:
        """Return the statuses of the table, and those of these cases that another part noted later."""
        statuses = self._read_statuses(self.status_path)
        for table in sorted(self.folder.glob("status*.csv")):
            if not re.fullmatch(r"status(-\d+-of-\d+)?\.csv", table.name) or table == self.status_path:
                continue
            theirs = self._read_statuses(table)
            for name in theirs.keys() & set(cases):
                if name not in statuses or statuses[name].time < theirs[name].time:
                    statuses[name] = theirs[name]
        return statuses

    def _read_statuses(self, table: Path) -> dict[str, Status]:
        if not table.exists():
            return {}
        regions = [region for region, _ in self.segmenter.config.regions]
        try:
            with table.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            return {
                row["case"]: Status(
                    row["case"],
                    row["modalities"],
                    row["status"],
                    row["reason"],
                    float(row["seconds"]),
                    {r: float(row[f"{r}_ml"]) for r in regions if row.get(f"{r}_ml")},
                    row["settings"],
                    row.get("time", ""),
                )
                for row in rows
            }
        except OSError as error:
            raise InputError(f"{table}: cannot be read: {error.strerror}.") from error
        except (csv.Error, KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{table}: not a status table of this tool; move it away.") from error

    def _write_statuses(self) -> None:
        regions = [region for region, _ in self.segmenter.config.regions]
        rows = [
            {name: getattr(status, name) for name in (*_COLUMNS, *_LAST)}
            | {f"{r}_ml": round(v, 3) for r, v in (status.volumes_ml or {}).items()}
            for status in self.statuses.values()
        ]
        columns = [*_COLUMNS, *(f"{r}_ml" for r in regions), *_LAST]
        atomic_write_text(self.status_path, csv_text(rows, columns))


def part_name(path: Path, parts: int, part: int) -> Path:
    """Return the name of a part's own file: `status-0-of-4.csv`; a whole cohort's keeps its name, `status.csv`."""
    return path if parts == 1 else path.with_name(f"{path.stem}-{part}-of-{parts}{path.suffix}")
