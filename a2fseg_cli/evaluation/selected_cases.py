"""Which patients an evaluation works on, and this process's share of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from a2fseg_cli.cases.case_lists import read_split
from a2fseg_cli.cases.discovery import Case
from a2fseg_cli.cases.selection import cases_of, share_of
from a2fseg_cli.errors import InputError, UsageError


@dataclass(frozen=True)
class SelectedCases:
    """The patients of a cohort.

    Attributes:
        every: All of them, in order.
        own: This process's share.
        shared_by: What shared them out, such as `SLURM array`; empty where this process has all.
    """

    every: tuple[Case, ...]
    own: tuple[Case, ...]
    shared_by: str

    def share(self, count: int) -> str:
        """Return `1 of 3 patients (SLURM array)` for a count of patients; empty where the cohort is not shared."""
        return f"{count} of {len(self.every)} patients ({self.shared_by})" if self.shared_by else ""


def selected_cases(
    data: Path, split: str | None, modalities: Sequence[str], num_parts: int | None, part_id: int | None
) -> SelectedCases:
    """Return the patients of a folder or a CSV, those of a split where one is named, and this process's share.

    Args:
        data: Folder or CSV.
        split: JSON, name to list of cases: `FILE`, or `FILE:NAME` where it has several.
        modalities: The network's.
        num_parts: In how many parts the cohort is shared; None reads the variables of a SLURM array or of torchrun.
        part_id: Which of them is this process's, from 0.

    Raises:
        UsageError: no such part or split, or a part without patients.
        InputError: nothing was found, or a case of the split is missing.
    """
    cases = cases_of(data, {}, modalities)
    if split is not None:
        path, name = Path(split), ""
        if not os.path.isfile(path) and ":" in split:  # false as well where it cannot be looked at, as reading will say
            before, name = split.rsplit(":", 1)
            path = Path(before)
        lists = read_split(path)
        if name not in lists:
            if name or len(lists) != 1:
                raise UsageError(f"split {split}: expected {path}:NAME with NAME one of {', '.join(lists)}.")
            name = next(iter(lists))
        wanted = set(lists[name])
        missing = sorted(wanted - {case.name for case in cases})
        if missing:
            raise InputError(f"{path}, {name}: {len(missing)} cases are not in the data: {', '.join(missing)}.")
        cases = [case for case in cases if case.name in wanted]
    own, share = share_of(cases, num_parts, part_id)
    parts, part = share.parts, share.part
    if len(own) == len(cases):
        return SelectedCases(tuple(cases), tuple(own), "")
    shared_by = f"num_parts {parts}, part_id {part}"
    if num_parts is None:
        shared_by = "SLURM array" if "SLURM_ARRAY_TASK_COUNT" in os.environ else "torchrun"
    if not own:
        raise UsageError(
            f"{shared_by}: part {part} of {parts}, counted from 0, has no patient, for the cohort has {len(cases)}. "
            "Take at most as many parts as patients."
        )
    return SelectedCases(tuple(cases), tuple(own), shared_by)
