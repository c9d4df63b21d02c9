"""The benchmarks run, in a small, so that they never rot."""

from __future__ import annotations

import importlib
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import SimpleITK as sitk

from a2fseg_cli.cases.discovery import find_cases
from a2fseg_cli.core.config import PRESETS, ModelConfig
from a2fseg_cli.core.device import choose_compute
from a2fseg_cli.core.networks import parameter_shapes
from a2fseg_cli.core.presets import preset_config
from a2fseg_cli.evaluation.comparison import Comparison
from a2fseg_cli.evaluation.patient_scores import PatientScores, Row
from a2fseg_cli.inference.predictor import Segmenter

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def as_a_script_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts import each other by name."""
    monkeypatch.syspath_prepend(FOLDER)


def load(name: str) -> Any:
    return importlib.import_module(name)


def test_training_step_prints_its_table() -> None:
    config = replace(PRESETS["tiny"], features_per_stage=(4, 8), patch_size=(16, 16, 16))
    table = load("training_step").measure(config, choose_compute("cpu", "fp32"), repeats=1)
    losses = re.search(r"first step \| ([0-9.]+) \| ([0-9.]+) \|", table)
    assert losses is not None
    assert float(losses[1]) == pytest.approx(float(losses[2]), rel=1e-3)  # both in fp32
    assert re.search(r"step, s \| [0-9.]+ \| [0-9.]+ \| [0-9.]+ \|", table)


def test_training_step_by_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    module, used = load("training_step"), []
    monkeypatch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], features_per_stage=(4, 8)))
    monkeypatch.setattr(module.torch, "set_num_threads", used.append)
    table = module.measure_threads(["a2fseg", "mfi"], module.thread_counts("1,3"), 2, (16, 16, 16))
    assert used == [1, 3] * 3  # once to warm up
    rows = re.findall(r"^\| (\w+) \| ([0-9.]+) \| ([0-9.]+) \| ([0-9.]+) \|$", table, re.MULTILINE)
    assert [row[0] for row in rows] == ["a2fseg", "mfi"]
    assert "| network | 1 threads, s | 3 threads, s | gain |" in table


def test_all_subsets_prints_its_table(phantom: Path, toy_weights: Path) -> None:
    table = load("all_subsets").measure(Segmenter(toy_weights, choose_compute("cpu", "fp32")), phantom, repeats=1)
    ratios = [float(value) for value in re.findall(r"\| ([0-9.]+) \|$", table, re.MULTILINE)]
    assert len(ratios) == 2  # network, and from files to class maps
    assert all(ratio > 1 for ratio in ratios)


def with_truth(phantom: Path, folder: Path, names: str) -> None:
    """Write copies of the phantom, what is bright in FLAIR marked as oedema."""
    for name in names:
        shutil.copytree(phantom, folder / name)
        image = sitk.ReadImage(phantom / "P1_flair.nii.gz")
        sitk.WriteImage(sitk.Cast(image > 100, sitk.sitkUInt8) * 2, folder / name / "P1_seg.nii.gz")


@pytest.mark.slow
def test_ablation_prints_its_table(phantom: Path, tmp_path: Path) -> None:
    with_truth(phantom, tmp_path / "data", "ab")
    split = tmp_path / "split.json"
    split.write_text('{"train": ["a"], "test": ["b"]}')
    config = replace(PRESETS["tiny"], features_per_stage=(4, 8), spacing_mm=(6.0, 6.0, 6.0), patch_size=(16, 16, 16))
    module = load("ablation")
    table = module.measure(tmp_path / "data", split, tmp_path / "out", list(module.VARIANTS), 0.5, config)
    rows = re.findall(r"^\| ([a-z-]+) \| (\d+) \| ([0-9.]+) \|", table, re.MULTILINE)
    assert [row[0] for row in rows] == list(module.VARIANTS)
    assert all(int(steps) > 0 for _, steps, _ in rows)


def test_one_patient_prints_its_table(phantom: Path, toy_weights: Path) -> None:
    """The toy network, both sides in fp32: in one window the masks are the same."""
    segmenter = Segmenter(toy_weights, choose_compute("cpu", "fp32"))
    table = load("one_patient").measure(segmenter, [phantom], repeats=1, edge=16, most=3)
    rows = re.findall(r"^\| (.+) \| (\d+)(?: \((\d+) run\))? \| [0-9.]+ \| ([0-9.]+) \|$", table, re.MULTILINE)
    names = ["windows of 16, whole volume", "windows of 16, brain crop", "one window, brain crop", "a2fseg"]
    assert [row[0] for row in rows] == names
    assert [row[2] for row in rows] == ["3", "3", "", ""]
    assert int(rows[0][1]) > int(rows[1][1]) > 3
    assert rows[2][1] == rows[3][1] == "1"


@pytest.mark.slow
def test_peak_prints_its_table() -> None:
    config = replace(PRESETS["tiny"], features_per_stage=(4, 8), patch_size=(16, 16, 16))
    module = load("peak")
    # The first convolution of the U-Nets alone: 2 x 27 x 4 operations a voxel, four times.
    assert module.operations(config, (16, 16, 16)) > 4 * 2 * 27 * 4 * 16**3
    table = module.measure(config, (16, 16, 16), choose_compute("cpu", "fp32"), repeats=1, with_profile=True)
    assert re.search(r"network, 16 x 16 x 16 \| 0 \| [0-9.]+ \| \d+ \| \d+% \|", table)
    assert "convolution" in table


@pytest.mark.slow
def test_resources_prints_its_table(toy_weights: Path, tmp_path: Path) -> None:
    table = load("resources").measure(toy_weights, [0.25], [1], [], [2], tmp_path)
    rows = re.findall(r"^\| (.+) \| \d+ of [0-9x ]+ \| ([0-9.]+) \| ([0-9.]+) \| ([0-9.]+) \|$", table, re.MULTILINE)
    assert [row[0] for row in rows] == ["60 x 60 x 39 voxels, four modalities", "flair", "2 patients"]
    assert all(float(seconds) > float(network) for _, seconds, network, _ in rows)
    assert all(0.1 < float(peak) < 2 for *_, peak in rows)


@pytest.mark.slow
def test_registration_prints_its_table(phantom: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same patient stands for the next one: nothing to refuse but the 60 degrees."""
    module = load("registration")
    paths = {name: phantom / f"P1_{name}.nii.gz" for name in ("t1c", "flair")}
    scans = module.scanned(paths, ("flair",), [0, 0], skull=True)
    module.print_registered(["P1"], iter([scans, scans]), ("flair",), masks=True)
    printed = capsys.readouterr().out
    error = re.search(r"1 pairs: median error ([0-9.]+) mm", printed)
    assert error is not None
    assert float(error[1]) < 2
    assert "Refused: 0 of 1 own, 0 of 1 of another patient, 1 of 1 with 60 degrees left in" in printed


