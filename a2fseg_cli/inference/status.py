"""The status table of a cohort: one row a patient, kept after each, so that a killed run can go on."""

from __future__ import annotations

import csv
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from a2fseg_cli.errors import A2FSegError, InputError, UsageError
from a2fseg_cli.files import atomic_write_text, csv_text
from a2fseg_cli.inference.journal import Journal

OK, FAILED, SKIPPED, RUNNING = "ok", "failed", "skipped", "running"
_COLUMNS = ("case", "modalities", "status", "reason", "seconds")
_LAST = ("guesses", "warnings", "settings", "time")  # behind the volumes
_TABLE_NAME = re.compile(r"status(-\d+-of-\d+)?\.csv")


@dataclass(frozen=True)
class Status:
    """One line of the table.

    Attributes:
        case: The patient.
        modalities: Subset used, e.g. `t1c+flair`.
        status: ok, failed, skipped, or running: noted before the first file is written, so that after a kill
            what lies there is known as this run's own.
        reason: Why it failed or was skipped; of one that is done, what was chosen among its files.
        seconds: From reading to the last file.
        volumes_ml: Region to volume.
        guesses: Regions, joined by +, whose volume the modalities at hand cannot tell.
        warnings: What to know of the result, one after the other, without the patient's name.
        settings: Fingerprint of inputs, weights and settings; a result is only "finished" for the same one.
        time: When this was noted, UTC; of several tables the latest counts.
    """

    case: str
    modalities: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    volumes_ml: Mapping[str, float] | None = None
    guesses: str = ""
    warnings: str = ""
    settings: str = ""
    time: str = ""


class StatusTable:
    """The table on disk, and the statuses in it.

    The file has one row a patient at any moment and follows a run as closely as `Journal` allows; what it does not
    show yet is in the journal. Two runs on one folder lose nothing of each other: the latest status counts.

    Args:
        path: `status.csv`, or a part's own; None keeps the statuses in memory only.
        regions: Whose volumes have a column.
        cases: The patients of this run: what other parts' tables say of them, later, counts too.

    Raises:
        InputError: a table cannot be read.
        UsageError: what lies there is no status table.
    """

    def __init__(self, path: Path | None, regions: Sequence[str], cases: Iterable[str]) -> None:
        self.path, self._regions = path, tuple(regions)
        self._journal = Journal(path) if path else None
        self._lock = threading.Lock()
        self.rows = self._read(path) if path else {}
        wanted = set(cases)
        self.rows |= {name: status for name, status in self.everyone().items() if name in wanted}

    def everyone(self) -> dict[str, Status]:
        """Return what is known last of every patient, those of other parts' tables included."""
        known = dict(self.rows)
        for table in self._tables():
            if table != self.path:
                _take_later(known, self._read(table))
        return known

    def note(self, status: Status) -> None:
        """Put a status in the place of the patient's former one, and keep it on the disk.

        Raises:
            ResourceError: it cannot be written.
        """
        with self._lock:
            now = datetime.now(UTC).isoformat(timespec="microseconds")  # running and ok may be a millisecond apart
            status = self.rows[status.case] = replace(status, time=now)
            if self._journal is None:
                return
            if self._journal.due and status.status != RUNNING:
                self._fold(self._journal)
            else:
                self._journal.add(asdict(status))

    def close(self) -> None:
        """Write what the table does not show yet. Raises: ResourceError."""
        with self._lock:
            if self._journal is not None and self._journal.holds_notes:
                self._fold(self._journal)

    def _fold(self, journal: Journal) -> None:
        assert self.path is not None
        with journal.folded():
            with suppress(A2FSegError):  # not ours any more: it was when the run began, and is replaced
                _take_later(self.rows, self._read(self.path))
            atomic_write_text(self.path, self._text())

    def _tables(self) -> list[Path]:
        """Return the tables in the folder, those included of which there is a journal only."""
        places = self.path.parent.glob("*status*.csv*") if self.path else ()
        names = {place.name.removeprefix(".").removesuffix(".journal") for place in places}
        return sorted(self.path.with_name(name) for name in names if _TABLE_NAME.fullmatch(name)) if self.path else []

    def _text(self) -> str:
        rows = [
            {name: getattr(status, name) for name in (*_COLUMNS, *_LAST)}
            | {f"{r}_ml": round(v, 3) for r, v in (status.volumes_ml or {}).items()}
            for status in self.rows.values()
        ]
        return csv_text(rows, [*_COLUMNS, *(f"{r}_ml" for r in self._regions), *_LAST])

    def _read(self, table: Path) -> dict[str, Status]:
        """Return the statuses of a table and of its journal."""
        try:
            with table.open(newline="", encoding="utf-8") as file:
                rows = {row["case"]: self._status(row) for row in csv.DictReader(file)}
        except FileNotFoundError:
            rows = {}
        except OSError as error:
            raise InputError(f"{table}: cannot be read: {error.strerror}.") from error
        except (csv.Error, KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{table}: not a status table of this tool; move it away.") from error
        for note in Journal(table).read():
            with suppress(TypeError):  # of another version
                status = Status(**note)
                _take_later(rows, {status.case: status})
        return rows

    def _status(self, row: Mapping[str, str]) -> Status:
        volumes = {r: float(row[f"{r}_ml"]) for r in self._regions if row.get(f"{r}_ml")}
        return Status(
            case=row["case"],
            modalities=row["modalities"],
            status=row["status"],
            reason=row["reason"],
            seconds=float(row["seconds"]),
            volumes_ml=volumes,
            guesses=row.get("guesses") or "",
            warnings=row.get("warnings") or "",
            settings=row["settings"],
            time=row.get("time") or "",
        )


def _take_later(known: dict[str, Status], others: Mapping[str, Status]) -> None:
    """Put each of the other statuses that is later, or of a patient that is not known, among those known."""
    for name, status in others.items():
        if name not in known or known[name].time < status.time:
            known[name] = status
