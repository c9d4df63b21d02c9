"""The workers of a scheduler: asked, and given the items of a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from a2fseg_cli.cluster.calls import POLL_S, SAME, call, members, nobody, patience_s, result_of
from a2fseg_cli.cluster.job import Answer, Item, Job, Lost, PlainError
from a2fseg_cli.cluster.job_run import JobRun
from a2fseg_cli.cluster.members import difference
from a2fseg_cli.cluster.sight import make_folders, tokens
from a2fseg_cli.cluster.turns import Turns
from a2fseg_cli.cluster.worker import Report, ask, own_identity
from a2fseg_cli.errors import UsageError

if TYPE_CHECKING:
    from distributed import Client


class Crew:
    """The workers of a scheduler.

    Args:
        client: Connected to it.
        words: What they are, for messages.
        threads: Of one item; None takes those that each worker was started with.
        end: Ends the connection, and workers that were started for it, before their time.
    """

    def __init__(
        self, client: Client, words: str, threads: int | None = None, end: Callable[[], None] = lambda: None
    ) -> None:
        self.client, self.words, self.threads, self.end = client, words, threads, end
        self.notes: list[str] = []  # what a user should know of the workers
        self._left_out: set[str] = set()  # addresses of those that came late and differ; no job asks them again

    def ask(self, question: Callable[[], Answer]) -> dict[str, Answer]:
        """Return what each worker answers that is there now, by what it is called; at least one is waited for.

        Raises:
            UsageError: one cannot answer, or has another version.
            ResourceError: no worker comes, or the scheduler is gone.
        """
        until = time.monotonic() + patience_s()
        while True:
            for words, theirs in self._answers_to(own_identity, until).items():
                if reason := difference(Report(theirs), own_identity(), {}):
                    raise UsageError(f"{words}: {reason}. {SAME}")
            if answers := self._answers_to(question, until):
                return answers
            if time.monotonic() > until:
                raise nobody(self.words, len(members(self.client, self.words)))
            time.sleep(POLL_S / 4)

    def _answers_to(self, question: Callable[[], Answer], until: float) -> dict[str, Answer]:
        """Return the answers of all that are there and stay."""
        there = members(self.client, self.words)
        asked = {address: member for address, member in there.items() if address not in self._left_out}
        futures = {address: call(self.client, address, ask, question) for address in asked}
        answers: dict[str, Answer] = {}
        while futures and time.monotonic() <= until:
            for address in [address for address, future in futures.items() if future.done()]:
                future, member = futures.pop(address), asked[address]
                if future.status in ("cancelled", "lost"):
                    continue
                if (answer := result_of(future, member)) is None:
                    continue
                if isinstance(answer, PlainError):
                    raise UsageError(f"{member.words}: {answer.message}")
                answers[member.words] = answer
            gone = futures.keys() - members(self.client, self.words).keys()
            futures = {address: future for address, future in futures.items() if address not in gone}
            time.sleep(0.02)
        return answers

    def answers(
        self, job: Job[Item, Answer], items: Iterable[Item], began: Callable[[Item], None] = lambda _: None
    ) -> Iterator[tuple[Item, Answer | Lost]]:
        """Yield each item with its answer as it is done, or that every worker that had it ended.

        Only as many items as there are workers are on their way at a time.

        Args:
            job: What is done with each.
            items: In order.
            began: Told each before it goes to a worker.

        Raises:
            UsageError: a worker that is there at the start differs from the client. One that comes later is left out.
            ResourceError: no worker is left, or the scheduler is gone.
            A2FSegError: what the job raised.
        """
        make_folders(job.writes)
        with tokens(job.writes) as token:
            run = JobRun(self.client, self.words, job, token, Turns(items, began), self.notes, self._left_out)
            try:
                yield from run.answers()
            finally:
                run.stop()
