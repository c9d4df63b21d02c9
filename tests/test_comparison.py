"""Methods side by side: numbers by hand, what is marked, and what is refused."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from toys import toy_network

import a2fseg_cli
from a2fseg_cli.cli.console import print_table
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import CohortError, InputError, UsageError
from a2fseg_cli.evaluation.comparison import MEANS, Comparison, Difference, contributions
from a2fseg_cli.evaluation.comparison_outputs import mean_rows, plain_values
from a2fseg_cli.evaluation.formats import latex, markdown
from a2fseg_cli.evaluation.method_tables import all_tables, cost_table, difference_table, method_table, to_the_best
from a2fseg_cli.evaluation.methods import Method, methods_of
from a2fseg_cli.evaluation.patient_scores import PatientScores, Row
from a2fseg_cli.evaluation.published import TABLE_1
from a2fseg_cli.evaluation.tables import NOTHING_PUBLISHED
from a2fseg_cli.modalities import BRATS_MODALITIES

Run = Callable[..., tuple[int, str, str]]
CONFIG = ModelConfig(regions=(("WT", ("NCR", "ED", "ET")),))
NAN = math.nan


def scored(dice: list[dict[str, float]], key: str = "dice") -> list[PatientScores]:
    """Patients P0, P1, ... with a score of WT by subset."""
    return [
        PatientScores(f"P{i}", tuple(Row(subset, "WT", {key: value}, {}, "") for subset, value in of.items()))
        for i, of in enumerate(dice)
    ]


def one_subset(**values: list[float]) -> Comparison:
    return Comparison({name: scored([{"t1c": value} for value in of]) for name, of in values.items()}, CONFIG)


class TestNumbers:
    def test_differences_by_hand(self) -> None:
        """0.2, 0.3 and 0.1 in favour of the first: mean 0.2, and 2 of 8 exchanges are as far from 0."""
        (difference,) = one_subset(a=[0.9, 0.8, 0.7], b=[0.7, 0.5, 0.6]).differences("dice")
        assert (difference.first, difference.second, difference.patients) == ("a", "b", 3)
        assert difference.mean == pytest.approx(0.2)
        assert difference.p == difference.p_corrected == 0.25
        assert 0.0999 < difference.low < 0.2 < difference.high < 0.3001

    def test_all_pairs_and_regions_are_corrected_together(self) -> None:
        """Of three methods there are three pairs: the smallest of 2/16, 2/16 and 1 is multiplied by 3."""
        differences = one_subset(a=[0.9] * 4, b=[0.5] * 4, c=[0.5] * 4).differences("dice")
        assert [d.p for d in differences] == [2 / 16, 2 / 16, 1]
        assert [d.p_corrected for d in differences] == [pytest.approx(3 * 2 / 16), pytest.approx(3 * 2 / 16), 1]

    def test_means_over_subsets_are_a_family_of_their_own(self) -> None:
        first = [{"t1": 0.9, "t1c": 0.8}] * 6
        second = [{"t1": 0.5, "t1c": 0.6}] * 6
        comparison = Comparison({"a": scored(first), "b": scored(second)}, CONFIG)
        by_row = {d.subset: d for d in comparison.differences("dice")}
        assert by_row.keys() == {"t1", "t1c", MEANS}
        assert by_row[MEANS].mean == pytest.approx(0.3)
        assert by_row[MEANS].p_corrected == 2 / 64  # alone
        assert by_row["t1"].p_corrected == 2 * 2 / 64  # two subsets
        assert by_row[MEANS].told_apart

    def test_patients_who_lack_a_sequence(self) -> None:
        """The mean of the subsets' means: (0.2 + 0.6) / 2 and 0.4 over one patient; 0.4 and 0.4, so 0.4."""
        values = np.array([[0.2, 0.6], [0.4, NAN]])
        # P0 adds (0.2 / 2 + 0.4 / 1) / 2 = 0.25, P1 (0.6 / 2) / 2 = 0.15, both times two patients.
        assert contributions(values).tolist() == pytest.approx([0.5, 0.3])
        assert contributions(values).mean() == pytest.approx(0.4)
        assert np.isnan(contributions(np.full((2, 2), NAN))).all()

    def test_an_interval_of_means_stays_within_the_scores(self) -> None:
        """T1 of two patients, T1c of three, all 0.9 against 0.1: the difference is 0.8 however patients are drawn."""
        dice = [[{"t1": of, "t1c": of}, {"t1": of, "t1c": of}, {"t1c": of}] for of in (0.9, 0.1)]
        comparison = Comparison({"a": scored(dice[0]), "b": scored(dice[1])}, CONFIG)
        (of_means,) = [d for d in comparison.differences("dice") if d.subset == MEANS]
        assert (of_means.low, of_means.mean, of_means.high) == pytest.approx((0.8, 0.8, 0.8))
        lines = {line["method"]: line for line in mean_rows(comparison, [], ["dice"]) if line["subset"] == MEANS}
        assert (lines["a"]["low"], lines["a"]["high"]) == pytest.approx((0.9, 0.9))

    def test_means_are_over_the_subsets_that_all_methods_have(self) -> None:
        """HD95: b is worse by 1 mm from T1c, and has none at all from T1, where a has 30 mm."""
        methods = {
            "a": [{"t1": 30.0, "t1c": 4.0}] * 2,
            "b": [{"t1": NAN, "t1c": 5.0}] * 2,
            "c": [{"t1": NAN, "t1c": NAN}] * 2,
        }
        comparison = Comparison({name: scored(of, "hd95_mm") for name, of in methods.items()}, CONFIG)
        assert [comparison.mean(name, "hd95_mm", MEANS, "WT") for name in "ab"] == [4, 5]
        assert comparison.best("hd95_mm", MEANS, "WT") == "a"
        assert comparison.mean("a", "hd95_mm", "t1", "WT") == 30
        first = next(d for d in comparison.differences("hd95_mm") if d.subset == MEANS)
        assert (first.first, first.second, first.mean) == ("a", "b", -1)

    def test_distances_are_better_where_they_are_smaller_and_volumes_have_no_better(self) -> None:
        methods = {name: scored([{"t1c": value}], "hd95_mm") for name, value in (("a", 3.0), ("b", 2.0))}
        assert Comparison(methods, CONFIG).best("hd95_mm", "t1c", "WT") == "b"
        volumes = {name: scored([{"t1c": 1.0}], "volume_ml") for name in "ab"}
        assert Comparison(volumes, CONFIG).best("volume_ml", "t1c", "WT") == ""
        assert Comparison(volumes, CONFIG).differences("volume_ml") == []

    def test_the_best_is_what_the_others_are_held_against(self) -> None:
        comparison = one_subset(a=[0.5, 0.5], b=[0.9, 0.7], c=[0.6, 0.6])
        others = to_the_best(comparison, comparison.differences("dice"), "dice", "WT")
        assert [(d.first, d.second) for d in others] == [("a", "b"), ("c", "b")]
        assert [d.mean for d in others] == pytest.approx([-0.3, -0.2])
        assert all(d.low <= d.mean <= d.high for d in others)


