"""What `predict` prints when it is done: a patient's volumes, or what became of a cohort's patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from a2fseg_cli.cli.console import print_json, print_table, say
from a2fseg_cli.core.config import ModelConfig

if TYPE_CHECKING:
    from a2fseg_cli.inference.cohort import Status
    from a2fseg_cli.inference.exports import PatientResult


def show_result(result: PatientResult, json_: bool) -> None:
    """Print a patient's warnings and volumes, and how far fewer modalities agree, if that was asked for."""
    from a2fseg_cli.inference.agreement import agreement_rows

    for warning in result.warnings:
        say(f"Warning: {warning}")
    if result.note:
        say(f"Note: {result.note}")
    if json_:
        print_json(result.stats)
        return
    print_table(
        ("label", "name", "voxels", "mL"),
        [("" if row.label is None else row.label, row.name, row.voxels, f"{row.volume_ml:.2f}") for row in result.rows],
        title=f"{result.segmentation} ({result.modalities})",
    )
    if result.agreement:
        regions = list(result.volumes_ml)
        print_table(
            ("from only", *(f"{region} Dice %" for region in regions)),
            agreement_rows(result.agreement, regions),
            title="Agreement of fewer modalities with this result (no truth involved)",
        )


def show_cohort(statuses: Sequence[Status], folder: Path, json_: bool) -> None:
    """Print one line a patient, and how many were done, skipped and failed."""
    counts = {kind: sum(status.status == kind for status in statuses) for kind in ("ok", "skipped", "failed")}
    if json_:
        print_json({"folder": str(folder), **counts, "patients": [vars(status) for status in statuses]})
        return
    regions = [region for region, _ in ModelConfig().regions]
    names = next((list(status.volumes_ml) for status in statuses if status.volumes_ml), regions)
    print_table(
        ("case", "modalities", "status", *(f"{name} mL" for name in names), "s"),
        [
            (
                s.case,
                s.modalities,
                s.status,
                *(f"{s.volumes_ml[n]:.1f}" if s.volumes_ml else "" for n in names),
                s.seconds,
            )
            for s in sorted(statuses, key=lambda status: status.case)
        ],
        title=", ".join(f"{count} {kind}" for kind, count in counts.items()) + f" in {folder}",
    )
