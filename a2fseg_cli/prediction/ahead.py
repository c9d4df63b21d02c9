"""Reading beside the network: the next patient is on its way while one is worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def read_ahead(items: Sequence[Item], load: Callable[[Item], Loaded], reader: Executor) -> Iterator[Loaded]:
    """Yield `load(item)` of each item in order; while one is in use, exactly one more is read.

    What `load` raises is raised here, when its item's turn comes.
    """
    coming: deque[Future[Loaded]] = deque()
    for item in items:
        coming.append(reader.submit(load, item))
        if len(coming) > 1:
            yield coming.popleft().result()
    for future in coming:
        yield future.result()
