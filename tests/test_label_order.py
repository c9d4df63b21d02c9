"""Which value is which class in label maps of other tools, and whether labels look exchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.evaluation.label_exchange import Exchange, better_exchange
from a2fseg_cli.evaluation.label_order import dataset_order, order_text, prediction_order
from a2fseg_cli.evaluation.patient_scores import PatientScores
from a2fseg_cli.imaging.labels import parse_label_order

CONFIG = ModelConfig()
OTHER = ModelConfig(
    modalities=("ct",),
    classes=("background", "liver", "tumour"),
    label_values=(0, 1, 2),
    regions=(("all", ("liver",)),),
)


def dataset(folder: Path, labels: Any) -> Path:
    path = folder / "dataset.json"
    path.write_text(json.dumps({"labels": labels}))
    return path


@pytest.mark.parametrize("text", ["NCR=2,ED=1,ET=3", "et=3, ed=1, ncr=2"])
def test_an_order_in_words(text: str) -> None:
    assert parse_label_order(text, CONFIG.classes) == (0, 2, 1, 3)
    assert order_text((0, 2, 1, 3), CONFIG) == "NCR=2,ED=1,ET=3"


@pytest.mark.parametrize(
    "text",
    [
        "NCR=2,ED=1",
        "NCR=2,ED=2,ET=3",
        "NCR=2,ED=1,ET=0",
        "NCR=2,ED=1,ET=256",
        "NCR=2,ED=1,ET=3,ET=4",
        "NCR=2,ED=1,XX=3",
        "NCR=2,ED=1,ET=x",
        "NCR=2,ED=1,ET=-3",
        "=",
    ],
)
def test_no_order(text: str) -> None:
    with pytest.raises(UsageError, match=r"such as NCR=1,ED=2,ET=3"):
        parse_label_order(text, CONFIG.classes)


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "ED": 1, "NCR": 2, "ET": 3},
        {"background": 0, "edema": 1, "non-enhancing tumour": 2, "enhancing tumour": 3},
        {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        # as nnU-Net's own conversion of BraTS 2021 writes it
        {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]},
        {"background": 0, "WT": [1, 2, 3], "TC": [2, 3], "ET": 3},
    ],
)
def test_nnunets_dataset_file(tmp_path: Path, labels: dict[str, Any]) -> None:
    assert dataset_order(dataset(tmp_path, labels), CONFIG) == (0, 2, 1, 3)


def test_names_of_another_task(tmp_path: Path) -> None:
    assert dataset_order(dataset(tmp_path, {"background": 0, "Tumour": 1, "liver": 2}), OTHER) == (0, 2, 1)


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "tumor": 1},
        {"background": 0, "ED": 1, "NCR": 1, "ET": 3},
        {"background": 0, "WT": [1, 2, 3], "TC": [1, 2, 3], "ET": [3]},
        {"background": 0, "ED": "x", "NCR": 1, "ET": 3},
        ["ED"],
        None,
    ],
)
def test_a_dataset_file_that_does_not_say_it(tmp_path: Path, labels: Any) -> None:
    with pytest.raises(InputError, match=r"dataset\.json.*prediction_labels"):
        dataset_order(dataset(tmp_path, labels), CONFIG)


def test_damaged_dataset_files(tmp_path: Path) -> None:
    for content in (b"{", b"\xff", b"[" * 100_000, b"{}", b"[]"):
        (tmp_path / "dataset.json").write_bytes(content)
        with pytest.raises(InputError, match="prediction_labels"):
            prediction_order("auto", tmp_path, CONFIG)


def test_what_is_said_counts_more_than_the_file(tmp_path: Path) -> None:
    assert prediction_order("auto", tmp_path, CONFIG) is None
    path = dataset(tmp_path, {"background": 0, "ED": 1, "NCR": 2, "ET": 3})
    order = prediction_order("auto", tmp_path, CONFIG)
    assert order is not None
    assert (order.values, order.said_by) == ((0, 2, 1, 3), str(path))
    assert prediction_order("brats2018", tmp_path, CONFIG) is None
    order = prediction_order("NCR=1,ED=2,ET=3", tmp_path, CONFIG)
    assert order is not None
    assert (order.values, order.said_by) == ((0, 1, 2, 3), "prediction_labels")


def patient(*rows: tuple[int, ...]) -> PatientScores:
    """A patient by voxels: a row a true class (background, NCR, ED, ET), a column a predicted one."""
    return PatientScores("A", (), confusion=rows)


def test_exchanged_labels_are_noticed_with_both_figures() -> None:
    """80 of 100 voxels of either are called the other. TC as read: 2 * 20 / 200 = 0.2, exchanged 0.8."""
    swapped = patient((0, 0, 0, 0), (0, 20, 80, 0), (0, 80, 20, 0), (0, 0, 0, 0))
    assert better_exchange([swapped], CONFIG) == Exchange(("NCR", "ED"), "TC", 0.2, 0.8)


def test_a_ring_of_three_labels_is_noticed() -> None:
    ring = patient((0, 0, 0, 0), (0, 0, 9, 0), (0, 0, 0, 9), (0, 9, 0, 0))
    found = better_exchange([ring], CONFIG)
    assert found is not None
    assert found.classes == ("NCR", "ED", "ET")
    assert found.dice_exchanged == 1


def test_a_core_taken_for_enhancing_is_no_exchange() -> None:
    """All necrosis is called enhancing: exchanged, NCR would rise from 0 to 1, but ET, absent, would not."""
    assert better_exchange([patient((0, 0, 0, 0), (0, 0, 0, 90), (0, 0, 90, 0), (0, 0, 0, 0))], CONFIG) is None


def test_one_patient_does_not_outweigh_the_others() -> None:
    right = patient((0, 0, 0, 0), (0, 90, 10, 0), (0, 10, 90, 0), (0, 0, 0, 50))
    wrong = patient((0, 0, 0, 0), (0, 20, 80, 0), (0, 80, 20, 0), (0, 0, 0, 50))
    assert better_exchange([wrong], CONFIG) is not None
    assert better_exchange([right, right, wrong], CONFIG) is None
    assert better_exchange([right], CONFIG) is None


def test_masks_of_the_network_say_nothing() -> None:
    assert better_exchange([PatientScores("A", ())], CONFIG) is None
    assert better_exchange([], CONFIG) is None