class TestTables:
    def table(self, comparison: Comparison, published: bool = False) -> Any:
        return method_table(comparison, comparison.differences("dice"), "dice", "WT", "brats2020", published)

    def test_best_is_bold_and_what_cannot_be_told_from_it_underlined(self) -> None:
        """Eight patients: 0.3 apart in all of them is told apart (3 x 2/256), a change of sign is not."""
        near = [0.91, 0.89] * 4
        table = self.table(one_subset(best=[0.901] * 8, near=near, far=[0.6] * 8))
        assert table.columns[-3:] == ("best", "near", "far")
        assert table.rows == (("-", "x", "-", "-", "90.10", "90.00", "60.00"),)
        assert (table.bold, table.underlined) == (frozenset({(0, 4)}), frozenset({(0, 5)}))
        assert "| **90.10** | <u>90.00</u> | 60.00 |" in markdown([table], "policy")
        assert r"\textbf{90.10} & \underline{90.00} & 60.00 \\" in latex([table], "policy")
        assert r"p $\geq$ 0.05" in latex([table], "policy")

    def test_a_test_that_could_say_nothing_says_so(self) -> None:
        """Four patients give 2/16 at the least; eight with three comparisons 3 x 2/256 = 0.023."""
        assert "With 4 patients the test cannot give less than p = 0.125, corrected for 1 comparison" in str(
            self.table(one_subset(a=[0.9] * 4, b=[0.1] * 4)).notes
        )
        assert "cannot give" not in str(self.table(one_subset(a=[0.9] * 8, b=[0.5] * 8, c=[0.4] * 8)).notes)

    def test_what_one_method_has_not_is_left_out_for_all(self) -> None:
        """Of a 0.8 and of b (0.6 + 0.5) / 2, over the same two patients; and that is said."""
        comparison = one_subset(a=[0.9, NAN, 0.7], b=[0.6, 0.4, 0.5])
        table = self.table(comparison)
        assert table.rows[0][4:] == ("80.00", "55.00")
        assert "undefined: a 1, b 0 of 3 scores" in table.notes[0]
        (difference,) = comparison.differences("dice")
        assert (difference.mean, difference.patients) == (pytest.approx(0.25), 2)
        assert [line["patients"] for line in mean_rows(comparison, [difference], ["dice"])] == [2, 2]

    def test_a_method_is_not_the_best_for_missing_the_hardest_patient(self) -> None:
        """HD95: a is worse by 1 mm wherever both have one, and has none of the patient with 40 mm."""
        methods = {"a": [5.0, 7.0, NAN], "b": [4.0, 6.0, 40.0]}
        comparison = Comparison(
            {name: scored([{"t1c": value} for value in of], "hd95_mm") for name, of in methods.items()}, CONFIG
        )
        assert comparison.best("hd95_mm", "t1c", "WT") == "b"
        table = method_table(comparison, comparison.differences("hd95_mm"), "hd95_mm", "WT", "nan", False)
        assert table.rows[0][4:] == ("6.00", "5.00")

    def test_a_method_without_any_score_takes_none_from_the_others(self) -> None:
        table = self.table(one_subset(a=[0.9, 0.7], b=[0.6, NAN], none=[NAN, NAN]))
        assert table.rows[0][4:] == ("90.00", "60.00", "")
        assert (table.bold, table.underlined) == ({(0, 4)}, {(0, 5)})

    def test_equal_means_are_all_bold(self) -> None:
        """0.1, 0.2 and 0.3 in two orders: their sums are 0.6 and 0.6000000000000001."""
        comparison = one_subset(a=[0.1, 0.2, 0.3], b=[0.3, 0.2, 0.1], c=[0.1, 0.1, 0.1])
        table = self.table(comparison)
        assert table.bold == {(0, 4), (0, 5)}
        assert (0, 5) not in table.underlined
        lines = mean_rows(comparison, comparison.differences("dice"), ["dice"])
        assert [line["to_the_best"] for line in lines] == ["best", "best", "not told apart"]

    def test_the_tolerance_of_surface_dice_is_said(self) -> None:
        methods = {name: scored([{"t1c": 0.5}], "nsd") for name in "ab"}
        comparison = Comparison(methods, CONFIG, nsd_tolerance_mm=2.5)
        tables = all_tables(comparison, comparison.differences("nsd"), ["nsd"], "brats2020", False, {})
        assert [" at 2.5 mm" in table.title for table in tables] == [True, True]
        assert plain_values(comparison, [], ["nsd"], "brats2020", {}, {})["nsd_tolerance_mm"] == 2.5

    def test_what_a_patient_takes_counts_the_patients_own_subsets(self) -> None:
        """One subset each, though the table has a row for T1 and one for T1c."""
        patients = scored([{"t1": 0.5}, {"t1c": 0.5}])
        assert cost_table(Comparison({"a": patients}, CONFIG), {"a": 1}).title == "What a patient takes, 1 subset"
        patients = scored([{"t1": 0.5, "t1c": 0.5}, {"t1c": 0.5}])
        assert cost_table(Comparison({"a": patients}, CONFIG), {"a": 1}).title == "What a patient takes, 1 to 2 subsets"

    def test_published_columns_stand_beside_and_are_not_marked(self) -> None:
        table = self.table(one_subset(a=[0.5], b=[0.4]), published=True)
        assert table.columns[-1] == "A2FSeg (paper)"
        assert table.rows[0][-1] == f"{TABLE_1['A2FSeg']['t1c']['WT']:.2f}"
        assert table.bold == {(0, 4)}

    def test_numbers_of_patients_differ_by_subset(self) -> None:
        dice = [{"t1": 0.5, "t1c": 0.5}, {"t1c": 0.7}]
        table = self.table(Comparison({"a": scored(dice), "b": scored(dice)}, CONFIG))
        assert table.columns[-1] == "n"
        assert [row[-1] for row in table.rows] == ["2", "1", ""]

    def test_n_counts_who_has_the_score(self) -> None:
        """HD95 of P1 is undefined for b: the means are of P0 and P2, and so n is 2."""
        comparison = Comparison(
            {
                "a": scored([{"t1": 4.0}, {"t1": 5.0}, {"t1": 6.0}], "hd95_mm"),
                "b": scored([{"t1": 1.0}, {"t1": NAN}, {"t1": 2.0}], "hd95_mm"),
            },
            CONFIG,
        )
        table = method_table(comparison, [], "hd95_mm", "WT", "nan", False)
        assert "n = 2," in table.title
        assert table.rows[0][-2:] == ("5.00", "1.50")

    def test_differences_in_points(self) -> None:
        comparison = one_subset(a=[0.9, 0.8, 0.7], b=[0.7, 0.5, 0.6])
        table = difference_table(comparison, comparison.differences("dice"), "dice")
        assert table.rows[0][:4] == ("WT", "b", "a", "-20.00")
        assert table.rows[0][6:] == ("0.2500", "0.2500", "3")


