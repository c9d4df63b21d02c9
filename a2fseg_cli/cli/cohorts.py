"""Which patients a command works on: found or given, and this process's share of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from a2fseg_cli.core.config import BRATS_MODALITIES
from a2fseg_cli.errors import A2FSegError, UsageError

if TYPE_CHECKING:
    from a2fseg_cli.imaging.discovery import Case


class CohortError(A2FSegError):
    """Some patients of a cohort failed; the others are done."""


def cases_of(source: Path | None, given: dict[str, Path], modalities: Sequence[str]) -> list[Case]:
    """Return the patients of a folder or a CSV, or the one whose files were given by flag.

    Raises:
        UsageError: the source is an image; which sequence it is has to be said.
        InputError: nothing was found, or the table is not acceptable.
    """
    from a2fseg_cli.imaging.case_lists import read_case_table
    from a2fseg_cli.imaging.discovery import Case, find_cases

    if source is None:
        return [Case(next(iter(given.values())).name.split(".")[0], given)]
    is_file = os.path.isfile(source)  # false as well where it cannot be looked at, which `find_cases` explains
    if is_file and source.suffix.lower() == ".csv":
        return read_case_table(source, modalities)
    if is_file:
        flags = ", ".join(f"--{m}" for m in BRATS_MODALITIES)
        raise UsageError(f"{source} is one image; say which sequence it is: {flags}.")
    return find_cases(source, modalities)


def parts_of(num_parts: int | None, part_id: int | None) -> tuple[int, int]:
    """Return (parts, part) from the options, a SLURM array or torchrun, in this order. Raises: UsageError."""
    if num_parts is not None:
        if part_id is None:
            raise UsageError("--num-parts needs --part-id.")
        return num_parts, part_id
    if part_id is not None:
        raise UsageError("--part-id needs --num-parts.")
    for parts, part, first in (
        ("SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN"),
        ("WORLD_SIZE", "RANK", ""),
    ):
        if parts in os.environ and part in os.environ:
            try:
                return int(os.environ[parts]), int(os.environ[part]) - int(os.environ.get(first, "0"))
            except ValueError as error:
                raise UsageError(f"{parts} and {part}: expected whole numbers; or give --num-parts.") from error
    return 1, 0
