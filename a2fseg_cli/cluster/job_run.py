"""One job on its way: every worker is checked, gets one item at a time, and may end at any moment."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic

from a2fseg_cli.cluster.calls import POLL_S, SAME, call, members, nobody, patience_s, result_of
from a2fseg_cli.cluster.job import Answer, Item, Job, Lost
from a2fseg_cli.cluster.members import Member, difference
from a2fseg_cli.cluster.sight import own_hashes
from a2fseg_cli.cluster.turns import Turns
from a2fseg_cli.cluster.worker import Done, do, open_job, own_identity
from a2fseg_cli.errors import UsageError

if TYPE_CHECKING:
    from distributed import Client, Future

_OUT_OF_MEMORY = Lost("out of memory, also with nothing beside it. Give the workers more.")
_GONE = ("cancelled", "lost")  # of a future: its scheduler is gone, or was told to forget it


class JobRun(Generic[Item, Answer]):
    """One job on its way.

    Args:
        client: Connected to the scheduler.
        words: What the workers are, for messages.
        job: What is done.
        token: Text of the token in each folder that is written.
        turns: The items.
        notes: Gets what a user should know of the workers.
        left_out: Addresses of workers that are not asked; gets those of late ones that differ.
    """

    def __init__(
        self,
        client: Client,
        words: str,
        job: Job[Item, Answer],
        token: str,
        turns: Turns[Item],
        notes: list[str],
        left_out: set[str],
    ) -> None:
        self._client, self._words, self._job, self._token, self._turns = client, words, job, token, turns
        self._notes = notes
        self._name = secrets.token_hex(8)
        self._identity = own_identity() | dict(job.identity)
        self._hashes = own_hashes(job.reads)
        self._members: dict[str, Member] = {}
        self._checking: dict[str, Future[Any]] = {}  # these four by the worker's address
        self._working: dict[str, Future[Any]] = {}
        self._ready: set[str] = set()
        self._refused = left_out
        self._events: SimpleQueue[tuple[str, Future[Any]]] = SimpleQueue()
        self._looked = self._useful = time.monotonic()
        self._patience_s = patience_s()

    def answers(self) -> Iterator[tuple[Item, Answer | Lost]]:
        """Yield each item with its answer; see `Crew.answers`."""
        self._begin()
        while True:
            self._hand_out()
            if self._turns.over:
                return
            with suppress(Empty):
                address, future = self._events.get(timeout=POLL_S)
                yield from self._take(address, future)
            if time.monotonic() - self._looked >= POLL_S:
                yield from self._look()

    def stop(self) -> None:
        """Take back what is on its way. What a worker has begun it finishes; nobody hears of it."""
        with suppress(Exception):  # the scheduler may be gone
            for future in (*self._working.values(), *self._checking.values()):
                future.cancel()

    def _begin(self) -> None:
        """Check every worker that is there; nothing is handed out before all of them have answered.

        So the last of what an earlier client left running is written before anything of this run is.
        """
        until = time.monotonic() + self._patience_s
        self._members = members(self._client, self._words)
        self._check(self._members.keys() - self._refused)
        while self._checking and time.monotonic() < until:
            with suppress(Empty):
                address, future = self._events.get(timeout=POLL_S)
                self._checked(address, future, late=False)
            for address in self._checking.keys() - members(self._client, self._words).keys():
                self._checking.pop(address)  # it ended; who takes its place is checked when it comes
        self._useful = time.monotonic()

    def _check(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            future = call(self._client, address, open_job, self._name, self._job, self._token)
            self._checking[address] = self._watched(address, future)

    def _watched(self, address: str, future: Future[Any]) -> Future[Any]:
        future.add_done_callback(lambda done: self._events.put((address, done)))
        return future

    def _checked(self, address: str, future: Future[Any], late: bool) -> None:
        """Take a worker in, or refuse it. Raises: UsageError: it differs, and was there at the start."""
        if self._checking.get(address) is not future:
            return
        del self._checking[address]
        if future.status in _GONE:
            return
        member = self._members[address]
        try:
            if (report := result_of(future, member)) is None:
                return
            if reason := difference(report, self._identity, self._hashes):
                raise UsageError(f"{member.words}: {reason}. {SAME}")
        except UsageError as error:
            if not late:
                raise
            self._refused.add(address)
            self._notes.append(f"left out: {error}")
        else:
            self._ready.add(address)

    def _hand_out(self) -> None:
        """Give each free worker its item; the one with the most memory first: it has what is tried alone."""
        free = [self._members[a] for a in self._ready - self._working.keys() if self._members[a].takes_tasks]
        for member in sorted(free, key=lambda member: (-(member.memory_bytes or 2**60), member.address)):
            attempt = self._turns.next_for(member.address)
            if attempt is None:
                return
            how = self._name, attempt.item, self._job.threads, self._job.deterministic
            future = call(self._client, member.address, do, *how)
            self._working[member.address] = self._watched(member.address, future)

    def _take(self, address: str, future: Future[Any]) -> Iterator[tuple[Item, Answer | Lost]]:
        """Take what a worker has done, or has said of itself."""
        self._checked(address, future, late=True)
        if self._working.get(address) is not future:
            return
        gone = future.status in _GONE or _killed(future)
        done: Done | None = None if gone else result_of(future, self._members[address])
        if done is None:
            yield from self._look()
            if self._working.get(address) is future:
                yield from self._ended(address)
            return
        if not done.known:  # another process under the same address
            yield from self._ended(address)
            return
        del self._working[address]
        if done.bug:
            raise RuntimeError(f"{self._members[address].words}: {done.bug}")
        if done.error is not None:
            raise done.error.error
        attempt = self._turns.done(address)
        starved = done.out_of_memory or self._job.ran_out_of_memory(done.answer)
        if not (starved and self._turns.again_alone(attempt)):
            yield attempt.item, _OUT_OF_MEMORY if done.out_of_memory else done.answer

    def _ended(self, address: str) -> Iterator[tuple[Item, Lost]]:
        """Note that a worker ended; if there is one of its address, it has to be checked again."""
        self._ready.discard(address)
        self._working.pop(address).cancel()
        if last := self._turns.ended(address):
            yield last

    def _look(self) -> Iterator[tuple[Item, Lost]]:
        """See who is there: take items back from those that ended, and check those that came."""
        there = members(self._client, self._words)
        self._looked = time.monotonic()
        for address in self._working.keys() - there.keys():
            yield from self._ended(address)
        for address, member in there.items():
            if address in self._working and not member.takes_tasks:  # it waits for memory that may never come
                self._working.pop(address).cancel()
                self._turns.give_back(address)
        for address in self._checking.keys() - there.keys():
            self._checking.pop(address).cancel()
        self._ready &= there.keys()
        self._refused.intersection_update(there)
        self._members = there
        self._check(there.keys() - self._ready - self._refused - self._checking.keys())
        if self._working or any(there[address].takes_tasks for address in self._ready):
            self._useful = self._looked
        elif self._looked - self._useful > self._patience_s:
            raise nobody(self._words, len(there))


def _killed(future: Future[Any]) -> bool:
    """Return whether Dask has given a call up because workers ended."""
    return bool(future.status == "error" and type(future.exception()).__name__ == "KilledWorker")