class TestMethods:
    def test_one_without_a_name_is_no_comparison(self) -> None:
        for alone in (None, "tiny", "folder/a.safetensors", ["tiny"]):
            assert methods_of(alone, None) == []
        assert methods_of("tiny", "folder") == []  # the classes of these weights, as ever

    def test_names(self) -> None:
        assert methods_of(["a=x/1.safetensors", "x/2.safetensors"], None) == [
            Method("a", "x/1.safetensors"),
            Method("2", "x/2.safetensors"),
        ]
        assert methods_of({"a": "tiny"}, {"nnunet": Path("masks")}) == [
            Method("a", "tiny"),
            Method("nnunet", None, Path("masks")),
        ]

    def test_a_file_whose_name_has_an_equals_sign(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "lr=3").mkdir()
        assert methods_of(None, "lr=3") == []

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            (["x/best.safetensors", "y/best.safetensors"], "two methods are named best"),
            (["A=x", "a=y"], "two methods are named a"),
            ({"../up": "x", "b": "y"}, "a method named '../up'"),
            ({"comparison.md": "x", "b": "y"}, "a method named 'comparison.md'"),
            ({"forest_dice.PNG": "x", "b": "y"}, "a method named 'forest_dice.PNG'"),
            (["a=", "b=x"], "expected NAME=FILE"),
        ],
    )
    def test_names_that_cannot_be(self, weights: Any, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            methods_of(weights, None)


SHAPE = (12, 12, 12)


def write(labels: np.ndarray[Any, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing((8.0, 8.0, 8.0))
    sitk.WriteImage(image, path)


def cube(edge: int) -> np.ndarray[Any, Any]:
    """Oedema of 4 x 4 x 4 voxels cut to 4 x 4 x edge: Dice with the whole one is 2 edge / (4 + edge)."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:8, 4:8, 4 : 4 + edge] = 2
    return labels


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A and B with four modalities, C with T1c and FLAIR; each with a cube of oedema."""
    folder = tmp_path_factory.mktemp("data")
    for number, (name, modalities) in enumerate(
        {"A": BRATS_MODALITIES, "B": BRATS_MODALITIES, "C": ("t1c", "flair")}.items()
    ):
        random = np.random.default_rng(number)
        for modality in modalities:
            image = random.uniform(100, 200, SHAPE) + 50 * cube(4)
            write(image.astype(np.float32), folder / name / f"{name}_{modality}.nii.gz")
        write(cube(4), folder / name / f"{name}_seg.nii.gz")
    return folder


def masks(folder: Path, edges: dict[str, int]) -> Path:
    for name, edge in edges.items():
        write(cube(edge), folder / f"{name}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_network(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def run(run: Run) -> Run:
    return partial(run, "evaluate")


class TestFolders:
    def test_two_folders(self, cohort: Path, tmp_path: Path, run: Run) -> None:
        """Dice 1 everywhere against 2 x 2 / (4 + 2) = 66.67 %."""
        whole = masks(tmp_path / "whole", {"A": 4, "B": 4, "C": 4})
        half = masks(tmp_path / "half", {"A": 2, "B": 2, "C": 2})
        out = tmp_path / "out"
        options = ["--metrics", "dice", "-o", out]
        code, stdout, stderr = run(cohort, "--predictions", whole, "--predictions", f"other={half}", *options)
        assert code == 0, stderr
        assert "│ *100.00* │ _66.67_ │" in stdout.replace("  ", " ")
        assert "With 3 patients the test cannot give less than p = 0.25" in stdout
        assert "corrected for 3 comparisons of single subsets 0.75" in stdout
        assert "other: masks of its folder" in stderr
        with (out / "comparison.csv").open() as file:
            lines = {(row["method"], row["region"]): row for row in csv.DictReader(file)}
        assert float(lines["other", "WT"]["mean"]) == pytest.approx(2 / 3)
        assert lines["whole", "WT"]["to_the_best"] == "best"
        assert lines["other", "WT"]["to_the_best"] == "not told apart"
        with (out / "differences.csv").open() as file:
            first = next(csv.DictReader(file))
        assert (first["first"], first["second"], first["score"], first["p"]) == ("whole", "other", "dice", "0.25")
        assert float(first["mean"]) == pytest.approx(1 / 3)
        written = {path.name for path in out.iterdir()}
        assert {"comparison.md", "comparison.tex", "comparison.json", "forest_dice.png", "whole", "other"} <= written
        assert (out / "other" / "scores.csv").is_file()

    def test_what_was_assumed_of_the_truth_is_said_once(self, cohort: Path, tmp_path: Path, run: Run) -> None:
        shutil.copytree(cohort / "A", tmp_path / "data" / "A")
        write(2 * cube(2), truth := tmp_path / "data" / "A" / "A_seg.nii.gz")
        one, two = masks(tmp_path / "one", {"A": 4}), masks(tmp_path / "two", {"A": 2})
        options = ["--predictions", one, "--predictions", two, "--metrics", "dice"]
        for quiet in ([], ["-q"]):
            code, _, stderr = run(tmp_path / "data", *options, *quiet)
            assert code == 0, stderr
            assert stderr.count(f"{truth.name}: labels read as brats2018") == 1

    def test_folders_of_subsets(self, cohort: Path, tmp_path: Path) -> None:
        """C has no T1: it is not asked for masks of T1, of neither method."""
        edges = {"A": 4, "B": 2}
        for name in ("one", "two"):
            masks(tmp_path / name / "T1", edges)
            masks(tmp_path / name / "flair+t1c", {**edges, "C": 1 if name == "two" else 4})
            masks(tmp_path / name / "t2", edges)
        result = a2fseg_cli.evaluate(
            cohort,
            predictions={"one": tmp_path / "one", "two": tmp_path / "two"},
            subsets=["t1", "t1c+flair"],
            metrics=["dice"],
            output=tmp_path / "out",
        )
        assert [row[-3:] for row in result.tables[0].rows] == [
            ("88.89", "68.89", "3"),  # 1, 2/3, 1 and 1, 2/3, 2/5
            ("83.33", "83.33", "2"),  # 1, 2/3
            ("86.11", "76.11", ""),
        ]
        assert "one: 1 subsets of its folder were not asked for: t2" in result.notes
        assert [scores.case for scores in result.methods["one"]] == ["A", "B", "C"]
        assert {d.subset for d in result.differences} == {"t1", "t1c+flair", MEANS}

    def test_one_folder_of_subsets(self, cohort: Path, tmp_path: Path, run: Run) -> None:
        """A table with one column, in which there is no best."""
        masks(tmp_path / "mine" / "t1c", {"A": 4, "B": 4, "C": 2})
        masks(tmp_path / "mine" / "flair", {"A": 4, "B": 4, "C": 4})
        options = ["--subset", "t1c", "--subset", "flair", "--metrics", "dice", "-o", tmp_path / "out"]
        code, stdout, stderr = run(cohort, "--predictions", tmp_path / "mine", *options)
        assert code == 0, stderr
        assert [line.split("│")[5].strip() for line in stdout.splitlines() if line.startswith("│")][:3] == [
            "100.00", "88.89", "94.44",
        ]  # fmt: skip
        assert not (tmp_path / "out" / "differences.csv").exists()

    def test_a_missing_mask_is_refused_before_anything_is_scored(self, cohort: Path, tmp_path: Path, run: Run) -> None:
        whole, some = masks(tmp_path / "whole", {"A": 4, "B": 4, "C": 4}), masks(tmp_path / "some", {"A": 4})
        code, stdout, stderr = run(cohort, "--predictions", whole, "--predictions", some)
        assert (code, stdout) == (3, "")
        assert "some has no mask of 2 of 3 patients: B, C" in stderr
        assert "scored" not in stderr.replace("scores", "")

    def test_a_missing_subset_is_refused(self, cohort: Path, tmp_path: Path) -> None:
        one = masks(tmp_path / "one" / "t1c", {"A": 4, "B": 4, "C": 4}).parent
        with pytest.raises(UsageError, match="no sub-folder for 14 of 15 subsets: flair, t2"):
            a2fseg_cli.evaluate(cohort, predictions={"one": one, "two": one}, subsets="all")
        with pytest.raises(UsageError, match=r"sub-folders of 1 subsets, t1c\. Say which"):
            a2fseg_cli.evaluate(cohort, predictions={"one": one, "two": one})
        with pytest.raises(InputError, match="no such folder"):
            a2fseg_cli.evaluate(cohort, predictions={"one": tmp_path / "gone", "two": one})

    def test_a_patient_that_one_method_fails_on_is_left_out_and_said(self, cohort: Path, tmp_path: Path) -> None:
        whole = masks(tmp_path / "whole", {"A": 4, "B": 4, "C": 4})
        broken = masks(tmp_path / "broken", {"A": 4, "B": 4})
        write(cube(4) * 4, broken / "C.nii.gz")  # a value that is no class
        result = a2fseg_cli.evaluate(cohort, predictions={"whole": whole, "broken": broken}, metrics=["dice"])
        assert [scores.case for scores in result.methods["whole"]] == ["A", "B"]
        assert "1 of 3 patients are left out of the comparison" in result.warnings[-1]
        with pytest.raises(CohortError, match=r"1 of 3 patients could not be scored: C \(broken\)"):
            result.raise_for_failed()

    def test_a_patient_that_every_method_fails_on_is_one_patient(self, cohort: Path, tmp_path: Path) -> None:
        folders = {name: masks(tmp_path / name, {"A": 4, "B": 4}) for name in ("one", "two", "three")}
        for folder in folders.values():
            for case in ("B", "C"):
                write(cube(4) * 4, folder / f"{case}.nii.gz")
        result = a2fseg_cli.evaluate(cohort, predictions=folders, metrics=["dice"])
        with pytest.raises(CohortError, match=r"2 of 3 patients could not be scored: B \(one\), C \(one\), B"):
            result.raise_for_failed()
        assert result.summary["patients"]["failed"].keys() == {f"{case} ({name})" for case in "BC" for name in folders}

    def test_who_has_none_of_the_subsets_is_said(self, cohort: Path, tmp_path: Path) -> None:
        folder = masks(tmp_path / "t1", {"A": 4, "B": 4})
        result = a2fseg_cli.evaluate(cohort, predictions={"one": folder}, subsets=["t1"], metrics=["dice"])
        assert "1 of 3 patients have none of the subsets: C." in result.notes

    def test_subsets_that_no_patient_has_are_left_out_and_said(
        self, cohort: Path, weights: Path, tmp_path: Path, run: Run
    ) -> None:
        """C has T1c and FLAIR: masks of the twelve subsets with T1 or T2 are not asked for; of T1, nothing is left."""
        folder = tmp_path / "one"
        for subset in ("t1c", "flair", "t1c+flair"):
            masks(folder / subset, {"C": 4})
        (tmp_path / "split.json").write_text('{"last": ["C"]}')
        split = {"split": tmp_path / "split.json", "metrics": ["dice"]}
        both = {"one": folder, "two": folder}
        result = a2fseg_cli.evaluate(cohort, predictions=both, subsets="all", **split)
        assert {row.subset for row in result.methods["two"][0].rows} == {"t1c", "flair", "t1c+flair"}
        assert "12 subsets, of which no patient has all sequences: " in " ".join(result.notes)
        for given in ({"predictions": both}, {"weights": {"a": weights, "b": weights}}, {"weights": weights}):
            with pytest.raises(InputError, match="none of the 1 patients has the sequences asked for: t1, t1\\+t2"):
                a2fseg_cli.evaluate(cohort, **given, subsets=["t1", "t1+t2"], **split)
        code, stdout, _ = run(cohort, "--split", tmp_path / "split.json", "--subset", "t1", "--weights", weights)
        assert (code, stdout) == (3, "")

    def test_several_examinations_of_a_person_are_said(self, cohort: Path, tmp_path: Path) -> None:
        """Exchanged one by one, two examinations of one person would count as two persons."""
        rows = [
            f"{case},{of},{cohort}/{case}/{case}_t1c.nii.gz,{cohort}/{case}/{case}_seg.nii.gz"
            for case, of in ("A1", "B1", "C2")
        ]
        (tmp_path / "cohort.csv").write_text("\n".join(["case,subject,t1c,seg", *rows]))
        folder = masks(tmp_path / "whole", {"A": 4, "B": 4, "C": 4})
        result = a2fseg_cli.evaluate(tmp_path / "cohort.csv", predictions={"one": folder}, metrics=["dice"])
        assert "2 examinations are of 1: tests and intervals take each for another" in result.warnings[0]

    def test_nothing_published_beside(self, cohort: Path, tmp_path: Path) -> None:
        """Masks of no subset that the paper has: no empty columns, and a word, with one folder and with two."""
        folder = masks(tmp_path / "whole", {"A": 4, "B": 4, "C": 4})
        for predictions in (folder, {"one": folder, "two": folder}):
            result = a2fseg_cli.evaluate(cohort, predictions=predictions, metrics=["dice"], compare="paper")
            assert NOTHING_PUBLISHED in result.warnings
            assert not any("A2FSeg" in column for table in result.tables for column in table.columns)


class TestNetworks:
    def test_a_network_beside_a_folder(self, cohort: Path, weights: Path, tmp_path: Path, run: Run) -> None:
        whole = masks(tmp_path / "whole", {"A": 4, "B": 4, "C": 4})
        options = ["--metrics", "dice", "--device", "cpu", "--json"]
        code, stdout, stderr = run(cohort, "--weights", f"toy={weights}", "--predictions", f"whole={whole}", *options)
        assert code == 0, stderr
        methods = json.loads(stdout)["methods"]
        assert methods["whole"]["means"]["predictions"]["WT"]["dice"] == 1
        assert 0 <= methods["toy"]["means"]["predictions"]["WT"]["dice"] < 1
        assert methods["toy"]["weights"]

    def test_one_subset_of_a_folder_and_a_network(self, cohort: Path, weights: Path, tmp_path: Path) -> None:
        """A and B have T1; the folder is of that subset."""
        of_t1 = masks(tmp_path / "of_t1", {"A": 4, "B": 4})
        result = a2fseg_cli.evaluate(
            cohort, weights={"toy": weights}, predictions={"of_t1": of_t1}, subsets=["t1"], metrics=["dice"]
        )
        assert result.tables[0].rows[0][:4] == ("x", "-", "-", "-")
        assert result.tables[0].rows[0][5] == "100.00"
        assert "n = 2" in result.tables[0].title
        assert result.tables[-1].rows[0][0] == "toy"  # what a patient takes; files take nothing

    def test_the_same_network_twice_does_not_differ(self, cohort: Path, weights: Path, tmp_path: Path) -> None:
        """And its scores are those of an evaluation of it alone, from whose folder they can be taken over."""
        out = tmp_path / "out"
        alone = a2fseg_cli.evaluate(cohort, weights=weights, subsets="all", metrics=["dice"], output=out / "one")
        taken = []
        both = a2fseg_cli.evaluate(
            cohort,
            weights={"one": weights, "two": weights},
            subsets="all",
            metrics=["dice"],
            output=out,
            on_patient=lambda outcome, over: taken.append(over),
        )
        assert taken == [True] * 3 + [False] * 3
        assert all(d.mean == 0 and d.p == 1 for d in both.differences)
        assert len(both.differences) == 3 * 16
        assert [row[4] for row in both.tables[0].rows] == [row[4] for row in alone.tables[0].rows]

    def test_networks_of_other_sequences_are_refused(self, cohort: Path, weights: Path, tmp_path: Path) -> None:
        other = toy_network(tmp_path, ("t1c", "flair"))
        with pytest.raises(
            UsageError, match="a and b cannot be compared: sequences t1, t1c, t2, flair, and t1c, flair"
        ):
            a2fseg_cli.evaluate(cohort, weights={"a": weights, "b": other})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"figure": "A"}, "figure: for one network"),
            ({"num_parts": 2, "part_id": 0}, "num_parts, part_id: for one network"),
            ({"prediction_labels": "brats2018"}, "prediction_labels needs predictions"),
        ],
    )
    def test_what_is_of_one_network(self, cohort: Path, weights: Path, options: Any, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            a2fseg_cli.evaluate(cohort, weights={"a": weights, "b": weights}, **options)

    @pytest.mark.parametrize("options", [{"remove_small": {"ET": 50.0}}, {"metrics": ["calibration"]}])
    def test_what_files_cannot_have(self, cohort: Path, weights: Path, options: Any, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="predictions"):
            a2fseg_cli.evaluate(cohort, weights={"a": weights}, predictions={"b": tmp_path}, **options)


def test_a_terminal_shows_bold_and_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    print_table(["a", "b"], [["1", "2"]], bold={(0, 0)}, underlined={(0, 1)})
    assert "\x1b[1m1\x1b[0m" in (shown := capsys.readouterr().out)
    assert "\x1b[4m2\x1b[0m" in shown


def test_numbers_are_never_split_over_two_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seven columns in 60 and in 20 characters: headings are folded, and the table may be wider than the terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    for width in ("60", "20"):
        monkeypatch.setenv("COLUMNS", width)
        print_table(["FLAIR", *["robustseg"] * 7], [["x", *["100.00"] * 7]])
        assert capsys.readouterr().out.count(" 100.00 ") == 7


def test_a_difference_turned_round() -> None:
    difference = Difference("dice", "t1", "WT", "a", "b", 0.1, -0.2, 0.3, 0.5, 0.7, 9)
    assert difference.turned() == Difference("dice", "t1", "WT", "b", "a", -0.1, -0.3, 0.2, 0.5, 0.7, 9)
