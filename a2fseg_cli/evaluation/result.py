"""What an evaluation returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from a2fseg_cli.errors import CohortError, InputError
from a2fseg_cli.evaluation.patient_scores import PatientScores
from a2fseg_cli.evaluation.tables import Table


@dataclass(frozen=True)
class EvaluationResult:
    """The scores of a cohort.

    Attributes:
        tables: One for each score, means over patients; none where no patient could be scored.
        patients: Scores of every patient, in order; of a shared cohort also those that other parts have finished.
        failed: Reason of every patient of this process that could not be scored.
        summary: All of it as plain values, NaN where undefined.
        definition: One line: the policy, its HD95, what an empty region gets.
        warnings: What may make a number wrong, or was left out.
        notes: What was assumed, and what was written beside the tables.
        share: Of a shared cohort, how many patients these are: `1 of 3 patients (SLURM array)`; else empty.
        asked: Number of patients that were this process's.
        files: What was written.
    """

    tables: tuple[Table, ...]
    patients: tuple[PatientScores, ...]
    failed: Mapping[str, str]
    summary: Mapping[str, Any]
    definition: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    share: str
    asked: int
    files: tuple[Path, ...]

    def raise_for_failed(self) -> None:
        """Return if every patient was scored.

        Raises:
            InputError: the only patient could not be.
            CohortError: some could not be.
        """
        if self.failed and self.asked == 1:
            raise InputError(next(iter(self.failed.values())))
        if self.failed:
            names = ", ".join([*self.failed][:5]) + (" and others" if len(self.failed) > 5 else "")
            raise CohortError(f"{len(self.failed)} of {self.asked} patients could not be scored: {names}.")
