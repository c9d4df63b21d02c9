"""Reading beside the network: the next patient is on its way while one is worked on, where cores are to spare."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import TypeVar

import torch

from a2fseg_cli.core.device import Compute

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def work_ahead(compute: Compute) -> int:
    """Return for how many patients may be read or written while the network works: 0 on a CPU of few cores, else 1.

    All threads of a convolution wait for the one whose core something else uses. On two cores a batch of 8 patients
    took 12.1 s with both at once and 10.6 s with one after the other; more cores were not measured.
    """
    return 0 if compute.device.type == "cpu" and torch.get_num_threads() <= 4 else 1


def read_ahead(
    items: Sequence[Item], load: Callable[[Item], Loaded], reader: Executor, lookahead: int = 1
) -> Iterator[Loaded]:
    """Yield `load(item)` of each item in order; while one is in use, exactly `lookahead` more are read.

    What `load` raises is raised here, when its item's turn comes.
    """
    coming: deque[Future[Loaded]] = deque()
    for item in items:
        coming.append(reader.submit(load, item))
        if len(coming) > lookahead:
            yield coming.popleft().result()
    for future in coming:
        yield future.result()
