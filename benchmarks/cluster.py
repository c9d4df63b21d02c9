"""Patients an hour: one process against `local:N`, on the same patients, network and number of threads in all.

python benchmarks/cluster.py DATA --patients 12 --workers 2

Each way runs as its own command, in turn, and the fastest of `--repeats` counts: what else the machine does only adds.
The masks of both are compared byte for byte with those of one process that has the threads of one worker.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path


def run(data: Path, out: Path, *more: str) -> float:
    """Return the seconds of one `a2fseg predict`, start of the process included."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "a2fseg_cli", "predict", str(data), "-o", str(out), "--quiet", *more]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def seconds_of_patients(out: Path) -> float:
    """Return the sum of what the patients took, from reading to the last file."""
    with (out / "status.csv").open(newline="") as file:
        return sum(float(row["seconds"]) for row in csv.DictReader(file))


def same_masks(one: Path, other: Path) -> int:
    """Return how many masks of two folders have the same bytes."""
    return sum(path.read_bytes() == (other / path.name).read_bytes() for path in one.glob("*.nii.gz"))


def measure(patients: Sequence[Path], workers: int, repeats: int = 1, weights: str | None = None) -> str:
    """Return the table.

    Args:
        patients: Their folders.
        workers: Of `local:N`.
        repeats: Of each way.
        weights: Name or file; None takes the bundled ones.
    """
    cores = len(os.sched_getaffinity(0))
    threads = max(1, cores // workers)
    given = ["--weights", weights] if weights else []
    ways = {
        f"one process, {cores} threads": ["--threads", str(cores)],
        f"one process, {threads} threads": ["--threads", str(threads)],
        f"local:{workers}, {threads} threads each": ["--threads", str(threads), "--scheduler", f"local:{workers}"],
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        for patient in patients:
            (data / patient.name).symlink_to(patient.resolve())
        for turn in range(repeats):
            for number, (name, more) in enumerate(ways.items()):
                took[name].append(run(data, Path(folder) / f"{number}-{turn}", *given, *more))
        inside = {name: seconds_of_patients(Path(folder) / f"{number}-0") for number, name in enumerate(ways)}
        same = same_masks(Path(folder) / "1-0", Path(folder) / "2-0")
    lines = [
        "| way | whole command, s | s a patient | inside patients, s | 10,000 patients, days |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, times in took.items():
        each = min(times) / len(patients)
        lines.append(f"| {name} | {min(times):.1f} | {each:.2f} | {inside[name]:.1f} | {each * 10_000 / 86_400:.2f} |")
    return "\n".join(
        [*lines, "", f"{same} of {len(patients)} masks have the same bytes with {threads} threads a patient."]
    )


def main() -> None:
    """Print the table of some patients of a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with a folder a patient")
    parser.add_argument("--patients", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--weights")
    given = parser.parse_args()
    folders = sorted(path for path in given.data.iterdir() if path.is_dir())[: given.patients]
    print(measure(folders, given.workers, given.repeats, given.weights))


if __name__ == "__main__":
    main()
