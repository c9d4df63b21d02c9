"""Which share of a cohort this process works on: as it was told, or one task of a SLURM array or of torchrun."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from a2fseg_cli.cases.case import Case
from a2fseg_cli.errors import UsageError

_BATCH_SYSTEMS = (
    ("SLURM array", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"),
    ("torchrun", "WORLD_SIZE", "RANK", "", ""),
)


@dataclass(frozen=True)
class Share:
    """The patients of one process.

    Attributes:
        cases: Those to work on.
        parts: Into how many shares the cohort is divided.
        part: Which of them this is, from 0.
        total: Patients of all shares.
        shared_by: What divided them; empty where nothing did.
    """

    cases: tuple[Case, ...]
    parts: int
    part: int
    total: int
    shared_by: str = ""

    @property
    def words(self) -> str:
        """`1 of 3 patients (SLURM array)`, or that none is left for this share; empty for a whole cohort."""
        if not self.shared_by:
            return ""
        none = f": none for part {self.part} of {self.parts}" if not self.cases else ""
        return f"{len(self.cases)} of {self.total} patients ({self.shared_by}){none}"


def share_of(cases: Sequence[Case], num_parts: int | None = None, part_id: int | None = None) -> Share:
    """Return this process's share of the patients: every `num_parts`-th, or what a SLURM array or torchrun asks for.

    One patient is never shared out by a batch system: its tasks were then given a patient each.

    Raises:
        UsageError: one parameter without the other, or a part that does not exist.
    """
    if (num_parts is None) != (part_id is None):
        raise UsageError("num_parts and part_id need each other.")
    if num_parts is not None and part_id is not None:
        if num_parts < 1:
            raise UsageError(f"num_parts {num_parts}: expected 1 or more.")
        if not 0 <= part_id < num_parts:
            raise UsageError(f"part_id {part_id}: expected 0 to {num_parts - 1} for num_parts {num_parts}.")
        by = f"num_parts {num_parts}, part_id {part_id}" if num_parts > 1 else ""
        return Share(tuple(cases[part_id::num_parts]), num_parts, part_id, len(cases), by)
    parts, part, by = _part_of_batch()
    if parts == 1 or len(cases) == 1:
        return Share(tuple(cases), 1, 0, len(cases))
    return Share(tuple(cases[part::parts]), parts, part, len(cases), by)


def _part_of_batch() -> tuple[int, int, str]:
    """Return (parts, part, name) of a SLURM array or torchrun, (1, 0, "") outside of both. Raises: UsageError."""
    for name, parts, part, first, step in _BATCH_SYSTEMS:
        if parts in os.environ and part in os.environ:
            try:
                count, start = int(os.environ[parts]), int(os.environ.get(first, "0"))
                index, rest = divmod(int(os.environ[part]) - start, int(os.environ.get(step, "1")))
            except (ValueError, ZeroDivisionError) as error:
                raise UsageError(f"{parts} and {part}: expected whole numbers; or give num_parts.") from error
            if rest or not 0 <= index < count:
                said = f"{part} is {os.environ[part]}, none of {count} evenly spaced tasks"
                raise UsageError(f"{said}; give num_parts and part_id.")
            return count, index, name
    return 1, 0, ""
