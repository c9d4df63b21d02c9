"""A cohort on the workers of a Dask scheduler: the same bytes, whoever dies; nobody works who differs."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path

import dask
import psutil
import pytest
import SimpleITK as sitk
from cluster_toys import Lab, finished, kill, start, wait_for
from toys import small_cohort

from a2fseg_cli.cluster.connection import connected
from a2fseg_cli.cluster.job import Lost, PlainError
from a2fseg_cli.cluster.members import Member, difference
from a2fseg_cli.cluster.sight import answer_token, is_answered, tokens
from a2fseg_cli.cluster.turns import Turns
from a2fseg_cli.cluster.worker import Report
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.evaluation.evaluate import evaluate
from a2fseg_cli.inference.status import StatusTable
from a2fseg_cli.training.data import load_samples
from a2fseg_cli.training.data_by_workers import cache_by_workers
from a2fseg_cli.training.patients import training_cases
from a2fseg_cli.weights.file_format import inspect_weights

Run = Callable[..., tuple[int, str, str]]
NAMES = [f"case{index}" for index in range(6)]
# A patient takes 2 s, so that there is a middle of it, and leaves marks.
SLOW = """
def slow(patient, *how):
    mark("begun", patient)
    time.sleep(2)
    done = real(patient, *how)
    mark("done", patient)
    return done
worker_side.segment_patient = slow
"""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_cohort(tmp_path_factory.mktemp("cohort"), len(NAMES))


@pytest.fixture(scope="module")
def expected(cohort: Path, toy_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The masks of one process with one thread."""
    folder = tmp_path_factory.mktemp("expected")
    code, _, err = finished(start("predict", cohort, "-o", folder, "--weights", toy_weights, "--threads", 1))
    assert code == 0, err
    return masks(folder)


def masks(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.nii.gz"))}


def rows(folder: Path) -> dict[str, dict[str, str]]:
    """Return the rows of the table by patient, none twice."""
    table = list(csv.DictReader((folder / "status.csv").read_text().splitlines()))
    assert len({row["case"] for row in table}) == len(table)
    return {row["case"]: row for row in table}


def left_behind(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".part")]


# ---- free of Dask


def test_an_item_is_tried_elsewhere_then_alone_then_given_up() -> None:
    began: list[str] = []
    turns = Turns("abc", began.append)
    assert [turns.next_for(w).item for w in ("w1", "w2")] == ["a", "b"]  # type: ignore[union-attr]
    assert turns.next_for("w1") is None  # it has one
    assert began == ["a", "b"]  # no more than there are workers
    assert turns.ended("w1") is None
    assert turns.next_for("w3").item == "a"  # type: ignore[union-attr] # at once, before the third
    assert turns.ended("w3") is None
    assert turns.next_for("w4").item == "c"  # type: ignore[union-attr] # now behind all others
    turns.done("w4")
    assert turns.next_for("w4") is None  # b is still at work, and a wants to be alone
    turns.done("w2")
    last = turns.next_for("w4")
    assert last is not None
    assert (last.item, last.ended, last.alone) == ("a", 2, True)
    assert turns.next_for("w2") is None
    item, lost = turns.ended("w4")  # type: ignore[misc]
    assert item == "a"
    assert isinstance(lost, Lost)
    assert lost.reason.startswith("3 workers ended while at this patient, the last with nothing beside it")
    assert turns.next_for("w5") is None
    assert turns.over
    assert began == ["a", "b", "c"]


def test_what_ran_out_of_memory_is_tried_once_more_alone() -> None:
    turns = Turns("ab", lambda _: None)
    turns.next_for("w1")
    assert turns.again_alone(turns.done("w1"))
    assert turns.next_for("w1").item == "b"  # type: ignore[union-attr]
    turns.done("w1")
    attempt = turns.next_for("w1")
    assert attempt is not None
    assert attempt.item == "a"
    assert not turns.again_alone(turns.done("w1"))
    assert turns.next_for("w1") is None
    assert turns.over


