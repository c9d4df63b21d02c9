"""Who the workers are: what the scheduler says of each, and whether one is what the client needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2fseg_cli.cluster.sight import is_answered
from a2fseg_cli.cluster.worker import Report

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class Member:
    """A worker as the scheduler knows it.

    Attributes:
        address: Of its process; one that was started again has another.
        name: As its administrator called it.
        memory_bytes: That it may take; 0 without a limit.
        takes_tasks: Whether it begins what it is given, or is at something: one that is out of memory does not.
    """

    address: str
    name: str
    memory_bytes: int
    takes_tasks: bool

    @property
    def words(self) -> str:
        """Name and address."""
        return f"worker {self.name}" + (f" ({self.address})" if self.address not in self.name else "")


def members_of(client: Client) -> dict[str, Member]:
    """Return the workers of a scheduler by address. Raises: OSError: it does not answer."""
    told: Mapping[str, Any] = client.scheduler_info(n_workers=-1)
    if client.status != "running" or "workers" not in told:  # without its scheduler, a client tells what it knew
        raise OSError("the connection to the scheduler is lost")
    return {address: _member(address, one) for address, one in told["workers"].items()}


def _member(address: str, told: Mapping[str, Any]) -> Member:
    counts = told.get("metrics", {}).get("task_counts", {})
    busy = bool(counts.get("executing"))
    return Member(address, str(told["name"]), int(told["memory_limit"] or 0), busy or told["status"] == "running")


def difference(report: Report, identity: Mapping[str, str], hashes: Mapping[str, str]) -> str:
    """Return in what a worker is not the client's, in a few words; empty where it is.

    Args:
        report: What the worker says of itself.
        identity: The client's.
        hashes: Of the inputs, as the client reads them.
    """
    for name, ours in identity.items():
        if name not in report.identity:
            break  # the job could not be opened there, which its error says
        if (theirs := report.identity[name]) != ours:
            return f"{name} is {theirs} there and {ours} here"
    if report.error is not None:
        return report.error.message
    for path, ours in hashes.items():
        theirs = report.hashes[path]
        if theirs != ours:
            return f"{path} is another file there" if len(theirs) == 64 else f"{path} cannot be read there ({theirs})"
    for folder, (name, reason) in report.tokens.items():
        if reason:
            return reason
        if not is_answered(Path(folder), name):
            return f"{folder} is another folder there: what it writes does not appear here"
    return ""
