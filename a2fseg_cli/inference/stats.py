"""The numbers of one or many patients, as plain values: JSON records, or one row of a CSV each."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

import torch

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.time_points import time_point
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.files import (
    atomic_write_parts,
    atomic_write_text,
    csv_text,
    json_text,
    parse_json,
)
from a2fseg_cli.inference.agreement import attention_inside, found_classes
from a2fseg_cli.inference.journal import Journal
from a2fseg_cli.inference.patient import Patient
from a2fseg_cli.inference.predictor import Prediction, Segmenter
from a2fseg_cli.versions import versions
from a2fseg_cli.weights.card import DIRECTIONS

if TYPE_CHECKING:
    from a2fseg_cli.inference.exports import PatientResult


def patient_stats(
    result: PatientResult,
    patient: Patient,
    prediction: Prediction,
    segmenter: Segmenter,
    diameters_mm: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return everything that is known of a patient's result as plain values.

    Args:
        result: Its numbers and files.
        patient: What was read.
        prediction: What the network says.
        segmenter: The network.
        diameters_mm: The two largest axial diameters of each region.
        settings: What the result depends on beside inputs and weights.
    """
    weights = prediction.attention
    inside = attention_inside(weights, found_classes(prediction), segmenter.config.classes) if weights else {}
    network = network_origin(segmenter)
    mirrored = [name for name, axis in DIRECTIONS.items() if axis in segmenter.mirrored]
    point = time_point(Case(result.name, {}))
    return {
        "case": result.name,
        "subject": point.subject,
        "session": point.session,
        "date": datetime.now().astimezone().date().isoformat(),
        "modalities": result.modalities,
        "inputs": {m: str(path) for m, path in patient.files.items()},
        "outputs": [str(path) for path in result.outputs],
        "labels": [vars(row) for row in result.rows],
        "volumes_ml": dict(result.volumes_ml),
        "regions": {region: list(members) for region, members in segmenter.config.regions},
        "guesses": dict(result.guesses),
        "largest_axial_diameters_mm": dict(diameters_mm),
        "warnings": list(result.warnings),
        "note": result.note,
        "mean_attention": inside,
        "agreement_with_fewer": {subset: dict(dice) for subset, dice in result.agreement.items()},
        "settings": {**settings, "overlap": segmenter.inference.overlap, "mirrored": mirrored},
        "windows": {"edges": list(prediction.plan.window), "count": len(prediction.plan.starts)},
        "weights": {**network["weights"], "made_for": str(segmenter.weights.card.get("made_for", ""))},
        "device": {**network["device"], "reason": segmenter.compute.reason, "threads": torch.get_num_threads()},
        "seconds": {step: round(value, 3) for step, value in result.seconds.items()},
        "versions": versions(),
    }


def network_origin(segmenter: Segmenter) -> dict[str, dict[str, str]]:
    """Return which weights a result is of, and what they ran on, as plain values."""
    weights, compute = segmenter.weights, segmenter.compute
    return {
        "weights": {"file": weights.path.name, "sha256": weights.sha256},
        "device": {"name": compute.name, "precision": compute.precision},
    }


def write_stats(path: Path, stats: Mapping[str, Any]) -> None:
    """Write one patient's statistics: the record itself as .json, or a table with one row as .csv."""
    atomic_write_text(path, json_text(stats) if path.suffix == ".json" else csv_text([as_row(stats)]))


