"""`predict --stats`: the numbers of one or many patients, as JSON records or as one row of a CSV each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.files import atomic_write_text, csv_text, json_text


def write_stats(path: Path, stats: Mapping[str, Any]) -> None:
    """Write one patient's statistics: the record itself as .json, or a table with one row as .csv."""
    atomic_write_text(path, json_text(stats) if path.suffix == ".json" else csv_text([as_row(stats)]))


class StatsFile:
    """The statistics of a cohort, complete after every patient: a JSON list of records, or a CSV.

    What the file already holds of other patients stays.

    Args:
        path: A name that ends in .json or .csv.

    Raises:
        UsageError: something else lies there.
        InputError: what lies there cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text("utf-8") if path.exists() else ""
            records = json.loads(text or "[]") if path.suffix == ".json" else _rows(text)
            self._records = {record["case"]: record for record in records}
            self._fingerprints = {record["case"]: record["fingerprint"] for record in records}
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}.") from error
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError, csv.Error) as error:
            raise UsageError(f"{path} exists and holds no cohort's statistics; move it away.") from error

    def holds(self, case: str, fingerprint: str) -> bool:
        """Return whether the file holds the case's numbers of these inputs, weights and settings."""
        return self._fingerprints.get(case) == fingerprint

    def add(self, stats: Mapping[str, Any]) -> None:
        """Put a patient's statistics, with their `fingerprint`, in the place of what was there, and write the file."""
        case = stats["case"]
        self._records[case] = stats if self.path.suffix == ".json" else as_row(stats)
        self._fingerprints[case] = stats["fingerprint"]
        records = [self._records[name] for name in sorted(self._records)]
        atomic_write_text(self.path, json_text(records) if self.path.suffix == ".json" else csv_text(records))


def as_row(stats: Mapping[str, Any]) -> dict[str, object]:
    """Return a patient's statistics as one flat row; volumes in mL, diameters in mm, times in s."""
    row: dict[str, object] = {"case": stats["case"], "modalities": stats["modalities"]}
    for found in stats["labels"]:
        if found["label"] is None:  # a region
            row |= {f"{found['name']}_voxels": found["voxels"], f"{found['name']}_ml": round(found["volume_ml"], 3)}
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
