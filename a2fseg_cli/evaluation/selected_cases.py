"""Which patients an evaluation works on, and this process's share of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.selection import Selection, select_cases
from a2fseg_cli.cases.shares import share_of
from a2fseg_cli.core.config import subset_name
from a2fseg_cli.errors import InputError, UsageError, some


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


def had_by_some(
    subsets: Sequence[tuple[str, ...]], cases: SelectedCases, modalities: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    """Return the subsets of which some patient has all sequences, in order.

    Raises:
        InputError: nobody has one, so that there is nothing to score.
    """
    had = tuple(subset for subset in subsets if any(set(subset) <= set(case.images) for case in cases.every))
    if not had:
        asked = some([subset_name(subset, modalities) for subset in subsets])
        raise InputError(f"none of the {len(cases.every)} patients has the sequences asked for: {asked}.")
    return had


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
    cases = select_cases(data, modalities=modalities, selection=Selection(split), with_truth=True)
    share = share_of(cases, num_parts, part_id)
    if not share.cases:
        raise UsageError(f"{share.words}. Take at most as many parts as patients.")
    return SelectedCases(tuple(cases), share.cases, share.shared_by)
