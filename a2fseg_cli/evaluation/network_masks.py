"""Masks that the network makes: any subsets of a patient's modalities from a single pass of the encoders."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Executor, Future, wait
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.images import read_truth
from a2fseg_cli.core.config import ModelConfig, subset_name
from a2fseg_cli.evaluation.calibration import region_reliability
from a2fseg_cli.evaluation.metrics import CALIBRATION
from a2fseg_cli.evaluation.options import ScoringOptions
from a2fseg_cli.evaluation.patient_scores import PatientScores, Row, rows_of, seconds_of
from a2fseg_cli.evaluation.scoring import Scorer
from a2fseg_cli.imaging.label_maps import LabelMap, check_on_grid
from a2fseg_cli.imaging.restoring import BoxedClasses, brain_box
from a2fseg_cli.inference.agreement import attention_inside
from a2fseg_cli.inference.cleaning import cleaned_classes
from a2fseg_cli.inference.patient import Patient, load_patient
from a2fseg_cli.inference.predictor import Prediction, Segmenter
from a2fseg_cli.inference.prefetch import work_ahead
from a2fseg_cli.inference.stats import network_origin


class NetworkMasks:
    """Masks of a network, of every subset asked for.

    Args:
        segmenter: The loaded network.
        options: What is scored.
    """

    notes = ()

    def __init__(self, segmenter: Segmenter, options: ScoringOptions) -> None:
        self.segmenter, self.options = segmenter, options

    @property
    def config(self) -> ModelConfig:
        """The network's configuration."""
        return self.segmenter.config

    @property
    def read_ahead(self) -> int:
        """One patient where cores are to spare."""
        return work_ahead(self.segmenter.compute)

    @property
    def identity(self) -> Sequence[Any]:
        """Weights, windows and precision."""
        network = self.segmenter
        return [network.weights.sha256, asdict(network.inference), network.compute.precision]

    @property
    def description(self) -> str:
        """Device, why it was taken, precision and weights."""
        compute = self.segmenter.compute
        return f"{compute.name} ({compute.reason}), {compute.precision}; {self.segmenter.weights.path.stem}"

    @property
    def origin(self) -> Mapping[str, Any]:
        """Weights, device and windows."""
        return {**network_origin(self.segmenter), "inference": vars(self.segmenter.inference)}

    def files(self, case: Case) -> Sequence[Path]:
        """Return the patient's images."""
        return case.files

    def _of_subsets(self, case: Case) -> Case:
        """Return the case with the images of the subsets that it has, so that no other file is opened."""
        present = [subset for subset in self.options.subsets or () if set(subset) <= set(case.images)]
        wanted = {m for subset in present for m in subset} or set(case.images)
        return replace(case, images={m: path for m, path in case.images.items() if m in wanted})

    def classes(self, patient: Patient, subset: Collection[str], prediction: Prediction) -> BoxedClasses:
        """Return what is scored and drawn of a patient's subset, on the file's grid: what `predict` would write."""
        return cleaned_classes(patient, subset, prediction, self.segmenter, self.options)[0]

    def read(self, case: Case) -> NetworkPatient:
        """Return a patient with truth and images read. Raises: InputError, ResourceError."""
        began = time.perf_counter()
        truth = read_truth(case, self.config, self.options.labels)
        patient = load_patient(self._of_subsets(case), self.config)
        truth = check_on_grid(truth, patient.reference, patient.geometry)
        return NetworkPatient(self, case, truth, patient, began)


@dataclass(frozen=True)
class NetworkPatient:
    """A patient ready for the network.

    Attributes:
        source: The network and what is scored.
        case: The patient.
        truth: The expert's label map.
        patient: The images, on the network's grid.
        began: When reading began, seconds of `time.perf_counter`.
        attention: Filled while it is scored: class to modality to the mean weight inside the true class.
        reliability: Filled while it is scored, if it was asked for: subset to region to its bins.
    """

    source: NetworkMasks
    case: Case
    truth: LabelMap
    patient: Patient
    began: float
    attention: dict[str, dict[str, float]] = field(default_factory=dict)
    reliability: dict[str, dict[str, Sequence[Sequence[float]]]] = field(default_factory=dict)

    @cached_property
    def true_classes(self) -> npt.NDArray[np.uint8]:
        """The truth (d, h, w) on the network's grid."""
        return self.patient.prepared.route.classes_to_network(self.truth.classes, len(self.source.config.classes))

    def score(self, pool: Executor, threads: int) -> Future[PatientScores]:
        """Run the network on all subsets and return what will be the patient's scores."""
        options, config = self.source.options, self.source.config
        files = self.patient.files
        wanted = options.subsets or (tuple(m for m in config.modalities if m in files),)
        subsets = [subset for subset in wanted if set(subset) <= set(files)]
        left_out = tuple(subset_name(subset, config.modalities) for subset in wanted if subset not in subsets)
        coming, network_s = self._segment(subsets, pool, threads)

        def finish() -> PatientScores:  # begun behind all of `coming`, so none of them waits for it
            rows = tuple(row for future in coming for row in future.result())
            notes = [*self.patient.warnings]
            if self.truth.note:
                notes.append(f"{self.truth.path}: {self.truth.note}")
            return PatientScores(
                self.case.name,
                rows,
                left_out,
                tuple(notes),
                attention=self.attention,
                reliability=self.reliability,
                seconds=seconds_of(network_s, self.began),
            )

        return pool.submit(finish)

    def _segment(
        self, subsets: Sequence[tuple[str, ...]], pool: Executor, threads: int
    ) -> tuple[list[Future[list[Row]]], float]:
        """Return the rows to come of each subset, and the seconds in the network.

        Where nothing is read ahead, as many subsets as there are threads are fused, then scored, one a thread.
        """
        segmenter, options, config = self.source.segmenter, self.source.options, self.source.config
        ahead = self.source.read_ahead
        scorer = Scorer(self.truth, config, brain_box(self.patient.prepared.route), *options.score_arguments)
        network_s, began = 0.0, time.perf_counter()
        with_attention = [options.attention and len(subset) == len(config.modalities) > 1 for subset in subsets]
        predictions = segmenter.segment_subsets(
            self.patient.prepared.images, [config.presence(subset) for subset in subsets], with_attention
        )
        coming: list[Future[list[Row]]] = []
        running: set[Future[list[Row]]] = set()
        for subset, prediction in zip(subsets, predictions, strict=True):
            network_s += time.perf_counter() - began
            coming.append(pool.submit(self._score_subset, scorer, subset, prediction))
            running.add(coming[-1])
            if len(running) >= (1 + ahead) * threads:  # each holds its probabilities
                _, running = wait(running, return_when=FIRST_COMPLETED if ahead else ALL_COMPLETED)
            began = time.perf_counter()
        return coming, network_s

    def _score_subset(self, scorer: Scorer, subset: tuple[str, ...], prediction: Prediction) -> list[Row]:
        config, options = self.source.config, self.source.options
        name = subset_name(subset, config.modalities)
        scores = scorer.score(self.source.classes(self.patient, subset, prediction))
        if prediction.attention:
            self.attention.update(attention_inside(prediction.attention, self.true_classes, config.classes))
        if CALIBRATION in options.metrics:
            bins = region_reliability(prediction.probabilities, self.true_classes, config)
            self.reliability[name] = {region: astuple(of_region) for region, of_region in bins.items()}
            for region, of_region in bins.items():
                scores[region].values["ece"] = of_region.error
        return rows_of(name, scores)
