"""What is scored and how: all that changes a score, checked once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from a2fseg_cli.errors import UsageError
from a2fseg_cli.evaluation.metrics import (
    CALIBRATION,
    DEFAULT_METRICS,
    DEFAULT_POLICY,
    METRICS,
    NSD_TOLERANCE_MM,
    metric_definition,
)


@dataclass(frozen=True)
class ScoringOptions:
    """What to score, and how. All of it changes the scores.

    Attributes:
        subsets: Of modalities, in the order of the table; None takes all that a patient has.
        metrics: Keys of METRICS.
        policy: Key of POLICIES.
        labels: Scheme of the truth: auto, or a key of SCHEMES.
        prediction_labels: Scheme of predictions that exist, or the value of each class: `NCR=2,ED=1,ET=3`.
        attention: Also note the mean attention weights of the full set inside the true classes.
        nsd_tolerance_mm: Distance up to which surfaces agree, for `nsd`.
        remove_small: Region to the volume in mm3 under which its parts are removed from the network's masks.
        fill_holes: Whether holes of these are filled.
        keep_tiny: Whether also regions are scored that the weights' card says are rather invented, so small are they.
    """

    subsets: tuple[tuple[str, ...], ...] | None = None
    metrics: tuple[str, ...] = DEFAULT_METRICS
    policy: str = DEFAULT_POLICY
    labels: str = "auto"
    prediction_labels: str = "auto"
    attention: bool = False
    nsd_tolerance_mm: float = NSD_TOLERANCE_MM
    remove_small: Mapping[str, float] = field(default_factory=dict)
    fill_holes: bool = False
    keep_tiny: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be scored. Raises: UsageError."""
        unknown = [metric for metric in self.metrics if metric not in METRICS]
        if unknown or not self.metrics:
            raise UsageError(f"metrics {','.join(unknown)}: expected some of {', '.join(METRICS)}.")
        metric_definition(self.policy, self.metrics)
        if not 0 <= self.nsd_tolerance_mm < math.inf:
            raise UsageError(f"nsd_tolerance_mm {self.nsd_tolerance_mm:g}: expected 0 mm or more.")
        if self.nsd_tolerance_mm != NSD_TOLERANCE_MM and "nsd" not in self.metrics:
            raise UsageError(f"nsd_tolerance_mm {self.nsd_tolerance_mm:g}: needs nsd among the metrics.")

    @property
    def score_arguments(self) -> tuple[tuple[str, ...], str, float]:
        """Metrics of masks, policy and tolerance, as `metrics.score` and `Scorer` take them."""
        return tuple(m for m in self.metrics if m != CALIBRATION), self.policy, self.nsd_tolerance_mm
