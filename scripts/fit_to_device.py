"""How large the crops and how many a step may be on this machine: by trying, until memory or time is short.

    python scripts/fit_to_device.py --features 16,32,64,128,192 --spacing 1.25 --seconds 1200 [--steps 6000]

Prints the options for `a2fseg train`, such as `--patch-size 112,144,112 --batch-size 1`, and what each try took. Crops
grow from --smallest to whole brains; then the crops of a step double. The crops of a step are encoded one after the
other and their gradients summed, so more of them cost time, not memory. A try is good when it fits into the memory
and --seconds are enough for --steps of it: below some thousand steps a training from the start does not get far.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.device import Compute, choose_compute
from a2fseg_cli.errors import A2FSegError, ResourceError, is_out_of_memory
from a2fseg_cli.training.data import Sample
from a2fseg_cli.training.loop import Setup, Trainer
from a2fseg_cli.training.recipe import Recipe
from a2fseg_cli.training.run_folder import RunFolder
from a2fseg_cli.training.settings import network_and_recipe

Shape = tuple[int, int, int]
# Of the brains of 261 patients 95 in 100 are no larger than 146 x 184 x 146 mm.
_WHOLE_BRAIN_MM = (146.0, 184.0, 146.0)
_MOST_CROPS = 8
_REPEATS = 3

# Crops and how many of them a step has.
Try = tuple[Shape, int]


def tries(smallest: Shape, spacing_mm: float, step: int) -> Iterator[Try]:
    """Yield what to try: crops from the smallest to a whole brain, edges multiples of `step`, then more of the last."""
    whole = tuple(step * math.ceil(edge / spacing_mm / step) for edge in _WHOLE_BRAIN_MM)
    crop = smallest
    yield crop, 1
    for share in (0.5, 1):
        z, y, x = (max(a, step * math.ceil((a + share * (b - a)) / step)) for a, b in zip(smallest, whole, strict=True))
        if (z, y, x) != crop:
            crop = (z, y, x)
            yield crop, 1
    count = 2
    while count <= _MOST_CROPS:
        yield crop, count
        count *= 2


def largest(candidates: Iterator[Try], seconds_of: Callable[[Try], float | None], most_s: float) -> tuple[Try, float]:
    """Return the last candidate before one that does not fit or takes too long, and the seconds of its step.

    Args:
        candidates: From the smallest on.
        seconds_of: Seconds of one step; None where memory is short.
        most_s: Most seconds that a step may take; the first candidate may take longer.

    Raises:
        ResourceError: not even the first fits into the memory.
    """
    best: tuple[Try, float] | None = None
    for candidate in candidates:
        seconds = seconds_of(candidate)
        crop, count = candidate
        words = "memory is short" if seconds is None else f"{seconds:.2f} s a step"
        print(f"{'x'.join(map(str, crop))}, {count} a step: {words}", file=sys.stderr)
        if seconds is None or (best is not None and seconds > most_s):
            break
        best = candidate, seconds
    if best is None:
        raise ResourceError("Out of memory at the smallest crop. Give smaller ones (smallest) or a narrower network.")
    return best


def step_seconds(config: ModelConfig, recipe: Recipe, compute: Compute) -> float | None:
    """Return the least seconds of three steps on noise, after one to warm up; None where memory is short."""
    random = np.random.default_rng(0)
    classes = (random.random(config.patch_size) < 0.1).astype(np.uint8)
    images = random.standard_normal((len(config.modalities), *config.patch_size), np.float32).astype(np.float16)
    sample = Sample("noise", images, classes, (True,) * len(config.modalities))
    times = []
    try:
        trainer = Trainer(Setup(config, recipe, [sample], [], RunFolder(Path()), compute))
        for _ in range(_REPEATS + 1):
            began = time.perf_counter()
            trainer.step()  # its loss is read, so the device has done it
            times.append(time.perf_counter() - began)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        trainer = None  # type: ignore[assignment]
        if compute.device.type == "cuda":
            torch.cuda.empty_cache()
    return min(times[1:])


def whole_numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of 1 or more that a text such as 16,32 holds. Raises: ValueError."""
    numbers = tuple(map(int, text.split(",")))
    if min(numbers) < 1:
        raise ValueError(text)
    return numbers


def above_zero(text: str) -> float:
    """Return a number above 0. Raises: ValueError."""
    if not 0 < (number := float(text)) < math.inf:
        raise ValueError(text)
    return number


def three_numbers(text: str) -> Shape:
    """Return three numbers of 1 or more. Raises: ValueError."""
    z, y, x = whole_numbers(text)
    return z, y, x


def main() -> None:
    """Read the options, try, and print what to train with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--features", type=whole_numbers, default=(16, 32, 64, 128, 192))
    parser.add_argument("--spacing", type=above_zero, default=1.25)
    parser.add_argument("--smallest", type=three_numbers, default=(96, 112, 96))
    parser.add_argument("--seconds", type=above_zero, required=True)
    parser.add_argument("--steps", type=above_zero, default=6000)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    widths = options.features

    def seconds_of(candidate: Try) -> float | None:
        crop, count = candidate
        given = {"features_per_stage": widths, "spacing_mm": options.spacing, "patch_size": crop, "batch_size": count}
        config, recipe = network_and_recipe(options.preset, given | {"augment": False})
        return step_seconds(config, recipe, choose_compute(options.device, options.precision))

    try:
        candidates = tries(options.smallest, options.spacing, min(8, 2 ** (len(widths) - 1)))
        (crop, count), _ = largest(candidates, seconds_of, options.seconds / options.steps)
    except A2FSegError as error:
        parser.exit(1, f"{error}\n")
    print(f"--patch-size {','.join(map(str, crop))} --batch-size {count}")


if __name__ == "__main__":
    main()
