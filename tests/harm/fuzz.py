"""Damaged files to the readers, each format in a process of its own."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import shutil
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harm.damage import FORMATS, damaged, valid

_PATIENCE_S = 30

_SPARE_BYTES = 2**30
_TESTS = str(Path(__file__).parents[1])


@dataclass
class Tally:
    """What came of the damaged files of one format.

    Attributes:
        accepted: Read as whole, to finite values.
        refused: Refused with an error of the tool's own.
        failures: Everything else: a traceback, a crash, a hang.
        slowest_s: The longest that one file took.
        slowest: Its number.
        extra_mib: How far the process grew while it read.
    """

    accepted: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest: int = -1
    extra_mib: float = 0.0

    @property
    def tried(self) -> int:
        """Files in all."""
        return self.accepted + self.refused + len(self.failures)


def fuzz(count: int, seed: int, folder: Path) -> dict[str, Tally]:
    """Damage `count` valid files and read each; return what came of them, by format.

    Each format is read in a process of its own, which may take 1 GiB more than at its start and 30 s a file; where it
    dies, that file has failed and another process goes on behind it. Failed files stay in `folder`.
    """
    tallies = {}
    for index, format_ in enumerate(FORMATS):
        share = count // len(FORMATS) + (index < count % len(FORMATS))
        tallies[format_] = _fuzz_format(format_, share, seed, folder)
    return tallies


def _fuzz_format(format_: str, count: int, seed: int, folder: Path) -> Tally:
    tally, first = Tally(), 0
    while first < count:
        arguments = map(str, (format_, first, count, seed, folder))
        child = subprocess.run(
            [sys.executable, "-W", "error", "-m", "harm.fuzz", *arguments],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([_TESTS, *sys.path]), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60 + _PATIENCE_S * (count - first),
            check=False,
        )
        reports = [json.loads(line) for line in child.stdout.splitlines()]
        for report in reports:
            if "mib" in report:
                tally.extra_mib = max(tally.extra_mib, report["mib"])
                continue
            if report["seconds"] > tally.slowest_s:
                tally.slowest_s, tally.slowest = report["seconds"], first
            tally.accepted += report["outcome"] == "accepted"
            tally.refused += report["outcome"] == "refused"
            if report["outcome"] not in ("accepted", "refused"):
                tally.failures.append(f"{format_} {first}: {report['outcome']}")
            first += 1
        if not reports or first < count:
            if child.returncode == 0 or not reports:
                raise RuntimeError(f"the child that reads {format_} cannot work:\n{child.stderr}")
            tally.failures.append(f"{format_} {first}: ended with {child.returncode}\n{child.stderr[-2000:]}")
            first += 1
        elif child.stderr:  # libraries in C++ write there past Python
            tally.failures.append(f"{format_}: said on stderr\n{child.stderr[-2000:]}")
    return tally


def _child(format_: str, first: int, count: int, seed: int, folder: Path) -> None:
    """Read the damaged files from number `first` on; print a line of JSON for each."""
    from a2fseg_cli.errors import InputError, WeightsError

    path = folder / f"{format_.replace(' ', '-')}-{first}{_suffix(format_)}"
    path.write_bytes(valid(format_, np.random.default_rng(0)))
    _read(format_, path)  # loads what the reader needs
    start_mib = _peak_mib()
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    if pages:
        limit = pages * resource.getpagesize() + _SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print(json.dumps({"mib": 0.0}), flush=True)
    for index in range(first, count):
        faulthandler.dump_traceback_later(_PATIENCE_S, exit=True)
        path.write_bytes(damaged(format_, np.random.default_rng([seed, FORMATS.index(format_), index])))
        began = time.perf_counter()
        try:
            _read(format_, path)
            outcome = "accepted"
        except (InputError, WeightsError):
            outcome = "refused"
        except Exception:
            outcome = traceback.format_exc()
            shutil.copy(path, folder / f"failed-{index}-{path.name}")
        seconds = time.perf_counter() - began
        print(json.dumps({"outcome": outcome, "seconds": seconds}), flush=True)
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps({"mib": _peak_mib() - start_mib}), flush=True)
    path.unlink()


def _peak_mib() -> float:
    """The most memory that this process has had; Linux's ru_maxrss begins with its parent's."""
    if sys.platform == "linux":
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _suffix(format_: str) -> str:
    return {"label map": ".nii.gz", "weights": ".safetensors", "manifest": ".json"}.get(format_, f".{format_}")


def _read(format_: str, path: Path) -> None:
    """Read a file as the commands do. Raises: what the readers raise; AssertionError for what no image can be."""
    if format_ == "manifest":
        from a2fseg_cli.weights.manifest import read_manifest

        read_manifest(path)
    elif format_ == "weights":
        from a2fseg_cli.core.networks import parameter_shapes
        from a2fseg_cli.weights.file_format import inspect_weights, load_weights

        inspect_weights(path)
        _, tensors = load_weights(path, parameter_shapes)
        assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    elif format_ == "label map":
        from a2fseg_cli.core.config import ModelConfig
        from a2fseg_cli.imaging.label_maps import read_classes

        label_map = read_classes(path, ModelConfig())
        assert label_map.classes.shape == label_map.geometry.size
        assert label_map.classes.max() <= 3
    else:
        from a2fseg_cli.imaging.reading import peek_image, read_image

        geometry, _ = peek_image(path)
        image = read_image(path)
        assert image.array.shape == image.geometry.size == geometry.size
        assert np.isfinite(image.array).all()


if __name__ == "__main__":
    _child(sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5]))
