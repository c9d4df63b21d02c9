"""A cohort whose patients are segmented by the workers of a scheduler: tables and messages stay with the client."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.images import ReadingOptions
from a2fseg_cli.cluster.job import Job, Lost, Opened, PlainError, plain, sample_of
from a2fseg_cli.errors import A2FSegError, ResourceError
from a2fseg_cli.files import fingerprint
from a2fseg_cli.inference.cohort import Cohort, Report, _Work
from a2fseg_cli.inference.elsewhere import Elsewhere, NetworkAsked, network_asked
from a2fseg_cli.inference.exports import PatientResult, finish_patient
from a2fseg_cli.inference.options import OutputOptions
from a2fseg_cli.inference.patient import load_patient, segment_patient
from a2fseg_cli.inference.places import Places
from a2fseg_cli.inference.predictor import Segmenter
from a2fseg_cli.inference.segmentation_file import check_segmentation_file
from a2fseg_cli.inference.status import RUNNING


@dataclass(frozen=True)
class Segmented:
    """What became of a patient on a worker.

    Attributes:
        seconds: From reading to the last file.
        result: The numbers; None where there is none.
        error: Why there is none.
    """

    seconds: float
    result: PatientResult | None = None
    error: PlainError | None = None


@dataclass(frozen=True)
class Segmentation(Job[Case, Segmented]):
    """From a patient's files to those of the result.

    Attributes:
        network: What segments.
        reading: What is made of images that do not fit together.
        options: What is written.
        places: Where to.
        with_stats: Whether results have their `stats`.
        keep_prepared: Folder for what raw images became.
        settings: What the results depend on, for the stats.
    """

    network: NetworkAsked
    reading: ReadingOptions
    options: OutputOptions
    places: Places
    with_stats: bool
    keep_prepared: Path | None
    settings: Mapping[str, Any]
    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    threads: int | None = None
    deterministic: bool = False

    @property
    def identity(self) -> Mapping[str, str]:
        """The weights' sha256, the precision, and a hash of the options."""
        how = (plain(self.settings), plain(asdict(self.network.windows)), plain(asdict(self.options)))
        options = fingerprint(*how, plain(vars(self.reading)), self.with_stats, self.deterministic)
        return {"sha256 of the weights": self.network.sha256, "precision": self.network.precision, "options": options}

    def open(self) -> Opened[Case, Segmented]:
        """Load the network. Raises: WeightsError, UsageError."""
        segmenter = self.network.load()
        own = {"sha256 of the weights": segmenter.weights.sha256, "precision": segmenter.compute.precision}
        return Opened({**self.identity, **own}, partial(segmented, self, segmenter))

    def ran_out_of_memory(self, answer: Segmented) -> bool:
        """Whether memory ran out: the one resource whose want is a patient's own failure."""
        return answer.error is not None and answer.error.kind == ResourceError.__name__


def segmented(job: Segmentation, segmenter: Segmenter, case: Case) -> Segmented:
    """Return what became of a patient, its files written. Raises: ResourceError: they cannot be written."""
    began = time.perf_counter()
    places, files = job.places, job.places.files_of(case)
    try:
        pictures = bool(places.preview or places.report or places.viewer)
        keep = job.keep_prepared / case.name if job.keep_prepared else None
        patient = load_patient(case, segmenter.config, job.reading, pictures, keep)
        check_segmentation_file(patient, files)
        attention = job.options.attention or places.report is not None
        predicted = segment_patient(patient, segmenter, attention, job.options.agreement)
    except A2FSegError as error:
        return Segmented(time.perf_counter() - began, error=PlainError.of(error))
    result = finish_patient(patient, predicted, segmenter, job.options, files, job.with_stats, job.settings)
    return Segmented(time.perf_counter() - began, result)


class CohortOfWorkers(Cohort):
    """Segments patients on the workers that the network's `compute` names; see `Cohort`."""

    def _segment(self, cases: Sequence[Case], prints: Mapping[str, str], done: Report) -> None:
        if not cases:
            return
        compute = self.segmenter.compute
        assert isinstance(compute, Elsewhere)

        def began(case: Case) -> None:  # before a worker can write: after a kill the files are known as this run's
            self._note(_Work(case, prints[case.name], 0.0).status(RUNNING))

        for case, answer in compute.crew.answers(self._job(cases, compute), cases, began):
            seconds = answer.seconds if isinstance(answer, Segmented) else 0.0
            work = _Work(case, prints[case.name], time.perf_counter() - seconds)
            if isinstance(answer, Lost):
                self._fail(work, ResourceError(f"{case.name}: {answer.reason}"), done)
            elif answer.result is not None:
                self._finished(work, answer.result, done)
            elif answer.error is not None:
                self._fail(work, answer.error.error, done)

    def _job(self, cases: Sequence[Case], compute: Elsewhere) -> Segmentation:
        places = self.places
        folders = {places.segmentation(case).parent for case in cases} if places.single else {places.output}
        folders |= {path.parent if places.single else path for path in _pages(places)}
        folders |= {self.keep_prepared} if self.keep_prepared else set()
        mask = (Path(self.reading.brain_mask),) if self.reading.brain_mask else ()
        return Segmentation(
            network_asked(self.segmenter),
            self.reading,
            self.options,
            places,
            self.with_stats,
            self.keep_prepared,
            self.settings,
            reads=(*sample_of(case.files for case in cases if not case.problem), *mask),
            writes=tuple(sorted(folders)),
            threads=compute.crew.threads,
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )


def _pages(places: Places) -> list[Path]:
    return [path for path in (places.preview, places.report, places.viewer) if path is not None]
