"""Whether the cost of a cohort grows with its patients and not with their square: seconds and memory at 100 to 10,000.

    python benchmarks/scale.py [--counts 100,1000,10000] [--threads 1] [--keep FOLDER]

The cohort is links to a few small synthetic patients (FLAIR, 40 x 52 x 44 voxels of 4 mm); the network has a width of
4 and works at 8 mm: what remains is all but the network, finding patients, fingerprints, tables, checks. Each row is
a run of the command. "start" is the time to the first patient's line, imports included (2 s), and so all of a run
that finds everything done; what follows is divided by the patients. CPU seconds count all threads, and are what to
compare where the machine is shared. Memory is resident: at the first patient's line, and at the end. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from a2fseg_cli.core.a2fseg import A2FSeg
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.writing import write_image
from a2fseg_cli.phantom import make_phantom
from a2fseg_cli.weights.file_format import save_weights

SIZE, SPACING_MM, PERSONS, SEQUENCE = (40, 52, 44), (4.0, 4.0, 4.0), 4, "flair"
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass(frozen=True)
class Moment:
    """What a run had used when a patient's line came: wall and CPU seconds, resident bytes."""

    seconds: float
    cpu_s: float
    resident: int


@dataclass(frozen=True)
class Used:
    """What a run took: at its first line, after each tenth of its lines, and at its end."""

    patients: int
    first: Moment
    tenths: tuple[Moment, ...]
    end: Moment

    @property
    def cpu_of_tenths(self) -> tuple[float, float]:
        """CPU seconds a patient of the first and of the last tenth."""
        each = self.patients / 10
        first, last = self.tenths[0].cpu_s - self.first.cpu_s, self.tenths[-1].cpu_s - self.tenths[-2].cpu_s
        return first / max(each - 1, 1), last / each


def write_persons(folder: Path) -> list[dict[str, Path]]:
    """Write a few small synthetic patients with their truth; return the files of each by name."""
    persons = []
    for seed in range(PERSONS):
        made = make_phantom(seed, SIZE, SPACING_MM)
        grid = Geometry(SIZE, SPACING_MM, (0.0, 0.0, 0.0))
        files = {name: folder / f"person{seed}" / f"{name}.nii.gz" for name in (SEQUENCE, "seg")}
        for name, path in files.items():
            array = made.truth if name == "seg" else made.images[name]
            write_image(np.rint(array).astype(np.int16), grid, path)
        persons.append(files)
    return persons


def link_cohort(folder: Path, persons: Sequence[dict[str, Path]], count: int) -> Path:
    """Make a folder of so many patients, each a folder with links to one of the persons' files; return it."""
    for index in range(count):
        case = f"case{index:05d}"
        (folder / case).mkdir(parents=True)
        for name, path in persons[index % len(persons)].items():
            (folder / case / f"{case}_{name}.nii.gz").symlink_to(path.resolve())
    return folder


def write_network(folder: Path) -> Path:
    """Write the weights that a network of width 4 at 8 mm starts with; return the file."""
    config = ModelConfig(features_per_stage=(4, 8), spacing_mm=(8.0, 8.0, 8.0), patch_size=(16, 16, 16))
    torch.manual_seed(0)
    network = A2FSeg(config)
    tensors = network.state_dict()
    tensors["head.bias"] = torch.tensor([0.8, 0.0, 0.0, 0.0])  # so that 3 % of the brain are called tumour
    save_weights(folder / "width4.safetensors", tensors, config, {"name": "width4"})
    return folder / "width4.safetensors"


