"""Scores by kind of patient, by hand: who is of which kind, their means, the table, and the card."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import InputError
from a2fseg_cli.evaluation.kinds import kinds_table, patients_by_kind, read_kinds
from a2fseg_cli.evaluation.outputs import _not_kept_aside
from a2fseg_cli.evaluation.patient_scores import PatientScores, Row
from a2fseg_cli.evaluation.summary import card_scores
from a2fseg_cli.weights.file_format import inspect_weights

Run = Callable[..., tuple[int, str, str]]
CONFIG = ModelConfig()


def patient(case: str, et_voxels: int, dice: float) -> PatientScores:
    """A patient with the same Dice in every region from FLAIR, and 0.2 more from T2."""
    rows = [
        Row(subset, region, {"dice": value}, {"reference_voxels": et_voxels if region == "ET" else 9}, "")
        for subset, value in (("flair", dice), ("t2", dice + 0.2))
        for region in ("WT", "TC", "ET")
    ]
    return PatientScores(case, tuple(rows))


FOUR = [patient("A", 5, 0.1), patient("B", 5, 0.3), patient("C", 0, 0.5), patient("D", 5, 0.7)]
SCANNERS = {"A": "1.5 T", "C": "1.5 T", "D": "3 T", "Z": "7 T"}


def test_who_is_of_which_kind() -> None:
    """All four have WT and TC, so only ET tells kinds apart; nobody who was scored is of 7 T, and B of no scanner."""
    kinds = patients_by_kind(FOUR, CONFIG, SCANNERS)
    assert {kind: [one.case for one in patients] for kind, patients in kinds.items()} == {
        "1.5 T": ["A", "C"],
        "3 T": ["D"],
        "with ET": ["A", "B", "D"],
        "without ET": ["C"],
    }
    assert list(patients_by_kind(FOUR[:2], CONFIG, {})) == []


def test_the_table_and_the_card() -> None:
    """1.5 T: A and C, (0.1 + 0.5) / 2 = 0.3 from FLAIR, 0.5 from T2, 0.4 over both."""
    table = kinds_table(FOUR, CONFIG, "brats2020", SCANNERS)
    assert table.title == "Dice in % by kind of patient, mean of 2 subsets, policy brats2020"
    assert table.columns == ("kind", "n", "WT", "TC", "ET")
    assert table.rows[0] == ("1.5 T", "2", "40.00", "40.00", "40.00")
    assert table.rows[3] == ("without ET", "1", "60.00", "60.00", "60.00")
    assert table.rows[4] == ("all", "4", "50.00", "50.00", "50.00")
    assert table.notes == ("1 of 4 patients are of no kind that the table names",)
    assert kinds_table(FOUR, CONFIG, "brats2020", {}).notes == ()
    card = card_scores(FOUR, CONFIG, "brats2020", SCANNERS)
    assert card["kinds"]["1.5 T"]["patients"] == 2
    assert card["kinds"]["1.5 T"]["subsets"]["flair"] == pytest.approx({"WT": 0.3, "TC": 0.3, "ET": 0.3})
    assert "1.5 T" not in card_scores(FOUR, CONFIG, "brats2020", dict.fromkeys("ABCD", "1.5 T"))["kinds"]
    low, high = card["intervals_95"]["flair"]["WT"]
    assert 0.1 <= low < 0.4 < high <= 0.7
    assert card["patients_of_subsets"] == {"flair": 4, "t2": 4}
    only_t2 = PatientScores("E", tuple(row for row in patient("E", 5, 0.5).rows if row.subset == "t2"))
    mixed = card_scores([*FOUR, only_t2], CONFIG, "brats2020", {"E": "1.5 T", "A": "1.5 T"})
    assert mixed["patients_of_subsets"] == {"flair": 4, "t2": 5}
    assert mixed["kinds"]["1.5 T"]["patients_of_subsets"] == {"flair": 1, "t2": 2}
    assert card_scores(FOUR[:1], CONFIG, "brats2020")["intervals_95"]["t2"]["ET"] == pytest.approx([0.3, 0.3])


def test_a_card_that_calls_patients_of_the_training_test_patients_is_warned_of() -> None:
    card = {"data": {"train": ["A", "B"], "validation": ["C"], "test": ["D"]}}
    (warning,) = _not_kept_aside(card, ["A", "C", "D"])
    assert "trained or chosen on 2 of these 3 patients (A, C)" in warning
    assert _not_kept_aside(card, ["D"]) == _not_kept_aside({}, ["A"]) == []


def test_the_table_of_kinds(tmp_path: Path) -> None:
    table = tmp_path / "kinds.csv"
    table.write_text("\ufeffcase,age,kind\nA,50,1.5 T\nB, 60 , 3 T \n", encoding="utf-8")
    assert read_kinds(table) == {"A": "1.5 T", "B": "3 T"}
    assert read_kinds("truth") == {}
    for text, message in (
        ("case,group\nA,x\n", "no column kind"),
        ("case,kind\nA,x\nA,y\n", "line 3: case A stands in the table twice"),
        ("case,kind\nA,\n", "line 2: an empty cell"),
    ):
        table.write_text(text)
        with pytest.raises(InputError, match=message):
            read_kinds(table)
    with pytest.raises(InputError, match="cannot be read"):
        read_kinds(tmp_path / "none.csv")
    table.write_bytes(b"case,kind\nA,\xff\n")
    with pytest.raises(InputError, match="no CSV table in UTF-8"):
        read_kinds(table)


def test_by_the_command(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    """Two patients, one without ET, each from its own scanner: table, summary, card, and what info and predict say."""
    for name, label in (("A", 3), ("B", 2)):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for image in (phantom / f"P1_{m}.nii.gz" for m in ("t1c", "flair")):
            (folder / image.name.replace("P1", name)).symlink_to(image)
        truth = np.zeros((50, 64, 64), np.uint8)
        truth[20:35, 20:40, 20:40] = label
        mask = sitk.GetImageFromArray(truth)
        mask.CopyInformation(sitk.ReadImage(str(phantom / "P1_t1c.nii.gz")))
        sitk.WriteImage(mask, str(folder / f"{name}_seg.nii.gz"))
    (tmp_path / "kinds.csv").write_text("case,kind\nA,old scanner\n")
    command = ("evaluate", tmp_path / "data", "--all-subsets", "--metrics", "dice", "--weights", toy_weights)
    out, card = tmp_path / "scores", tmp_path / "w.safetensors"
    code, shown, err = run(*command, "--kinds", tmp_path / "kinds.csv", "-o", out, "--write-card", card)
    assert code == 0, err
    assert "by kind of patient" in " ".join(shown.split())
    assert "1 of 2 patients are of no kind" in " ".join(shown.split())
    summary = json.loads((out / "summary.json").read_text())
    scores = inspect_weights(card).card["scores"]
    assert set(summary["kinds"]) == set(scores["kinds"])
    assert set(scores["kinds"]) == {"old scanner", "with TC", "without TC", "with ET", "without ET"}
    assert set(scores["intervals_95"]) == set(scores["subsets"])
    code, shown, err = run("info", "--weights", card)
    assert code == 0, err
    assert "old scanner, n = 1" in shown
    flair = phantom / "P1_flair.nii.gz"
    code, _, err = run("predict", "--flair", flair, "-o", tmp_path / "seg.nii.gz", "--weights", card)
    assert code == 0, err
    assert "on 2 test patients is WT" in " ".join(err.split())
    assert "By kind of patient: old scanner (1) WT" in " ".join(err.split())
    code, _, err = run(*command[:-4], "--metrics", "hd95", "--kinds", "truth", "--weights", toy_weights)
    assert code == 2
    assert "--kinds needs --metrics dice" in " ".join(err.split())
