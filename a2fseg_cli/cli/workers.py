"""The workers that `--scheduler` names, for the time of a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from a2fseg_cli.cluster.crew import Crew


@contextmanager
def crew_of(scheduler: str | None, threads: int | None) -> Iterator[Crew | None]:
    """Yield the workers of a scheduler, None without one; `threads` are those of a patient."""
    if scheduler is None:
        yield None
        return
    from a2fseg_cli.cluster.connection import connected

    with connected(scheduler, threads) as crew:
        yield crew
