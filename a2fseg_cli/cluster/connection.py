"""The scheduler a user named: by its address, by its file, or N processes of this machine."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2fseg_cli.cluster.crew import Crew
from a2fseg_cli.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from distributed import Client
    from distributed.security import Security

_LOCAL = re.compile(r"local:(\d+)")
_ADDRESS = re.compile(r"([a-z]+://.+|[^/\\:]+:\d+)")
_MOST_LOCAL = 1024
_EXPECTED = "expected the address of a Dask scheduler such as tcp://node:8786, its scheduler file, or local:N"


@contextmanager
def connected(scheduler: str, threads: int | None = None) -> Iterator[Crew]:
    """Yield the workers of a scheduler; those that were started here end with the block.

    Certificates for TLS, and time limits, are those of Dask's own configuration.

    Args:
        scheduler: Address, scheduler file, or `local:N` for N processes of this machine, which share its threads.
        threads: Of one patient; None takes those that each worker was started with.

    Raises:
        UsageError: none of these, or the package distributed is not installed.
        ResourceError: nothing answers there.
    """
    _check_installed()
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        if local := _LOCAL.fullmatch(scheduler):
            client, words = _local(stack, int(local[1]), threads)
        else:
            address = _address(scheduler)
            client, words = _client(stack, address), f"the scheduler {address}"
        yield Crew(client, words, threads, stack.close)


def _check_installed() -> None:
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"scheduler: the package distributed is not installed ({error}). Install it: pip install 'a2fseg[cluster]'"
        ) from error


def _address(scheduler: str) -> str:
    """Return the address, read from the scheduler's file where a file was named. Raises: UsageError."""
    path = Path(scheduler)
    if not path.is_file():
        if scheduler.startswith("local") or not _ADDRESS.fullmatch(scheduler):
            gone = "" if scheduler.startswith("local") else " (a scheduler removes its file when it ends)"
            raise UsageError(f"scheduler {scheduler}: no such file{gone}; {_EXPECTED}.")
        return scheduler if "://" in scheduler else f"tcp://{scheduler}"
    try:
        address = json.loads(path.read_text("utf-8"))["address"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"scheduler {scheduler}: not a file that a Dask scheduler wrote; {_EXPECTED}.") from error
    return str(address)


def _client(stack: ExitStack, address: str, **how: Any) -> Client:
    """Return a client of the scheduler. Raises: UsageError, ResourceError."""
    from distributed import Client

    try:
        kind = _kind_of(address, how.get("security"))
        if kind in ("Worker", "Nanny"):
            raise ValueError(f"a Dask {kind.lower()} answers there, not a scheduler")
        client: Client = stack.enter_context(Client(address, set_as_default=False, direct_to_workers=False, **how))
    except (OSError, TimeoutError) as error:
        reason = " ".join(str(error).split()) or "no answer in time"
        raise ResourceError(
            f"scheduler {address}: nothing answers there as a Dask scheduler does ({reason}). Is it running, can this "
            "machine reach it, and does Dask's configuration here have its certificates?"
        ) from error
    except (ValueError, TypeError, RuntimeError) as error:  # no such protocol, or none without certificates
        raise UsageError(f"scheduler {address}: {' '.join(str(error).split())}; {_EXPECTED}.") from error
    return client


def _kind_of(address: str, security: Security | None) -> str:
    """Return what answers at an address: `Scheduler`, `Worker`. Raises: OSError, TimeoutError, ValueError.

    Dask's own client waits without end for one that accepts a connection and then says nothing.
    """
    import dask.config
    from dask.utils import parse_timedelta
    from distributed import rpc
    from distributed.security import Security

    timeout_s = parse_timedelta(dask.config.get("distributed.comm.timeouts.connect"))
    how = (security or Security()).get_connection_args("client")

    async def asked() -> str:
        peer = rpc(address, timeout=timeout_s, connection_args=how)
        try:
            return str((await asyncio.wait_for(peer.identity(), timeout_s))["type"])
        finally:
            peer.close_comms()

    with ThreadPoolExecutor(1) as pool:  # a notebook has a loop of its own in this thread
        return pool.submit(asyncio.run, asked()).result()


def _local(stack: ExitStack, count: int, threads: int | None) -> tuple[Client, str]:
    """Return the client of N processes that are started here, and in words what they are.

    Whoever reaches a scheduler can run code as its user, and on this machine that is everyone who has an account.
    A certificate that is made for this run, and is never on a disk, keeps the others out.
    """
    if not 1 <= count <= _MOST_LOCAL:
        raise UsageError(f"scheduler local:{count}: expected local:1 to local:{_MOST_LOCAL}.")
    import dask.config
    from dask.system import CPU_COUNT
    from distributed import LocalCluster
    from distributed.security import Security

    try:
        security = Security.temporary()
    except ImportError as error:
        raise UsageError(
            "scheduler local: the package cryptography is not installed. Install it: pip install 'a2fseg[cluster]'"
        ) from error
    threads = threads or max(1, CPU_COUNT // count)
    # Its pages of information ask for no certificate: they get no content, and a port that no other program wants.
    stack.enter_context(dask.config.set({f"distributed.{who}.http.routes": [] for who in ("scheduler", "worker")}))
    with _ctrl_c_for_this_process():
        cluster = LocalCluster(
            n_workers=count,
            threads_per_worker=threads,
            memory_limit=0,  # the machine's: a share of it would end a patient that has the machine for itself
            host="127.0.0.1",
            protocol="tls",
            security=security,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )
    stack.enter_context(cluster)
    words = f"{count} process{'es' * (count != 1)} of this machine with {threads} thread{'s' * (threads != 1)} each"
    return _client(stack, cluster.scheduler_address, security=security), words


@contextmanager
def _ctrl_c_for_this_process() -> Iterator[None]:
    """Keep Ctrl-C from what is started in the block, now or by its threads later; here it counts after the block.

    A terminal sends it to every process. Workers would end with a traceback each, and it is the client that ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # started in the block, it would let the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask's log off the screen: what happens to workers is told by the run, in its own words."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "distributed.scheduler")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
