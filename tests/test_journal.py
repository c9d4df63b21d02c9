"""Tables that follow a run: one row a patient whenever it is killed, at a cost that grows with the patients alone."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from a2fseg_cli.files import json_text
from a2fseg_cli.inference import journal
from a2fseg_cli.inference.journal import Journal
from a2fseg_cli.inference.stats import StatsFile
from a2fseg_cli.inference.status import FAILED, OK, RUNNING, Status, StatusTable


class Clock:
    """A clock that the tests set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table_in(folder: Path) -> StatusTable:
    return StatusTable(folder / "status.csv", ("WT",), [])


def test_writing_whole_tables_takes_two_per_cent_of_the_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """1,000 patients of 10 ms; a table takes 0.1 ms a row, so written after each it would take 50 s instead of 10."""
    clock, writings = Clock(monkeypatch), []

    def write(path: Path, text: str) -> None:
        rows = text.count("\n") - 1
        writings.append(rows)
        clock.now += 1e-4 * rows
        path.write_text(text)

    monkeypatch.setattr("a2fseg_cli.inference.status.atomic_write_text", write)
    monkeypatch.setattr("os.fsync", lambda _: None)
    table = table_in(tmp_path)
    for index in range(1000):
        table.note(Status(f"case{index}", "flair", OK))
        clock.now += 0.01
    assert writings[:3] == [1, 2, 4]  # at 0 s; due 1e-4 / 0.02 = 5 ms later; then 10 ms later, one patient is passed by
    assert sum(writings) * 1e-4 < 0.02 * 10 + 0.1, "2 % of 10 s, and the last one, of 1,000 rows"
    assert len(rows_of(tmp_path / "status.csv")) < 1000
    table.close()
    assert [row["case"] for row in rows_of(tmp_path / "status.csv")] == [f"case{index}" for index in range(1000)]
    assert [path.name for path in tmp_path.iterdir()] == ["status.csv"]


def test_what_the_table_does_not_show_yet_is_in_the_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The clock stands still, so that only the first is written at once; as after a kill, the next run knows all."""
    Clock(monkeypatch)
    monkeypatch.setattr(Journal, "due", property(lambda journal: not journal.holds_notes))
    table = table_in(tmp_path)
    table.note(Status("a", "flair", OK, volumes_ml={"WT": 12.5}))
    for kind in (RUNNING, OK):
        table.note(Status("b", "flair", kind, warnings="thick, slices", settings="f00d"))
    table.note(Status("c", "t1+flair", FAILED, 'no "file"\nof it'))
    assert [row["case"] for row in rows_of(tmp_path / "status.csv")] == ["a"]
    later = table_in(tmp_path)
    assert {name: (s.status, s.reason, s.warnings, s.settings) for name, s in later.rows.items()} == {
        "a": (OK, "", "", ""), "b": (OK, "", "thick, slices", "f00d"), "c": (FAILED, 'no "file"\nof it', "", ""),
    }  # fmt: skip
    assert later.rows["a"].volumes_ml == {"WT": 12.5}
    whole = StatusTable(tmp_path / "status-0-of-2.csv", ("WT",), ["b"])
    assert list(whole.rows) == ["b"], "another part's journal counts as its table does"
    assert set(whole.everyone()) == {"a", "b", "c"}
    later.close()
    assert [row["case"] for row in rows_of(tmp_path / "status.csv")] == ["a", "b", "c"]


@pytest.mark.parametrize("kept", [0, 5, -3])
def test_a_note_that_was_cut_costs_itself_only(tmp_path: Path, kept: int) -> None:
    notes = Journal(tmp_path / "status.csv")
    notes.add({"case": "a"})
    notes.add({"case": "b"})
    whole = notes.path.read_bytes()
    start = len(whole) // 2
    notes.path.write_bytes(whole[:start] + whole[start:][:kept])
    notes.add({"case": "c"})
    assert notes.read() == [{"case": "a"}, {"case": "c"}]


def test_two_runs_on_one_folder_lose_nothing_of_each_other(tmp_path: Path) -> None:
    """Both began with nothing; whoever writes last has the rows of both, each patient's latest."""
    one, other = table_in(tmp_path), table_in(tmp_path)
    one.note(Status("a", "flair", FAILED))
    other.note(Status("b", "flair", OK))
    other.note(Status("a", "flair", OK))
    one.note(Status("c", "flair", OK))
    other.close()
    one.close()
    assert {row["case"]: row["status"] for row in rows_of(tmp_path / "status.csv")} == dict.fromkeys("abc", OK)


NOTING = """
import sys
from pathlib import Path
from a2fseg_cli.inference.status import OK, RUNNING, Status, StatusTable
table = StatusTable(Path(sys.argv[1]) / "status.csv", ("WT",), [])
for index in range(sum(status.status == OK for status in table.rows.values()), 100_000):
    for kind in (RUNNING, OK):
        table.note(Status(f"case{index}", "flair", kind))
    print(index, flush=True)
"""


def test_killed_at_any_moment_there_is_one_row_a_patient_and_none_is_lost(tmp_path: Path) -> None:
    """kill -9 after 1, 40, 80, ... patients, started again each time: what was noted is known, the table is whole."""
    done = 0
    for kill in range(4):
        process = subprocess.Popen([sys.executable, "-c", NOTING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            done = int(line) + 1
            if done >= 1 + 40 * kill:
                break
        process.kill()
        rest = process.stdout.read().split()
        process.wait()
        process.stdout.close()
        done = max(done, *(int(text) + 1 for text in rest)) if rest else done
        shown = [row["case"] for row in rows_of(tmp_path / "status.csv")]
        assert len(shown) == len(set(shown))
        known = table_in(tmp_path).rows
        assert set(shown) <= set(known)
        assert done <= len(known) <= done + 1
        assert [known[f"case{index}"].status for index in range(done)] == [OK] * done
    assert done > 120


@pytest.mark.parametrize("ending", [".json", ".csv"])
def test_statistics_are_the_same_whether_folded_at_once_or_after_a_kill(
    ending: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Records of b, a, b again; dropped c. The file is what it would be, had it been written in one go."""
    monkeypatch.setattr("a2fseg_cli.inference.stats.as_row", dict)
    records: list[dict[str, Any]] = [
        {"case": "b", "fingerprint": "old", "ml": 1.5},
        {"case": "a", "fingerprint": "1", "ml": 0.1, "note": "ä, \u2265"},
        {"case": "b", "fingerprint": "new", "ml": float("nan") if ending == ".json" else 3},
    ]
    at_once, killed = tmp_path / f"whole{ending}", tmp_path / f"killed{ending}"
    for path, share in ((at_once, 1e9), (killed, 1e-9)):
        monkeypatch.setattr(journal, "_SHARE", share)
        file = StatsFile(path)
        for record in records:
            file.add(record)
        file.add({"case": "c", "fingerprint": "2"})
        file.drop("c")
    assert (tmp_path / f".killed{ending}.journal").exists()
    later = StatsFile(killed)
    assert (later.holds("b", "new"), later.holds("b", "old"), later.holds("c", "2")) == (True, False, False)
    later.close()
    assert killed.read_bytes() == at_once.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((at_once.name, killed.name))
    if ending == ".json":
        expected = [records[1], records[2] | {"ml": None}]
        assert killed.read_text() == json_text(expected)
        assert json.loads(killed.read_text()) == expected
    else:
        assert killed.read_text() == 'case,fingerprint,ml,note\na,1,0.1,"ä, \u2265"\nb,new,3,\n'