def test_what_a_worker_had_not_begun_is_not_held_against_it() -> None:
    turns = Turns("a", lambda _: None)
    turns.next_for("w1")
    turns.give_back("w1")
    attempt = turns.next_for("w2")
    assert attempt is not None
    assert attempt.ended == 0


def test_errors_travel_as_plain_data() -> None:
    class OfARoom(InputError):
        def __init__(self, one: str, two: str) -> None:  # a pickle of it could not be read
            super().__init__(f"{one}: {two}")

    plain = PlainError.of(OfARoom("a.nii", "cut short"))
    assert plain == PlainError("InputError", "a.nii: cut short")
    assert type(plain.error) is InputError
    assert plain.error.exit_code == 3


def test_tokens_show_that_a_folder_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from a2fseg_cli.cluster import sight

    monkeypatch.setattr(sight, "_LATE_S", 0.2)
    here, other = tmp_path / "here", tmp_path / "other"
    here.mkdir()
    other.mkdir()
    with tokens([here]) as text:
        name, reason = answer_token(here, text)
        assert (bool(name), reason) == (True, "")
        assert is_answered(here, name)
        assert not is_answered(other, name)
        assert answer_token(other, text) == ("", f"{other} is another folder there: what is written into it here "
                                             "does not appear")  # fmt: skip
        assert answer_token(tmp_path / "none", text) == ("", f"{tmp_path / 'none'} is not there")
    assert left_behind(tmp_path) == []


def test_a_difference_names_what_differs() -> None:
    same = Report({"a2fseg": "1", "options": "x"}, 1, {"/d/a": "0" * 64}, {})
    assert difference(same, {"a2fseg": "1", "options": "x"}, {"/d/a": "0" * 64}) == ""
    assert difference(same, {"a2fseg": "2", "options": "x"}, {}) == "a2fseg is 1 there and 2 here"
    assert difference(same, {}, {"/d/a": "1" * 64}) == "/d/a is another file there"
    unread = Report({}, 1, {"/d/a": "No such file or directory"})
    assert difference(unread, {}, {"/d/a": "1" * 64}) == "/d/a cannot be read there (No such file or directory)"
    assert difference(Report({}, error=PlainError("WeightsError", "no weights")), {"options": "x"}, {}) == "no weights"
    assert Member("tcp://1", "tcp://1", 0, True).words == "worker tcp://1"
    assert Member("tcp://1", "node7", 0, True).words == "worker node7 (tcp://1)"


def test_an_answer_whose_worker_ends_before_it_is_fetched_is_none() -> None:
    """Dask begins such a call anew on the worker that is gone, so that its future never answers."""
    from a2fseg_cli.cluster import calls

    class Recomputed:
        status = "finished"

        def result(self, timeout: float | None = None) -> None:
            assert timeout is not None, "waits without end"
            self.status = "pending"
            raise TimeoutError

    class Forgotten:
        status = "finished"

        def result(self, timeout: float | None = None) -> None:
            raise CancelledError

    member = Member("tcp://1", "one", 0, True)
    assert calls.result_of(Recomputed(), member) is None  # type: ignore[arg-type]
    assert calls.result_of(Forgotten(), member) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["soon", "1 fortnight", None])
def test_a_time_limit_that_is_no_time_is_a_usage_error(text: str | None) -> None:
    from a2fseg_cli.cluster.calls import patience_s

    with dask.config.set({"a2fseg.no-workers-timeout": text}), pytest.raises(UsageError, match=f"is {text}: expected"):
        patience_s()


# ---- what a user may give


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        ("nowhere.json", "scheduler nowhere.json: no such file (a scheduler removes its file when it ends); expected"),
        ("local:0", "expected local:1 to local:1024"),
        ("local:x", "scheduler local:x: no such file; expected the address"),
        ("local", "scheduler local: no such file; expected the address"),
        ("FILE", "not a file that a Dask scheduler wrote"),
        ("quic://127.0.0.1:1", "scheduler quic://127.0.0.1:1: "),
    ],
)
def test_no_scheduler_is_a_usage_error(
    scheduler: str, words: str, run: Run, cohort: Path, toy_weights: Path, tmp_path: Path
) -> None:
    if scheduler == "FILE":
        (tmp_path / "s.json").write_text("[]")
        scheduler = str(tmp_path / "s.json")
    code, out, err = run("predict", cohort, "-o", tmp_path / "out", "--scheduler", scheduler, "--weights", toy_weights)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("answers", [False, True])
