"""What an evaluation returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from a2fseg_cli.errors import CohortError
from a2fseg_cli.evaluation.cohort import Failure
from a2fseg_cli.evaluation.comparison import Difference
from a2fseg_cli.evaluation.patient_scores import PatientScores
from a2fseg_cli.evaluation.tables import Table


@dataclass(frozen=True)
class EvaluationResult:
    """The scores of a cohort.

    Attributes:
        tables: One for each score, means over patients; none where no patient could be scored.
        patients: Scores of every patient, in order; of a shared cohort also those that other parts have finished.
        failures: The patients of this process that could not be scored, with the error of each.
        summary: All of it as plain values, NaN where undefined.
        definition: One line: the policy, its HD95, what an empty region gets.
        warnings: What may make a number wrong, or was left out.
        notes: What was assumed, and what was written beside the tables.
        share: Of a shared cohort, how many patients these are: `1 of 3 patients (SLURM array)`; else empty.
        asked: Number of patients that were this process's.
        files: What was written.
        methods: Of a comparison, name to the scores of the patients that every method was scored on; `patients` is
            then empty, `tables` has a column a method.
        differences: Of a comparison, all pairs of methods.
    """

    tables: tuple[Table, ...]
    patients: tuple[PatientScores, ...]
    failures: tuple[Failure, ...]
    summary: Mapping[str, Any]
    definition: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    share: str
    asked: int
    files: tuple[Path, ...]
    methods: Mapping[str, Sequence[PatientScores]] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()

    def raise_for_failed(self) -> None:
        """Return if every patient was scored.

        Raises:
            A2FSegError: what kept the only patient from being scored.
            CohortError: some could not be.
        """
        if self.failures and self.asked == 1:
            raise self.failures[0].error
        if self.failures:
            names = [failure.name for failure in self.failures]
            named = ", ".join(names[:5]) + (" and others" if len(names) > 5 else "")
            count = len({failure.case for failure in self.failures})  # one that no method could be scored on is one
            raise CohortError(f"{count} of {self.asked} patients could not be scored: {named}.")
