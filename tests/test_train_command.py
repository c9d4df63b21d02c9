"""`a2fseg train` as its users run it, on synthetic patients: from folders to weights that `predict` takes."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from a2fseg_cli.core.config import PRESETS
from a2fseg_cli.training.recipe import RECIPES
from a2fseg_cli.weights.file_format import inspect_weights, sha256_of
from a2fseg_cli.weights.manifest import read_manifest

Call = Callable[..., int]


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Three small patients of 3 mm voxels with a truth of 2 in a block; the second has no T1."""
    random = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (tmp_path / "data" / name).mkdir(parents=True)
        truth = np.zeros((24, 28, 26), np.uint8)
        truth[8:14, 8:16, 8:16] = 2
        for kind in ("t1", "t1c", "t2", "flair", "seg"):
            array = np.zeros(truth.shape, np.float32)
            array[3:-3, 3:-3, 3:-3] = random.uniform(50, 100, (18, 22, 20)) + 60 * (truth[3:-3, 3:-3, 3:-3] > 0)
            image = sitk.GetImageFromArray(truth if kind == "seg" else array)
            image.SetSpacing((3.0, 3.0, 3.0))
            sitk.WriteImage(image, tmp_path / "data" / name / f"P1_{kind}.nii.gz")
    (tmp_path / "data" / "b" / "P1_t1.nii.gz").unlink()
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def toy_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset `tiny`, small enough to train in a second."""
    config = replace(PRESETS["tiny"], features_per_stage=(4, 8), spacing_mm=(6.0, 6.0, 6.0), patch_size=(8, 8, 8))
    monkeypatch.setitem(PRESETS, "tiny", config)
    monkeypatch.setitem(RECIPES, "tiny", {"epochs": 1, "iterations_per_epoch": 3, "optimizer": "adamw"})


def test_from_folders_to_weights(cohort: Path, tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    split = tmp_path / "split.json"
    split.write_text('{"train": ["a", "b"], "validation": ["c"]}')
    out = tmp_path / "run"
    options = ("train", cohort, "-o", out, "--preset", "tiny", "--split", split, "--patch-size", "16")
    assert call(*options, "--name", "toy", "--licence", "CC0-1.0") == 0
    err = capsys.readouterr().err
    assert "epoch 1 step 3" in err
    assert "(all modalities: WT " in err
    assert torch.backends.cudnn.benchmark  # on a card, crops of one size: worth trying the algorithms
    found = inspect_weights(out / "best.safetensors")
    assert found.config.patch_size == (16, 16, 16)
    assert found.card["name"] == "toy"
    assert found.card["data"] == {"train": ["a", "b"], "validation": ["c"]}
    (entry,) = read_manifest(out / "weights_manifest.json").entries
    assert (entry.name, entry.licence, entry.sha256) == ("toy", "CC0-1.0", sha256_of(out / "best.safetensors"))
    assert json.loads((out / "config.json").read_text())["model"]["patch_size"] == [16, 16, 16]
    prediction = ("predict", cohort / "a", "-o", tmp_path / "s.nii.gz", "--weights", out / "best.safetensors")
    assert call(*prediction) == 0
    assert not torch.backends.cudnn.benchmark  # each brain has its own window
    assert call(*options) == 2  # the folder holds a run
    assert "holds a run already. Give resume" in capsys.readouterr().err
    old, young = out / ".last.ckpt.1-a.part", out / ".last.ckpt.2-b.part"  # of writers that were killed
    for part, age_s in ((old, 25 * 3600), (young, 23 * 3600)):
        part.touch()
        os.utime(part, (time.time() - age_s,) * 2)
    assert call(*options, "--dice-over", "regions", "--resume") == 2  # with another loss it is another run
    assert call(*options, "--resume") == 0
    assert (old.exists(), young.exists()) == (False, True)
    assert call(*options[:-1], "8", "--resume") == 2  # with another crop it is another run


def test_every_field_of_the_recipe_is_an_option(cohort: Path, tmp_path: Path, call: Call) -> None:
    """None has its default here; the card says what was trained with."""
    recipe = {
        "optimizer": "muon", "learning_rate": 0.003, "weight_decay": 0.02, "epochs": 1, "iterations_per_epoch": 1,
        "batch_size": 2, "random_subsets": 3, "foreground_share": 0.7, "foreground_weight": 3.0, "dice_over": "regions",
        "draw": "kind", "augment": False, "mix_share": 0.25, "scanner_share": 0.5, "gradient_clip": 5.0,
        "ema_decay": 0.5, "seed": 9,
    }  # fmt: skip
    named = {"iterations_per_epoch": "iterations", "augment": None}
    given = [(f"--{named.get(k, k)}".replace("_", "-"), v) for k, v in recipe.items() if k != "augment"]
    arguments = ("train", cohort, "-o", tmp_path / "run", "--preset", "tiny", "--patch-size", "16", "--no-augment")
    assert call(*arguments, *(part for pair in given for part in pair)) == 0
    found = inspect_weights(tmp_path / "run" / "last.safetensors").card["recipe"]
    assert found == recipe | {"time_budget_s": 0.0}


def test_a_time_budget_and_several_folders(
    cohort: Path, tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second by the clock, patients of two folders."""
    shutil.move(cohort / "c", tmp_path / "more" / "c")
    out = tmp_path / "run"
    options = ("--preset", "tiny", "--patch-size", "16", "--time-budget", "1s", "--iterations", "1000")
    assert call("train", cohort, tmp_path / "more", "-o", out, *options) == 0
    assert "2 train, 0 validation, 1 test" in capsys.readouterr().err
    assert inspect_weights(out / "last.safetensors").card["recipe"]["time_budget_s"] == 1.0
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_goes_on_with_the_patients_it_began_with(
    cohort: Path, tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    """A patient that came in between would have drawn another split, and trained on those kept for the test."""
    out = tmp_path / "run"
    for name in ("d", "e", "f", "g"):
        shutil.copytree(cohort / "a", cohort / name)
    options = ("train", cohort, "-o", out, "--preset", "tiny", "--patch-size", "16")
    assert call(*options) == 0
    began = json.loads((out / "split.json").read_text())
    shutil.copytree(cohort / "a", cohort / "aa")
    assert call(*options, "--resume") == 0
    assert json.loads((out / "split.json").read_text()) == began
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"train": ["aa"]}))
    capsys.readouterr()
    assert call(*options, "--resume", "--split", other) == 2
    assert "the patients the run began with" in capsys.readouterr().err


