"""What runs in a worker's process: the check at the start, and one item at a time with all its threads.

Nothing here is called by the client itself. It sends an `Order`, which Dask carries as bytes: the scheduler, which
reads every task, so needs nothing of this package.
"""

from __future__ import annotations

import ctypes
import platform
import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from a2fseg_cli.cluster.job import Job, PlainError
from a2fseg_cli.cluster.sight import answer_token, hashes_of
from a2fseg_cli.errors import A2FSegError, is_out_of_memory
from a2fseg_cli.versions import versions

# Each item takes all threads of its process: a second one, which Dask would begin where a worker has two, waits.
_one_at_a_time = threading.Lock()
_opened: OrderedDict[str, Callable[[Any], Any]] = OrderedDict()
_MOST_OPENED = 4  # runs of several clients that share the workers; each may hold a network


class Order:
    """A call that is made where it is unpickled. Args: a function of a module, and its arguments."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Return what a pickle of this says: call that."""
        return self._call


@dataclass(frozen=True)
class Report:
    """What a worker says of itself.

    Attributes:
        identity: The versions here, and the identity of the job as it was opened here.
        threads: That an item gets.
        hashes: Of each input its sha256, or why it cannot be read.
        tokens: Of each output folder the name of the answer, and why there is none.
        error: Why the job cannot be done here.
    """

    identity: Mapping[str, str] = field(default_factory=dict)
    threads: int = 0
    hashes: Mapping[str, str] = field(default_factory=dict)
    tokens: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    error: PlainError | None = None


@dataclass(frozen=True)
class Done:
    """What became of an item on a worker: an answer, or one of what ends the run.

    Attributes:
        answer: Of the job.
        known: False where this process was not checked for the run: it was started in the place of another.
        out_of_memory: Whether memory ran out where nothing of the job expects it, as in the writing of large maps.
        error: What was raised, a user can mend.
        bug: The traceback of any other exception.
    """

    answer: Any = None
    known: bool = True
    out_of_memory: bool = False
    error: PlainError | None = None
    bug: str = ""


def own_identity() -> dict[str, str]:
    """Return the versions that have to be the same everywhere; of torch without its build, such as `+cpu`."""
    known = versions()
    python = ".".join(platform.python_version_tuple()[:2])
    return {"a2fseg": known["a2fseg"], "torch": known["torch"].split("+")[0], "Python": python}


def ask(question: Callable[[], Any]) -> Any:
    """Return the answer to a question, or the error as plain data."""
    with _one_at_a_time:
        _take_threads(None, False)
        try:
            return question()
        except A2FSegError as error:
            return PlainError.of(error)


def open_job(run: str, job: Job[Any, Any], token: str) -> Report:
    """Make a job ready in this process, and say whether it is the client's in all that counts.

    Args:
        run: The run's name; only a process that was asked this works for it.
        job: What is to be done.
        token: Text of the client's token in each folder that is written.
    """
    with _one_at_a_time:  # also behind what a client that is gone has left running: it must not write over ours
        _prepare_process()
        threads = _take_threads(job.threads, job.deterministic)
        try:
            opened = job.open()
        except A2FSegError as error:
            return Report(own_identity(), threads, error=PlainError.of(error))
        while len(_opened) >= _MOST_OPENED:
            _opened.popitem(last=False)
        _opened[run] = opened.work
        answers = {str(folder): answer_token(folder, token) for folder in job.writes}
        return Report(own_identity() | dict(opened.identity), threads, hashes_of(job.reads), answers)


def do(run: str, item: Any, threads: int | None, deterministic: bool) -> Done:
    """Do an item of a run that was opened in this process."""
    with _one_at_a_time:
        work = _opened.get(run)
        if work is None:
            return Done(known=False)
        _take_threads(threads, deterministic)  # torch keeps them by thread, and Dask may take another each time
        try:
            return Done(work(item))
        except A2FSegError as error:
            return Done(error=PlainError.of(error))
        except Exception as error:
            return Done(out_of_memory=True) if is_out_of_memory(error) else Done(bug=traceback.format_exc())
        finally:
            _give_pages_back()


def _prepare_process() -> None:
    from a2fseg_cli.core.memory import keep_pages

    keep_pages()


def _take_threads(threads: int | None, deterministic: bool) -> int:
    """Give torch and SimpleITK the threads of an item, by default the worker's own; return how many."""
    import SimpleITK as sitk
    import torch
    from distributed import get_worker

    threads = threads or int(get_worker().state.nthreads)
    torch.set_num_threads(threads)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    torch.use_deterministic_algorithms(deterministic)
    return threads


def _give_pages_back() -> None:
    """Give freed pages back to the system between items, where Dask watches how much the process has.

    It stops to hand out tasks above 80 % of the worker's memory and does not know that these pages are free.
    """
    from distributed import get_worker

    if not get_worker().memory_manager.memory_limit or not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