def test_an_address_where_no_scheduler_answers(
    answers: bool, run: Run, cohort: Path, toy_weights: Path, tmp_path: Path
) -> None:
    """A port that is closed, and one whose owner accepts and says nothing."""
    with socket.socket() as silent, dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        silent.bind(("127.0.0.1", 0))
        if answers:
            silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        code, out, err = run("predict", cohort, "-o", tmp_path, "--scheduler", address, "--weights", toy_weights)
    assert (code, out) == (5, "")
    assert f"scheduler tcp://{address}: nothing answers there as a Dask scheduler does" in err
    assert len(err.splitlines()) == 1
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("command", ["predict", "prepare", "evaluate", "train"])
def test_without_the_package_the_message_says_what_to_install(
    command: str, run: Run, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, out, err = run(command, cohort, "-o", tmp_path / "out", "--scheduler", "local:2")
    assert (code, out) == (2, "")
    assert "pip install 'a2fseg[cluster]'" in err
    assert len(err.splitlines()) == 1


def test_the_package_and_help_need_no_dask() -> None:
    code = (
        "import sys, a2fseg_cli.api, a2fseg_cli.evaluation.evaluate, a2fseg_cli.training.train\n"
        "assert not {'dask', 'distributed', 'tornado'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- with workers


@pytest.mark.slow
def test_one_worker_is_killed_in_the_middle_of_a_patient(
    cohort: Path, toy_weights: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """Three workers, one ended by kill -9: the masks are one process's, to the byte, and the table is whole."""
    out = tmp_path / "out"
    with Lab(tmp_path) as lab:
        for name in ("one", "two", "three"):
            lab.worker(name, SLOW)
        client = lab.client("predict", cohort, "-o", out, "--weights", toy_weights)
        wait_for(lambda: len(lab.marked("begun")) >= 3)
        patient, victim, _ = lab.marked("begun")[-1]
        assert patient not in [done[0] for done in lab.marked("done")]
        kill(int(victim))
        code, printed, err = finished(client)
    assert code == 0, err
    assert [name for name, _, _ in lab.marked("begun")].count(patient) == 2
    assert {pid for name, pid, _ in lab.marked("done")}.isdisjoint({victim})
    assert masks(out) == expected
    assert {name: row["status"] for name, row in rows(out).items()} == dict.fromkeys(NAMES, "ok")
    assert "6 ok, 0 skipped, 0 failed" in printed
    assert len(re.findall(r"^\[\d/6\]", err, re.MULTILINE)) == 6
    assert left_behind(out) == []


@pytest.mark.slow
def test_processes_of_this_machine_write_the_same_and_end(
    run: Run,
    cohort: Path,
    toy_weights: Path,
    expected: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From a relative path, with pages and statistics; started again nothing is done twice, here or elsewhere."""
    monkeypatch.chdir(cohort.parent)
    out = tmp_path / "out"
    asked = [cohort.name, "-o", out, "--weights", toy_weights, "--threads", 1]
    more = ["--stats", tmp_path / "stats.json", "--report", tmp_path / "pages"]
    code, printed, err = run("predict", *asked, *more, "--scheduler", "local:2")
    assert code == 0, err
    assert "2 workers: 2 processes of this machine with 1 thread each" in err
    assert masks(out) == expected
    assert (tmp_path / "stats.json").read_text().count('"fingerprint"') == 6
    assert len(list((tmp_path / "pages").glob("case*.html"))) == 6
    left = [
        child for child in psutil.Process().children(recursive=True) if "resource_tracker" not in str(child.cmdline())
    ]
    assert left == []  # Python's own tracker lives as long as the process
    assert run("predict", *asked, *more)[1].count("skipped") == 7  # each row, and the sum
    code, printed, err = run("predict", *asked, *more, "--scheduler", "local:1")
    assert (code, "0 ok, 6 skipped, 0 failed" in printed) == (0, True), err
    assert left_behind(tmp_path) == []


@pytest.mark.slow
def test_ctrl_c_does_not_reach_processes_of_this_machine() -> None:
    """A terminal sends it to all; one that a nanny has started again is spared as well."""
    with connected("local:1", threads=1) as crew:
        (pid,) = crew.ask(os.getpid).values()
        os.kill(pid, signal.SIGINT)
        assert list(crew.ask(os.getpid).values()) == [pid]
        kill(pid)
        wait_for(lambda: not psutil.pid_exists(pid))
        (other,) = crew.ask(os.getpid).values()
        os.kill(other, signal.SIGINT)
        assert list(crew.ask(os.getpid).values()) == [other]


@pytest.mark.slow
def test_a_patient_that_ends_each_worker_fails_and_the_others_are_done(
    cohort: Path, toy_weights: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """As one for whom the memory is never enough. Nannies start the workers again, as on a real cluster."""
    fault = """
def deadly(patient, *how):
    mark("begun", patient)
    if patient.name == "case1":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(patient, *how)
worker_side.segment_patient = deadly
"""
    out = tmp_path / "out"
    with Lab(tmp_path) as lab:
        for name in ("one", "two"):
            lab.worker(name, fault, nanny=True)
        client = lab.client("predict", cohort, "-o", out, "--weights", toy_weights)
        code, _, err = finished(client)
    assert code == 1, err
    begun = [name for name, _, _ in lab.marked("begun")]
    assert begun.count("case1") == 3
    assert begun[-1] == "case1"  # the last time alone, behind all others
    table = rows(out)
    assert table["case1"]["status"] == "failed"
    assert "3 workers ended while at this patient" in table["case1"]["reason"]
    assert {table[name]["status"] for name in NAMES if name != "case1"} == {"ok"}
    assert masks(out) == {name: data for name, data in expected.items() if not name.startswith("case1")}
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_patient_out_of_memory_is_tried_once_more_alone(cohort: Path, toy_weights: Path, tmp_path: Path) -> None:
    """case0 has enough the second time, case2 and case4 never; nothing runs beside a second time."""
    fault = """
def greedy(patient, *how):
    mark("begun", patient)
    time.sleep(0.5)
    times = len(list(marks.glob(f"begun-{patient.name}-*")))
    mark("ended", patient)
    if patient.name == "case2" or (patient.name == "case0" and times == 1):
        raise ResourceError("Out of memory: not even the smallest window fits.")
    if patient.name == "case4":
        raise MemoryError("Unable to allocate 3. GiB")
    return real(patient, *how)
worker_side.segment_patient = greedy
"""
    out = tmp_path / "out"
    with Lab(tmp_path) as lab:
        for name in ("one", "two"):
            lab.worker(name, fault)
        code, _, err = finished(lab.client("predict", cohort, "-o", out, "--weights", toy_weights))
    assert code == 1, err
    table = rows(out)
    assert (table["case0"]["status"], table["case2"]["status"]) == ("ok", "failed")
    assert table["case2"]["reason"].startswith("Out of memory")
    assert table["case4"]["reason"] == "case4: out of memory, also with nothing beside it. Give the workers more."
    assert len(masks(out)) == 4
    begun, ended = lab.marked("begun"), lab.marked("ended")
    assert sorted(name for name, _, _ in begun[-3:]) == ["case0", "case2", "case4"]
    assert len(begun) == len(NAMES) + 3
    assert int(begun[-1][2]) > int(ended[-2][2]) > int(begun[-2][2]) > int(ended[-3][2])


DIFFERENT = {
    "version": (
        "import a2fseg_cli.versions, a2fseg_cli.cluster.worker as w\n"
        "known = a2fseg_cli.versions.versions()\n"
        "w.versions = lambda: known | {'a2fseg': '0.0.9'}\n",
        r"worker odd \(tcp://\S+\): a2fseg is 0\.0\.9 there and \S+ here\.",
    ),
    "weights": (
        "import a2fseg_cli.inference.elsewhere as e\nfrom a2fseg_cli.weights.file_format import sha256_of\n"
        "from a2fseg_cli.weights import same\nsame.sha256_of = lambda path: 'f' * 64\n",
        r"worker odd \(tcp://\S+\): the weights \S+toy\.safetensors \(sha256 \w+\.\.\.\) are another file there",
    ),
    "output": (
        "import a2fseg_cli.cluster.worker as w\nfrom a2fseg_cli.cluster import sight\nsight._LATE_S = 0.2\n"
        "real_answer = w.__dict__.setdefault('real_answer', w.answer_token)\nPath('elsewhere').mkdir(exist_ok=True)\n"
        "w.answer_token = lambda folder, text: real_answer(Path('elsewhere'), text)\n",
        r"worker odd \(tcp://\S+\): elsewhere is another folder there",
    ),
    "input": (
        "import a2fseg_cli.cluster.worker as w\n"
        "w.hashes_of = lambda paths: {str(path): 'No such file or directory' for path in paths}\n",
        r"worker odd \(tcp://\S+\): \S+/case0/t1c\.nii\.gz cannot be read there \(No such file or directory\)",
    ),
    "options": (
        "from a2fseg_cli.inference import cohort_of_workers as c\n"
        "c.fingerprint = lambda *_: 'other'\n",
        r"worker odd \(tcp://\S+\): options is other there and \w+ here",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("difference", DIFFERENT)
def test_a_worker_that_differs_is_named_before_anything_is_done(
    difference: str, run: Run, cohort: Path, toy_weights: Path, tmp_path: Path
) -> None:
    fault, words = DIFFERENT[difference]
    out = tmp_path / "out"
    with Lab(tmp_path) as lab:
        lab.worker("odd", fault)
        wait_for_workers(lab, 1)
        code, printed, err = run("predict", cohort, "-o", out, "--weights", toy_weights, "--scheduler", lab.file)
    assert (code, printed) == (2, "")
    error = err.splitlines()[-1]
    assert re.search(words, error), error
    assert error.endswith("Workers need the same package, weights and files as the client: mend or stop that worker.")
    assert masks(out) == {}
    assert left_behind(tmp_path) == []


def wait_for_workers(lab: Lab, count: int) -> None:
    from distributed import Client

    with Client(scheduler_file=str(lab.file), set_as_default=False) as client:
        client.wait_for_workers(count, timeout=240)


@pytest.mark.slow
def test_a_worker_that_comes_later_is_checked_and_works_or_is_left_out(
    cohort: Path, toy_weights: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    fault = (
        SLOW
        + """
def waiting(patient, *how):
    while len(list(marks.glob("begun-*"))) == 1 and not (marks / "go").exists():
        time.sleep(0.05)
    return slow(patient, *how)
worker_side.segment_patient = waiting
"""
    )
    odd = DIFFERENT["input"][0] + "os.close(os.open(marks / 'odd', os.O_CREAT))\n"
    out = tmp_path / "out"
    with Lab(tmp_path) as lab:
        lab.worker("first", fault)
        client = lab.client("predict", cohort, "-o", out, "--weights", toy_weights)
        wait_for(lambda: lab.marked("begun"))
        lab.worker("odd", odd)
        wait_for((lab.marks / "odd").exists)
        lab.worker("second", SLOW)
        wait_for(lambda: len({pid for _, pid, _ in lab.marked("begun")}) == 2)
        (lab.marks / "go").touch()
        code, _, err = finished(client)
    assert code == 0, err
    assert masks(out) == expected
    assert len({pid for _, pid, _ in lab.marked("done")}) == 2
    assert re.search(r"Warning: left out: worker odd \(tcp://\S+\): \S+ cannot be read there", err)


@pytest.mark.slow
def test_the_client_is_killed_and_started_again(
    cohort: Path, toy_weights: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """The worker has two threads, and still ends what the first client left before it begins for the second."""
    out = tmp_path / "out"
    with Lab(tmp_path) as lab:
        lab.worker("only", SLOW, threads=2)
        asked = ["predict", cohort, "-o", out, "--weights", toy_weights, "--threads", 1]
        first = lab.client(*asked)
        wait_for(lambda: len(lab.marked("begun")) == 3)
        first.kill()
        first.wait()
        known = StatusTable(out / "status.csv", ("WT", "TC", "ET"), {}).rows  # with its journal
        assert [known[name].status for name in NAMES[:3]] == ["ok", "ok", "running"]
        code, printed, err = finished(lab.client(*asked))
    assert code == 0, err
    assert "4 ok, 2 skipped, 0 failed" in printed
    assert masks(out) == expected
    assert list(rows(out)) == NAMES
    moments = sorted([(int(m[2]), 1) for m in lab.marked("begun")] + [(int(m[2]), -1) for m in lab.marked("done")])
    assert [step for _, step in moments] == [1, -1] * (len(moments) // 2)  # never two at a time
    assert {path.name for path in left_behind(out)} <= {p.name for p in out.glob(".*.part")}


@pytest.mark.slow
def test_the_scheduler_dies_and_the_next_one_goes_on(
    cohort: Path, toy_weights: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with Lab(tmp_path) as lab:
        lab.worker("one", SLOW)
        asked = ["predict", cohort, "-o", out, "--weights", toy_weights, "--threads", 1]
        client = lab.client(*asked)
        wait_for(lambda: len(lab.marked("done")) >= 2)
        lab.processes[0].kill()
        code, printed, err = finished(client)
        assert (code, printed) == (5, "")
        assert "What is finished is kept" in err.splitlines()[-1]
        assert "Traceback" not in err
        done = [name for name, row in rows(out).items() if row["status"] == "ok"]
        assert len(done) >= 1
        lab.start_scheduler()
        lab.worker("two", SLOW)
        code, printed, err = finished(lab.client(*asked))
    assert code == 0, err
    assert f"{6 - len(done)} ok, {len(done)} skipped, 0 failed" in printed
    assert masks(out) == expected


@pytest.mark.slow
def test_without_a_worker_the_run_ends_with_a_word(cohort: Path, toy_weights: Path, tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        asked = ["predict", cohort, "-o", tmp_path / "out", "--weights", toy_weights]
        code, _, err = finished(lab.client(*asked, DASK_A2FSEG__NO_WORKERS_TIMEOUT="2s"))
    assert code == 5
    assert "it has no worker, for 2 s now (a2fseg.no-workers-timeout in Dask's configuration)" in err
    assert len(err.splitlines()) == 1


@pytest.fixture(scope="module")
def with_truth(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the patients with a mask of what is bright on FLAIR; the last has no FLAIR."""
    folder = tmp_path_factory.mktemp("truth")
    for name in NAMES[:3]:
        shutil.copytree(cohort / name, folder / name)
        image = sitk.ReadImage(folder / name / "flair.nii.gz")
        sitk.WriteImage(sitk.Cast(image > 100, sitk.sitkUInt8) * 2, folder / name / "seg.nii.gz")
    (folder / NAMES[2] / "flair.nii.gz").unlink()
    return folder


@pytest.mark.slow
def test_scores_and_caches_are_those_of_one_process(with_truth: Path, toy_weights: Path, tmp_path: Path) -> None:
    """`evaluate` of a network and of files, and the preprocessing of `train`, on two processes of this machine."""
    config = inspect_weights(toy_weights).config
    cases = training_cases([with_truth], config.modalities)
    told: list[tuple[str, int, int]] = []
    (tmp_path / "masks").mkdir()
    for case in cases:
        shutil.copy(case.truth or "", tmp_path / "masks" / f"{case.name}.nii.gz")
    with connected("local:2", threads=1) as crew:
        shared = evaluate(with_truth, subsets="all", weights=toy_weights, output=tmp_path / "shared", crew=crew)
        of_files = evaluate(with_truth, predictions=tmp_path / "masks", crew=crew)
        cache_by_workers(crew, cases, config, tmp_path / "two", lambda *done: told.append(done))
    alone = evaluate(with_truth, subsets="all", weights=toy_weights, output=tmp_path / "alone")
    assert [(scores.case, scores.rows) for scores in shared.patients] == [(s.case, s.rows) for s in alone.patients]
    assert (tmp_path / "shared/scores.csv").read_bytes() == (tmp_path / "alone/scores.csv").read_bytes()
    assert {row.values["dice"] for scores in of_files.patients for row in scores.rows} == {1.0}  # the truth itself
    load_samples(cases, config, tmp_path / "one", lambda *_: None)
    arrays = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()} == arrays
    assert [done for _, done, _ in told] == [1, 2, 3]
    assert len(arrays) == 9


@pytest.mark.slow
def test_a_worker_left_out_of_one_method_is_left_out_of_the_next(
    with_truth: Path, toy_weights: Path, tmp_path: Path
) -> None:
    """It came in the middle of the first of two networks: said once, and nothing ends for it."""
    waiting = """
import a2fseg_cli.evaluation.scores_of_workers as scoring
real_scored = scoring.__dict__.setdefault("real_scored", scoring._scored)
def waiting(source, case):
    mark("begun", case)
    while not (marks / "go").exists():
        time.sleep(0.05)
    return real_scored(source, case)
scoring._scored = waiting
"""
    odd = """
import a2fseg_cli.cluster.worker as w
def other(paths):
    (marks / "asked").touch()
    return {str(path): "No such file or directory" for path in paths}
w.hashes_of = other
"""
    other = shutil.copy(toy_weights, tmp_path / "other.safetensors")
    with Lab(tmp_path) as lab:
        lab.worker("first", waiting)
        weights = "--weights", f"one={toy_weights}", "--weights", f"two={other}"
        client = lab.client("evaluate", with_truth, *weights)
        wait_for(lambda: lab.marked("begun"))
        lab.worker("odd", odd)
        wait_for((lab.marks / "asked").exists)
        time.sleep(3)  # its answer is looked at
        (lab.marks / "go").touch()
        code, _, err = finished(client)
    assert code == 0, err
    begun = Counter(case for case, *_ in lab.marked("begun"))
    assert sorted(begun) == ["case0", "case1", "case2"]
    assert min(begun.values()) >= 2  # by each network; a worker was seen to get one twice, of which one answer counts
    assert err.count("Warning: left out: worker odd") == 1


@pytest.mark.slow
def test_what_is_wrong_with_a_patient_of_a_training_is_said(
    with_truth: Path, toy_weights: Path, tmp_path: Path
) -> None:
    (case, *_) = training_cases([with_truth], (config := inspect_weights(toy_weights).config).modalities)
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no image")
    case = replace(case, images={**case.images, "t1c": broken})
    with connected("local:1", threads=1) as crew, pytest.raises(InputError, match=r"broken\.nii\.gz"):
        cache_by_workers(crew, [case], config, tmp_path / "cache", lambda *_: None)


@pytest.mark.slow
def test_raw_patients_are_prepared_and_a_damaged_one_fails(tmp_path: Path, run: Run) -> None:
    """A head cannot be made of nothing: the message of the worker is the patient's, in the table and on the screen."""
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "t1.nii.gz").write_bytes(b"no image")
    code, _, err = run("prepare", tmp_path / "data", "-o", tmp_path / "out", "--scheduler", "local:2")
    assert code == 1, err
    table = rows(tmp_path / "out")
    assert {name: row["status"] for name, row in table.items()} == {"a": "failed", "b": "failed"}
    assert "t1.nii.gz" in table["a"]["reason"]
    assert "2 of 2 patients failed" in err
