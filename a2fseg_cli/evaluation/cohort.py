"""The run over patients: each is read, computed and kept; what went wrong with one is reported, the rest goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cluster.crew import Crew
from a2fseg_cli.errors import A2FSegError, InputError, ResourceError
from a2fseg_cli.evaluation.kept_scores import KeptScores
from a2fseg_cli.evaluation.mask_source import MaskSource, ReadPatient
from a2fseg_cli.evaluation.patient_scores import PatientScores
from a2fseg_cli.evaluation.scores_of_workers import scored_by_workers
from a2fseg_cli.inference.prefetch import read_ahead


@dataclass(frozen=True)
class Failure:
    """A patient that could not be scored, and why; of several methods that are compared, by which."""

    case: str
    error: A2FSegError
    method: str = ""

    @property
    def name(self) -> str:
        """The patient, and in brackets the method."""
        return f"{self.case} ({self.method})" if self.method else self.case

    @property
    def reason(self) -> str:
        """Why, in one line."""
        return " ".join(str(self.error).split())


Report = Callable[[PatientScores | Failure, bool], None]  # the outcome, and whether it was taken over


def score_cohort(
    cases: Sequence[Case],
    source: MaskSource,
    kept: KeptScores,
    report: Report,
    overwrite: bool = False,
    crew: Crew | None = None,
) -> list[PatientScores]:
    """Return the scores of every patient that can be scored, in order; each is kept and reported as it is done.

    Where cores are to spare, the next patient is read while one is computed.

    Args:
        cases: The patients.
        source: Where the masks come from.
        kept: Where scores are kept; those of the same files and settings are taken over.
        report: Called with each outcome.
        overwrite: Score again what was scored with other settings.
        crew: Workers that share the patients.

    Raises:
        UsageError: scores of other settings are in the way.
    """
    kept.remove_abandoned()
    done = {case.name: scores for case in cases if (scores := kept.read(case))}
    to_do = [case for case in cases if case.name not in done]
    if not overwrite:
        kept.check_free(to_do)
    for scores in done.values():
        report(scores, True)
    for outcome in _outcomes(to_do, source, kept) if crew is None else _by_workers(crew, to_do, source, kept):
        if isinstance(outcome, PatientScores):
            done[outcome.case] = outcome
        report(outcome, False)
    return [done[case.name] for case in cases if case.name in done]


def _by_workers(
    crew: Crew, cases: Sequence[Case], source: MaskSource, kept: KeptScores
) -> Iterator[PatientScores | Failure]:
    for case, scored in scored_by_workers(crew, cases, source):
        yield kept.write(case, scored) if isinstance(scored, PatientScores) else Failure(case.name, scored)


def _outcomes(cases: Sequence[Case], source: MaskSource, kept: KeptScores) -> Iterator[PatientScores | Failure]:
    """Yield what becomes of each patient; scores in the order of the patients, a failure as soon as it is known."""
    coming: deque[Future[PatientScores]] = deque()
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(threads, "score") as scorers:

        def load(case: Case) -> ReadPatient | Failure:
            try:
                return source.read(case)
            except (InputError, ResourceError) as error:
                return Failure(case.name, error)

        def keep(case: Case, scores: Future[PatientScores]) -> PatientScores:
            return kept.write(case, scores.result())

        for patient in read_ahead(cases, load, reader, source.read_ahead):
            if isinstance(patient, Failure):
                yield patient
                continue
            # Kept by the same threads, behind the scores: waiting there for what was begun before cannot lock up.
            coming.append(scorers.submit(keep, patient.case, patient.score(scorers, threads)))
            while len(coming) > threads or (coming and coming[0].done()):
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
