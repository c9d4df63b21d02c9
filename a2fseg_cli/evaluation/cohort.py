"""Score patients: any subsets of one from a single pass of the encoders, or label maps that exist."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from a2fseg_cli import __version__
from a2fseg_cli.cases.discovery import Case
from a2fseg_cli.core.config import ModelConfig, subset_name
from a2fseg_cli.errors import InputError, ResourceError, UsageError
from a2fseg_cli.evaluation.metrics import (
    DEFAULT_METRICS,
    DEFAULT_POLICY,
    METRICS,
    NSD_TOLERANCE_MM,
    Scores,
    metric_definition,
)
from a2fseg_cli.evaluation.patient_scores import PREDICTIONS, PatientScores, Row
from a2fseg_cli.evaluation.scoring import Scorer
from a2fseg_cli.files import file_state, fingerprint, remove_abandoned
from a2fseg_cli.imaging.label_maps import LabelMap, check_on_grid, read_classes
from a2fseg_cli.imaging.restoring import Box, ClassMap, boxed, brain_box, classes_to_file
from a2fseg_cli.inference.agreement import attention_inside
from a2fseg_cli.inference.patient import OutputOptions, Patient, load_patient
from a2fseg_cli.inference.predictor import Prediction, Segmenter
from a2fseg_cli.inference.prefetch import read_ahead, work_ahead

# Order in which Figure 2 of the paper adds the modalities.
PROGRESSION = ("flair", "t1c", "t1", "t2")


@dataclass(frozen=True)
class ScoringOptions:
    """What to score, and how. All of it changes the scores.

    Attributes:
        subsets: Of modalities, in the order of the table; None takes all that a patient has.
        metrics: Keys of METRICS.
        policy: Key of POLICIES.
        labels: Scheme of the truth: auto, or a key of SCHEMES.
        prediction_labels: Scheme of predictions that exist.
        attention: Also note the mean attention weights of the full set inside the true classes.
        nsd_tolerance_mm: Distance up to which surfaces agree, for `nsd`.
    """

    subsets: tuple[tuple[str, ...], ...] | None = None
    metrics: tuple[str, ...] = DEFAULT_METRICS
    policy: str = DEFAULT_POLICY
    labels: str = "auto"
    prediction_labels: str = "auto"
    attention: bool = False
    nsd_tolerance_mm: float = NSD_TOLERANCE_MM

    def __post_init__(self) -> None:
        """Refuse what cannot be scored. Raises: UsageError."""
        unknown = [metric for metric in self.metrics if metric not in METRICS]
        if unknown or not self.metrics:
            raise UsageError(f"--metrics {','.join(unknown)}: expected some of {', '.join(METRICS)}.")
        metric_definition(self.policy)
        if not 0 <= self.nsd_tolerance_mm < math.inf:
            raise UsageError(f"--nsd-tolerance {self.nsd_tolerance_mm:g}: expected 0 mm or more.")


@dataclass(frozen=True)
class Failure:
    """A patient that could not be scored, and why in one line."""

    case: str
    reason: str


@dataclass(frozen=True)
class _Loaded:
    case: Case
    truth: LabelMap
    patient: Patient | None
    prediction: LabelMap | None
    began: float


Report = Callable[[PatientScores | Failure, bool], None]  # the outcome, and whether it was taken over


class Evaluation:
    """Scores of a cohort, patient by patient.

    Args:
        task: What to score.
        config: Classes and regions.
        segmenter: The loaded network; None to score files.
        predictions: Files of each case, as `find_predictions` gives them; only without a segmenter.
        folder: Where one file a patient is kept; None keeps nothing.
        overwrite: Score again what was scored with other settings; refused by default.
    """

    def __init__(
        self,
        task: ScoringOptions,
        config: ModelConfig,
        segmenter: Segmenter | None = None,
        predictions: Mapping[str, Sequence[Path]] | None = None,
        folder: Path | None = None,
        overwrite: bool = False,
    ) -> None:
        if (segmenter is None) == (predictions is None):
            raise ValueError("expected either a segmenter or predictions")
        self.task, self.config, self.segmenter, self.predictions = task, config, segmenter, predictions or {}
        self.folder, self.overwrite = folder, overwrite

    @property
    def _how(self) -> tuple[tuple[str, ...], str, float]:
        return self.task.metrics, self.task.policy, self.task.nsd_tolerance_mm

    def path(self, case: Case) -> Path | None:
        """Return where a patient's scores are kept."""
        return self.folder / "patients" / f"{case.name}.json" if self.folder else None

    def finished(self, case: Case) -> PatientScores | None:
        """Return the scores of a patient that were kept, if they are of the same files, weights and settings."""
        path = self.path(case)
        known = PatientScores.read(path) if path else None
        return known if known and known.fingerprint == self._fingerprint(case) else None

    def run(self, cases: Sequence[Case], report: Report) -> list[PatientScores]:
        """Score every patient that is not finished; report each as it is done and return all scores, in order.

        Where cores are to spare, the next patient is read while the network works on one.

        Raises:
            UsageError: scores of other settings are in the way.
        """
        if self.folder:
            remove_abandoned(self.folder / "patients")
        kept = {case.name: self.finished(case) for case in cases}
        todo = [case for case in cases if kept[case.name] is None]
        if not self.overwrite:
            in_the_way = [path for case in todo if (path := self.path(case)) and path.exists()]
            if in_the_way:
                raise UsageError(
                    f"{in_the_way[0]} exists ({len(in_the_way)} such files), made from other files, weights or "
                    "settings. Give --overwrite or another -o."
                )
        done = {name: scores for name, scores in kept.items() if scores is not None}
        for scores in done.values():
            report(scores, True)
        coming: deque[Future[PatientScores]] = deque()
        ahead = work_ahead(self.segmenter.compute) if self.segmenter else 1
        threads = torch.get_num_threads()

        def collect(most: int) -> None:
            while coming and (len(coming) > most or coming[0].done()):
                result = coming.popleft().result()
                done[result.case] = result
                report(result, False)

        with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(threads, "score") as scorers:
            for loaded in self._loaded(todo, reader, ahead):
                if isinstance(loaded, Failure):
                    report(loaded, False)
                    continue
                coming.append(self._begin(loaded, scorers, threads, ahead))
                collect(threads)
            collect(0)
        return [done[case.name] for case in cases if case.name in done]

    def _loaded(self, cases: Sequence[Case], reader: ThreadPoolExecutor, ahead: int) -> Iterator[_Loaded | Failure]:
        """Yield each patient read, or why it cannot be."""

        def load(case: Case) -> _Loaded | Failure:
            try:
                return self._load(case)
            except (InputError, ResourceError) as error:
                return Failure(case.name, " ".join(str(error).split()))

        return read_ahead(cases, load, reader, ahead)

    def _load(self, case: Case) -> _Loaded:
        began = time.perf_counter()
        if case.problem:
            raise InputError(case.problem)
        if case.truth is None:
            raise InputError(f"{case.name}: no truth beside the images (a file that ends in seg, e.g. _seg.nii.gz).")
        truth = read_classes(case.truth, self.config, self.task.labels)
        if self.segmenter is not None:
            patient = load_patient(case.name, case.images, self.config, OutputOptions())
            truth = check_on_grid(truth, patient.reference, patient.geometry)
            return _Loaded(case, truth, patient, None, began)
        prediction = None
        if files := self.predictions.get(case.name):
            if len(files) > 1:
                names = ", ".join(path.name for path in files)
                raise InputError(f"{files[0].parent}: {len(files)} candidates for {case.name}: {names}. Keep one.")
            prediction = read_classes(files[0], self.config, self.task.prediction_labels, "prediction_labels")
            prediction = check_on_grid(prediction, truth.path, truth.geometry)
        return _Loaded(case, truth, None, prediction, began)

    def _begin(self, loaded: _Loaded, scorers: ThreadPoolExecutor, threads: int, ahead: int) -> Future[PatientScores]:
        """Run the network on a patient and return what will be its scores.

        Without working ahead, as many subsets as there are threads are fused, then scored, one a thread.
        """
        if loaded.patient is None:
            return scorers.submit(self._score_file, loaded)
        segmenter, patient = self.segmenter, loaded.patient
        assert segmenter is not None
        wanted = self.task.subsets or (tuple(m for m in self.config.modalities if m in patient.files),)
        names = [subset for subset in wanted if set(subset) <= set(patient.files)]
        left_out = tuple(subset_name(s, self.config.modalities) for s in wanted if s not in names)
        truth, route = loaded.truth, patient.prepared.route
        scorer = Scorer(truth, self.config, brain_box(route), *self._how)
        attention: dict[str, dict[str, float]] = {}

        def score(subset: tuple[str, ...], segmentation: Prediction) -> list[Row]:
            scores = scorer.score(classes_to_file(route, segmentation.probabilities))
            if segmentation.attention:
                true = route.classes_to_network(truth.classes, len(self.config.classes))
                attention.update(attention_inside(segmentation.attention, true, self.config.classes))
            return _rows(subset_name(subset, self.config.modalities), scores)

        network, began = 0.0, time.perf_counter()
        with_attention = [self.task.attention and len(subset) == len(self.config.modalities) > 1 for subset in names]
        results = segmenter.segment_subsets(
            patient.prepared.images, [self.config.presence(subset) for subset in names], with_attention
        )
        scores: list[Future[list[Row]]] = []
        running: set[Future[list[Row]]] = set()
        for subset, segmentation in zip(names, results, strict=True):
            network += time.perf_counter() - began
            scores.append(scorers.submit(score, subset, segmentation))
            running.add(scores[-1])
            if len(running) >= (1 + ahead) * threads:  # each holds its probabilities
                _, running = wait(running, return_when=FIRST_COMPLETED if ahead else ALL_COMPLETED)
            began = time.perf_counter()

        def finish() -> PatientScores:  # begun behind all of `scores`, so none of them waits for it
            rows = [row for rows in scores for row in rows.result()]
            notes = (*loaded.case.warnings, *patient.warnings)
            return self._finish(loaded, rows, left_out, notes, False, attention, network)

        return scorers.submit(finish)

    def _score_file(self, loaded: _Loaded) -> PatientScores:
        missing = loaded.prediction is None
        prediction = boxed(loaded.prediction.classes if loaded.prediction else np.zeros_like(loaded.truth.classes))
        scorer = Scorer(loaded.truth, self.config, prediction.box, *self._how)
        notes = [*loaded.case.warnings]
        if missing:
            notes.append(f"{loaded.case.name}: no prediction found; an empty mask was scored")
        elif loaded.prediction and loaded.prediction.note:
            notes.append(f"{loaded.prediction.path}: {loaded.prediction.note}")
        return self._finish(loaded, _rows(PREDICTIONS, scorer.score(prediction)), (), notes, missing, {}, 0.0)

    def _finish(
        self,
        loaded: _Loaded,
        rows: Sequence[Row],
        left_out: Sequence[str],
        notes: Sequence[str],
        missing: bool,
        attention: Mapping[str, Mapping[str, float]],
        network: float,
    ) -> PatientScores:
        truth, case = loaded.truth, loaded.case
        if truth.note:
            notes = [*notes, f"{truth.path}: {truth.note}"]
        seconds = {"network": round(network, 3), "total": round(time.perf_counter() - loaded.began, 3)}
        result = PatientScores(
            case.name, tuple(rows), tuple(left_out), tuple(notes), missing, attention, seconds, self._fingerprint(case)
        )
        if path := self.path(case):
            result.write(path, {"scores": metric_definition(self.task.policy)})
        return result

    def _fingerprint(self, case: Case) -> str:
        """Return a hash of all that a patient's scores depend on: files, weights, settings, version."""
        files = [case.truth] if case.truth else []
        files += case.images.values() if self.segmenter is not None else self.predictions.get(case.name, ())
        states = [file_state(path) for path in files]
        network: list[Any] = []
        if self.segmenter is not None:
            network = [
                self.segmenter.weights.sha256,
                asdict(self.segmenter.inference),
                self.segmenter.compute.precision,
            ]
        return fingerprint(states, asdict(self.task), json.loads(self.config.to_json()), network, __version__)


def _rows(subset: str, scores: Mapping[str, Scores]) -> list[Row]:
    return [
        Row(subset, region, found.values, asdict(found.counts), found.convention) for region, found in scores.items()
    ]


def progression(segmenter: Segmenter, patient: Patient) -> list[tuple[str, ClassMap]]:
    """Return what Figure 2 of the paper shows: the modality added and the class map (D, H, W), in turn.

    FLAIR, then T1c, T1 and T2 as well; modalities that the patient lacks are passed over, and other tasks' are
    added in the model's order.
    """
    config, route = segmenter.config, patient.prepared.route
    order = PROGRESSION if set(PROGRESSION) == set(config.modalities) else config.modalities
    names = [m for m in order if m in patient.files]
    subsets = [names[: n + 1] for n in range(len(names))]
    whole = Box((0, 0, 0), patient.geometry.size)
    results = segmenter.segment_subsets(patient.prepared.images, [config.presence(subset) for subset in subsets])
    return [
        (name, classes_to_file(route, result.probabilities).placed(whole))
        for name, result in zip(names, results, strict=True)
    ]
