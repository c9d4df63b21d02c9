"""Label schemes, classes and regions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.labels import SCHEMES, detect_scheme, region_dice, region_mask, to_classes, to_labels


@pytest.mark.parametrize(
    ("values", "scheme"),
    [
        ([0], "brats2023"),
        ([0, 1, 2], "brats2023"),
        ([0, 1, 2, 3], "brats2023"),
        ([3], "brats2023"),
        ([0, 1, 2, 4], "brats2018"),
        ([0, 4], "brats2018"),
    ],
)
def test_scheme_of_the_values(values: list[int], scheme: str) -> None:
    assert detect_scheme(values, "seg.nii.gz") == scheme


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 5], "seg.nii.gz: unknown label 5"),
        ([-1, 0, 7], "unknown label -1"),
        ([0, 1, 255], "unknown label 255"),
        ([0, 1, 2, 3, 4], "labels 3 and 4 together"),
        ([3, 4], "labels 3 and 4 together"),
    ],
)
def test_values_of_no_scheme_are_named(values: list[int], message: str) -> None:
    with pytest.raises(InputError, match=f"{message}.*brats2023.*brats2018"):
        detect_scheme(values, "seg.nii.gz")


def test_both_schemes_give_the_same_classes() -> None:
    """Background, NCR, ED, ET: 0 1 2 4 up to 2022, 0 1 2 3 from 2023."""
    old = np.array([[[0, 1, 2, 4, 4]]], np.int32)
    new = np.array([[[0, 1, 2, 3, 3]]], np.int32)
    expected = np.array([[[0, 1, 2, 3, 3]]], np.uint8)
    np.testing.assert_array_equal(to_classes(old, SCHEMES["brats2018"], "a"), expected)
    np.testing.assert_array_equal(to_classes(new, SCHEMES["brats2023"], "b"), expected)
    np.testing.assert_array_equal(to_labels(expected, SCHEMES["brats2018"]), old)


@given(
    st.lists(st.integers(1, 255), min_size=1, max_size=9, unique=True),
    st.data(),
)
def test_labels_and_classes_undo_each_other(foreground: list[int], data: st.DataObject) -> None:
    values = (0, *foreground)
    shape = data.draw(npst.array_shapes(min_dims=3, max_dims=3, max_side=4))
    classes = data.draw(npst.arrays(np.uint8, shape, elements=st.integers(0, len(foreground))))
    labels = to_labels(classes, values)
    assert labels.dtype == np.uint8
    assert set(np.unique(labels).tolist()) <= set(values)
    back = to_classes(labels, values, "x")
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, classes)


def test_an_unknown_label_is_refused_with_its_file() -> None:
    with pytest.raises(InputError, match=r"truth.nii: unknown label 4; expected 0, 1, 2, 3"):
        to_classes(np.array([[[0, 4]]], np.int32), (0, 1, 2, 3), "truth.nii")


def test_a_region_is_the_union_of_its_classes() -> None:
    classes = np.array([[[0, 1, 2, 3]]], np.uint8)
    assert region_mask(classes, (1, 2, 3)).tolist() == [[[False, True, True, True]]]
    assert region_mask(classes, (1, 3)).tolist() == [[[False, True, False, True]]]
    assert region_mask(classes, (3,)).tolist() == [[[False, False, False, True]]]
    assert region_mask(classes, (3,)).dtype == np.bool_


def test_region_dice_by_hand() -> None:
    """WT: 2 voxels against 3, 2 shared: 2 * 2 / 5; TC: 1 against 1, shared; ET: empty in both."""
    a = np.array([[[1, 2, 0, 0]]], np.uint8)
    b = np.array([[[1, 2, 2, 0]]], np.uint8)
    assert region_dice(a, b, ModelConfig()) == {"WT": 0.8, "TC": 1.0, "ET": 1.0}
    assert region_dice(a, np.full_like(b, 3), ModelConfig())["ET"] == 0.0
