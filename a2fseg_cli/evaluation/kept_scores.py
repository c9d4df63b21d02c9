"""The folder where the scores of each patient are kept, so that a run that was stopped goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from a2fseg_cli import __version__
from a2fseg_cli.cases.case import Case
from a2fseg_cli.errors import UsageError
from a2fseg_cli.evaluation.mask_source import MaskSource
from a2fseg_cli.evaluation.metrics import metric_definition
from a2fseg_cli.evaluation.options import ScoringOptions
from a2fseg_cli.evaluation.patient_scores import PatientScores
from a2fseg_cli.files import file_state, fingerprint, remove_abandoned


class KeptScores:
    """One JSON file a patient, taken over as long as files, weights, settings and version are the same.

    Args:
        source: Where the masks come from.
        options: What is scored.
        folder: Where the results go, the files in `patients` below it; None keeps nothing.
    """

    def __init__(self, source: MaskSource, options: ScoringOptions, folder: Path | None = None) -> None:
        self._source, self._options = source, options
        self._folder = folder / "patients" if folder else None

    def read(self, case: Case) -> PatientScores | None:
        """Return the scores of a patient that were kept, if they are of the same files, weights and settings."""
        if self._folder is None:
            return None
        known = PatientScores.read(self._path(self._folder, case))
        return known if known and known.fingerprint == self._fingerprint(case) else None

    def write(self, case: Case, scores: PatientScores) -> PatientScores:
        """Return the scores with the fingerprint of what they depend on, kept where there is a folder.

        Raises:
            ResourceError: the file cannot be written.
        """
        scores = replace(scores, fingerprint=self._fingerprint(case))
        if self._folder is not None:
            header = {"scores": metric_definition(self._options.policy, self._options.metrics)}
            scores.write(self._path(self._folder, case), header)
        return scores

    def check_free(self, cases: Sequence[Case]) -> None:
        """Return if no file of these patients, whose scores cannot be taken over, is in the way.

        Raises:
            UsageError: scores of other settings are.
        """
        paths = [self._path(self._folder, case) for case in cases] if self._folder else []
        if in_the_way := [path for path in paths if path.exists()]:
            raise UsageError(
                f"{in_the_way[0]} exists ({len(in_the_way)} such files), made from other files, weights or settings. "
                "Give overwrite, or another output folder."
            )

    def remove_abandoned(self) -> None:
        """Remove what writers that were killed left behind."""
        if self._folder is not None:
            remove_abandoned(self._folder)

    @staticmethod
    def _path(folder: Path, case: Case) -> Path:
        return folder / f"{case.name}.json"

    def _fingerprint(self, case: Case) -> str:
        """Return a hash of all that a patient's scores depend on: files, weights, settings, version."""
        files = [case.truth] if case.truth else []
        states = [file_state(path) for path in (*files, *self._source.files(case))]
        config = json.loads(self._source.config.to_json())
        meaning = (case.channels, dict(case.truth_labels or {}))
        return fingerprint(states, meaning, asdict(self._options), config, self._source.identity, __version__)
