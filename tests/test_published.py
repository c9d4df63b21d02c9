"""The paper's tables: complete, in the literature's order, and true to their own printed means."""

from __future__ import annotations

import pytest

from a2fseg_cli.core.config import all_subsets, subset_name
from a2fseg_cli.evaluation.means import mean_of_subsets
from a2fseg_cli.evaluation.published import METHODS, REGIONS, TABLE_1, TABLE_1_MEANS
from a2fseg_cli.modalities import BRATS_MODALITIES


@pytest.mark.parametrize("method", METHODS)
def test_rows_are_in_the_order_of_the_literature(method: str) -> None:
    expected = [subset_name(subset, BRATS_MODALITIES) for subset in all_subsets(BRATS_MODALITIES)]
    assert list(TABLE_1[method]) == expected
    assert len(expected) == 15


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("region", REGIONS)
def test_columns_reproduce_the_printed_means(method: str, region: str) -> None:
    assert round(mean_of_subsets(TABLE_1[method], region), 2) == TABLE_1_MEANS[method][region]


def test_single_cells() -> None:
    """First, middle and last of the table, and the two columns that a slip of order would swap."""
    assert TABLE_1["HeMIS"]["flair"] == {"WT": 87.76, "TC": 66.56, "ET": 44.95}
    assert TABLE_1["mmFormer"]["t1"] == {"WT": 81.20, "TC": 71.36, "ET": 46.65}
    assert TABLE_1["A2FSeg"]["t1c"]["ET"] == 78.01
    assert TABLE_1["U-HVED"]["t1c+flair"]["TC"] == 85.78
    assert TABLE_1["MFI"]["t1+t1c+t2+flair"]["TC"] == 88.60
