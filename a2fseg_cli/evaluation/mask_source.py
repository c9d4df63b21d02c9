"""What scoring needs of where the masks come from: a network, files that exist, or whatever is added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, Protocol

from a2fseg_cli.cases.case import Case
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.evaluation.patient_scores import PatientScores


class ReadPatient(Protocol):
    """A patient whose files are read: what is left is to compute."""

    @property
    def case(self) -> Case:
        """Which patient it is."""

    def score(self, pool: Executor, threads: int) -> Future[PatientScores]:
        """Return what will be the scores; they are computed by `pool`, which has so many threads."""


class MaskSource(Protocol):
    """Where the masks come from that are scored."""

    @property
    def config(self) -> ModelConfig:
        """Classes and regions of the masks."""

    @property
    def read_ahead(self) -> int:
        """How many patients may be read while one is computed."""

    @property
    def identity(self) -> Sequence[Any]:
        """Plain values that differ when the masks of the same files would: weights, windows, precision."""

    @property
    def description(self) -> str:
        """What makes the masks, in one line; empty where that is known."""

    @property
    def origin(self) -> Mapping[str, Any]:
        """What made the masks, as plain values for the summary."""

    @property
    def notes(self) -> Sequence[str]:
        """What was assumed of all masks, for the user to see."""

    def files(self, case: Case) -> Sequence[Path]:
        """Return the files, beside the truth, that a patient's masks depend on."""

    def read(self, case: Case) -> ReadPatient:
        """Return a patient whose files are read and checked. Raises: InputError, ResourceError."""
