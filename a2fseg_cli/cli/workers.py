"""The workers that `--scheduler` names, for the time of a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from a2fseg_cli.cli.console import say

if TYPE_CHECKING:
    from a2fseg_cli.cluster.crew import Crew


@contextmanager
def crew_of(scheduler: str | None, threads: int | None) -> Iterator[Crew | None]:
    """Yield the workers of a scheduler, None without one; `threads` are those of a patient.

    What there is to know of them is said behind the block, also where it fails: those left out may be why.
    """
    if scheduler is None:
        yield None
        return
    from a2fseg_cli.cluster.connection import connected

    with connected(scheduler, threads) as crew:
        try:
            yield crew
        finally:
            for note in crew.notes:
                say(f"Warning: {note}")
