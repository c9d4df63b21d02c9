"""Whose turn it is: which item a free worker gets, and what becomes of one whose worker ended. Free of Dask."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic

from a2fseg_cli.cluster.job import Item, Lost


@dataclass(frozen=True)
class Attempt(Generic[Item]):
    """An item, and how often it was tried.

    Attributes:
        item: It.
        ended: How many workers ended while they had it.
        alone: Whether nothing else runs beside it: its last attempt.
    """

    item: Item
    ended: int = 0
    alone: bool = False


class Turns(Generic[Item]):
    """Items one after the other; no more are taken from `items` than there are workers.

    One whose worker ended is tried again elsewhere, at once: most often a machine went away. The second time, or where
    memory ran out, it is tried alone: behind all others, one at a time. After that there is no further attempt, so
    that no item ends worker after worker.

    Args:
        items: In order.
        began: Told each item before it is handed out for the first time.
    """

    def __init__(self, items: Iterable[Item], began: Callable[[Item], None]) -> None:
        self._items: Iterator[Item] = iter(items)
        self._began = began
        self._again: deque[Attempt[Item]] = deque()
        self._alone: deque[Attempt[Item]] = deque()
        self._exhausted = False
        self.running: dict[str, Attempt[Item]] = {}  # by the worker's address

    @property
    def over(self) -> bool:
        """Whether every item has its answer; asked after `next_for` had nothing."""
        return self._exhausted and not (self.running or self._again or self._alone)

    def next_for(self, worker: str) -> Attempt[Item] | None:
        """Return what a free worker gets now and note that it runs; None where there is nothing for it."""
        if worker in self.running or any(attempt.alone for attempt in self.running.values()):
            return None
        attempt = self._again.popleft() if self._again else self._new()
        if attempt is None and self._alone and not self.running:
            attempt = replace(self._alone.popleft(), alone=True)
        if attempt is not None:
            self.running[worker] = attempt
        return attempt

    def _new(self) -> Attempt[Item] | None:
        for item in self._items:
            self._began(item)
            return Attempt(item)
        self._exhausted = True
        return None

    def done(self, worker: str) -> Attempt[Item]:
        """Return the attempt that a worker has ended."""
        return self.running.pop(worker)

    def give_back(self, worker: str) -> None:
        """Put an item back that a worker had not begun."""
        attempt = self.running.pop(worker)
        (self._alone if attempt.alone else self._again).append(attempt)

    def ended(self, worker: str) -> tuple[Item, Lost] | None:
        """Note that a worker ended while it had an item; return the item where that was its last attempt."""
        attempt = self.running.pop(worker)
        attempt = replace(attempt, ended=attempt.ended + 1)
        if attempt.alone:
            return attempt.item, Lost(
                f"{attempt.ended} worker{'s' * (attempt.ended > 1)} ended while at this patient, the last with nothing "
                "beside it. Most often that is want of memory: give the workers more, or look at their logs."
            )
        (self._again if attempt.ended < 2 else self._alone).append(attempt)
        return None

    def again_alone(self, attempt: Attempt[Item]) -> bool:
        """Have an item tried alone that ran out of memory; return False where it was alone."""
        if not attempt.alone:
            self._alone.append(attempt)
        return not attempt.alone
