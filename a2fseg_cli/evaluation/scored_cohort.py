"""A cohort whose patients are scored, and what its scores come to: tables, plain values, warnings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from a2fseg_cli.evaluation.cohort import Failure
from a2fseg_cli.evaluation.kinds import card_kinds, kinds_table
from a2fseg_cli.evaluation.label_exchange import better_exchange
from a2fseg_cli.evaluation.mask_source import MaskSource
from a2fseg_cli.evaluation.means import subsets_of
from a2fseg_cli.evaluation.metrics import score_keys
from a2fseg_cli.evaluation.options import ScoringOptions
from a2fseg_cli.evaluation.patient_scores import PatientScores
from a2fseg_cli.evaluation.selected_cases import SelectedCases
from a2fseg_cli.evaluation.summary import summary
from a2fseg_cli.evaluation.tables import NOTHING_PUBLISHED, Table, comparison_tables, published_beside, score_table
from a2fseg_cli.versions import versions


@dataclass(frozen=True)
class ScoredCohort:
    """What the run over the patients gave.

    Attributes:
        source: Where the masks came from.
        options: What was scored.
        cases: The patients, and which of them were this process's.
        patients: Scores of every patient that has some, in order; of a shared cohort also those of other parts.
        failures: The patients of this process that could not be scored.
        kinds: Case to kind of patient, where means by kind are asked for; without entries by the truth alone.
    """

    source: MaskSource
    options: ScoringOptions
    cases: SelectedCases
    patients: tuple[PatientScores, ...]
    failures: tuple[Failure, ...]
    kinds: Mapping[str, str] | None = None

    @property
    def share(self) -> str:
        """Of a shared cohort, how many patients these are and what shared them out; else empty."""
        return self.cases.share(len(self.patients))

    def tables(self, compare: bool = False) -> tuple[Table, ...]:
        """Return a table for each score and, if asked for, the published columns; none without patients."""
        if not self.patients:
            return ()
        config, options = self.source.config, self.options
        tables = [
            score_table(self.patients, config, options.policy, key, options.nsd_tolerance_mm, self.share)
            for key in score_keys(options.metrics)
        ]
        if self.kinds is not None and "dice" in options.metrics:
            tables.append(kinds_table(self.patients, config, options.policy, self.kinds))
        return (*tables, *(comparison_tables(self.patients, config, self.share) if compare else ()))

    def summary(self) -> dict[str, Any]:
        """Return all of it as plain values, NaN where undefined."""
        origin = {"versions": versions(), "settings": vars(self.options), **self.source.origin}
        metrics, policy = self.options.metrics, self.options.policy
        failed = {failure.case: failure.reason for failure in self.failures}
        content = summary(self.patients, failed, self.source.config, metrics, policy, origin, self.share)
        if self.kinds is not None:
            content["kinds"] = card_kinds(self.patients, self.source.config, self.kinds)
        return content

    def warnings(self, compare: bool = False) -> list[str]:
        """Return what may make the numbers of the cohort as a whole wrong, and what was asked for and is not there."""
        config, warnings = self.source.config, []
        if compare and self.patients and not published_beside(subsets_of(self.patients, config.modalities), config):
            warnings.append(NOTHING_PUBLISHED)
        if missing := [scores.case for scores in self.patients if scores.missing]:
            warnings.append(f"no prediction for {', '.join(missing)}; empty masks were scored.")
        if exchange := better_exchange(self.patients, config):
            warnings.append(str(exchange))
        return warnings
