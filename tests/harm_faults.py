"""Faults done for real to runs of the command: kills, full disks, little memory, signals, folders that vanish.

    python tests/harm_faults.py [--kills 100] [--seed 0]

Prints a Markdown table of what was done and what came of it; exit code 1 if a promise was broken. `pytest -m slow` does
less of each (`test_harm_faults.py`). A full disk is a tmpfs of its own, a read-only folder a mount of its own:
both need Linux with `unshare`. Not collected by pytest.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import SimpleITK as sitk
from toys import small_cohort, toy_network

from a2fseg_cli.phantom import make_phantom

COMMAND = (sys.executable, "-m", "a2fseg_cli")
GIB = 2**30


def statuses(out: Path) -> dict[str, str]:
    """Return case to status of the table. Raises: AssertionError when it is not whole."""
    path = out / "status.csv"
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert None not in row.values(), f"status.csv is cut: {row}"
        assert row["status"] in ("ok", "failed", "running"), row
    return {row["case"]: row["status"] for row in rows}


def assert_whole(out: Path) -> set[str]:
    """Check that every file with a final name is whole; return the cases that the table calls ok."""
    done = {case for case, status in statuses(out).items() if status == "ok"}
    found = {path.name.removesuffix("_seg.nii.gz") for path in out.glob("*_seg.nii.gz")}
    assert done <= found, f"called ok but not there: {done - found}"
    for case in found:
        voxels = gzip.decompress((out / f"{case}_seg.nii.gz").read_bytes())  # raises when it is cut
        assert len(voxels) == 352 + 50 * 64 * 64, f"{case}: {len(voxels)} bytes"
    others = {path.name for path in out.iterdir()} - {f"{case}_seg.nii.gz" for case in found} - {"status.csv"}
    assert all(name.startswith(".") and name.endswith((".part", ".status.csv.journal")) for name in others), others
    return done


def predict(cohort: Path, out: Path, weights: Path, *more: str) -> list[str]:
    """Return the command line that segments a cohort."""
    return [*COMMAND, "predict", str(cohort), "-o", str(out), "--weights", str(weights), *more]


def kills(count: int, seed: int, folder: Path) -> str:
    """Kill a cohort's run again and again at random moments, start it anew, and compare the ends with one whole run.

    Most are killed within 0.1 seconds of their first change of the table, every fifth up to 3 seconds after its
    start. Whenever a run comes to its end it is compared, and the next begins with nothing.
    """
    weights, whole, out = toy_network(folder), folder / "whole", folder / "out0"
    cohort = small_cohort(folder / "cohort", 12)
    subprocess.run(predict(cohort, whole, weights), check=True, capture_output=True)
    expected = {path.name: path.read_bytes() for path in whole.glob("*_seg.nii.gz")}
    assert len(expected) == 12
    draw, killed, ended = random.Random(seed), 0, 0
    while killed < count:
        table = out / "status.csv"
        before = table.stat().st_mtime_ns if table.exists() else 0
        process = subprocess.Popen(predict(cohort, out, weights), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if killed % 5 == 4:
            time.sleep(draw.uniform(0, 3))
        else:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and process.poll() is None:
                if table.exists() and table.stat().st_mtime_ns != before:
                    break
                time.sleep(0.002)
            time.sleep(draw.uniform(0, 0.1))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        if out.exists():
            assert_whole(out)
        if process.returncode == 0:
            _assert_same(out, expected)
            ended += 1
            out = folder / f"out{ended}"
    subprocess.run(predict(cohort, out, weights), check=True, capture_output=True)
    _assert_same(out, expected)
    return f"{killed} of {count} survived; {ended + 1} cohorts came to their end, files as an uninterrupted run's"


def _assert_same(out: Path, expected: Mapping[str, bytes]) -> None:
    assert len(assert_whole(out)) == len(expected)
    for name, content in expected.items():
        assert (out / name).read_bytes() == content, f"{name} differs from the uninterrupted run's"


def in_a_mount(
    options: str, target: Path, command: Sequence[str], before: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command with a tmpfs of its own at `target`; `before` is a shell line that runs inside first.

    At the end what lies in the tmpfs is listed on stdout behind the line LEFT.
    """
    script = (
        f'mount -t tmpfs -o {options} tmpfs "$0" && {before or ":"}; "$@"; code=$?; echo LEFT; ls -A "$0"; exit $code'
    )
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, str(target), *command], capture_output=True, text=True, check=False
    )


