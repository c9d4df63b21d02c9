"""What must not happen in silence: results that are taken over wrongly, written over, scored against themselves."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from a2fseg_cli import api
from a2fseg_cli.cases.case import Case
from a2fseg_cli.cli.needs import with_flags
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.evaluation.predictions import find_predictions
from a2fseg_cli.reporting.volumes import tissue_table
from a2fseg_cli.weights.card import guess_sentence, guesses

Run = Callable[..., tuple[int, str, str]]
CONFIG = ModelConfig()


@pytest.fixture
def cohort(phantom: Path, tmp_path: Path) -> Path:
    for name in ("A", "B"):
        (tmp_path / "cohort" / name).mkdir(parents=True)
        for m in ("t1c", "flair"):
            shutil.copy(phantom / f"P1_{m}.nii.gz", tmp_path / "cohort" / name / f"{m}.nii.gz")
    return tmp_path / "cohort"


def test_volumes_of_a_4d_file_that_are_named_anew_are_segmented_anew(
    run: Run, phantom: Path, toy_weights: Path, tmp_path: Path
) -> None:
    images = [sitk.ReadImage(phantom / f"P1_{m}.nii.gz") for m in ("flair", "t1c")]
    (tmp_path / "data").mkdir()
    sitk.WriteImage(sitk.JoinSeries(images), tmp_path / "data" / "P1.nii.gz")
    arguments = ("predict", tmp_path / "data", "-o", tmp_path / "out", "--weights", toy_weights)
    assert run(*arguments, "--channels", "flair,t1c")[0] == 0
    (made,) = (tmp_path / "out").glob("*_seg.nii.gz")
    first = made.read_bytes()
    alone = [part for m in ("t1c", "flair") for part in (f"--{m}", phantom / f"P1_{m}.nii.gz")]
    assert run("predict", *alone, "-o", tmp_path / "alone.nii.gz", "--weights", toy_weights)[0] == 0
    assert np.array_equal(*(np.asarray(nib.load(path).dataobj) for path in (made, tmp_path / "alone.nii.gz")))
    code, _, err = run(*arguments, "--channels", "t1c,flair")
    assert code == 2
    assert "made from other inputs" in err
    assert made.read_bytes() == first


def test_a_mask_that_was_changed_by_hand_is_not_made_anew(
    run: Run, cohort: Path, toy_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("predict", cohort, "-o", out, "--weights", toy_weights)
    assert run(*arguments)[0] == 0
    edited = out / "A_seg.nii.gz"
    later = edited.stat().st_mtime + 60
    os.utime(edited, (later, later))
    for more in ((), ("--skip-existing",)):
        code, _, err = run(*arguments, "--preview", tmp_path / "pictures", *more)
        assert code == 2
        assert f"{edited} was changed after it was written" in err
        assert "--overwrite" in err
    assert run(*arguments, "--preview", tmp_path / "pictures", "--overwrite")[0] == 0


def test_one_mask_of_the_brain_is_for_one_patient(run: Run, cohort: Path, toy_weights: Path, tmp_path: Path) -> None:
    image = sitk.ReadImage(cohort / "A" / "flair.nii.gz")
    mask = sitk.Cast(image > 0, sitk.sitkUInt8)
    sitk.WriteImage(mask, tmp_path / "brain.nii.gz")
    chosen = ("--brain-mask", tmp_path / "brain.nii.gz", "--weights", toy_weights)
    code, _, err = run("predict", cohort, "-o", tmp_path / "out", *chosen)
    assert code == 2
    assert "is for one patient; there are 2" in err
    assert run("predict", cohort / "A", "-o", tmp_path / "a.nii.gz", *chosen)[0] == 0
    small = sitk.Image(mask)
    small[:, :, : small.GetSize()[2] // 2] = 0
    small[:, : small.GetSize()[1] // 2, :] = 0
    sitk.WriteImage(small, tmp_path / "brain.nii.gz")
    _, _, err = run("predict", cohort / "A", "-o", tmp_path / "a.nii.gz", *chosen, "--overwrite")
    assert "are no whole brain" in err


def test_nothing_that_was_read_is_written_over(run: Run, cohort: Path, toy_weights: Path, tmp_path: Path) -> None:
    flair = cohort / "A" / "flair.nii.gz"
    table = tmp_path / "patients.csv"
    table.write_text(f"case,flair\nA,{flair}\n")
    before = table.read_bytes()
    code, _, err = run(
        "predict", table, "-o", tmp_path / "s.nii.gz", "--stats", table, "--overwrite", "--weights", toy_weights
    )
    assert (code, table.read_bytes()) == (2, before)
    assert "is one of the inputs" in err
    result = api.segment(flair=flair, network=api.load_network(toy_weights))
    with pytest.raises(UsageError, match="is one of the inputs"):
        result.save(flair)


def test_a_task_of_a_batch_with_one_patient_writes_its_file(
    run: Run, cohort: Path, toy_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "4")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    arguments = (
        "predict",
        "--flair",
        cohort / "A" / "flair.nii.gz",
        "-o",
        tmp_path / "s.nii.gz",
        "--weights",
        toy_weights,
    )
    assert run(*arguments)[0] == 0


def test_a_truth_is_no_prediction_of_itself(tmp_path: Path) -> None:
    truth = tmp_path / "A_seg.nii.gz"
    truth.write_bytes(b"")
    with pytest.raises(InputError, match="no prediction"):
        find_predictions(tmp_path, [Case("A", {"flair": tmp_path / "A_flair.nii.gz"}, truth)])


def test_guesses_with_and_without_scores_in_the_card() -> None:
    card = {"scores": {"subsets": {"flair": {"WT": 0.9, "TC": 0.45, "ET": 0.25}}}}
    assert guesses(card, CONFIG, ["flair"]) == {"TC": 0.45, "ET": 0.25}
    better = {"scores": {"subsets": {"flair": {"WT": 0.9, "TC": 0.69, "ET": 0.71}, "t1c": {"WT": 0.49, "TC": 0.51}}}}
    assert guesses(better, CONFIG, ["flair"]) == {"TC": 0.69}  # no enhancement shows on FLAIR
    assert guesses(better, CONFIG, ["t1c"]) == {"WT": 0.49}
    assert "mean Dice of 45 % and 25 %" in guess_sentence(guesses(card, CONFIG, ["flair"]), "flair")
    of_none = {"scores": {"subsets": {"flair": {"WT": 0.9, "TC": 0.75, "ET": None}}}}  # no test patient has ET
    assert list(guesses(of_none, CONFIG, ["flair"])) == ["ET"]
    unknown = guesses({}, CONFIG, ["t1", "flair"])
    assert list(unknown) == ["TC", "ET"]
    assert all(math.isnan(value) for value in unknown.values())
    assert "has no scores" in guess_sentence(unknown, "t1+flair")
    assert guesses({}, CONFIG, ["t1c"]) == {}


@pytest.mark.parametrize(
    ("guessed", "marked"), [(("TC", "ET"), ["NCR", "ED", "ET", "TC", "ET"]), (("ET",), ["NCR", "ET", "ET"]), ((), [])]
)
def test_what_a_guess_leaves_of_a_region_is_a_guess(guessed: tuple[str, ...], marked: list[str]) -> None:
    """Oedema is WT without TC, and necrosis TC without ET."""
    classes = np.zeros((2, 2, 2), np.uint8)
    rows = tissue_table(classes, CONFIG.classes, (0, 1, 2, 3), dict(CONFIG.regions), (1.0, 1.0, 1.0), guessed)
    assert [row.name for row in rows if row.guess] == marked


@pytest.mark.parametrize("window", [(0, 1, 1), (-8, 8, 8), (64, 64)])
def test_windows_of_the_api_are_checked(window: tuple[int, ...], toy_weights: Path) -> None:
    with pytest.raises(UsageError, match="three edges"):
        api.load_network(toy_weights, window=window)  # type: ignore[arg-type]


def test_complex_voxels_are_refused(toy_weights: Path) -> None:
    network = api.load_network(toy_weights)
    with pytest.raises(InputError, match="Expected real numbers"):
        api.segment(flair=np.ones((8, 8, 8), np.complex64), spacing_mm=(1, 1, 1), network=network)


def test_messages_name_flags_where_a_command_prints_them() -> None:
    class Parameter:
        def __init__(self, name: str, flag: str) -> None:
            self.name, self.opts = name, [flag]

    known = [
        Parameter("on_mismatch", "--on-mismatch"),
        Parameter("overwrite", "--overwrite"),
        Parameter("case", "--case"),
    ]
    text = "or set on_mismatch to resample; overwrite it (overwrite), in this case"
    assert with_flags(text, known) == "or set --on-mismatch to resample; overwrite it (--overwrite), in this case"
