"""What every command that computes sets up: threads, determinism, memory; options that hold several values."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from a2fseg_cli.errors import ResourceError, UsageError

# Below this the libraries end the process, each in its own way, while they load or read the weights; at 1.1 GiB glibc
# did so in one run of 15 ("cannot allocate memory for thread-local data"). No patient was segmented below 1.3 GiB.
LEAST_ADDRESS_SPACE_BYTES = 9 * 2**27

MOST_THREADS = 1024


def prepare_process(threads: int | None = None, deterministic: bool = False, autotune: bool = False) -> None:
    """Set threads and determinism for this process. Called once, before the first tensor.

    Args:
        threads: Of torch and SimpleITK; None leaves them their own.
        deterministic: The same bytes every time.
        autotune: On a CUDA card, try the algorithms for each new shape and keep the fastest. It pays where one shape
            comes again and again, as a training's crops do; each patient's brain has a window of its own.

    Raises:
        UsageError: no number of threads.
        ResourceError: the address space is limited so far that the libraries would end the process while loading.
    """
    _check_address_space()
    # Threads that wait for another let the core go. By default they spin, and beside one other busy program a pass of
    # the bundled network took 3.9 s with two threads; so it takes 0.43 s, and 0.32 s instead of 0.29 s where nothing
    # else runs. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from a2fseg_cli.core.memory import keep_pages

    keep_pages()
    import numpy as np
    import torch

    # OpenBLAS takes its buffers at the first call, and ends the process where it gets none: take them now.
    np.linalg.inv(np.eye(2))

    if threads is not None:
        if not 1 <= threads <= MOST_THREADS:
            raise UsageError(f"--threads {threads}: expected 1 to {MOST_THREADS}.")
        import SimpleITK as sitk

        torch.set_num_threads(threads)
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    if deterministic:
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = autotune and not deterministic


def _check_address_space() -> None:
    if sys.platform == "win32":
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE_BYTES:
        raise ResourceError(
            f"out of memory: the address space is limited to {limit / 2**30:.2f} GiB (ulimit -v), at least "
            f"{LEAST_ADDRESS_SPACE_BYTES / 2**30:.2f} GiB are needed. Raise the limit."
        )


def three(text: str | None, option: str) -> tuple[int, int, int] | None:
    """Return the three edges of an option such as `96,112,96`; one number stands for a cube."""
    numbers = three_numbers(text, option)
    if numbers is None:
        return None
    if any(number != int(number) for number in numbers):
        raise UsageError(f"{option} {text}: expected whole numbers of voxels.")
    return int(numbers[0]), int(numbers[1]), int(numbers[2])


def three_numbers(text: str | None, option: str) -> tuple[float, float, float] | None:
    """Return the three positive numbers of an option such as `3,1,1`; one stands for all three."""
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.replace("x", ",").split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or not all(0 < number < 1e6 for number in numbers):
        raise UsageError(f"{option} {text}: expected one or three positive numbers, e.g. 96 or 96,112,96.")
    return numbers[0], numbers[1], numbers[2]


def region_sizes(pairs: Sequence[str]) -> dict[str, float]:
    """Return the volume in mm3 of each region, from texts such as `ET=50`. Raises: UsageError."""
    sizes: dict[str, float] = {}
    for pair in pairs:
        region, _, text = pair.partition("=")
        region = region.strip()
        try:
            size = float(text)
        except ValueError:
            size = -1.0
        if not region or not size > 0:
            raise UsageError(f"--remove-small {pair}: expected REGION=MM3, such as ET=50.")
        if region.lower() in map(str.lower, sizes):
            raise UsageError(f"--remove-small {pair}: {region} was given twice. Keep one.")
        sizes[region] = size
    return sizes
