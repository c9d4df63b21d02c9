"""What each network takes: parameters, arithmetic, seconds and memory a patient, for one subset and for all.

    python benchmarks/networks.py [--preset tiny] [--shape 72,88,72] [--networks a2fseg rfnet] [--repeats 3]

Random weights, random images of a brain's size on the working grid (72 x 88 x 72 voxels of 2 mm by default), windows
as `predict` plans them. Each timing runs in a process of its own; the memory is what its peak adds to that of the
loaded libraries and the network. Arithmetic is counted by torch: of one subset (all modalities), of all subsets in one
pass, and how much that pass saves against a run of each subset by itself: 0 % would be a network without shared work.
Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from a2fseg_cli.core.memory import keep_pages

keep_pages()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from a2fseg_cli.core.config import PRESETS, ModelConfig, all_subsets  # noqa: E402
from a2fseg_cli.core.device import choose_compute  # noqa: E402
from a2fseg_cli.core.network import union  # noqa: E402
from a2fseg_cli.core.networks import build_network, parameter_shapes  # noqa: E402
from a2fseg_cli.core.presets import NETWORKS, preset_config  # noqa: E402
from a2fseg_cli.inference.predictor import Predictor  # noqa: E402

Shape = tuple[int, int, int]


def chosen_subsets(config: ModelConfig, count: int) -> list[tuple[bool, ...]]:
    """Return all subsets, or, for 1, that of all modalities."""
    return [config.presence(names) for names in all_subsets(config.modalities)][-count:]


def operations(config: ModelConfig, shape: Shape, subsets: Sequence[tuple[bool, ...]]) -> int:
    """Return the floating-point operations of a patient, all windows, without computing any of them."""
    count = len(subsets)
    with torch.device("meta"):
        model = build_network(config)
        plan = Predictor(model, choose_compute("cpu")).plan(shape, len(config.modalities), math.inf, count)
        window = torch.zeros(1, len(config.modalities), *plan.window)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            for _ in model.fuse_subsets(model.encode(window, union(subsets)), subsets):
                pass
    return int(counter.get_total_flops()) * len(plan.starts)


def peak_bytes() -> int:
    """Return the largest resident memory that this process has had, where the system tells it."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def run_one(config: ModelConfig, shape: Shape, count: int, repeats: int) -> dict[str, Any]:
    """Return the seconds of a patient, the memory that it adds, in bytes, and its windows."""
    torch.manual_seed(0)
    compute = choose_compute("cpu")
    model = build_network(config).requires_grad_(False).eval()
    model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    predictor = Predictor(model, compute)
    images = np.random.default_rng(0).standard_normal((len(config.modalities), *shape)).astype(np.float32)
    subsets = chosen_subsets(config, count)
    before, seconds, windows = peak_bytes(), [], ""
    for _ in range(repeats + 1):
        began = time.perf_counter()
        for result in predictor.segment_subsets(images, subsets):
            windows = f"{len(result.plan.starts)} of {' x '.join(map(str, result.plan.window))}"
        seconds.append(time.perf_counter() - began)
    median = statistics.median(seconds[1:] or seconds)  # the first prepares the convolutions
    return {"seconds": median, "bytes": peak_bytes() - before, "windows": windows, "precision": compute.precision}


def in_its_own_process(config: ModelConfig, shape: Shape, count: int, repeats: int) -> dict[str, Any]:
    """Return what `run_one` does, in a process that has done nothing else."""
    command = [sys.executable, __file__, "--config", config.to_json(), "--subsets", str(count)]
    command += ["--shape", ",".join(map(str, shape)), "--repeats", str(repeats)]
    command += ["--threads", str(torch.get_num_threads())]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def figures(config: ModelConfig, shape: Shape, repeats: int) -> dict[str, Any]:
    """Return parameters, windows and precision; GFLOP, seconds and GiB of one subset and of all; the share saved."""
    every = chosen_subsets(config, 2 ** len(config.modalities) - 1)
    work = [operations(config, shape, subsets) for subsets in (every[-1:], every)]
    alone = sum(operations(config, shape, [subset]) for subset in every)
    runs = [in_its_own_process(config, shape, count, repeats) for count in (1, len(every))]
    return {
        "parameters": sum(math.prod(size) for size in parameter_shapes(config).values()),
        "windows": runs[0]["windows"],
        "precision": runs[0]["precision"],
        "gflop": [operations_of / 1e9 for operations_of in work],
        "seconds": [run["seconds"] for run in runs],
        "gib": [run["bytes"] / 2**30 for run in runs],
        "saved": 1 - work[1] / alone,
    }


HEAD = "GFLOP, 1 subset | all | ratio | s, 1 subset | all | ratio | GiB, 1 subset | all | saved by one pass"


def cells(of: dict[str, Any]) -> list[str]:
    """Return the cells of a network under `HEAD`."""
    (work, all_work), (seconds, all_seconds), memory = of["gflop"], of["seconds"], of["gib"]
    return [
        f"{work:.0f}", f"{all_work:.0f}", f"{all_work / work:.1f}",
        f"{seconds:.2f}", f"{all_seconds:.2f}", f"{all_seconds / seconds:.1f}",
        *(f"{gib:.2f}" for gib in memory), f"{100 * of['saved']:.0f} %",
    ]  # fmt: skip


def where(precision: str, shape: Shape, repeats: int) -> str:
    """Return one line on the machine and the images."""
    machine = f"cpu, {precision}, {torch.get_num_threads()} threads; torch {torch.__version__}; {platform.machine()}"
    return f"{' x '.join(map(str, shape))} voxels, four modalities; {machine}; n = {repeats}"


def measure(networks: Sequence[str], preset: str, shape: Shape, repeats: int) -> str:
    """Return the table."""
    rows = [f"| network | parameters, million | windows | {HEAD} |", "|---" * 12 + "|"]
    precision = ""
    for name in networks:
        print(f"{name}: measuring", file=sys.stderr)
        of = figures(preset_config(preset, name), shape, repeats)
        precision, parameters = of["precision"], f"{of['parameters'] / 1e6:.2f}"
        rows.append(f"| {' | '.join([name, parameters, of['windows'], *cells(of)])} |")
    return "\n".join([*rows, "", f"preset {preset}; {where(precision, shape, repeats)}"])


def main() -> None:
    """Read the options and print the table, or, with `--config`, the figures of one network as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--preset", choices=PRESETS, default="tiny")
    parser.add_argument("--shape", type=lambda text: tuple(map(int, text.split(","))), default=(72, 88, 72))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--config", type=ModelConfig.from_json, help=argparse.SUPPRESS)
    parser.add_argument("--subsets", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.config:
        print(json.dumps(run_one(options.config, options.shape, options.subsets, options.repeats)))
    else:
        print(measure(options.networks, options.preset, options.shape, options.repeats))


if __name__ == "__main__":
    main()
