"""The scores of one patient, as they are kept in one file a patient."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from a2fseg_cli.evaluation.metrics import Scores
from a2fseg_cli.files import atomic_write_text, json_text, parse_json

FORMAT = 3
PREDICTIONS = "predictions"  # name of the one "subset" of files that another run or tool made


@dataclass(frozen=True)
class Row:
    """The scores of one region of one prediction.

    Attributes:
        subset: Modalities used, e.g. `t1c+flair`, or `predictions`.
        region: WT, TC, ET or whatever the model's configuration names.
        values: Score by key (`METRICS[...].score_keys`); NaN where undefined.
        counts: Raw voxel counts, from which any other convention can be recomputed.
        convention: `both_empty` or `one_empty` where the policy decided values, else empty.
    """

    subset: str
    region: str
    values: Mapping[str, float]
    counts: Mapping[str, int]
    convention: str


@dataclass(frozen=True)
class PatientScores:
    """All scores of one patient.

    Attributes:
        case: The patient.
        rows: One for each subset and region.
        left_out: Subsets asked for that need a modality the patient lacks.
        notes: What was assumed of the files, and what a user should look at.
        missing: Whether there was no prediction, so that an empty mask was scored.
        attention: Class to modality to the mean attention weight inside the class's true voxels.
        seconds: Network and total.
        fingerprint: Of all that the scores depend on.
        confusion: Of a file that was scored, voxels by true class (rows) and predicted class, as far as one of both
            is not background; from which it is seen whether two labels were exchanged.
        reliability: Subset to region to voxels, summed probability and true voxels of each bin (`calibration`); empty
            unless asked for.
    """

    case: str
    rows: tuple[Row, ...]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    missing: bool = False
    attention: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    fingerprint: str = ""
    confusion: tuple[tuple[int, ...], ...] = ()
    reliability: Mapping[str, Mapping[str, Sequence[Sequence[float]]]] = field(default_factory=dict)

    def write(self, path: Path, header: Mapping[str, Any]) -> None:
        """Write the scores, whole or not at all. Raises: ResourceError."""
        atomic_write_text(path, json_text({"format": FORMAT, **header, **asdict(self)}))

    @classmethod
    def read(cls, path: Path) -> PatientScores | None:
        """Return the scores of a file, None where it is not there or not one of this format."""
        try:
            raw = parse_json(path.read_text("utf-8"))
            if raw["format"] != FORMAT:
                return None
            rows = [
                Row(
                    row["subset"],
                    row["region"],
                    {key: math.nan if value is None else float(value) for key, value in row["values"].items()},
                    {key: int(value) for key, value in row["counts"].items()},
                    row["convention"],
                )
                for row in raw["rows"]
            ]
            return cls(
                raw["case"],
                tuple(rows),
                tuple(raw["left_out"]),
                tuple(raw["notes"]),
                bool(raw["missing"]),
                raw["attention"],
                raw["seconds"],
                raw["fingerprint"],
                tuple(tuple(map(int, row)) for row in raw["confusion"]),
                raw["reliability"],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def rows_of(subset: str, scores: Mapping[str, Scores]) -> list[Row]:
    """Return the rows of one prediction from the scores of its regions."""
    return [
        Row(subset, region, of_region.values, asdict(of_region.counts), of_region.convention)
        for region, of_region in scores.items()
    ]


def seconds_of(network_s: float, began: float) -> dict[str, float]:
    """Return the time a patient took, in the network and in all.

    Args:
        network_s: Seconds in the network.
        began: When reading began, seconds of `time.perf_counter`.
    """
    return {"network": round(network_s, 3), "total": round(time.perf_counter() - began, 3)}
