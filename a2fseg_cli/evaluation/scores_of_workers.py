"""Patients scored by the workers of a scheduler; tables and kept scores stay with the client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cluster.crew import Crew
from a2fseg_cli.cluster.job import Job, Lost, Opened, PlainError, plain, sample_of
from a2fseg_cli.errors import A2FSegError, InputError, ResourceError
from a2fseg_cli.evaluation.existing_masks import ExistingMasks
from a2fseg_cli.evaluation.mask_source import MaskSource
from a2fseg_cli.evaluation.network_masks import NetworkMasks
from a2fseg_cli.evaluation.options import ScoringOptions
from a2fseg_cli.evaluation.patient_scores import PatientScores
from a2fseg_cli.files import fingerprint
from a2fseg_cli.inference.elsewhere import NetworkAsked, network_asked

Scored = PatientScores | PlainError


@dataclass(frozen=True)
class ScoringJob(Job[Case, Scored]):
    """From a patient's files to its scores.

    Attributes:
        masks: The network that makes them, or the files.
        options: What is scored.
    """

    masks: NetworkAsked | ExistingMasks
    options: ScoringOptions
    reads: tuple[Path, ...] = ()
    threads: int | None = None

    @property
    def identity(self) -> Mapping[str, str]:
        """The weights' sha256 and the precision, where a network makes the masks, and a hash of the options."""
        options = {"options": fingerprint(plain(asdict(self.options)))}
        if isinstance(self.masks, ExistingMasks):
            return options
        return {"sha256 of the weights": self.masks.sha256, "precision": self.masks.precision, **options}

    def open(self) -> Opened[Case, Scored]:
        """Load the network, if there is one. Raises: WeightsError, UsageError."""
        if isinstance(self.masks, ExistingMasks):
            return Opened(self.identity, partial(_scored, self.masks))
        segmenter = self.masks.load()
        own = {"sha256 of the weights": segmenter.weights.sha256, "precision": segmenter.compute.precision}
        return Opened({**self.identity, **own}, partial(_scored, NetworkMasks(segmenter, self.options)))

    def ran_out_of_memory(self, answer: Scored) -> bool:
        """Whether memory ran out."""
        return isinstance(answer, PlainError) and answer.kind == ResourceError.__name__


def _scored(source: MaskSource, case: Case) -> Scored:
    """Return a patient's scores, or why there are none."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads) as pool:
            return source.read(case).score(pool, threads).result()
    except (InputError, ResourceError) as error:
        return PlainError.of(error)


def scored_by_workers(
    crew: Crew, cases: Sequence[Case], source: MaskSource
) -> Iterator[tuple[Case, PatientScores | A2FSegError]]:
    """Yield each patient with its scores, or why there are none, as it is done.

    Args:
        crew: The workers.
        cases: The patients.
        source: Where the masks come from.

    Raises:
        UsageError, ResourceError: as `Crew.answers`.
    """
    if not cases:
        return
    assert isinstance(source, NetworkMasks | ExistingMasks)
    masks = network_asked(source.segmenter) if isinstance(source, NetworkMasks) else source
    truths = sample_of((case.truth,) for case in cases if case.truth)
    reads = (*truths, *sample_of(source.files(case) for case in cases if not case.problem))
    for case, answer in crew.answers(ScoringJob(masks, source.options, reads, crew.threads), cases):
        if isinstance(answer, Lost):
            yield case, ResourceError(f"{case.name}: {answer.reason}")
        else:
            yield case, answer.error if isinstance(answer, PlainError) else answer