def run(arguments: Sequence[str | Path], count: int) -> Used:
    """Return what a run of the command over so many patients took. Raises: RuntimeError with its words: it failed."""
    command = [sys.executable, "-m", "a2fseg_cli", *map(str, arguments)]
    began = time.perf_counter()
    said: list[str] = []
    tenths = [max(2, round(count * k / 10)) for k in range(1, 11)]
    moments: dict[int, Moment] = {}
    with tempfile.TemporaryFile("w+") as out, _started(command, out) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line) if len(said) < 100 else None
            number = int(found[1]) if (found := re.match(r"\[(\d+)/\d+\]", line)) else 0
            if number == 1 or number in tenths:
                moments[number] = _moment(process.pid, began)
        _, code, usage = os.wait4(process.pid, 0)
        process.returncode = code
        end = Moment(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
    if code:
        raise RuntimeError("".join(said))
    return Used(count, moments[1], tuple(moments[k] for k in tenths), end)


@contextmanager
def _started(command: Sequence[str], out: object) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True) as process:  # type: ignore[call-overload]
        yield process


def _moment(process: int, began: float) -> Moment:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS
    return Moment(time.perf_counter() - began, cpu_s, int(fields[21]) * _PAGE)


def link_pages(pages: Path, count: int) -> None:
    """Give each patient the page and the small picture that were made of the first, as links."""
    for folder, ending in ((pages, ".html"), (pages / "thumbnails", ".png")):
        first = folder / f"case00000{ending}"
        for index in range(1, count):
            os.link(first, folder / f"case{index:05d}{ending}")
        os.utime(first)  # a page is not older than its mask


def measure(counts: Sequence[int], threads: int, scratch: Path) -> str:
    """Return the table."""
    persons, weights = write_persons(scratch / "persons"), write_network(scratch)
    rows = [
        "| patients | command | start, s | CPU | each, ms | CPU | of the first and last tenth | memory at start, MB "
        "| at the end |",
        "|---|---|---|---|---|---|---|---|---|",
    ]

    def add(name: str, arguments: Sequence[str | Path], count: int) -> None:
        print(f"{count} patients, {name}", file=sys.stderr, flush=True)
        rows.append(_row(name, run([*arguments, "--threads", str(threads)], count)))

    for count in counts:
        data, out, scores = (scratch / f"{kind}{count}" for kind in ("data", "out", "scores"))
        link_cohort(data, persons, count)
        given: list[str | Path] = ["--weights", weights]
        predict: list[str | Path] = ["predict", data, "-o", out, *given, "--stats", scratch / f"stats{count}.json"]
        add("predict", predict, count)
        add("predict, all done", predict, count)
        add("predict --skip-existing, all done", [*predict, "--skip-existing"], count)
        pages = scratch / f"pages{count}"
        one: list[str | Path] = [
            "predict",
            data / "case00000",
            "-o",
            scratch / f"one{count}",
            *given,
            "--report",
            pages,
        ]
        subprocess.run(
            [sys.executable, "-m", "a2fseg_cli", *map(str, one), "-q"], stdout=subprocess.DEVNULL, check=True
        )
        link_pages(pages, count)
        add("predict --report, pages there, index.html", [*predict, "--report", pages], count)
        add("evaluate", ["evaluate", data, "-o", scores, *given], count)
        add("evaluate, all done", ["evaluate", data, "-o", scores, *given], count)
        files: list[str | Path] = ["evaluate", data, "--predictions", out, "-o", scratch / f"files{count}"]
        add("evaluate --predictions", files, count)
    return "\n".join([*rows, "", f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads"])


def _row(name: str, used: Used) -> str:
    after, rest = used.end.seconds - used.first.seconds, max(used.patients - 1, 1)
    cpu = used.end.cpu_s - used.first.cpu_s
    first, last = used.cpu_of_tenths
    return (
        f"| {used.patients:,} | {name} | {used.first.seconds:.1f} | {used.first.cpu_s:.1f} | {1000 * after / rest:.1f} "
        f"| {1000 * cpu / rest:.1f} | {1000 * first:.1f}, {1000 * last:.1f} | {used.first.resident / 1e6:.0f} "
        f"| {used.end.resident / 1e6:.0f} |"
    )


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=lambda text: [int(n) for n in text.split(",")], default="100,1000,10000")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="where everything is made, and stays")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(measure(options.counts, options.threads, options.keep or Path(folder)))


if __name__ == "__main__":
    main()