@pytest.mark.slow
def test_networks_prints_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both share the encoders over subsets, so that all 15 take less than 15 times the arithmetic of one."""
    module = load("networks")

    monkeypatch.setattr(module, "in_its_own_process", module.run_one)
    table = module.measure(["a2fseg", "hemis"], "tiny", (16, 16, 16), repeats=0)
    rows = re.findall(r"^\| (\w+) \| ([0-9.]+) \| 1 of (.+?) \| \d+ \| \d+ \| ([0-9.]+) \|", table, re.MULTILINE)
    assert [row[0] for row in rows] == ["a2fseg", "hemis"]
    assert [row[2] for row in rows] == ["32 x 32 x 32", "16 x 16 x 16"]
    for name, parameters, _, ratio in rows:
        shapes = parameter_shapes(preset_config("tiny", name))
        assert float(parameters) == pytest.approx(sum(math.prod(shape) for shape in shapes.values()) / 1e6, abs=0.006)
        assert 1 < float(ratio) < 15
    # Of the 15 runs alone 32 encoders run, of one pass 4.
    assert all(0 < int(share) < 100 for share in re.findall(r"\| (\d+) % \|$", table, re.MULTILINE))


@pytest.mark.slow
def test_table1_trains_what_is_missing_and_prints_its_table(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two networks, the budget as steps of each; the second call trains nothing. One that diverges is said."""
    module, networks = load("table1"), load("networks")
    with_truth(phantom, tmp_path / "data", "abcd")
    for absent in ("t1", "t1c", "t2"):
        (tmp_path / "data" / "d" / f"P1_{absent}.nii.gz").unlink()
    (tmp_path / "single.json").write_text('{"flair": ["d"]}')
    (tmp_path / "split.json").write_text('{"train": ["a"], "validation": ["b"], "test": ["c"]}')
    monkeypatch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], features_per_stage=(4, 8), patch_size=(24, 24, 24)))
    monkeypatch.setattr(module, "CROPS", {6.0: (24, 24, 24)})
    monkeypatch.setattr(networks, "in_its_own_process", networks.run_one)
    plan = module.Plan(
        tmp_path / "data", tmp_path / "split.json", tmp_path / "out", ["a2fseg", "hemis"], 1, 1, 1, 6.0, "test",
        tmp_path / "cache", [f"{tmp_path / 'single.json'}:flair"],
    )  # fmt: skip
    plan.folder.mkdir()
    module.measure_steps(plan, repeats=1, warm_up=0)
    measured = json.loads((plan.folder / "seconds.json").read_text())
    assert all(0 < second < 10 for second in measured.values())
    # 60 s of 3 s and of 7 s a step: 20 steps and 8.6, in 8 epochs 2 or 3 and 1 each.
    (plan.folder / "seconds.json").write_text('{"a2fseg": 3.0, "hemis": 7.0}')
    assert (plan.iterations("a2fseg"), plan.iterations("hemis")) == (2, 1)
    trained = []

    def here(arguments: list[str], run: str) -> int:
        trained.append(run)
        module.train_one(plan, run.partition("-")[0], 0)
        return 0

    monkeypatch.setattr(module, "in_its_own_process", here)
    assert module.train_all(plan, []) == module.train_all(plan, []) == {}
    assert trained == ["a2fseg-0", "hemis-0"]
    text = module.report(plan, {"rfnet-0": "the loss is nan"})
    steps = re.findall(r"^\| (\w+) \| [0-9.]+ \| (\d+) \| [0-9.]+ \| [0-9.]+ \(", text, re.MULTILINE)
    assert steps == [("a2fseg", "16"), ("hemis", "8")]
    assert "rfnet-0: no weights: the loss is nan" in text
    assert "A2FSeg (paper)" in text
    assert len(re.findall(r"\d+ % \|$", text, re.MULTILINE)) == 2
    assert (plan.folder / "table1" / "forest_dice.png").is_file()
    assert "# flair: more patients" in text
    assert (plan.folder / "table1-flair" / "comparison.csv").read_text().count("flair") > 1
    # What was done stands there, whatever the seconds of a step would be now.
    (plan.folder / "seconds.json").write_text('{"a2fseg": 1.0, "hemis": 1.0}')
    assert re.findall(r"^\| (\w+) \| 1.00 \| (\d+) ", module.report(plan, {}), re.MULTILINE) == steps
    old = plan.run("a2fseg", 1) / "failed.json"
    old.parent.mkdir()
    old.write_text('{"reason": "of another time"}')
    monkeypatch.setattr(module.os, "getppid", iter((1, 2)).__next__)
    with pytest.raises(SystemExit, match="a2fseg-1: the command that started this training has ended"):
        module.train_one(plan, "a2fseg", 1)
    assert not old.exists()