def left_in(result: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the files that `in_a_mount` listed."""
    return result.stdout.partition("LEFT\n")[2].split()


def full_disk(folder: Path, sizes: Sequence[int] = (1, 2, 4, 8, 16, 64, 256, 4096)) -> str:
    """Let the disk run full at every point of a cohort's run: sizes in pages of 4 KiB, the last large enough."""
    weights, cohort, out = toy_network(folder), small_cohort(folder / "cohort", 3), folder / "full"
    out.mkdir()
    refused = 0
    for pages in sizes:
        command = predict(cohort, out, weights, "--probabilities")
        result = in_a_mount(f"size={4 * pages}k", out, command)
        assert "Traceback" not in result.stderr, result.stderr
        assert result.returncode in (0, 5), (result.returncode, result.stderr)
        assert not [name for name in left_in(result) if name.endswith(".part")], result.stdout
        if result.returncode == 5:
            refused += 1
            assert "the disk is full" in result.stderr, result.stderr
    assert refused == len(sizes) - 1
    assert result.returncode == 0, result.stderr
    return f"{refused} sizes too small: exit 5, no part of a file left; the largest: all written"


def read_only(folder: Path) -> str:
    """Give a folder that cannot be written."""
    weights, cohort, out = toy_network(folder), small_cohort(folder / "cohort", 2), folder / "read-only"
    out.mkdir()
    result = in_a_mount("size=1m", out, predict(cohort, out, weights), before='mount -o remount,ro "$0"')
    assert result.returncode == 5, (result.returncode, result.stderr)
    assert str(out) in result.stderr
    assert "Traceback" not in result.stderr
    return "exit 5, names the folder"


def little_memory(
    folder: Path, limits_gib: Sequence[float] = (0.3, 0.9, 1.1, 1.13, 1.14, 1.15, 1.17, 1.2, 1.25, 1.3, 1.4, 2)
) -> str:
    """Limit the address space: the run works, perhaps with smaller windows, or says so with exit code 5."""
    files = make_phantom()
    for m in ("t1c", "flair"):
        sitk.WriteImage(sitk.GetImageFromArray(files.images[m]), str(folder / f"{m}.nii.gz"))
    worked = 0
    for index, gib in enumerate(limits_gib):
        out = folder / f"little{index}" / "seg.nii.gz"
        command = [*COMMAND, "predict", "--t1c", str(folder / "t1c.nii.gz"), "--flair", str(folder / "flair.nii.gz")]
        result = subprocess.run(
            [*command, "-o", str(out), "--threads", "1"],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda gib=gib: resource.setrlimit(resource.RLIMIT_AS, (int(gib * GIB),) * 2),  # type: ignore[misc]
        )
        assert result.returncode in (0, 5), (gib, result.returncode, result.stderr[-2000:])
        assert "Traceback" not in result.stderr, (gib, result.stderr)
        left = [path.name for path in out.parent.iterdir()] if out.parent.exists() else []
        assert set(left) <= {"seg.nii.gz"}, (gib, left)  # after it is written, its diameters need memory too
        assert left or result.returncode == 5, gib
        if left:
            assert len(gzip.decompress(out.read_bytes())) == 352 + 155 * 240 * 240, gib
        worked += result.returncode == 0
        if result.returncode:
            assert "memory" in result.stderr, result.stderr
    assert 0 < worked < len(limits_gib)
    return f"{len(limits_gib) - worked} of {len(limits_gib)} limits: exit 5 with a clear word; {worked}: segmented"


def started(cohort: Path, out: Path, weights: Path, files: int) -> subprocess.Popen[str]:
    """Start a cohort's run and return once it has written so many files."""
    process = subprocess.Popen(
        predict(cohort, out, weights),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    deadline = time.monotonic() + 60
    while len(list(out.glob("*_seg.nii.gz"))) < files and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    return process


def signals(folder: Path) -> str:
    """Interrupt and terminate a cohort's run: 130 and 143, nothing half written, and it goes on."""
    weights, cohort = toy_network(folder), small_cohort(folder / "cohort", 30)
    for how, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        out = folder / how.name
        process = started(cohort, out, weights, 2)
        process.send_signal(how)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, (how, process.returncode, err)
        assert "Traceback" not in err, err
        assert len(assert_whole(out)) < 30
        assert not list(out.glob(".*.part"))
    subprocess.run(predict(cohort, out, weights), check=True, capture_output=True)
    assert len(assert_whole(out)) == 30
    return "SIGINT 130, SIGTERM 143, nothing half written, started again to the end"


def two_at_once(folder: Path) -> str:
    """Two processes work on one cohort into one folder: both end well, and every file is whole."""
    weights, cohort, out, alone = (
        toy_network(folder),
        small_cohort(folder / "cohort", 8),
        folder / "two",
        folder / "one",
    )
    both = [started(cohort, out, weights, 0) for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    subprocess.run(predict(cohort, alone, weights), check=True, capture_output=True)
    assert len(assert_whole(out)) == 8
    for path in alone.glob("*_seg.nii.gz"):
        assert path.read_bytes() == (out / path.name).read_bytes()
    return "both exit 0, files as one run's"


def vanishing_patient(folder: Path) -> str:
    """Remove patients' folders while their cohort runs: they fail with their path, the others are done."""
    weights, cohort, out = toy_network(folder), small_cohort(folder / "cohort", 12), folder / "vanishing"
    process = started(cohort, out, weights, 1)
    for case in ("case8", "case9"):  # the order is case0, case1, case10, case11, case2, ...
        shutil.rmtree(cohort / case)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, (process.returncode, err)
    assert "Traceback" not in err, err
    found = statuses(out)
    assert {case for case, status in found.items() if status == "failed"} == {"case8", "case9"}
    assert len(assert_whole(out)) == 10
    assert str(cohort / "case8") in err
    return "exit 1, the two named with their paths, the ten others done"


FAULTS: dict[str, Callable[[Path], str]] = {
    "disk full (tmpfs)": full_disk,
    "read-only output folder": read_only,
    "little memory (RLIMIT_AS)": little_memory,
    "SIGINT, SIGTERM": signals,
    "two processes, one output folder": two_at_once,
    "patients' folders vanish midway": vanishing_patient,
}


def main() -> int:
    """Do all of it and print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    todo = {f"{options.kills} times kill -9": lambda folder: kills(options.kills, options.seed, folder)} | FAULTS
    print("| fault | outcome |\n|---|---|", flush=True)
    broken = 0
    for name, fault in todo.items():
        with tempfile.TemporaryDirectory() as scratch:
            try:
                outcome = fault(Path(scratch))
            except AssertionError as error:
                outcome, broken = f"BROKEN: {str(error)[:300]}", broken + 1
        print(f"| {name} | {outcome} |", flush=True)
    return int(broken > 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
