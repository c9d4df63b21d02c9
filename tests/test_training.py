"""`train` as a function: from folders to weights, its files, what it tells, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk
import torch
from training_toys import write_cohort

from a2fseg_cli.core.device import Compute
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.training.loop import Trainer
from a2fseg_cli.training.patients import choose_patients, fold_split, random_split, training_cases
from a2fseg_cli.training.processes import Processes
from a2fseg_cli.training.train import Epoch, Listener, TrainingResult, train
from a2fseg_cli.weights.file_format import inspect_weights, sha256_of
from a2fseg_cli.weights.manifest import read_manifest

TOY: dict[str, Any] = {
    "preset": "tiny",
    "modalities": ["t1", "flair"],
    "labels": {"lesion": 1},
    "features_per_stage": [4, 8],
    "spacing_mm": 1,
    "patch_size": 8,
    "epochs": 2,
    "iterations_per_epoch": 1,
    "device": "cpu",
    "precision": "fp32",
}


def write_split(path: Path, **parts: list[str]) -> Path:
    path.write_text(json.dumps(parts))
    return path


def test_one_call_from_folders_to_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two folders in one run; nothing is printed, everything is told, and the result says where the weights are."""
    folders = [write_cohort(tmp_path / "one", "ab"), write_cohort(tmp_path / "two", "c")]
    split = write_split(tmp_path / "split.json", train=["a", "c"], validation=["b"])
    notes: list[str] = []
    warnings: list[str] = []
    done: list[tuple[str, int, int]] = []
    shares: list[float] = []
    epochs: list[Epoch] = []
    listener = Listener(notes.append, warnings.append, lambda *told: done.append(told), shares.append, epochs.append)
    result = train(folders, tmp_path / "run", split=split, name="toy", licence="CC0-1.0", listener=listener, **TOY)
    assert capsys.readouterr() == ("", "")
    assert notes == ["cpu (as asked), fp32; 2 train, 1 validation"]
    assert done == [("a", 1, 3), ("c", 2, 3), ("b", 3, 3)]
    assert shares == [0.5, 1.0]
    assert [(epoch.number, epoch.step, epoch.done) for epoch in epochs] == [(1, 1, 0.5), (2, 2, 1.0)]
    assert (epochs[0].score, epochs[0].dice) == (None, {})
    assert epochs[1].score == result.score
    assert list(epochs[1].dice) == ["lesion"]
    best = tmp_path / "run" / "best.safetensors"
    assert result == TrainingResult(best, result.score, 2, result.hours, json.loads(split.read_text()))
    assert 0 < epochs[1].hours <= result.hours  # the last validation comes behind the last step
    assert warnings == []
    card = inspect_weights(best).card
    assert (card["name"], card["steps"], card["data"]) == ("toy", 2, result.split)
    (entry,) = read_manifest(tmp_path / "run" / "weights_manifest.json").entries
    assert (entry.name, entry.licence, entry.sha256) == ("toy", "CC0-1.0", sha256_of(best))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "best.safetensors", "best.safetensors.sha256", "cache", "config.json", "curves.png", "last.ckpt",
        "last.safetensors", "metrics.csv", "split.json", "weights_manifest.json",
    }  # fmt: skip


