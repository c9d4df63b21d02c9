"""Masks that exist as files, of this tool or any other."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.images import read_truth
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import InputError
from a2fseg_cli.evaluation.label_order import LabelOrder, order_text, prediction_order
from a2fseg_cli.evaluation.options import ScoringOptions
from a2fseg_cli.evaluation.patient_scores import PREDICTIONS, PatientScores, rows_of, seconds_of
from a2fseg_cli.evaluation.predictions import find_predictions
from a2fseg_cli.evaluation.scoring import Scorer
from a2fseg_cli.imaging.label_maps import LabelMap, check_on_grid, read_classes
from a2fseg_cli.imaging.labels import to_classes
from a2fseg_cli.imaging.reading import read_label_map
from a2fseg_cli.imaging.restoring import boxed


class ExistingMasks:
    """Label maps that exist.

    Args:
        predictions: Files of each case, as `find_predictions` gives them.
        config: Classes and regions.
        options: What is scored.
        order: Which value means which class, where that is said; None takes the scheme of `options`.
    """

    read_ahead = 1

    def __init__(
        self,
        predictions: Mapping[str, Sequence[Path]],
        config: ModelConfig,
        options: ScoringOptions,
        order: LabelOrder | None = None,
    ) -> None:
        self._predictions = predictions
        self.config, self.options, self.order = config, options, order

    @classmethod
    def of_folder(
        cls, folder: Path, cases: Sequence[Case], config: ModelConfig, options: ScoringOptions
    ) -> ExistingMasks:
        """Return the label maps of a folder, read in the order of labels that `options` or nnU-Net's file there says.

        Raises:
            InputError: no folder, no file for any case, or a `dataset.json` that cannot be understood.
            UsageError: an order that is none of these classes.
        """
        order = prediction_order(options.prediction_labels, folder, config)
        return cls(find_predictions(folder, cases), config, options, order)

    @property
    def identity(self) -> Sequence[Any]:
        """The values of the classes, where they were said."""
        return list(self.order.values) if self.order else []

    @property
    def description(self) -> str:
        """Nothing: the user has named the files."""
        return ""

    @property
    def origin(self) -> Mapping[str, Any]:
        """Which value was read as which class, and who said so."""
        if self.order is None:
            return {}
        values = dict(zip(self.config.classes[1:], self.order.values[1:], strict=True))
        return {"prediction_label_order": {"values": values, "said_by": self.order.said_by}}

    @property
    def notes(self) -> Sequence[str]:
        """The order of the labels, where it was said."""
        if self.order is None:
            return ()
        return (
            f"labels of the predictions read as {order_text(self.order.values, self.config)} ({self.order.said_by})",
        )

    def files(self, case: Case) -> Sequence[Path]:
        """Return the patient's label maps; one, or none, or several candidates."""
        return self._predictions.get(case.name, ())

    def read(self, case: Case) -> PatientOfFiles:
        """Return a patient with truth and prediction read. Raises: InputError, ResourceError."""
        began = time.perf_counter()
        truth = read_truth(case, self.config, self.options.labels)
        files = self.files(case)
        if len(files) > 1:
            names = ", ".join(path.name for path in files)
            raise InputError(f"{files[0].parent}: {len(files)} candidates for {case.name}: {names}. Keep one.")
        prediction = self._read_prediction(files[0]) if files else None
        if prediction:
            prediction = check_on_grid(prediction, truth.path, truth.geometry)
        return PatientOfFiles(self, case, truth, prediction, began)

    def _read_prediction(self, path: Path) -> LabelMap:
        if self.order is None:
            return read_classes(path, self.config, self.options.prediction_labels, "prediction_labels")
        labels, geometry = read_label_map(path)
        return LabelMap(path, to_classes(labels, self.order.values, str(path)), geometry, None)


@dataclass(frozen=True)
class PatientOfFiles:
    """A patient whose truth and prediction are read.

    Attributes:
        source: What is scored.
        case: The patient.
        truth: The expert's label map.
        prediction: The label map to be scored; None scores an empty one.
        began: When reading began, seconds of `time.perf_counter`.
    """

    source: ExistingMasks
    case: Case
    truth: LabelMap
    prediction: LabelMap | None
    began: float

    def score(self, pool: Executor, threads: int) -> Future[PatientScores]:
        """Return what will be the patient's scores."""
        return pool.submit(self._scores)

    def _scores(self) -> PatientScores:
        prediction = boxed(self.prediction.classes if self.prediction else np.zeros_like(self.truth.classes))
        options = self.source.options
        scorer = Scorer(self.truth, self.source.config, prediction.box, *options.score_arguments)
        notes = [*self.case.warnings]
        if self.prediction is None:
            notes.append(f"{self.case.name}: no prediction found; an empty mask was scored")
        for label_map in filter(None, (self.prediction, self.truth)):
            if label_map.note:
                notes.append(f"{label_map.path}: {label_map.note}")
        return PatientScores(
            self.case.name,
            tuple(rows_of(PREDICTIONS, scorer.score(prediction))),
            notes=tuple(notes),
            missing=self.prediction is None,
            seconds=seconds_of(0.0, self.began),
            confusion=scorer.confusion(prediction),
        )