def scores_of(dice: float) -> list[PatientScores]:
    return [PatientScores("a", tuple(Row("t1", region, {"dice": dice}, {}, "") for region in ("WT", "TC", "ET")))]


def test_scores_of_several_trainings_are_averaged() -> None:
    (mean,) = load("table1").mean_over_seeds([scores_of(0.5), scores_of(0.8)])
    assert mean.rows[0].values["dice"] == pytest.approx(0.65)


def test_trainings_of_unlike_number_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of a2fseg, 50 and 80 %, and one of hemis: each mean stands there, and how many there are."""
    module = load("table1")
    plan = module.Plan(Path(), Path(), tmp_path, ["a2fseg", "hemis"], 15, 2, 1, 3.0, "test", Path())
    trainings = {"a2fseg": [scores_of(0.5), scores_of(0.8)], "hemis": [scores_of(0.6)]}
    for network, of in trainings.items():
        for seed in range(len(of)):
            plan.run(network, seed).mkdir()
            (plan.run(network, seed) / "done.json").write_text('{"seconds": 600}')
    (tmp_path / "seconds.json").write_text('{"a2fseg": 1, "hemis": 2}')
    monkeypatch.setattr(module, "inspect_weights", lambda _: SimpleNamespace(card={"steps": 900}))
    means = {network: module.mean_over_seeds(of) for network, of in trainings.items()}
    text = module.budget_table(plan, trainings, Comparison(means, ModelConfig()))
    assert "| a2fseg | 1.00 | 900 | 10.0 | 65.0 (65 to 65) | 65.0 (65 to 65) | 65.0 (65 to 65) | 65.0 |" in text
    assert "trainings: a2fseg 2, hemis 1" in text
    of_trainings = module.means_of_trainings(trainings)
    assert list(of_trainings) == ["WT", "TC", "ET", "mean"]
    for column in of_trainings.values():
        assert column == {"a2fseg": pytest.approx([50, 80]), "hemis": pytest.approx([60])}


def test_trainings_are_judged_by_how_far_they_lie_apart() -> None:
    """Deviation 1 within; two means of three are told apart from t(0.975, 4) sqrt(2/3) = 2.776 x 0.816 = 2.3 on."""
    table = load("trainings").trainings_table(
        {"WT": {"x": [1, 2, 3], "y": [11, 12, 13]}, "ET": {"x": [1, 2, 3], "y": [3, 4, 5]}, "TC": {"x": [1], "y": [2]}}
    )
    assert table.splitlines()[:7] == [
        "| each training | WT | ET | TC |",
        "|---|---|---|---|",
        "| x | 1.0, 2.0, 3.0 | 1.0, 2.0, 3.0 | 1.0 |",
        "| y | 11.0, 12.0, 13.0 | 3.0, 4.0, 5.0 | 2.0 |",
        "| standard deviation of trainings | 1.0 | 1.0 | - |",
        "| told from a difference of | 2.3 | 2.3 | - |",
        "| told apart | y from x | none | - |",
    ]


def test_trainings_of_unlike_number_are_tested_where_there_are_two() -> None:
    """x and y are three and two trainings, z is one: it is shown, and tested with neither."""
    table = load("trainings").trainings_table({"WT": {"x": [1, 2, 3], "y": [21, 22], "z": [90]}})
    assert "| z | 90.0 |" in table
    assert table.splitlines()[-3] == "| told apart | y from x |"
    table = load("trainings").trainings_table({"WT": {"x": [1, 2, 3], "z": [90]}, "ET": {"x": [2, 2], "y": [3, 3]}})
    assert [row.partition(" | ")[2] for row in table.splitlines()[5:8]] == ["1.0 | 0.0 |", "- | - |", "- | - |"]


@pytest.mark.parametrize(
    ("part", "also", "message"),
    [
        ("tset", (), "tset: expected .* one of train, test"),
        ("test", ("{folder}/none.json:flair",), "none.json"),
        ("test", ("{folder}/single.json:flair",), "single.json:flair names z: not found in"),
    ],
)
def test_a_list_that_cannot_be_scored_is_told_before_hours_of_training(
    part: str, also: tuple[str, ...], message: str, phantom: Path, tmp_path: Path
) -> None:
    module = load("table1")
    (tmp_path / "split.json").write_text('{"train": ["a"], "test": ["P1"]}')
    (tmp_path / "single.json").write_text('{"flair": ["z"]}')
    lists = [text.format(folder=tmp_path) for text in also]
    plan = module.Plan(phantom.parent, tmp_path / "split.json", tmp_path, ["mfi"], 1, 1, 1, 3.0, part, tmp_path, lists)
    with pytest.raises(SystemExit, match=message):
        module.check_lists(plan)


def test_a_table_of_two_budgets_is_refused(tmp_path: Path) -> None:
    module = load("table1")
    (tmp_path / "split.json").write_text('{"train": ["a"], "validation": ["b"], "test": ["c"]}')
    plan = module.Plan(Path(), tmp_path / "split.json", tmp_path, ["hemis"], 14, 1, 1, 3.0, "test", Path())
    module.check_budget(plan)
    module.check_budget(replace(plan, networks=["mfi"], seeds=3))  # more of the same
    with pytest.raises(SystemExit, match=r"plan.json has another minutes, spacing_mm\. Take those, or another folder"):
        module.check_budget(replace(plan, minutes=40, spacing_mm=2.0))
    (tmp_path / "split.json").write_text('{"train": ["a", "c"], "validation": ["b"], "test": ["d"]}')
    with pytest.raises(SystemExit, match="another split"):
        module.check_budget(plan)


def test_a_table_without_a_training_ends_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("table1")
    (tmp_path / "split.json").write_text('{"train": ["a"], "test": ["c"]}')
    for name in ("mfi-0", "rfnet-0"):
        (tmp_path / name).mkdir()
    (tmp_path / "mfi-0" / "done.json").write_text("{}")
    (tmp_path / "rfnet-0" / "failed.json").write_text('{"reason": "the loss is nan"}')
    given = ["data", "--split", str(tmp_path / "split.json"), "-o", str(tmp_path), "--networks", "mfi,rfnet"]
    monkeypatch.setattr(module.sys, "argv", ["table1.py", *given])
    monkeypatch.setattr(module, "in_its_own_process", lambda _, run: 3 * (run == "rfnet-0"))
    monkeypatch.setattr(module, "check_lists", lambda _: None)
    told: list[dict[str, str]] = []
    monkeypatch.setattr(module, "report", lambda _, failed: str(told.append(failed)))
    with pytest.raises(SystemExit) as end:
        module.main()
    assert (end.value.code, told) == (1, [{"rfnet-0": "the loss is nan"}])
    monkeypatch.setattr(module.sys, "argv", ["table1.py", *given[:-1], "mfi,unet"])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 2


@pytest.mark.parametrize(
    ("also", "message"),
    [
        (["single.json"], "expected FILE:LIST"),
        (["single.json:"], "expected FILE:LIST"),
        (["single.json:../t1"], "expected FILE:LIST"),
        (["single.json:test"], "two lists of one name: test, test"),
        (["a.json:t1", "b.json:t1"], "two lists of one name: test, t1, t1"),
    ],
)
def test_further_lists_have_names_of_their_own(
    also: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load("table1")
    given = ["data", "--split", "s.json", "-o", "out", *(part for text in also for part in ("--also", text))]
    monkeypatch.setattr(module.sys, "argv", ["table1.py", *given])
    with pytest.raises(SystemExit) as end:
        module.options()
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_cohort_prints_its_tables(phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(phantom, tmp_path / "data" / name)
    segmenter = Segmenter(toy_weights, choose_compute("cpu", "fp32"))
    table = load("cohort").measure(segmenter, find_cases(tmp_path / "data"), [0, 1], 1, tmp_path / "scratch")
    phases = re.findall(r"^\| ([a-z ]+) \| ([0-9.]+) \| ([0-9.]+) \|$", table, re.MULTILINE)
    assert [row[0] for row in phases] == list(load("cohort").PHASES)
    seconds = {name: float(wall) for name, wall, _ in phases}
    assert seconds["of it gzip"] <= seconds["the way out"]
    rows = re.findall(r"^\| (?:between|1 read).+ \| ([0-9.]+) \| ([0-9.]+) \| ([0-9.]+) \|$", table, re.MULTILINE)
    assert len(rows) == 2
    for wall, ratio, _ in rows:
        assert float(ratio) == pytest.approx(float(wall) / seconds["network"], rel=0.1)
    assert "2 patients; toy" in table


@pytest.mark.slow
def test_scale_prints_its_table(tmp_path: Path) -> None:
    """Six commands over 12 patients; the second time all are done, and no page is made anew."""
    table = load("scale").measure([12], 1, tmp_path)
    rows = re.findall(r"^\| 12 \| ([a-z].+?) \| ([0-9.]+) \| ([0-9.]+) \| ([0-9.]+) \|", table, re.MULTILINE)
    assert [row[0] for row in rows] == [
        "predict", "predict, all done", "predict --skip-existing, all done",
        "predict --report, pages there, index.html", "evaluate", "evaluate, all done", "evaluate --predictions",
    ]  # fmt: skip
    assert (tmp_path / "pages12" / "index.html").read_text().count('<a href="case') == 24  # name and picture
    assert len((tmp_path / "out12" / "status.csv").read_text().splitlines()) == 13