def test_only_the_first_process_tells_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two, alone: sums and waits are left out."""
    monkeypatch.setattr("a2fseg_cli.training.train.join_processes", lambda: Processes(1, 2))
    for name in ("sum_gradients", "wait"):
        monkeypatch.setattr(Processes, name, lambda *_: None)
    for name in ("sum", "from_first"):
        monkeypatch.setattr(Processes, name, lambda _, value: value)
    monkeypatch.setattr(Processes, "collect", lambda _, shares: list(shares))
    told: list[Any] = []
    listener = Listener(*[lambda *what: told.append(what)] * 5)
    data = write_cohort(tmp_path / "data", "ab")
    result = train(data, tmp_path / "run", listener=listener, **TOY | {"batch_size": 2})
    assert (told, result.first) == ([], False)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["cache"]


def test_what_the_images_warn_of_is_told_and_returned(tmp_path: Path) -> None:
    data = write_cohort(tmp_path / "data", "ab")
    for path in (data / "a").iterdir():
        image = sitk.ReadImage(path)
        image.SetSpacing((1.0, 1.0, 3.0))
        sitk.WriteImage(image, path)
    shutil.copy(data / "b" / "b_t1.nii.gz", data / "b" / "b_flair.nii")  # two candidates
    warnings: list[str] = []
    result = train(data, tmp_path / "run", listener=Listener(warn=warnings.append), **TOY)
    assert result.score is None
    assert result.weights.name == "last.safetensors"
    assert warnings == list(result.warnings)
    assert warnings[0].startswith("left out: ")
    assert not any("a: a: " in text for text in warnings)
    assert [text.partition(";")[0] for text in warnings[1:]] == ["a: 2 images: thick slices (1 x 1 x 3 mm)"]


def test_the_same_image_as_two_sequences_is_refused(tmp_path: Path) -> None:
    data = write_cohort(tmp_path / "data", "a")
    shutil.copy(data / "a" / "a_t1.nii.gz", data / "a" / "a_flair.nii.gz")
    with pytest.raises(InputError, match="t1 and flair are the same image"):
        train(data, tmp_path / "run", **TOY)


def test_patients_of_one_name_are_not_trained_on(tmp_path: Path) -> None:
    """Left out of a random split, refused in one that names them."""
    folders = [write_cohort(tmp_path / "one", "abc"), write_cohort(tmp_path / "two", "bc")]
    chosen = choose_patients(folders, ("t1", "flair"), None, seed=0)
    assert chosen.split == {"train": ["a"], "validation": [], "test": []}
    assert sum("left out: 2 patients are named b: " in text for text in chosen.warnings) == 2
    (tmp_path / "split.json").write_text('{"train": ["a", "b"]}')
    with pytest.raises(InputError, match=r"2 patients are named b: .*one.*, .*two.*\. Rename a folder"):
        choose_patients(folders, ("t1", "flair"), tmp_path / "split.json", seed=0)


def test_a_table_beside_a_folder(tmp_path: Path) -> None:
    folder = write_cohort(tmp_path / "data", "ab")
    table = tmp_path / "more.csv"
    table.write_text("case,flair,seg\nc,data/a/a_flair.nii.gz,data/a/a_seg.nii.gz\n")
    cases = training_cases([folder, table], ("t1", "flair"))
    assert [(case.name, list(case.images)) for case in cases] == [
        ("a", ["t1", "flair"]),
        ("b", ["t1", "flair"]),
        ("c", ["flair"]),
    ]


def test_the_papers_shares() -> None:
    """Of 20: 14, 2 and 4; every one once, and the same for the same seed."""
    names = [f"p{index}" for index in range(20)]
    split = random_split(names, 3)
    assert {part: len(chosen) for part, chosen in split.items()} == {"train": 14, "validation": 2, "test": 4}
    assert sorted(name for chosen in split.values() for name in chosen) == sorted(names)
    assert split == random_split(names[::-1], 3) != random_split(names, 4)


def test_folds_hold_every_patient_once_and_each_kind_evenly() -> None:
    """12 patients with FLAIR alone and 8 with all four in 5 folds: 4 a fold, 2 or 3 of the one and 1 or 2 of the other.

    Of the 16 others every tenth, 2, is for validation.
    """
    kinds = {f"p{i}": "flair" if i < 12 else "t1+t1c+t2+flair" for i in range(20)}
    splits = [fold_split(kinds, (number, 5), 3) for number in range(5)]
    assert sorted(name for split in splits for name in split["test"]) == sorted(kinds)
    for split in splits:
        assert {part: len(names) for part, names in split.items()} == {"train": 14, "validation": 2, "test": 4}
        assert len({name for names in split.values() for name in names}) == 20
        assert sum(kinds[name] == "flair" for name in split["test"]) in (2, 3)
    backwards = dict(reversed(kinds.items()))
    assert splits[1] == fold_split(backwards, (1, 5), 3) != fold_split(kinds, (1, 5), 4)


def test_all_examinations_of_a_person_are_in_one_part() -> None:
    """Ten persons with one to three examinations: what was trained on a brain must not be scored on it."""
    persons = {f"sub-{i}_ses-{s}": f"sub-{i}" for i in range(10) for s in range(1 + i % 3)}
    kinds = dict.fromkeys(persons, "flair")
    splits = [fold_split(kinds, (number, 5), 3, persons) for number in range(5)]
    for split in (*splits, random_split(list(persons), 3, persons)):
        of_parts = [{persons[name] for name in names} for names in split.values()]
        assert sum(map(len, of_parts)) == len(set.union(*of_parts)) == 10
        assert sum(map(len, split.values())) == len(persons)
    assert sorted(name for split in splits for name in split["test"]) == sorted(persons)
    assert [len({persons[name] for name in split["test"]}) for split in splits] == [2] * 5
    one_each = {name: name for name in persons}
    assert random_split(list(persons), 3, one_each) == random_split(list(persons), 3)
    with pytest.raises(UsageError, match="fold 0/4: 3 patients have a truth"):
        fold_split(dict.fromkeys(["a1", "a2", "b", "c"], "t1"), (0, 4), 0, {"a1": "a", "a2": "a"})


def test_whose_an_examination_is_comes_from_the_table(tmp_path: Path) -> None:
    """Two of four examinations are one person's: three folds of persons, and these two always together."""
    write_cohort(tmp_path, "abcd")
    persons = {"a": 1, "b": 1, "c": 2, "d": 3}
    rows = [f"{case},{of},{case}/{case}_flair.nii.gz,{case}/{case}_seg.nii.gz" for case, of in persons.items()]
    table = tmp_path / "cohort.csv"
    table.write_text("\n".join(["case,subject,flair,seg", *rows]))
    for number in range(3):
        parts = choose_patients([table], ("t1", "flair"), None, 0, (number, 3)).split
        assert any({"a", "b"} <= set(names) for names in parts.values())
    split = write_split(tmp_path / "split.json", train=["a", "c"], validation=["d"], test=["b"])
    told = choose_patients([table], ("t1", "flair"), split, 0).warnings
    assert told == ["1 has examinations in several parts of the split (1 such persons)."]


