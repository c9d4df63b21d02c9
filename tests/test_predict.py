"""`a2fseg predict` as its users run it: files, folders, cohorts, tables; grids, repeats, refusals."""

from __future__ import annotations

import csv
import itertools
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
import torch

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.shares import share_of
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.networks import parameter_shapes
from a2fseg_cli.errors import UsageError
from a2fseg_cli.inference.stats import StatsFile
from a2fseg_cli.weights.card import expected_dice
from a2fseg_cli.weights.file_format import load_weights, save_weights

Run = Callable[..., tuple[int, str, str]]
PATIENT = "BraTS20_Training_001"


def voxels(path: Path) -> npt.NDArray[np.uint8]:
    return np.asarray(nib.load(path).dataobj, np.uint8)  # type: ignore[attr-defined]


def dice(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def test_flags_folder_and_table_give_the_same_segmentation(
    run: Run, phantom: Path, toy_weights: Path, tmp_path: Path
) -> None:
    files = {m: phantom / f"P1_{m}.nii.gz" for m in ("t1c", "flair")}
    code, out, _ = run(
        "predict",
        "--t1c",
        files["t1c"],
        "--fla",
        files["flair"],
        "-o",
        tmp_path / "new/a.nii.gz",
        "--weights",
        toy_weights,
    )
    assert code == 0
    assert "mL" in out
    only = tmp_path / "only"
    only.mkdir()
    for path in files.values():
        shutil.copy(path, only)
    assert run("predict", only, "-o", tmp_path / "b.nii.gz", "--weights", toy_weights)[0] == 0
    table = tmp_path / "patients.csv"
    table.write_text(f"case,t1,t1c,t2,flair\nP1,,{files['t1c']},,{files['flair']}\n")
    assert run("predict", table, "-o", tmp_path / "out", "--weights", toy_weights)[0] == 0
    written = [tmp_path / "new/a.nii.gz", tmp_path / "b.nii.gz", tmp_path / "out/P1_seg.nii.gz"]
    assert len({path.read_bytes() for path in written}) == 1


def test_absent_modality_is_never_opened(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "P1"
    shutil.copytree(phantom, folder)
    chosen = ("--t1c", folder / "P1_t1c.nii.gz", "--flair", folder / "P1_flair.nii.gz", "--weights", toy_weights)
    assert run("predict", *chosen, "-o", tmp_path / "a.nii.gz")[0] == 0
    image = sitk.ReadImage(folder / "P1_t1.nii.gz", sitk.sitkFloat32)
    sitk.WriteImage(image * float("nan"), folder / "P1_t1.nii.gz")
    (folder / "P1_t2.nii.gz").write_bytes(b"not an image")
    assert run("predict", *chosen, "-o", tmp_path / "b.nii.gz")[0] == 0
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_everything_beside_the_segmentation(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    code, out, _ = run(
        "predict", phantom, "-o", tmp_path / "s.nii.gz", "--weights", toy_weights, "--regions", "--probabilities",
        "--attention", "--preview", tmp_path / "p.png", "--stats", tmp_path / "s.json", "--labels", "brats2018",
        "--json",
    )  # fmt: skip
    assert code == 0
    stats = json.loads(out)
    assert stats == json.loads((tmp_path / "s.json").read_text())
    seg = voxels(tmp_path / "s.nii.gz")
    assert set(np.unique(seg)) <= {0, 1, 2, 4}
    wt, tc, et = (voxels(tmp_path / f"s_region_{r}.nii.gz") for r in ("WT", "TC", "ET"))
    assert np.array_equal(wt, seg > 0)
    assert np.array_equal(tc, (seg == 1) | (seg == 4))
    assert np.array_equal(et, seg == 4)
    assert stats["volumes_ml"]["WT"] == pytest.approx(wt.sum() * 0.027)  # a voxel of 3 mm is 0.027 mL
    weights = sum(nib.load(tmp_path / f"s_attention_{m}.nii.gz").get_fdata() for m in ("t1", "t1c", "t2", "flair"))
    inside = np.abs(weights) > 0.5
    assert np.allclose(weights[inside], 1, atol=0.02)  # What_m sums to 1; bf16
    for region in ("WT", "TC", "ET"):
        p = nib.load(tmp_path / f"s_prob_{region}.nii.gz").get_fdata()
        assert p.min() >= 0
        assert p.max() <= 1 + 1e-5
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_sensitivity_compares_with_every_smaller_subset(
    run: Run, phantom: Path, toy_weights: Path, tmp_path: Path
) -> None:
    images = [part for m in ("t1", "t1c", "flair") for part in (f"--{m}", phantom / f"P1_{m}.nii.gz")]
    arguments = ("predict", *images, "--weights", toy_weights, "--precision", "fp32", "--json")
    code, out, _ = run(*arguments, "-o", tmp_path / "a.nii.gz", "--agreement")
    assert code == 0
    agreement = json.loads(out)["agreement_with_fewer"]
    assert list(agreement) == ["flair", "t1c", "t1c+flair", "t1", "t1+flair", "t1+t1c"]
    assert all(0 <= value <= 1 for dice_ in agreement.values() for value in dice_.values())
    assert run(*arguments, "-o", tmp_path / "b.nii.gz")[0] == 0
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_refuses_to_overwrite(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    arguments = ("predict", phantom, "-o", tmp_path / "s.nii.gz", "--weights", toy_weights)
    assert run(*arguments)[0] == 0
    code, _, err = run(*arguments)
    assert code == 2
    assert "s.nii.gz exists" in err
    assert run(*arguments, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--flair", "missing.nii.gz", "-o", "s.nii.gz"), 3, "missing.nii.gz"),
        (("--flair", "{t1}", "--t1", "{t1}", "-o", "s.nii.gz"), 3, "same"),
        (("{folder}", "--flair", "{t1}", "-o", "s.nii.gz"), 2, "exclude each other"),
        (("{t1}", "-o", "s.nii.gz"), 2, "by its sequence: t1, t1c, t2, flair"),
        (("{folder}",), 2, "-o"),
        (("{folder}", "-o", "s.xyz"), 0, ""),  # a folder of that name: one patient, batch layout
        (("--t1", "{t1}", "-o", "s.nii.gz", "--device", "cuda:9"), 2, "cuda:9"),
        (("--t1", "{t1}", "-o", "s.nii.gz", "--device", "abacus"), 2, "abacus"),
        (("--t1", "{t1}", "-o", "s.nii.gz", "--labels", "brats1999"), 2, "brats1999"),
        (("--t1", "{t1}", "-o", "s.nii.gz", "--overlap", "1"), 2, "overlap"),
        (("--t1", "{t1}", "-o", "s.nii.gz", "--window", "big"), 2, "--window"),
        (("--t1", "{t1}", "-o", "s.nii.gz", "--weights", "nowhere.safetensors"), 4, "nowhere.safetensors"),
        (("--image", "pd={t1}", "-o", "s.nii.gz"), 2, "pd"),
        (("--t1", "{t1}", "--t1n", "b.nii", "-o", "s.nii.gz"), 2, "--t1 was given 2 times. Keep one"),
        (("--t1", "{t1}", "--image", "t1=b.nii", "-o", "s.nii.gz"), 2, "b.nii. Keep one"),
        (("--t1", "{t1}", "-o", "s.nii.gz", "--preview", "s.jpg"), 2, "ending in .png"),
        (("--t1", "{t1}", "-o", "s.nii.gz", "--report", "s.png"), 2, "ending in .html"),
        (("--t1", "{t1}", "-o", "s.png.nii", "--regions", "--stats", "s.png_region_WT.nii.gz"), 2, ".json or .csv"),
        (("--t1", "{t1}", "-o", "s.nii.gz", "--skip-existing"), 2, "cohort"),
        (("{folder}", "-o", "out", "--preview", "out/seg.png"), 2, "a folder"),
        (("{folder}", "-o", "out", "--stats", "out/status.csv"), 2, "two outputs"),
        (("{folder}", "-o", "out", "--agreement"), 2, "stats (a .json file)"),
        (("{folder}", "-o", "out", "--labels", "brats1999"), 2, "brats1999"),
        (("{folder}", "-o", "out", "--num-parts", "2"), 2, "--part-id"),
    ],
)
def test_refusals_name_what_is_wrong(
    arguments: tuple[str, ...],
    code: int,
    words: str,
    run: Run,
    phantom: Path,
    toy_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [a.format(t1=phantom / "P1_t1.nii.gz", folder=phantom) for a in arguments]
    weights = () if "--weights" in filled else ("--weights", toy_weights)
    found, _, err = run("predict", *filled, *weights)
    assert found == code, err
    assert words in err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("Error")]) == (code != 0)


def test_differing_grids_are_refused_or_resampled(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    moved = sitk.ReadImage(phantom / "P1_flair.nii.gz")
    moved.SetOrigin((5.0, 0.0, 0.0))
    sitk.WriteImage(moved, tmp_path / "flair.nii.gz")
    arguments = ("predict", "--t1c", phantom / "P1_t1c.nii.gz", "--flair", tmp_path / "flair.nii.gz")
    arguments += ("-o", tmp_path / "s.nii.gz", "--weights", toy_weights)
    code, _, err = run(*arguments)
    assert code == 3
    assert "5.000" in err  # the largest corner offset in mm
    assert run(*arguments, "--dry-run")[0] == 3
    code, out, _ = run(*arguments, "--dry-run", "--on-mismatch", "resample")
    assert code == 0
    assert "will be resampled" in out
    code, _, err = run(*arguments, "--on-mismatch", "resample")
    assert code == 0
    assert "corners up to 5 mm apart" in err


def test_the_output_has_the_grid_of_the_first_image_of_the_command_line(
    run: Run, phantom: Path, toy_weights: Path, tmp_path: Path
) -> None:
    small = sitk.ReadImage(phantom / "P1_flair.nii.gz")[4:, 4:, 4:]
    sitk.WriteImage(small, tmp_path / "flair.nii.gz")
    images = {"--t1": phantom / "P1_t1.nii.gz", "--flair": tmp_path / "flair.nii.gz"}
    for first, second in (("--flair", "--t1"), ("--t1", "--flair")):
        given = (first, images[first], second, images[second], "-o", tmp_path / f"s{first}.nii.gz")
        assert run("predict", *given, "--on-mismatch", "resample", "--weights", toy_weights)[0] == 0
        assert voxels(tmp_path / f"s{first}.nii.gz").shape == nib.load(images[first]).shape


def test_dry_run_shows_and_writes_nothing(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    code, out, _ = run("predict", phantom, "--dry-run", "--json", "--weights", toy_weights)
    assert code == 0
    rows = json.loads(out)
    assert [row["modality"] for row in rows] == ["t1", "t1c", "t2", "flair"]
    assert all(row["size"] == [50, 64, 64] for row in rows)
    assert not list(tmp_path.iterdir())


def make_cohort(phantom: Path, folder: Path, count: int) -> Path:
    for index in range(count):
        target = folder / f"case{index}"
        target.mkdir(parents=True)
        for modality in ("t1c", "flair")[: 1 + index % 2]:
            shutil.copy(phantom / f"P1_{modality}.nii.gz", target / f"{modality}.nii.gz")
    return folder


def read_status(folder: Path) -> dict[str, str]:
    with (folder / "status.csv").open(newline="") as file:
        return {row["case"]: row["status"] for row in csv.DictReader(file)}


def test_cohort_reports_the_bad_patient_and_redoes_only_what_is_missing(
    run: Run, phantom: Path, toy_weights: Path, tmp_path: Path
) -> None:
    cohort = make_cohort(phantom, tmp_path / "cohort", 4)
    damaged = cohort / "case2" / "t1c.nii.gz"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    arguments = ("predict", cohort, "-o", out, "--weights", toy_weights)
    code, _, err = run(*arguments)
    assert code == 1
    assert "case2" in err
    assert read_status(out) == {"case0": "ok", "case1": "ok", "case2": "failed", "case3": "ok"}
    stamps = {path.name: path.stat().st_mtime_ns for path in out.glob("*_seg.nii.gz")}
    assert len(stamps) == 3
    damaged.write_bytes(whole)
    assert run(*arguments)[0] == 0
    assert set(read_status(out).values()) == {"ok"}
    assert all((out / name).stat().st_mtime_ns == stamp for name, stamp in stamps.items())
    code, _, err = run(*arguments, "--labels", "brats2018")
    assert code == 2
    assert "other inputs, weights or settings" in err
    assert run(*arguments, "--labels", "brats2018", "--skip-existing")[0] == 0
    assert (out / "case0_seg.nii.gz").stat().st_mtime_ns != stamps["case0_seg.nii.gz"]


def test_quiet_still_says_who_failed_and_stats_hold_a_list(
    run: Run, phantom: Path, toy_weights: Path, tmp_path: Path
) -> None:
    cohort = make_cohort(phantom, tmp_path / "cohort", 2)
    (cohort / "case1" / "t1c.nii.gz").write_bytes(b"not an image")
    stats = tmp_path / "stats.json"
    code, _, err = run("predict", cohort, "-o", tmp_path / "out", "--weights", toy_weights, "-q", "--stats", stats)
    assert code == 1
    assert "t1c.nii.gz" in err
    assert [row["case"] for row in json.loads(stats.read_text())] == ["case0"]  # a list, however many there are


def test_stats_are_not_written_over(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text("mine")
    arguments = ("predict", phantom, "-o", tmp_path / "s.nii.gz", "--weights", toy_weights)
    code, _, err = run(*arguments, "--stats", tmp_path / "s.json")
    assert code == 2
    assert "s.json exists" in err
    assert (tmp_path / "s.json").read_text() == "mine"


def test_an_experts_mask_is_never_written_over(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    """Two patients side by side, and the results into the same folder: `A_seg.nii.gz` is the truth's name too."""
    for name in ("A", "B"):
        shutil.copy(phantom / "P1_t1.nii.gz", tmp_path / f"{name}_t1.nii.gz")
    (tmp_path / "A_seg.nii.gz").write_bytes(b"the truth")
    arguments = ("predict", tmp_path, "-o", tmp_path, "--weights", toy_weights, "--overwrite")
    code, _, err = run(*arguments)
    assert code == 2
    assert "A_seg.nii.gz is one of the inputs" in err
    assert (tmp_path / "A_seg.nii.gz").read_bytes() == b"the truth"


def test_cohort_statistics_and_pages_are_made_when_asked_for_later_and_kept(
    run: Run, phantom: Path, toy_weights: Path, tmp_path: Path
) -> None:
    cohort = make_cohort(phantom, tmp_path / "cohort", 2)
    out, pages, table = tmp_path / "out", tmp_path / "pages", tmp_path / "stats.csv"
    arguments = ("predict", cohort, "-o", out, "--weights", toy_weights)
    assert run(*arguments)[0] == 0
    assert run(*arguments, "--stats", table, "--report", pages)[0] == 0
    assert sorted(path.name for path in pages.iterdir()) == ["case0.html", "case1.html", "index.html", "thumbnails"]
    first = table.read_text()
    stamps = [path.stat().st_mtime_ns for path in sorted(out.glob("*_seg.nii.gz"))]
    shutil.copytree(cohort / "case0", cohort / "case2")
    assert run(*arguments, "--stats", table, "--report", pages)[0] == 0
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["case0", "case1", "case2"]
    assert table.read_text().startswith(first)  # what was done before stands there as it was
    assert [path.stat().st_mtime_ns for path in sorted(out.glob("*_seg.nii.gz"))][:2] == stamps
    assert rows[0]["WT_voxels"] == rows[2]["WT_voxels"] != ""
    assert float(rows[0]["WT_ml"]) == pytest.approx(int(rows[0]["WT_voxels"]) * 0.027, abs=1e-3)
    assert float(rows[0]["WT_diameter_mm"]) >= float(rows[0]["WT_diameter_across_mm"]) >= 0
    (pages / "case3.html").write_text("mine")
    shutil.copytree(cohort / "case0", cohort / "case3")
    assert run(*arguments, "--stats", table, "--report", pages)[0] == 2
    assert (pages / "case3.html").read_text() == "mine"


@pytest.mark.parametrize(
    "text", ["mine\n1\n", "[1]\n2\n", "case,t1\nA,a.nii\n", '[{"case": "A"}]\n1', '{"case": 1}\n1']
)
@pytest.mark.parametrize("name", ["s.json", "s.csv"])
def test_a_foreign_statistics_file_is_not_taken_over(text: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match="holds no cohort's statistics"):
        StatsFile(tmp_path / name)


def test_cohort_says_once_what_absent_modalities_cost(run: Run, phantom: Path, tmp_path: Path) -> None:
    cohort = make_cohort(phantom, tmp_path / "cohort", 3)  # T1c, T1c and FLAIR, T1c
    code, _, err = run("predict", cohort, "-o", tmp_path / "out")
    assert code == 0
    assert [err.count(f"Without {names} the mean Dice") for names in ("t1, t2, flair", "t1, t2")] == [1, 1]


def test_an_empty_mask_is_a_failure_again_when_it_was_finished_before(
    run: Run, phantom: Path, toy_weights: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.safetensors"
    weights, tensors = load_weights(toy_weights, parameter_shapes)
    tensors["head.bias"] = tensors["head.bias"].clone()
    tensors["head.bias"][0] = 1e4
    save_weights(empty, tensors, weights.config, {})
    arguments = ("predict", make_cohort(phantom, tmp_path / "cohort", 1), "-o", tmp_path / "out", "--weights", empty)
    for _ in range(2):
        code, _, err = run(*arguments, "--fail-on-empty")
        assert code == 1
        assert "no tumour was found in case0" in err


@pytest.mark.parametrize("table", [b"\xff\xfe\x00case", b"what,else\n1,2\n", b"case,modalities,status\na,t1,ok\n"])
def test_a_foreign_status_table_is_not_taken_over(
    table: bytes, run: Run, phantom: Path, toy_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "status.csv").write_bytes(table)
    code, _, err = run("predict", make_cohort(phantom, tmp_path / "cohort", 2), "-o", out, "--weights", toy_weights)
    assert code == 2
    assert "status.csv: not a status table of this tool" in err
    assert (out / "status.csv").read_bytes() == table


def test_what_to_expect_of_a_subset() -> None:
    """Means with their intervals, then those of each kind; a card from outside may hold anything beside the means."""
    full, flair = {"WT": 0.9, "TC": 0.8, "ET": 0.6}, {"WT": 0.7, "TC": 0.5, "ET": 0.3}
    scores = {
        "patients": 8,
        "subsets": {"t1+t1c+t2+flair": full, "flair": flair},
        "intervals_95": {"flair": {"WT": [0.65, 0.75], "TC": [0.4, None], "ET": [0.2, 0.414]}},
        "kinds": {
            "with ET": {"patients": 7, "subsets": {"flair": {"WT": 0.7, "TC": 0.5, "ET": 0.34}}},
            "without ET": {"patients": 1, "subsets": {"flair": {"WT": 0.7, "TC": 0.5, "ET": 0.0}}},
            "not scored": {"patients": 2, "subsets": {"t2": flair}},
        },
    }
    assert expected_dice({"scores": scores}, ModelConfig(), ["flair"]) == (
        "Without t1, t1c, t2 the mean Dice (95 % interval) on 8 test patients is WT 70 (65 to 75), TC 50, ET 30 (20 to "
        "41) %; from all sequences WT 90, TC 80, ET 60 %. By kind of patient: with ET (7) WT 70, TC 50, ET 34 %; "
        "without ET (1) WT 70, TC 50, ET 0 %."
    )
    everything = ("t1", "t1c", "t2", "flair")
    assert expected_dice({"scores": scores}, ModelConfig(), everything) == (
        "From all sequences the mean Dice on 8 test patients is WT 90, TC 80, ET 60 %."
    )
    fewer = {"patients_of_subsets": {"flair": 5, "t1+t1c+t2+flair": 1}}  # not all have all sequences
    kinds = {"with ET": {**scores["kinds"]["with ET"], "patients_of_subsets": {"flair": 4}}}  # type: ignore[index]
    card = {"scores": scores | fewer | {"kinds": kinds}}
    assert "on 5 test patients is" in expected_dice(card, ModelConfig(), ["flair"])
    assert "with ET (4) WT 70" in expected_dice(card, ModelConfig(), ["flair"])
    assert "on 1 test patient is" in expected_dice(card, ModelConfig(), everything)
    for strange in (5, "x", None, [1], {"flair": 3}, {"with ET": {"subsets": 3}}):
        card = {"scores": scores | {"kinds": strange, "intervals_95": strange}}
        assert "By kind" not in expected_dice(card, ModelConfig(), ["flair"])
        assert "interval" not in expected_dice(card, ModelConfig(), ["flair"])


def test_what_absent_modalities_cost() -> None:
    """From 0.9 to 0.7 and from 0.6 to nothing that is known."""
    full = {"WT": 0.9, "TC": 0.8, "ET": 0.6}
    card = {
        "scores": {"patients": 8, "subsets": {"t1+t1c+t2+flair": full, "flair": {"WT": 0.7, "TC": 0.8, "ET": None}}}
    }
    text = expected_dice(card, ModelConfig(), ["flair"])
    assert text.startswith(
        "Without t1, t1c, t2 the mean Dice on 8 test patients is WT 70, TC 80 %; from all sequences WT 90,"
    )
    card["scores"]["subsets"]["flair"] = dict.fromkeys(full)  # type: ignore[index]
    assert expected_dice(card, ModelConfig(), ["flair"]) == ""
    assert expected_dice(card, ModelConfig(), ["t2"]) == expected_dice({}, ModelConfig(), ["t2"]) == ""


def test_parts_share_a_cohort(
    run: Run, phantom: Path, toy_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = make_cohort(phantom, tmp_path / "cohort", 3)
    arguments = ("predict", cohort, "-o", tmp_path / "out", "--weights", toy_weights)
    assert run(*arguments, "--num-parts", 2, "--part-id", 0)[0] == 0
    assert sorted(p.name for p in (tmp_path / "out").glob("*_seg.nii.gz")) == ["case0_seg.nii.gz", "case2_seg.nii.gz"]
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert run(*arguments)[0] == 0
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 3
    assert run(*arguments, "--num-parts", 2, "--part-id", 2)[0] == 2


def test_a_whole_run_knows_what_the_parts_finished(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    arguments = ("predict", make_cohort(phantom, tmp_path / "cohort", 3), "-o", tmp_path / "out", "--json")
    arguments += ("--weights", toy_weights)
    assert run(*arguments, "--num-parts", 2, "--part-id", 0)[0] == 0
    code, out, _ = run(*arguments)
    assert code == 0
    assert {s["case"]: s["status"] for s in json.loads(out)["patients"]} == {
        "case0": "skipped", "case1": "ok", "case2": "skipped",
    }  # fmt: skip
    assert read_status(tmp_path / "out") == {"case0": "ok", "case1": "ok", "case2": "ok"}


def test_of_two_tables_the_later_counts(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    """Done in parts, then anew as a whole with other labels: the parts' tables no longer say what lies there."""
    out = tmp_path / "out"
    arguments = ("predict", make_cohort(phantom, tmp_path / "cohort", 2), "-o", out, "--weights", toy_weights)
    for part in (0, 1):
        assert run(*arguments, "--num-parts", 2, "--part-id", part)[0] == 0
    assert run(*arguments, "--labels", "brats2018", "--overwrite")[0] == 0
    code, _, err = run(*arguments)
    assert code == 2
    assert "other inputs, weights or settings" in err
    code, table, _ = run(*arguments, "--labels", "brats2018", "--json")
    assert (code, json.loads(table)["skipped"]) == (0, 2)


def test_pages_and_statistics_of_other_settings_are_not_taken_over(
    run: Run, phantom: Path, toy_weights: Path, tmp_path: Path
) -> None:
    cohort, stats, pages = make_cohort(phantom, tmp_path / "cohort", 1), tmp_path / "s.json", tmp_path / "pages"
    arguments = ("predict", cohort, "-o", tmp_path / "out", "--weights", toy_weights)
    more = ("--stats", stats, "--report", pages)
    assert run(*arguments, *more)[0] == 0
    other = (*arguments, "--labels", "brats2018")
    page = (pages / "case0.html").read_bytes()
    assert run(*other, "--overwrite")[0] == 0
    assert run(*other, *more)[0] == 0
    assert [row["label"] for row in json.loads(stats.read_text())[0]["labels"]][:3] == [1, 2, 4]
    assert (pages / "case0.html").read_bytes() != page


@pytest.mark.parametrize(
    ("first", "last", "step", "shares"),
    [(0, 3, 1, [[0, 4], [1], [2], [3]]), (0, 4, 2, [[0, 3], [1, 4], [2]]), (5, 5, 1, [[0, 1, 2, 3, 4]])],
)
def test_a_slurm_array_does_every_patient_once(
    first: int, last: int, step: int, shares: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [Case(str(index), {}) for index in range(5)]
    tasks = range(first, last + 1, step)
    given = {"COUNT": len(tasks), "MIN": first, "STEP": step}
    for name, value in given.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    found = []
    for task in tasks:
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        found.append([int(case.name) for case in share_of(cases).cases])
        assert list(share_of(cases[:1]).cases) == cases[:1]  # each task was given a patient of its own
    assert found == shares
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(last + step))
    with pytest.raises(UsageError, match="none of"):
        share_of(cases)


@pytest.mark.slow
def test_a_patient_too_large_to_read_is_reported_and_the_rest_goes_on(
    phantom: Path, toy_weights: Path, tmp_path: Path
) -> None:
    """700 cubed voxels, 0.3 GB as int8 and 1.4 GB as float, where the address space has no room for the second."""
    cohort = make_cohort(phantom, tmp_path / "cohort", 2)
    large = sitk.Image(700, 700, 700, sitk.sitkInt8)
    large[350, 350, 350] = 1
    large.SetSpacing((0.5, 0.5, 0.5))
    sitk.WriteImage(large, cohort / "case0" / "t1c.nii.gz", useCompression=True, compressionLevel=1)
    command = [sys.executable, "-m", "a2fseg_cli", "predict", cohort, "-o", tmp_path / "out", "--weights", toy_weights]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2_600_000_000,) * 2)

    done = subprocess.run([*map(str, command), "--threads", "1"], capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 1, done.stderr
    assert "case0" in done.stderr
    assert "memory" in done.stderr
    assert read_status(tmp_path / "out") == {"case0": "failed", "case1": "ok"}


def test_help_is_fast_and_free_of_torch() -> None:
    def cpu_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    seconds = []
    for _ in range(5):
        began = cpu_s()
        subprocess.run([sys.executable, "-m", "a2fseg_cli", "--help"], check=True, capture_output=True)
        seconds.append(cpu_s() - began)
    assert min(seconds) <= 0.3  # processor time, so that a busy machine does not count
    code = (
        "import sys, a2fseg_cli.cli.main; print([m for m in ('torch', 'SimpleITK', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


# From here on: real patients and the bundled weights.


@pytest.fixture
def patient(cases_dir: Path) -> dict[str, Path]:
    return {m: cases_dir / PATIENT / f"{PATIENT}_{tag}.nii.gz" for m, tag in (("t1c", "t1ce"), ("flair", "flair"))}


def test_real_patient_comes_back_on_its_own_grid_in_bounded_memory(patient: dict[str, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "a2fseg_cli", "predict", "-o", str(tmp_path / "s.nii.gz")]
    command += [part for m, path in patient.items() for part in (f"--{m}", str(path))]
    # From a small process: until the command is loaded, a child counts what its parent holds.
    code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, capture_output=True); "
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    measured = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    assert int(measured.stdout) / 2**20 <= 1.5
    seg, image = nib.load(tmp_path / "s.nii.gz"), nib.load(patient["t1c"])
    assert seg.shape == image.shape
    assert np.array_equal(seg.affine, image.affine)
    for form in ("sform", "qform"):
        ours, theirs = (getattr(x, f"get_{form}")(coded=True) for x in (seg, image))
        assert ours[1] == theirs[1]
        assert np.array_equal(ours[0], theirs[0])
    a, b = sitk.ReadImage(tmp_path / "s.nii.gz"), sitk.ReadImage(patient["t1c"])
    assert (a.GetSize(), a.GetSpacing(), a.GetOrigin(), a.GetDirection()) == (
        b.GetSize(), b.GetSpacing(), b.GetOrigin(), b.GetDirection(),
    )  # fmt: skip
    truth = voxels(patient["t1c"].with_name(f"{PATIENT}_seg.nii.gz"))
    assert dice(voxels(tmp_path / "s.nii.gz") > 0, truth > 0) > 0.6


def permuted(source: Path, target: Path, order: tuple[int, ...], flips: tuple[int, ...]) -> Path:
    """Write the same anatomy with its axes in another order and direction."""
    image = sitk.PermuteAxes(sitk.ReadImage(source), order)
    sitk.WriteImage(sitk.Flip(image, [bool(f) for f in flips]), target)
    return target


ALL_48 = list(itertools.product(itertools.permutations(range(3)), itertools.product((0, 1), repeat=3)))


@pytest.mark.parametrize(
    ("order", "flips"),
    [
        pytest.param(order, flips, marks=() if i in (9, 37) else pytest.mark.slow)
        for i, (order, flips) in enumerate(ALL_48)
    ],
)
def test_any_orientation_segments_the_same_anatomy(
    order: tuple[int, ...], flips: tuple[int, ...], run: Run, patient: dict[str, Path], tmp_path: Path,
    straight: npt.NDArray[np.uint8],
) -> None:  # fmt: skip
    turned = {m: permuted(path, tmp_path / f"{m}.nii.gz", order, flips) for m, path in patient.items()}
    arguments = [part for m, path in turned.items() for part in (f"--{m}", path)]
    assert run("predict", *arguments, "-o", tmp_path / "s.nii.gz")[0] == 0
    back = np.flip(voxels(tmp_path / "s.nii.gz"), [axis for axis in range(3) if flips[axis]])
    back = back.transpose(np.argsort(order))
    for members in ((1, 2, 3), (1, 3), (3,)):
        assert dice(np.isin(back, members), np.isin(straight, members)) >= 0.98


@pytest.fixture(scope="module")
def straight(cases_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> npt.NDArray[np.uint8]:
    """The segmentation of the real patient as it lies in its files."""
    out = tmp_path_factory.mktemp("straight") / "s.nii.gz"
    stem = cases_dir / PATIENT / PATIENT
    command = [sys.executable, "-m", "a2fseg_cli", "predict", "--t1c", f"{stem}_t1ce.nii.gz"]
    subprocess.run([*command, "--flair", f"{stem}_flair.nii.gz", "-o", str(out)], check=True, capture_output=True)
    return voxels(out)


def test_oblique_thick_and_tiny_images(
    run: Run, patient: dict[str, Path], tmp_path: Path, straight: npt.NDArray[np.uint8]
) -> None:
    flair = sitk.ReadImage(patient["flair"])
    angle = np.deg2rad(20)
    oblique = sitk.Image(flair)
    oblique.SetDirection((1, 0, 0, 0, np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle)))
    t1c = sitk.ReadImage(patient["t1c"])
    t1c.CopyInformation(oblique)
    sitk.WriteImage(oblique, tmp_path / "o_flair.nii.gz")
    sitk.WriteImage(t1c, tmp_path / "o_t1c.nii.gz")
    assert run("predict", "--t1c", tmp_path / "o_t1c.nii.gz", "--flair", tmp_path / "o_flair.nii.gz",
               "-o", tmp_path / "o.nii.gz")[0] == 0  # fmt: skip
    assert np.array_equal(voxels(tmp_path / "o.nii.gz"), straight)  # the same voxels, wherever they lie
    thick = sitk.Resample(flair, (240, 240, 31), sitk.Transform(), sitk.sitkLinear, flair.GetOrigin(), (1.0, 1.0, 5.0),
                          flair.GetDirection())  # fmt: skip
    sitk.WriteImage(thick, tmp_path / "thick.nii.gz")
    code, _, err = run("predict", "--flair", tmp_path / "thick.nii.gz", "-o", tmp_path / "thick_seg.nii.gz")
    assert code == 0
    assert "thick slices (1 x 1 x 5 mm)" in err
    assert dice(voxels(tmp_path / "thick_seg.nii.gz") > 0, straight[:, :, ::5][:, :, :31] > 0) > 0.5
    tiny = flair[100:112, 100:110, 70:79]
    sitk.WriteImage(tiny, tmp_path / "tiny.nii.gz")
    assert run("predict", "--flair", tmp_path / "tiny.nii.gz", "-o", tmp_path / "tiny_seg.nii.gz")[0] == 0
    assert voxels(tmp_path / "tiny_seg.nii.gz").shape == (12, 10, 9)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["BraTS2021_00006", "Brats17_CBICA_AXN_1", "Brats18_CBICA_ASW_1"])
def test_bf16_masks_agree_with_fp32(case: str, run: Run, cases_dir: Path, tmp_path: Path) -> None:
    if "bf16" not in run("info")[1]:
        pytest.skip("this CPU has no native bf16")
    for precision in ("bf16", "fp32"):
        out = tmp_path / f"{precision}.nii.gz"
        assert run("predict", cases_dir / case, "-o", out, "--precision", precision)[0] == 0
    a, b = (voxels(tmp_path / f"{precision}.nii.gz") for precision in ("bf16", "fp32"))
    for members in ((1, 2, 3), (1, 3), (3,)):
        assert dice(np.isin(a, members), np.isin(b, members)) >= 0.99


def test_info_shows_the_card_of_the_bundled_weights(run: Run) -> None:
    code, out, _ = run("info", "--json")
    assert code == 0
    card = json.loads(out)["card"]
    assert len(card["data"]["train"]) == 251
    assert len(card["scores"]["subsets"]) == 15
    code, out, _ = run("info")
    assert code == 0
    assert "front-back, left-right" in out
    assert "ET below 0.2 mL where t1c is given" in out
    subsets = [line.split("\u2502")[1].strip() for line in out.splitlines() if line.count("\u2502") == 5]
    assert len(subsets) == 4 * 15  # of all test patients, then of each kind
    assert (subsets[0], subsets[14]) == ("flair", "t1+t1c+t2+flair")  # the row order of the literature
    assert "African scanners in validation, n = 2" in out


def test_same_input_same_bytes(run: Run, patient: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert run("predict", "--flair", patient["flair"], "-o", tmp_path / f"{name}.nii.gz", "--deterministic")[0] == 0
    torch.use_deterministic_algorithms(False)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
