"""Raw images prepared by the workers of a scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.images import ReadingOptions
from a2fseg_cli.cluster.crew import Crew
from a2fseg_cli.cluster.job import Job, Lost, Opened, PlainError, plain, sample_of
from a2fseg_cli.errors import A2FSegError, ResourceError
from a2fseg_cli.files import fingerprint
from a2fseg_cli.inference.preparation import Preparation, prepared_into
from a2fseg_cli.inference.status import FAILED, Status
from a2fseg_cli.raw.outputs import remove_prepared

Task = tuple[Case, str]  # a patient, and the fingerprint of what its result depends on
Answered = tuple[Preparation, PlainError | None]  # the error apart, as plain data


@dataclass(frozen=True)
class PreparingJob(Job[Task, Answered]):
    """From a patient's raw images to its folder.

    Attributes:
        folder: Gets a folder for each patient.
        options: How.
    """

    folder: Path
    options: ReadingOptions
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    threads: int | None = None

    @property
    def identity(self) -> Mapping[str, str]:
        """A hash of the options."""
        return {"options": fingerprint(plain(vars(self.options)))}

    def open(self) -> Opened[Task, Answered]:
        """Return the job; there is no network in it."""
        return Opened(self.identity, self._prepare)

    def _prepare(self, task: Task) -> Answered:
        case, settings = task
        result = prepared_into(self.folder / case.name, case, self.options, torch.get_num_threads(), settings)
        return replace(result, error=None), PlainError.of(result.error) if result.error else None

    def ran_out_of_memory(self, answer: Answered) -> bool:
        """Whether memory, or the disk, was too small for the patient."""
        return answer[1] is not None and answer[1].kind == ResourceError.__name__


def prepared_by_workers(
    crew: Crew, tasks: Sequence[Task], folder: Path, options: ReadingOptions, began: Callable[[Case], None]
) -> Iterator[Preparation]:
    """Yield what became of each patient as it is done.

    Args:
        crew: The workers.
        tasks: Patients, each with the fingerprint of what its result depends on.
        folder: Gets a folder for each patient.
        options: How.
        began: Told each patient before it goes to a worker.

    Raises:
        UsageError, ResourceError: as `Crew.answers`.
    """
    if not tasks:
        return
    mask = (Path(options.brain_mask),) if options.brain_mask else ()
    reads = (*sample_of(case.files for case, _ in tasks if not case.problem), *mask)
    job = PreparingJob(folder, options, reads, (folder,), crew.threads)
    for (case, settings), answer in crew.answers(job, tasks, lambda task: began(task[0])):
        if isinstance(answer, Lost):
            with suppress(A2FSegError):  # it may be half of a patient
                remove_prepared(folder / case.name, case.name)
            row = Status(case.name, "+".join(case.images), FAILED, answer.reason, settings=settings)
            yield Preparation(row, error=ResourceError(f"{case.name}: {answer.reason}"))
            continue
        result, error = answer
        yield replace(result, error=error.error if error else None)