def test_leaving_one_out_of_three() -> None:
    for number in range(3):
        split = fold_split(dict.fromkeys("abc", "t1"), (number, 3), 0)
        assert [len(split[part]) for part in ("train", "validation", "test")] == [1, 1, 1]


@pytest.mark.parametrize("fold", [(5, 5), (0, 1), (0, 0), (0, 4), (-1, 3)])
def test_folds_that_there_cannot_be(fold: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=r"Expected|expected"):
        fold_split(dict.fromkeys("abc", "t1"), fold, 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preset": "huge"}, "preset huge: expected"),
        ({"precision": "fp16"}, "precision fp16: training runs in bf16 or fp32"),
        ({"workers": -1}, "workers -1: expected 0 or more"),
        ({"name": "../x"}, "name '../x' must be letters"),
        ({"optimizer": "adam", "weight_decay": 0.1}, "weight_decay is for adamw and muon; the optimizer is adam"),
        ({"time_budget_s": 60.0}, "epochs and time_budget_s"),
        ({"draw": "flair=1"}, "draw flair=1: the training patients have t1"),
        ({"draw": "t1=1e308,flair=1e308"}, "each combination of sequences once, with a share above 0, at most 1e"),
    ],
    ids=str,
)
def test_refusals_name_parameters(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        train(write_cohort(tmp_path / "data", "a"), tmp_path / "run", **TOY | changes)
    assert "--" not in str(caught.value)


def test_a_wrong_draw_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    """Hundreds of patients take minutes to preprocess."""
    with pytest.raises(UsageError, match="give each of these a share"):
        train(write_cohort(tmp_path / "data", "a"), tmp_path / "run", **TOY | {"draw": "flair=1"})
    assert not (tmp_path / "run").exists()


def test_a_list_of_the_split_that_is_not_read_is_named(tmp_path: Path) -> None:
    data = write_cohort(tmp_path / "data", "abc")
    (tmp_path / "split.json").write_text('{"train": ["a"], "val": ["b"], "test": ["c"]}')
    (warning,) = choose_patients([data], ("t1", "flair"), tmp_path / "split.json", seed=0).warnings
    assert "the list val is not read; expected train, validation and test" in warning


def test_a_patient_of_the_split_that_is_nowhere(tmp_path: Path) -> None:
    folders = [write_cohort(tmp_path / "one", "a"), write_cohort(tmp_path / "two", "b")]
    (tmp_path / "split.json").write_text('{"train": ["a", "c", "d"]}')
    with pytest.raises(InputError, match=r"^c: .* not found in .*one, .*two \(2 such cases\)\. Give the folder"):
        choose_patients(folders, ("t1", "flair"), tmp_path / "split.json", seed=0)


def test_resuming_says_which_settings_differ(tmp_path: Path) -> None:
    data = write_cohort(tmp_path / "data", "ab")
    train(data, tmp_path / "run", **TOY)
    with pytest.raises(UsageError, match=r'began with\. draw was "case", is "kind"; mix_share was 0\.0, is 0\.5\.$'):
        train(data, tmp_path / "run", **TOY | {"draw": "kind", "mix_share": 0.5, "resume": True})


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="data: no folder"):
        train([], tmp_path / "run", **TOY)


def test_a_card_without_bf16_trains_in_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` would take fp16 there, for which a prediction is fine."""
    asked: list[str] = []

    def choose(device: str, precision: str) -> Compute:
        asked.append(precision)
        return Compute(torch.device(device), "fp16" if precision == "auto" else precision, "for the test")

    monkeypatch.setattr("a2fseg_cli.training.train.choose_compute", choose)
    monkeypatch.setattr(Trainer, "run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    notes: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        train(
            write_cohort(tmp_path / "data", "a"),
            tmp_path / "run",
            listener=Listener(note=notes.append),
            **TOY | {"precision": "auto"},
        )
    assert asked == ["auto", "fp32"]
    assert "fp32" in notes[0]
