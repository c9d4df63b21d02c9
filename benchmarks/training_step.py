"""One training step: the plain PyTorch loop against ours, same weights, same crop, same subsets, same loss.

    python benchmarks/training_step.py [--preset tiny] [--edge 64] [--repeats 5]
    python benchmarks/training_step.py --threads 1,2 [--repeats 6]

Encode all modalities, fuse the full set and two subsets, the loss of all heads, backward, clip, update. The two take
turns. Prints a Markdown table: median seconds of the repeats, the ratio, and both losses. `--threads` asks instead what
more threads bring: a step of each network's `tiny` on a crop of table1.py at 3 mm, networks and threads in turn.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from a2fseg_cli.core.memory import keep_pages

keep_pages()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from plain import PlainA2FSeg  # noqa: E402
from table1 import CROPS  # noqa: E402

from a2fseg_cli.core.config import PRESETS, ModelConfig  # noqa: E402
from a2fseg_cli.core.device import Compute, choose_compute  # noqa: E402
from a2fseg_cli.core.presets import NETWORKS  # noqa: E402
from a2fseg_cli.training.data import Sample  # noqa: E402
from a2fseg_cli.training.loop import Setup, Trainer  # noqa: E402
from a2fseg_cli.training.recipe import Recipe  # noqa: E402
from a2fseg_cli.training.run_folder import RunFolder  # noqa: E402
from a2fseg_cli.training.settings import network_and_recipe  # noqa: E402


def patient(config: ModelConfig) -> Sample:
    """Return noise with a sphere of nested classes, of the size of one crop."""
    random = np.random.default_rng(0)
    grid = np.meshgrid(*(np.linspace(-1, 1, edge) for edge in config.patch_size), indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in grid))
    classes = sum((radius < 0.15 * k).astype(np.uint8) for k in range(1, len(config.classes)))
    images = random.standard_normal((len(config.modalities), *config.patch_size)) + classes
    return Sample("sphere", images.astype(np.float16), classes, (True,) * len(config.modalities))


def measure(config: ModelConfig, compute: Compute, repeats: int) -> str:
    """Return the table. Raises: AssertionError when the losses differ by more than 1 %."""
    recipe = Recipe(augment=False, random_subsets=2, learning_rate=1e-3)
    trainer = Trainer(Setup(config, recipe, [patient(config)], [], RunFolder(Path()), compute))
    plain = PlainA2FSeg(trainer.learner.model)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)

    def plain_step() -> float:
        (crop,) = trainer.crops(trainer.state.step)
        loss = plain.loss(crop.images[None], crop.subsets, crop.classes[None])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), recipe.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    def timed(step: Callable[[], float]) -> tuple[float, float]:
        began = time.perf_counter()
        loss = step()
        return time.perf_counter() - began, loss

    turns = [(timed(plain_step), timed(trainer.step)) for _ in range(repeats + 1)]
    losses = [loss for _, loss in turns[0]]
    assert abs(losses[0] - losses[1]) < 0.01 * losses[0], f"the losses of the first step differ: {losses}"
    slow, fast = (statistics.median(turn[side][0] for turn in turns[1:]) for side in (0, 1))
    size = " x ".join(map(str, config.patch_size))
    where = f"{compute.device}, {torch.get_num_threads()} threads; torch {torch.__version__}; {platform.machine()}"
    widths = ", ".join(map(str, config.features_per_stage))
    return (
        "| | plain PyTorch, fp32 | ours | ratio |\n|---|---|---|---|\n"
        f"| step, s | {slow:.2f} | {fast:.2f} | {slow / fast:.1f} |\n"
        f"| loss of the first step | {losses[0]:.4f} | {losses[1]:.4f} | |\n\n"
        f"{widths}; {size}; {compute.precision}; {where}; n = {repeats}"
    )


def measure_threads(networks: Sequence[str], counts: Sequence[int], repeats: int, crop: tuple[int, int, int]) -> str:
    """Return a table of the median seconds of a step of each network by threads, and the gain of the last count."""
    trainers = {}
    for name in networks:
        config, recipe = network_and_recipe("tiny", {"network": name, "patch_size": crop})
        trainers[name] = Trainer(Setup(config, recipe, [patient(config)], [], RunFolder(Path()), choose_compute("cpu")))
    seconds: dict[tuple[str, int], list[float]] = {}
    for turn in range(repeats + 1):  # the first warms up
        for threads in counts:
            torch.set_num_threads(threads)
            for name, trainer in trainers.items():
                began = time.perf_counter()
                trainer.step()
                if turn:
                    seconds.setdefault((name, threads), []).append(time.perf_counter() - began)
    rows = [f"| network | {' | '.join(f'{threads} threads, s' for threads in counts)} | gain |"]
    rows.append("|---" * (2 + len(counts)) + "|")
    for name in networks:
        medians = [statistics.median(seconds[name, threads]) for threads in counts]
        cells = [f"{median:.2f}" for median in medians]
        rows.append(f"| {name} | {' | '.join(cells)} | {medians[0] / medians[-1]:.2f} |")
    size = " x ".join(map(str, crop))
    return "\n".join([*rows, "", f"{size}; torch {torch.__version__}; {platform.machine()}; n = {repeats}"])


def thread_counts(text: str) -> list[int]:
    """Return the numbers of a list with commas. Raises: ValueError for one under 1."""
    counts = [int(part) for part in text.split(",")]
    if min(counts) < 1:
        raise ValueError(text)
    return counts


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--edge", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=thread_counts, help="such as 1,2: a step of every network by threads")
    options = parser.parse_args()
    if options.threads:
        print(measure_threads(NETWORKS, options.threads, options.repeats, CROPS[3.0]))
        return
    config = replace(PRESETS[options.preset], patch_size=(options.edge,) * 3)
    print(measure(config, choose_compute("cpu"), options.repeats))


if __name__ == "__main__":
    main()
