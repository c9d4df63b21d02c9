"""Calls on single workers, and what the scheduler says of itself: the seam to Dask."""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from a2fseg_cli.cluster.members import Member, members_of
from a2fseg_cli.cluster.worker import Order
from a2fseg_cli.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from distributed import Client, Future

POLL_S = 1.0  # how often the scheduler is asked who is there; a patient takes longer
# An answer, 20 kB of numbers, is fetched in milliseconds. After this it is asked whether there is still one.
_FETCH_S = 10.0
SAME = "Workers need the same package, weights and files as the client: mend or stop that worker."


def call(client: Client, address: str, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Begin a call on one worker, and on no other."""
    order = pickle.dumps(Order(function, *arguments))
    key = f"a2fseg-{secrets.token_hex(8)}"  # of its own: Dask takes calls of one key for the same
    return client.submit(pickle.loads, order, key=key, workers=[address], allow_other_workers=False)


def result_of(future: Future[Any], member: Member) -> Any:
    """Return what a worker answered; None where it ended, or its scheduler did, before the answer was fetched.

    Dask would wait without end: it begins the call anew, on a worker that is gone.

    Raises:
        UsageError: its process cannot read the question.
    """
    try:
        while True:
            with suppress(TimeoutError):
                return future.result(timeout=_FETCH_S)
            if future.status != "finished":
                return None
    except CancelledError:
        return None
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{member.words}: this a2fseg cannot be loaded there ({error}). {SAME}") from error


def members(client: Client, words: str) -> dict[str, Member]:
    """Return the workers that are there, by address. Raises: ResourceError: the scheduler is gone."""
    with naming_a_lost_scheduler(words):
        return members_of(client)


@contextmanager
def naming_a_lost_scheduler(words: str) -> Iterator[None]:
    """Make what Dask raises without its scheduler an error that says what to do. Raises: ResourceError."""
    try:
        yield
    except (OSError, TimeoutError, RuntimeError, ValueError) as error:
        raise ResourceError(
            f"{words}: no answer any more ({type(error).__name__}). What is finished is kept; with a "
            "scheduler and workers again, the same command goes on."
        ) from error


def patience_s() -> float:
    """Return how long a run waits while nobody works: Dask's configuration `a2fseg.no-workers-timeout`.

    Raises:
        UsageError: it is no time.
    """
    import dask.config
    from dask.utils import parse_timedelta

    text = dask.config.get("a2fseg.no-workers-timeout", "10 minutes")
    try:
        return float(parse_timedelta(text))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"a2fseg.no-workers-timeout in Dask's configuration is {text}: expected a time such as 90s or 2 hours."
        ) from error


def nobody(words: str, there: int) -> ResourceError:
    """Return the error that nobody works: no worker, or so many that are not ready."""
    why = f"its {there} workers end at the start, or are at their limit of memory" if there else "it has no worker"
    return ResourceError(
        f"{words}: {why}, for {patience_s():g} s now (a2fseg.no-workers-timeout in Dask's configuration). What is "
        "finished is kept; with workers, the same command goes on."
    )
