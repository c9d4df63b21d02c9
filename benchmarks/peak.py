"""How much of the machine's best convolution the network reaches, and where its time goes.

    python benchmarks/peak.py [--preset paper] [--shape 136,168,144] [--repeats 2] [--profile]

The best is the fastest of some 3x3x3 convolutions, in the precision and memory format that the network runs in. The
network's arithmetic is counted for all four modalities on one window, convolutions only. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence

from a2fseg_cli.core.memory import keep_pages

keep_pages()

import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from a2fseg_cli.core.a2fseg import A2FSeg  # noqa: E402
from a2fseg_cli.core.config import PRESETS, ModelConfig  # noqa: E402
from a2fseg_cli.core.device import Compute, choose_compute  # noqa: E402

CONVOLUTIONS = ((32, 96), (64, 64), (128, 48), (256, 24))  # channels in and out, edge of the cube


def seconds(compute: Compute, work: Callable[[], object], repeats: int) -> float:
    """Return the median time of the work, after one run to warm up."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        if compute.device.type == "cuda":
            torch.cuda.synchronize(compute.device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def best_convolution(compute: Compute, repeats: int, shapes: Sequence[tuple[int, int]] = CONVOLUTIONS) -> float:
    """Return the most floating-point operations a second that a 3x3x3 convolution reaches."""
    best = 0.0
    for channels, edge in shapes:
        kernel = torch.randn(channels, channels, 3, 3, 3, device=compute.device, dtype=compute.dtype)
        x = torch.randn(1, channels, edge, edge, edge, device=compute.device, dtype=compute.dtype)
        kernel, x = (value.contiguous(memory_format=torch.channels_last_3d) for value in (kernel, x))
        taken = seconds(compute, lambda x=x, kernel=kernel: F.conv3d(x, kernel, padding=1), repeats)  # type: ignore[misc]
        best = max(best, 2 * 27 * channels**2 * edge**3 / taken)
    return best


def operations(config: ModelConfig, shape: Sequence[int]) -> int:
    """Return the floating-point operations of all modalities on one window (D, H, W)."""
    with torch.device("meta"):
        model, window = A2FSeg(config), torch.zeros(1, len(config.modalities), *shape)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        present = [True] * len(config.modalities)
        model.fuse(model.encode(window, present), present)
    return int(counter.get_total_flops())


def measure(config: ModelConfig, shape: Sequence[int], compute: Compute, repeats: int, with_profile: bool) -> str:
    """Return the table, and the profile's longest rows if asked for."""
    torch.manual_seed(0)
    model = A2FSeg(config).to(compute.device, memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload]
    window = torch.randn(1, len(config.modalities), *shape, device=compute.device)
    present = [True] * len(config.modalities)

    def run() -> None:
        with torch.inference_mode(), compute.autocast():
            model.fuse(model.encode(window, present), present)

    best = best_convolution(compute, repeats)
    taken, work = seconds(compute, run, repeats), operations(config, shape)
    rows = [
        "| | GFLOP | seconds | GFLOP/s | share of the best |",
        "|---|---|---|---|---|",
        f"| best convolution | | | {best / 1e9:.0f} | |",
        f"| network, {' x '.join(map(str, shape))} | {work / 1e9:.0f} | {taken:.2f} | {work / taken / 1e9:.0f} "
        f"| {work / taken / best:.0%} |",
    ]
    if with_profile:
        kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (compute.device.type == "cuda")
        with profile(activities=kinds) as found:
            run()
        events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
        total = sum(event.self_cpu_time_total for event in events)
        rows += ["", "| operation | share of the time |", "|---|---|"]
        rows += [f"| `{event.key}` | {event.self_cpu_time_total / total:.0%} |" for event in events[:6]]
    where = f"{compute.device}, {compute.precision}, {torch.get_num_threads()} threads"
    widths = ", ".join(map(str, config.features_per_stage))
    return "\n".join([*rows, "", f"{widths}; {where}; torch {torch.__version__}; {platform.machine()}; n = {repeats}"])


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="paper")
    parser.add_argument("--shape", type=lambda text: [int(part) for part in text.split(",")], default="136,168,144")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    print(measure(PRESETS[options.preset], options.shape, choose_compute(), options.repeats, options.profile))


if __name__ == "__main__":
    main()