class StatsFile:
    """The statistics of a cohort: a JSON list of records, or a CSV; what it does not show yet is in its journal.

    What the file already holds of other patients stays.

    Args:
        path: A name that ends in .json or .csv.

    Raises:
        UsageError: something else lies there.
        InputError: what lies there cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._journal = path, Journal(path)
        self._lock = threading.Lock()
        self._records: dict[str, str] = {}  # as JSON in one line, which takes a fifth of the memory
        self._fingerprints: dict[str, str] = {}
        try:
            text = path.read_text("utf-8") if path.exists() else ""
            for record in parse_json(text or "[]") if path.suffix == ".json" else _rows(text):
                self._put(record["case"], record)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}.") from error
        except (AttributeError, KeyError, TypeError, ValueError, csv.Error) as error:
            raise UsageError(f"{path} exists and holds no cohort's statistics; move it away.") from error
        for case, record in self._journal.read():
            self._put(case, record)

    def holds(self, case: str, fingerprint: str) -> bool:
        """Return whether the file holds the case's numbers of these inputs, weights and settings."""
        return self._fingerprints.get(case) == fingerprint

    def drop(self, case: str) -> None:
        """Take a patient's numbers out of the file: they are of other inputs, and there are no new ones."""
        if case in self._records:
            self._note(case, None)

    def add(self, stats: Mapping[str, Any]) -> None:
        """Put a patient's statistics, with their `fingerprint`, in the place of what was there, on the disk too.

        Raises:
            ResourceError: they cannot be written.
        """
        record = stats if self.path.suffix == ".json" else as_row(stats)
        self._note(stats["case"], record)

    def close(self) -> None:
        """Write what the file does not show yet. Raises: ResourceError."""
        with self._lock:
            if self._journal.holds_notes:
                self._fold()

    def _note(self, case: str, record: Mapping[str, Any] | None) -> None:
        with self._lock:
            self._put(case, record)
            if self._journal.due:
                self._fold()
            else:
                self._journal.add((case, record))

    def _put(self, case: str, record: Mapping[str, Any] | None) -> None:
        if record is None:
            self._records.pop(case, None)
            self._fingerprints.pop(case, None)
            return
        self._fingerprints[case] = record["fingerprint"]
        self._records[case] = json.dumps(record, default=str)

    def _fold(self) -> None:
        with self._journal.folded():
            if self.path.suffix == ".json":
                atomic_write_parts(self.path, self._json())
            else:
                names = list(dict.fromkeys(name for record in self._plain() for name in record))
                atomic_write_text(self.path, csv_text(self._plain(), names))

    def _plain(self) -> Iterator[dict[str, Any]]:
        """Yield the records in the order of the patients' names."""
        return (json.loads(self._records[name]) for name in sorted(self._records))

    def _json(self) -> Iterator[str]:
        """Yield the parts of the records' list, as `json_text` would write it."""
        yield "["
        for place, record in enumerate(self._plain()):
            yield ("," if place else "") + "\n" + indent(json_text(record).rstrip(), " ")
        yield "\n]\n" if self._records else "]\n"


def as_row(stats: Mapping[str, Any]) -> dict[str, object]:
    """Return a patient's statistics as one flat row; volumes in mL, diameters in mm, times in s."""
    row: dict[str, object] = {name: stats[name] for name in ("case", "subject", "session", "modalities")}
    for part in stats["labels"]:  # a region behind the classes: ET, which is both, has one pair of columns
        row |= {f"{part['name']}_voxels": part["voxels"], f"{part['name']}_ml": round(part["volume_ml"], 3)}
    row["guesses"] = "+".join(stats["guesses"])
    for region, (longest, across) in stats["largest_axial_diameters_mm"].items():
        row |= {f"{region}_diameter_mm": round(longest, 2), f"{region}_diameter_across_mm": round(across, 2)}
    row |= {f"{step}_s": value for step, value in stats["seconds"].items()}
    row |= {"device": stats["device"]["name"], "precision": stats["device"]["precision"]}
    row |= {"weights": stats["weights"]["file"], "weights_sha256": stats["weights"]["sha256"]}
    row |= stats["versions"] | {"segmentation": stats["outputs"][0]}
    row |= {name: stats[name] for name in ("fingerprint",) if name in stats}
    return row | {"note": stats["note"], "warnings": "; ".join(stats["warnings"])}


def _rows(text: str) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text))
    if text and "fingerprint" not in (reader.fieldnames or []):  # a table of something else, with rows or without
        raise ValueError("no column fingerprint")
    return list(reader)
