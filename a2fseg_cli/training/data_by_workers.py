"""Training patients preprocessed into the cache by the workers of a scheduler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cluster.crew import Crew
from a2fseg_cli.cluster.job import Job, Lost, Opened, PlainError, sample_of
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import A2FSegError, ResourceError
from a2fseg_cli.files import fingerprint
from a2fseg_cli.training.data import fill_cache, is_cached


@dataclass(frozen=True)
class CachingJob(Job[Case, PlainError | None]):
    """From a patient's files to the arrays in the cache.

    Attributes:
        config: Modalities, label values and working spacing.
        cache: Folder.
    """

    config: ModelConfig
    cache: Path
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    threads: int | None = None

    @property
    def identity(self) -> Mapping[str, str]:
        """A hash of the network's configuration."""
        return {"options": fingerprint(self.config.to_json())}

    def open(self) -> Opened[Case, PlainError | None]:
        """Return the job; there is no network in it."""
        return Opened(self.identity, self._cache)

    def _cache(self, case: Case) -> PlainError | None:
        try:
            fill_cache(case, self.config, self.cache)
        except A2FSegError as error:
            return PlainError.of(error)
        return None

    def ran_out_of_memory(self, answer: PlainError | None) -> bool:
        """Whether memory, or the disk, was too small for the patient."""
        return answer is not None and answer.kind == ResourceError.__name__


def cache_by_workers(
    crew: Crew, cases: Sequence[Case], config: ModelConfig, cache: Path, progress: Callable[[str, int, int], None]
) -> None:
    """Preprocess those of the patients that are not in the cache.

    Args:
        crew: The workers.
        cases: Patients with a truth.
        config: Modalities, label values and working spacing.
        cache: Folder, made if needed.
        progress: Told (case name, number done, number of all).

    Raises:
        InputError: as `read_training_patient`, of the first patient that has something wrong.
        UsageError, ResourceError: as `Crew.answers`; a patient does not fit into memory, or the cache onto the disk.
    """
    todo = [case for case in cases if not is_cached(case, config, cache)]
    names = {case.name for case in todo}
    done = 0
    for done, case in enumerate((case for case in cases if case.name not in names), 1):
        progress(case.name, done, len(cases))
    if not todo:
        return
    reads = sample_of(case.files for case in todo)
    job = CachingJob(config, cache, reads, (cache,), crew.threads)
    for case, answer in crew.answers(job, todo):
        if isinstance(answer, Lost):
            raise ResourceError(f"{case.name}: {answer.reason}")
        if answer is not None:
            raise answer.error
        done += 1
        progress(case.name, done, len(cases))
