"""Label schemes, classes and regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.label_maps import LabelMap, check_on_grid, read_classes
from a2fseg_cli.imaging.labels import (
    SCHEMES,
    detect_scheme,
    parse_label_order,
    region_dice,
    region_mask,
    to_classes,
    to_labels,
)
from a2fseg_cli.imaging.writing import write_label_map


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
    ],
)
def test_values_of_no_scheme_are_named(values: list[int], message: str) -> None:
    with pytest.raises(InputError, match=f"{message}.*brats2023.*brats2018"):
        detect_scheme(values, "seg.nii.gz")


@pytest.mark.parametrize("values", [[0, 1, 2, 3, 4], [3, 4]])
def test_five_values_are_read_in_two_ways_so_the_user_says(values: list[int]) -> None:
    with pytest.raises(InputError, match=r"seg.nii.gz: labels 3 and 4 together. Set labels to brats2013 .* brats2024"):
        detect_scheme(values, "seg.nii.gz")
    with pytest.raises(InputError, match="Set prediction_labels to"):
        detect_scheme(values, "seg.nii.gz", "prediction_labels")


@pytest.mark.parametrize("values", [[0, 1, 2, 3, 4], [0, 1, 2, 3], [0]])
def test_files_of_2013_are_known_by_their_name(values: list[int]) -> None:
    assert detect_scheme(values, "/x/VSD.Brain_3more.XX.O.OT.54517.nii.gz") == "brats2013"


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


CONFIG = ModelConfig()


def _written(path: Path, labels: list[int]) -> Path:
    """A file of 2 x 2 x n voxels of 10 x 10 x 10 mm, that is 1 mL, each row of which has these labels."""
    array = np.tile(np.array(labels, np.uint8), (2, 2, 1))
    write_label_map(array, path, Geometry(array.shape, (10.0, 10.0, 10.0)), path)
    return path


@pytest.mark.parametrize(
    ("scheme", "classes", "note"),
    [
        ("brats2013", [0, 1, 2, 1, 3], None),
        ("brats2024", [0, 1, 2, 3, 0], "4.0 mL of resection cavity (label 4) count as background"),
    ],
)
def test_schemes_with_five_values(tmp_path: Path, scheme: str, classes: list[int], note: str | None) -> None:
    path = _written(tmp_path / "seg.nii.gz", [0, 1, 2, 3, 4])
    read = read_classes(path, CONFIG, scheme)
    assert read.classes[0, 0].tolist() == classes
    assert read.note is None if note is None else note in str(read.note)
    with pytest.raises(InputError, match="labels 3 and 4 together"):
        read_classes(path, CONFIG)
    named = path.rename(tmp_path / "VSD.Brain.XX.O.OT.1.nii.gz")
    assert read_classes(named, CONFIG).classes[0, 0].tolist() == [0, 1, 2, 1, 3]


def test_an_enhancing_tumour_that_2013_reads_as_core_is_said(tmp_path: Path) -> None:
    """3 and no 4: of 2023 it would be enhancing tumour, of 2013, where it was asked for, it is core."""
    read = read_classes(_written(tmp_path / "seg.nii.gz", [0, 2, 3]), CONFIG, "brats2013")
    assert read.classes[0, 0].tolist() == [0, 2, 1]
    assert "label 3 read as core, not as enhancing tumour" in str(read.note)
    for scheme, labels in (("brats2013", [0, 2, 1]), ("brats2013", [0, 3, 4]), ("brats2023", [0, 2, 3])):
        assert read_classes(_written(tmp_path / "seg.nii.gz", labels), CONFIG, scheme).note is None


def test_a_patient_of_2013(cases_dir: Path) -> None:
    """The copy with the values of 2013 holds the same tumour as the case that it is of: core 1 and 3, 2, 4."""
    path = next((cases_dir.parent / "naming" / "VSD-2013").glob("VSD.Brain_3more*"))
    read = read_classes(path, CONFIG)
    assert read.note == "labels read as brats2013 (ET is 4)"
    assert np.bincount(read.classes.ravel()).tolist() == [4514240, 13770, 26972, 16154]


@pytest.mark.parametrize("text", ["NCR=2,ED=1,ET=3", "et=3, ed=1, ncr=2", "background=0,NCR=2,ED=1,ET=3"])
def test_an_order_of_labels(tmp_path: Path, text: str) -> None:
    """nnU-Net's own for BraTS."""
    assert parse_label_order(text, CONFIG.classes) == (0, 2, 1, 3)
    read = read_classes(_written(tmp_path / "a.nii", [0, 1, 2, 3]), CONFIG, text)
    assert read.classes[0, 0].tolist() == [0, 2, 1, 3]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("NCR=2,ED=1", "no ET"),
        ("NCR=2,ED=1,ET=2", "a value stands for two classes"),
        ("NCR=0,ED=1,ET=2", "a value stands for two classes"),
        ("NCR=2,NCR=1,ET=3", "NCR twice"),
        ("NCR=2,ED=1,ET=3,CSF=4", "'CSF=4'"),
        ("NCR=2,ED=1,ET=x", "'ET=x'"),
        ("NCR=2,ED=1,ET=256", "'ET=256'"),
        ("NCR=2,ED=1,ET", "'ET'"),
    ],
)
def test_orders_that_are_none(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=rf"prediction_labels {text}: {problem}; expected a value for each of NCR, ED"):
        parse_label_order(text, CONFIG.classes, "prediction_labels")


def test_a_scheme_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"labels brats1999: expected auto, brats2018, .*brats2013, brats2024"):
        read_classes(tmp_path / "a.nii", CONFIG, "brats1999")


def test_a_label_map_on_flipped_axes_is_turned_to_the_images(tmp_path: Path) -> None:
    """x runs the other way: 3 voxels of 1 mm, the first of which lies at 2 mm."""
    there = Geometry((1, 2, 3), (1.0, 1.0, 1.0), (2.0, 0.0, 0.0), (-1, 0, 0, 0, 1, 0, 0, 0, 1))
    here = Geometry((1, 2, 3), (1.0, 1.0, 1.0))
    truth = LabelMap(tmp_path / "seg.nii", np.array([[[1, 2, 3], [0, 0, 1]]], np.uint8), there, "a note")
    turned = check_on_grid(truth, tmp_path / "t1.nii", here)
    assert turned.classes.tolist() == [[[3, 2, 1], [1, 0, 0]]]
    assert (turned.geometry, turned.note) == (here, "a note")
    assert check_on_grid(turned, tmp_path / "t1.nii", here) is turned
    with pytest.raises(InputError, match=r"another grid \(corners 1 mm away\)"):
        check_on_grid(turned, tmp_path / "t1.nii", Geometry((1, 2, 3), (1.0, 1.0, 1.0), (1.0, 0.0, 0.0)))
