"""A cohort's seconds a patient over the network's alone, with the same threads, and where the rest goes.

    python benchmarks/cohort.py COHORT_FOLDER [--split FILE:NAME] [--patients 12] [--weights FILE | --preset paper]
                                [--threads 2] [--ahead 0,1] [--repeats 3]

The network alone: each patient is read beforehand, and nothing else runs while it is segmented. The cohort: all of
`predict FOLDER -o OUT` but the start of Python, the finding of patients and the loading of the network. With
`--ahead 0,1` it runs twice: reading and writing between the networks' runs, and beside them. CPU seconds are of all
threads; half of all of them is the least a cohort can take on two cores. Nothing else may run. Prints Markdown.
"""

from __future__ import annotations

import argparse
import gzip
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from a2fseg_cli.cli.runtime import prepare_process
from a2fseg_cli.core.memory import keep_pages

keep_pages()

import torch  # noqa: E402

from a2fseg_cli.cases.case import Case  # noqa: E402
from a2fseg_cli.cases.images import fitted, read_images  # noqa: E402
from a2fseg_cli.cases.selection import Selection, select_cases  # noqa: E402
from a2fseg_cli.core.config import PRESETS  # noqa: E402
from a2fseg_cli.inference.exports import finish_patient  # noqa: E402
from a2fseg_cli.inference.options import OutputOptions  # noqa: E402
from a2fseg_cli.inference.patient import prepared_patient, segment_patient  # noqa: E402
from a2fseg_cli.inference.places import PatientFiles  # noqa: E402
from a2fseg_cli.inference.predict import run_cases  # noqa: E402
from a2fseg_cli.inference.predictor import Segmenter  # noqa: E402
from a2fseg_cli.weights.cache import resolve_weights  # noqa: E402

PHASES = ("files", "checks", "preprocessing", "network", "the way out", "of it gzip")
Result = TypeVar("Result")


class Times:
    """Wall and CPU seconds of the phases, summed over patients."""

    def __init__(self) -> None:
        self.wall_s, self.cpu_s = dict.fromkeys(PHASES, 0.0), dict.fromkeys(PHASES, 0.0)

    def of(self, phase: str, work: Callable[[], Result]) -> Result:
        """Return what the work does, its time added to a phase."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.wall_s[phase] += time.perf_counter() - wall
        self.cpu_s[phase] += time.process_time() - cpu
        return result


def one_by_one(segmenter: Segmenter, cases: Sequence[Case], scratch: Path) -> Times:
    """Return the times of the phases when one comes after the other."""
    times, names, threads = Times(), segmenter.config.modalities, torch.get_num_threads()
    compress = gzip.compress

    def packed(*data: Any, **options: Any) -> bytes:
        return times.of("of it gzip", lambda: compress(*data, **options))

    for case in cases:
        images = times.of("files", lambda: read_images(case, names, threads))  # noqa: B023
        checked = times.of("checks", lambda: fitted(case.name, images, names, None, case.warnings, threads))  # noqa: B023
        patient = times.of("preprocessing", lambda: prepared_patient(checked, segmenter.config))  # noqa: B023
        predicted = times.of("network", lambda: segment_patient(patient, segmenter))  # noqa: B023
        out = (segmenter, OutputOptions(), PatientFiles(scratch / f"{case.name}_seg.nii.gz"))
        with mock.patch("a2fseg_cli.imaging.writing.gzip.compress", packed):
            times.of("the way out", lambda: finish_patient(patient, predicted, *out))  # noqa: B023
    return times


def cohort(segmenter: Segmenter, cases: Sequence[Case], ahead: int, output: Path) -> tuple[float, float]:
    """Return wall and CPU seconds of the cohort, read and written so many patients beside the network."""
    wall, cpu = time.perf_counter(), time.process_time()
    with mock.patch("a2fseg_cli.inference.cohort.work_ahead", return_value=ahead):
        run = run_cases(cases, segmenter, output, single=False)
    if run.failed:
        raise RuntimeError(str(run.failed[0].error))
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(segmenter: Segmenter, cases: Sequence[Case], ahead: Sequence[int], repeats: int, scratch: Path) -> str:
    """Return the tables; the first patient is segmented once before, to warm up."""
    one_by_one(segmenter, cases[:1], scratch)
    alone = [one_by_one(segmenter, cases, scratch) for _ in range(repeats)]
    count = len(cases)
    rows = ["| one after the other | s a patient | CPU |", "|---|---|---|"]
    for phase in PHASES:
        wall, cpu = (statistics.median(getattr(t, kind)[phase] for t in alone) / count for kind in ("wall_s", "cpu_s"))
        rows.append(f"| {phase} | {wall:.3f} | {cpu:.3f} |")
    network_s = statistics.median(t.wall_s["network"] for t in alone) / count
    rows += ["", "| cohort | s a patient | over the network's alone | CPU |", "|---|---|---|---|"]
    for some in ahead:
        runs = [cohort(segmenter, cases, some, scratch / f"out{some}-{k}") for k in range(repeats)]
        wall, cpu = (statistics.median(values) / count for values in zip(*runs, strict=True))
        how = f"{some} read and written beside the network" if some else "between the networks' runs"
        rows.append(f"| {how} | {wall:.3f} | {wall / network_s:.2f} | {cpu:.3f} |")
    where = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    compute = segmenter.compute
    rows += ["", f"{count} patients; {segmenter.weights.path.stem}; {compute.device}, {compute.precision}; {where}"]
    return "\n".join([*rows[:-1], f"{rows[-1]}; median of {repeats}"])


def main() -> None:
    """Read the options and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", help="FILE:NAME of a JSON with lists of cases")
    parser.add_argument("--patients", type=int, default=12)
    parser.add_argument("--weights")
    parser.add_argument("--preset", choices=PRESETS)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--ahead", type=lambda text: [int(n) for n in text.split(",")], default="0,1")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    prepare_process(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        weights = resolve_weights(options.weights)
        if options.preset:
            from one_patient import new_weights  # needs monai

            weights = new_weights(options.preset, Path(folder))
        segmenter = Segmenter(weights)
        cases = select_cases(
            options.folder, modalities=segmenter.config.modalities, selection=Selection(options.split)
        )[: options.patients]
        print(measure(segmenter, cases, options.ahead, options.repeats, Path(folder)))


if __name__ == "__main__":
    main()