def test_a_fold_is_kept_aside_and_gone_on_with(
    cohort: Path, tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of three patients one is in the fold, one chooses the weights, one is trained on; another fold is refused."""
    out = tmp_path / "run"
    options = ("train", cohort, "-o", out, "--preset", "tiny", "--patch-size", "16")
    assert call(*options, "--fold", "1/3") == 0
    assert "1 train, 1 validation, 1 test" in capsys.readouterr().err
    began = json.loads((out / "split.json").read_text())
    for again in (("--fold", "1/3"), ()):
        assert call(*options, "--resume", *again) == 0
        assert json.loads((out / "split.json").read_text()) == began
    capsys.readouterr()
    assert call(*options, "--resume", "--fold", "0/3") == 2
    assert "the patients the run began with" in capsys.readouterr().err


def test_a_patient_that_cannot_be_used_is_left_out(
    cohort: Path, tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("P1_t2.nii.gz", "P1_t2w.nii.gz"):  # two candidates
        shutil.copy(cohort / "a" / "P1_flair.nii.gz", cohort / "c" / name)
    shutil.copy(cohort / "a" / "P1_flair.nii.gz", cohort / "a" / "contrast study.nii.gz")
    options = ("train", cohort, "-o", tmp_path / "run", "--preset", "tiny", "--patch-size", "16")
    assert call(*options, "-q") == 0
    err = capsys.readouterr().err
    assert "left out: " in err
    assert "contrast study.nii.gz" in err
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert sorted(name for names in split.values() for name in names) == ["a", "b"]


def test_another_task_by_options(cohort: Path, tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    """Two modalities and one label, trained, segmented and scored; then a third modality on top of those weights."""
    split = tmp_path / "split.json"
    split.write_text('{"train": ["a", "b"], "validation": ["c"]}')
    out, more = tmp_path / "run", tmp_path / "more"
    options = ("train", cohort, "--preset", "tiny", "--split", split, "--labels", "bright=2")
    task = ("--modalities", "t2,flair", "--regions", "all=bright", "--features", "4,8", "--spacing", "5")
    assert call(*options, "-o", out, *task, "--cache", tmp_path / "cache") == 0
    assert "(all modalities: all " in capsys.readouterr().err
    assert len(list((tmp_path / "cache").glob("*.images.npy"))) == 3
    config = inspect_weights(out / "best.safetensors").config
    assert (config.modalities, config.classes, config.label_values) == (
        ("t2", "flair"),
        ("background", "bright"),
        (0, 2),
    )
    assert (config.regions, config.spacing_mm) == ((("all", ("bright",)),), (5.0, 5.0, 5.0))
    weights = ("--weights", out / "best.safetensors")
    assert call("predict", cohort / "a", "-o", tmp_path / "s.nii.gz", *weights) == 0
    found = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "s.nii.gz"))
    assert set(np.unique(found)) <= {0, 2}
    assert call("evaluate", cohort, "--all-subsets", "-o", tmp_path / "scores", *weights) == 0
    capsys.readouterr()
    third = ("--modalities", "t1,t2,flair", "--init-weights", out / "best.safetensors")
    assert call(*options, "-o", more, *third) == 0
    assert "taken over for t2, flair; new: t1" in capsys.readouterr().err
    card = inspect_weights(more / "best.safetensors").card
    assert card["initial"]["sha256"] == sha256_of(out / "best.safetensors")
    assert card["initial"]["steps"] == 3
    assert call(*options, "-o", more, *third[:2], "--resume") == 2  # the card would forget its origin
    assert "differs from these options" in capsys.readouterr().err
    assert call(*options, "-o", more, *third, "--resume") == 0


@pytest.mark.parametrize(
    ("text", "arguments", "code", "words"),
    [
        ('{"validation": ["a"]}', (), 3, "no patients to train on"),
        ('{"train": ["nobody"]}', (), 3, "nobody"),
        ('{"train": ["a"]}', ("--patch-size", "7"), 2, "multiples of 2"),
        ('{"train": ["a"]}', ("--time-budget", "soon"), 2, "--time-budget soon"),
        ('{"train": ["a"]}', ("--optimizer", "sgd"), 2, "sgd"),
        ('{"train": ["a"]}', ("--labels", "lesion"), 2, "--labels lesion: expected name=value"),
        ('{"train": ["a"]}', ("--regions", "all"), 2, "--regions all: expected name=class+class"),
        ('{"train": ["a"]}', ("--features", "8,wide"), 2, "--features 8,wide"),
        ('{"train": ["a"]}', ("--spacing", "-1"), 2, "--spacing -1"),
        ('{"train": ["a"]}', ("--init-weights", "none.safetensors"), 4, "none.safetensors"),
        ('{"train": ["a"]}', ("--precision", "fp16"), 2, "fp16"),
        ('{"train": ["a"]}', ("--optimizer", "adam", "--weight-decay", "0.1"), 2, "-decay is for adamw and muon"),
        (
            '{"train": ["a"]}',
            ("--epochs", "2", "--time-budget", "2h"),
            2,
            "--epochs and --time-budget exclude each other",
        ),
        ('{"train": ["a"]}', ("--fold", "0/2"), 2, "--fold and --split exclude each other"),
        ('{"train": ["a"]}', ("--regions", "a=NCR,a=ED"), 2, "--regions a=NCR,a=ED: expected name=class+class"),
    ],
)
def test_refusals(
    text: str,
    arguments: tuple[str, ...],
    code: int,
    words: str,
    cohort: Path,
    tmp_path: Path,
    call: Call,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "split.json").write_text(text)
    options = ("train", cohort, "-o", tmp_path / "run", "--preset", "tiny", "--split", tmp_path / "split.json")
    assert call(*options, *arguments) == code
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err


def test_without_validation_the_last_weights_are_named(
    cohort: Path, tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "split.json").write_text('{"train": ["a"]}')
    out = tmp_path / "run"
    options = ("train", cohort, "-o", out, "--preset", "tiny", "--split", tmp_path / "split.json")
    assert call(*options) == 0
    assert f"the last: {out / 'last.safetensors'}" in capsys.readouterr().err
    assert (out / "last.safetensors").is_file()
