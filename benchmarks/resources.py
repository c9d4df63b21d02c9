"""What `a2fseg predict` takes: seconds and memory against voxels, modalities, threads and patients.

    python benchmarks/resources.py [--weights FILE | --preset paper] [--scales 0.5,1,1.5,2] [--modalities 1,4]
                                   [--threads 1,2] [--patients 1,2,4,8]

Each row is a run of the command, start-up included, on the synthetic patient of `a2fseg demo` (240 x 240 x 155 voxels
of 1 mm): its grid scaled, some of its modalities, with fewer threads, or copied as a cohort. The peak is the largest
resident memory of the process. Prints one Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from one_patient import new_weights

from a2fseg_cli.core.config import PRESETS
from a2fseg_cli.modalities import BRATS_MODALITIES
from a2fseg_cli.phantom import write_phantom

# The command, and at its end the largest memory it had. Linux's getrusage would count what the parent had as well.
RUN = """
import atexit, pathlib, resource, sys
target = pathlib.Path(sys.argv.pop(1))
def note():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines() if sys.platform == "linux" else []
    peak = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
    target.write_text(str(peak[0] if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
atexit.register(note)
from a2fseg_cli.cli.main import main
main()
"""


@dataclass(frozen=True)
class Used:
    """What a run took: wall seconds, seconds in the network, peak resident bytes, windows of one patient."""

    seconds: float
    network_s: float
    peak_bytes: int
    windows: str


def predict(arguments: Sequence[str | Path], scratch: Path) -> Used:
    """Return what one run of the command took. Raises: CalledProcessError when it fails; its words are on stderr."""
    out, stats = scratch / "out", scratch / "stats.json"
    shutil.rmtree(out, ignore_errors=True)
    stats.unlink(missing_ok=True)
    cohort = Path(arguments[0]).is_dir() and any(path.is_dir() for path in Path(arguments[0]).iterdir())
    command = [sys.executable, "-c", RUN, str(scratch / "peak"), "predict", *map(str, arguments)]
    command += ["--stats", str(stats), "-q", "-o", str(out if cohort else out / "seg.nii.gz")]
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - began
    found = json.loads(stats.read_text())
    found = found if isinstance(found, list) else [found]
    windows = found[0]["windows"]
    shape = " x ".join(map(str, windows["edges"]))
    return Used(
        seconds,
        sum(one["seconds"]["network"] for one in found),
        int((scratch / "peak").read_text()),
        f"{windows['count']} of {shape}",
    )


def scaled(folder: Path, scale: float, target: Path) -> str:
    """Write the patient with its grid scaled, voxels of the same size; return the grid."""
    target.mkdir()
    shape: list[int] = []
    for path in folder.glob("phantom_*.nii.gz"):
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        shape = [round(n * scale) for n in array.shape]
        nearest = (((np.arange(m) + 0.5) * n / m).astype(int) for n, m in zip(array.shape, shape, strict=True))
        sitk.WriteImage(sitk.GetImageFromArray(array[np.ix_(*nearest)]), str(target / path.name))
    return " x ".join(map(str, shape[::-1]))


def measure(
    weights: Path | None,
    scales: Sequence[float],
    modalities: Sequence[int],
    threads: Sequence[int],
    patients: Sequence[int],
    scratch: Path,
) -> str:
    """Return the table."""
    given: list[str | Path] = ["--weights", weights] if weights else []
    files = write_phantom(scratch / "phantom")
    files.pop("seg").unlink()
    rows = ["| | windows | seconds | in the network | peak memory, GiB |", "|---|---|---|---|---|"]

    def add(name: str, arguments: Sequence[str | Path]) -> None:
        used = predict([*arguments, *given], scratch)
        peak = used.peak_bytes / 2**30
        rows.append(f"| {name} | {used.windows} | {used.seconds:.1f} | {used.network_s:.2f} | {peak:.2f} |")

    for scale in scales:
        folder = scratch / f"scale{scale:g}"
        grid = scaled(scratch / "phantom", scale, folder)
        add(f"{grid} voxels, four modalities", [folder])
        shutil.rmtree(folder)
    for count in modalities:
        chosen = [item for m in BRATS_MODALITIES[-count:] for item in (f"--{m}", files[m])]
        add(f"{'+'.join(BRATS_MODALITIES[-count:])}", chosen)
    for count in threads:
        add(f"four modalities, {count} threads", [scratch / "phantom", "--threads", str(count)])
    for count in patients:
        cohort = scratch / f"cohort{count}"
        for i in range(count):
            (cohort / f"p{i}").mkdir(parents=True)
            for m, path in files.items():  # copies: the same content under two names would be refused
                shutil.copy(path, cohort / f"p{i}" / f"p{i}_{m}.nii.gz")
        add(f"{count} patients", [cohort])
        shutil.rmtree(cohort)
    return "\n".join([*rows, "", f"{platform.machine()}, {os.cpu_count()} cores"])


def numbers(text: str) -> list[float]:
    """Return the numbers of an option."""
    return [float(part) for part in text.split(",") if part]


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--preset", choices=PRESETS)
    parser.add_argument("--scales", default="0.5,1,1.5,2", type=numbers)
    for name, default in (("modalities", "1,2,3,4"), ("threads", "1,2"), ("patients", "1,2,4,8")):
        parser.add_argument(f"--{name}", default=default, type=lambda text: [int(n) for n in numbers(text)])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        weights = new_weights(options.preset, scratch) if options.preset else options.weights
        threads, patients, modalities = options.threads, options.patients, options.modalities
        print(measure(weights, options.scales, modalities, threads, patients, scratch))


if __name__ == "__main__":
    main()
