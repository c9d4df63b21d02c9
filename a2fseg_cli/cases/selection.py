"""Which patients a command works on: found or given, and this process's share of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from a2fseg_cli.errors import UsageError
from a2fseg_cli.modalities import BRATS_MODALITIES

if TYPE_CHECKING:
    from a2fseg_cli.cases.discovery import Case


def cases_of(source: Path | None, given: dict[str, Path], modalities: Sequence[str]) -> list[Case]:
    """Return the patients of a folder or a CSV, or the one whose files were given by flag.

    Raises:
        UsageError: the source is an image; which sequence it is has to be said.
        InputError: nothing was found, or the table is not acceptable.
    """
    from a2fseg_cli.cases.case_lists import read_case_table
    from a2fseg_cli.cases.discovery import Case, find_cases

    if source is None:
        return [Case(next(iter(given.values())).name.split(".")[0], given)]
    is_file = os.path.isfile(source)  # false as well where it cannot be looked at, which `find_cases` explains
    if is_file and source.suffix.lower() == ".csv":
        return read_case_table(source, modalities)
    if is_file:
        flags = ", ".join(f"--{m}" for m in BRATS_MODALITIES)
        raise UsageError(f"{source}: one file. Expected a folder, a .csv, or an image by its sequence: {flags}.")
    return find_cases(source, modalities)


@dataclass(frozen=True)
class Share:
    """This process's share of a cohort: part `part` of `parts`, and that in words; none where it is whole."""

    parts: int = 1
    part: int = 0
    words: str = ""


def share_of(cases: Sequence[Case], num_parts: int | None, part_id: int | None) -> tuple[list[Case], Share]:
    """Return this process's share of the patients: by the two numbers, a SLURM array or torchrun.

    One patient is never shared out by a batch system: its tasks were then given a patient each.

    Raises:
        UsageError: one number without the other, or a part that does not exist.
    """
    if (num_parts is None) != (part_id is None):
        raise UsageError("num_parts and part_id need each other (--num-parts, --part-id).")
    if num_parts is not None and part_id is not None:
        if num_parts < 1 or not 0 <= part_id < num_parts:
            raise UsageError(f"part_id {part_id}: expected 0 to {num_parts - 1} for {num_parts} parts.")
        parts, part, said_by = num_parts, part_id, "as asked"
    else:
        parts, part, said_by = _part_of_batch()
    if parts == 1 or (len(cases) == 1 and num_parts is None):
        return list(cases), Share()
    mine = list(cases[part::parts])
    return mine, Share(parts, part, f"{len(mine)} of {len(cases)} patients (part {part} of {parts}, {said_by})")


def _part_of_batch() -> tuple[int, int, str]:
    """Return (parts, part, variable) of a SLURM array or torchrun, (1, 0, "") outside of both. Raises: UsageError."""
    for parts, part, first, step in (
        ("SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"),
        ("WORLD_SIZE", "RANK", "", ""),
    ):
        if parts in os.environ and part in os.environ:
            try:
                count, start = int(os.environ[parts]), int(os.environ.get(first, "0"))
                index, rest = divmod(int(os.environ[part]) - start, int(os.environ.get(step, "1")))
            except (ValueError, ZeroDivisionError) as error:
                raise UsageError(f"{parts} and {part}: expected whole numbers; or give --num-parts.") from error
            if rest or not 0 <= index < count:
                found = f"{part} is {os.environ[part]}, none of {count} evenly spaced tasks"
                raise UsageError(f"{found}; give --num-parts and --part-id.")
            return count, index, part
    return 1, 0, ""
