"""Tables of scores with numbers that can be checked on paper."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.evaluation.formats import latex, markdown, scores_csv
from a2fseg_cli.evaluation.means import mean_of_subsets, subset_means, subsets_of
from a2fseg_cli.evaluation.metrics import METRICS
from a2fseg_cli.evaluation.patient_scores import PatientScores, Row
from a2fseg_cli.evaluation.summary import card_scores, summary
from a2fseg_cli.evaluation.tables import ABOUT_CONVENTION, _decided, comparison_tables, score_table, title_of
from a2fseg_cli.files import json_text

CONFIG = ModelConfig()
COUNTS = {
    "true_positives": 1,
    "false_positives": 2,
    "false_negatives": 3,
    "reference_voxels": 4,
    "predicted_voxels": 3,
}


def patient(case: str, dice: dict[str, float], hd95_mm: float = 2.0, convention: str = "") -> PatientScores:
    """A patient with the same Dice in WT and TC and half of it in ET, by subset."""
    counts = dict.fromkeys(COUNTS, 0) if convention == "both_empty" else COUNTS
    rows = [
        Row(subset, region, {"dice": value * factor, "hd95_mm": hd95_mm}, counts, convention)
        for subset, value in dice.items()
        for region, factor in (("WT", 1.0), ("TC", 1.0), ("ET", 0.5))
    ]
    return PatientScores(case, tuple(rows))


TWO = [patient("A", {"flair": 0.5, "t1c+flair": 0.9}), patient("B", {"flair": 0.7, "t1c+flair": 0.8})]


def test_means_over_patients_then_over_subsets() -> None:
    table = score_table(TWO, CONFIG, "brats2020")
    assert table.columns == ("T1", "T1c", "T2", "FLAIR", "WT", "TC", "ET")
    assert table.rows == (
        ("-", "-", "-", "x", "60.00", "60.00", "30.00"),
        ("-", "x", "-", "x", "85.00", "85.00", "42.50"),
        ("means", "", "", "", "72.50", "72.50", "36.25"),
    )
    assert table.title == "Dice in %, mean over patients, n = 2, policy brats2020"
    assert table.notes == ()


def test_millimetres_are_no_percentage() -> None:
    assert score_table(TWO, CONFIG, "nan", "hd95_mm").rows[0][4:] == ("2.00", "2.00", "2.00")


def test_rows_stand_in_the_order_of_the_literature() -> None:
    mixed = [patient("A", {"t1+t1c+t2+flair": 1, "t1": 1, "t1c": 1, "t2+flair": 1, "t2": 1, "flair": 1})]
    order = ["flair", "t2", "t2+flair", "t1c", "t1", "t1+t1c+t2+flair"]
    assert subsets_of(mixed, CONFIG.modalities) == order


def test_subsets_that_a_patient_lacks_are_counted() -> None:
    table = score_table([*TWO, patient("C", {"flair": 0.6})], CONFIG, "brats2020")
    assert table.columns[-1] == "n"
    assert [row[-1] for row in table.rows] == ["3", "2", ""]
    assert [row[4] for row in table.rows] == ["60.00", "85.00", "72.50"]
    assert "n = 2 to 3" in table.title


def test_undefined_scores_are_left_out_and_said() -> None:
    results = [TWO[0], patient("B", {"flair": math.nan, "t1c+flair": 0.8}, math.nan, "both_empty")]
    table = score_table(results, CONFIG, "nan")
    assert table.rows[0][4] == "50.00"
    said = "of 12 scores: 3 with both masks empty, 3 undefined and left out of the means"
    assert table.notes == (said, ABOUT_CONVENTION)
    alone = score_table([patient("B", {"flair": math.nan})], CONFIG, "nan")
    assert alone.rows == (("-", "-", "-", "x", "", "", ""),)


def row(region: str, convention: str = "", **values: float) -> Row:
    counts = COUNTS | ({"reference_voxels": 0} if convention else {})
    return Row("t1c", region, values, counts, convention)


def test_means_without_what_the_convention_decided() -> None:
    """Dice of ET 0.4, 0.8 and, for a patient without ET, 1: mean 73.33, without the third 60; HD95 4, 8 and 0 mm."""
    results = [
        PatientScores(
            "A", (row("WT", dice=0.9, hd95_mm=1), row("TC", dice=0.5, hd95_mm=2), row("ET", dice=0.4, hd95_mm=4))
        ),
        PatientScores(
            "B", (row("WT", dice=0.7, hd95_mm=1), row("TC", dice=0.5, hd95_mm=2), row("ET", dice=0.8, hd95_mm=8))
        ),
        PatientScores(
            "C",
            (
                row("WT", dice=0.8, hd95_mm=1),
                row("TC", dice=0.5, hd95_mm=2),
                row("ET", "both_empty", dice=1.0, hd95_mm=0),
            ),
        ),
    ]
    table = score_table(results, CONFIG, "brats2020")
    assert table.columns == ("T1", "T1c", "T2", "FLAIR", "WT", "TC", "ET", "ET n empty", "ET without")
    assert table.rows == (("-", "x", "-", "-", "80.00", "50.00", "73.33", "1", "60.00"),)
    assert table.notes == ("of 9 scores: 1 with both masks empty", ABOUT_CONVENTION)
    assert score_table(results, CONFIG, "brats2020", "hd95_mm").rows[0][6:] == ("4.00", "1", "6.00")

    content = summary(results, {}, CONFIG, ["dice"], "brats2020", {})
    dice = content["scores"]["t1c"]["ET"]["dice"]
    assert (dice["n_by_convention"], dice["mean_without_convention"]) == (1, pytest.approx(0.6))
    assert content["scores"]["t1c"]["WT"]["dice"]["n_by_convention"] == 0
    assert content["means_of_subset_means_without_convention"]["ET"]["dice"] == pytest.approx(0.6)
    lines = list(csv.DictReader(io.StringIO(scores_csv(results, ["dice", "hd95"], "brats2020"))))
    assert [line["by_convention"] for line in lines] == [""] * 8 + ["dice hd95_mm"]


def test_means_without_the_convention_over_several_subsets() -> None:
    """Patient B has no ET: 1 from FLAIR, 0 from T1c, where some was found. Without it the means are A's 50 and 70."""
    rows = {"A": (("flair", 0.5, ""), ("t1c", 0.7, "")), "B": (("flair", 1.0, "both_empty"), ("t1c", 0.0, "one_empty"))}
    results = [
        PatientScores(
            case,
            tuple(
                Row(subset, "ET", {"dice": dice}, COUNTS | ({"reference_voxels": 0} if kind else {}), kind)
                for subset, dice, kind in scores
            ),
        )
        for case, scores in rows.items()
    ]
    table = score_table(results, CONFIG, "brats2020")
    assert [cells[6:] for cells in table.rows] == [
        ("75.00", "1", "50.00"),
        ("35.00", "1", "70.00"),
        ("55.00", "", "60.00"),
    ]


def test_a_share_is_said_in_every_title_and_in_the_summary() -> None:
    share = "2 of 5 patients (SLURM array)"
    table = score_table(TWO, CONFIG, "brats2020", share=share)
    assert table.title == "Dice in %, mean over patients, n = 2, 2 of 5 patients (SLURM array), policy brats2020"
    assert all(share in other.title for other in comparison_tables(TWO, CONFIG, share))
    assert summary(TWO, {}, CONFIG, ["dice"], "brats2020", {}, share)["patients"]["share"] == share
    assert "share" not in summary(TWO, {}, CONFIG, ["dice"], "brats2020", {})["patients"]


def test_published_columns() -> None:
    wt, tc, et = comparison_tables(TWO, CONFIG)
    assert wt.columns == ("T1", "T1c", "T2", "FLAIR", "ours", "HeMIS", "U-HVED", "mmFormer", "MFI", "A2FSeg")
    assert wt.rows[0] == ("-", "-", "-", "x", "60.00", "87.76", "86.49", "90.08", "90.60", "91.48")
    assert (tc.rows[0][4], tc.rows[0][-1]) == ("60.00", "76.21")
    assert (et.rows[0][4], et.rows[0][-1]) == ("30.00", "53.80")
    assert len(wt.rows) == 2  # two subsets have no published mean
    assert "other patients" in wt.notes[-1]


def test_published_means_beside_all_fifteen() -> None:
    from a2fseg_cli.evaluation.published import TABLE_1

    ours = [patient("A", dict.fromkeys(TABLE_1["A2FSeg"], 0.5))]
    last = [table.rows[-1] for table in comparison_tables(ours, CONFIG)]
    assert [(row[4], row[-1]) for row in last] == [("50.00", "89.79"), ("50.00", "82.72"), ("25.00", "66.71")]
    assert [row[5] for row in last] == ["86.45", "77.59", "61.48"]


def test_other_tasks_have_nothing_to_compare_with() -> None:
    other = ModelConfig(modalities=("pd", "t2"))
    assert comparison_tables([patient("A", {"t2": 0.5})], other) == []


def test_markdown() -> None:
    text = markdown([score_table(TWO[:1], CONFIG, "brats2020")], "the definition")
    assert text == (
        "**Dice in %, mean over patients, n = 1, policy brats2020**\n"
        "\n"
        "| T1 | T1c | T2 | FLAIR | WT | TC | ET |\n"
        "| :-: | :-: | :-: | :-: | --: | --: | --: |\n"
        "| - | - | - | x | 50.00 | 50.00 | 25.00 |\n"
        "| - | x | - | x | 90.00 | 90.00 | 45.00 |\n"
        "| means |  |  |  | 70.00 | 70.00 | 35.00 |\n"
        "\n"
        "the definition\n"
    )


def test_latex() -> None:
    lines = latex([score_table(TWO[:1], CONFIG, "brats2020")], "the definition").splitlines()
    assert lines[0] == "% the definition"
    assert r"\caption{Dice in \%, mean over patients, n = 1, policy brats2020}" in lines
    assert r"\begin{tabular}{ccccrrr}" in lines
    assert r"$\circ$ & $\circ$ & $\circ$ & $\bullet$ & 50.00 & 50.00 & 25.00 \\" in lines
    assert lines.index(r"means &  &  &  & 70.00 & 70.00 & 35.00 \\") == lines.index(r"\end{tabular}") - 2


def test_scores_csv_names_policy_and_leaves_undefined_empty() -> None:
    rows = list(csv.DictReader(io.StringIO(scores_csv([patient("A", {"t2": 0.5}, math.nan)], ["dice", "hd95"], "nan"))))
    assert [row["region"] for row in rows] == ["WT", "TC", "ET"]
    assert rows[2]["dice"] == "0.25"
    assert rows[0]["hd95_mm"] == ""
    assert rows[0]["false_negatives"] == "3"
    assert (rows[0]["policy"], rows[0]["hd95_definition"]) == ("nan", "directed")


def test_summary_is_valid_json_with_intervals() -> None:
    content = summary(TWO, {"C": "no truth"}, CONFIG, ["dice", "hd95"], "brats2020", {"weights": {"sha256": "0"}})
    found = json.loads(json_text(content), parse_constant=pytest.fail)
    dice = found["scores"]["flair"]["WT"]["dice"]
    assert dice["mean"] == pytest.approx(0.6)
    assert dice["standard_deviation"] == pytest.approx(math.sqrt(0.02))
    assert (dice["n"], dice["n_undefined"]) == (2, 0)
    assert dice["mean_interval_95"] == pytest.approx([0.5, 0.7])  # of two patients a quarter of the draws is A, A
    assert found["means_of_subset_means"]["ET"]["dice"] == pytest.approx(0.3625)
    assert found["patients"]["failed"] == {"C": "no truth"}
    assert "pooled" in found["hd95_definition"]
    assert found["weights"] == {"sha256": "0"}

    undefined = summary([patient("A", {"t2": math.nan})], {}, CONFIG, ["dice"], "nan", {})
    assert json.loads(json_text(undefined))["scores"]["t2"]["WT"]["dice"]["mean"] is None


def test_subset_means_weigh_the_same_and_undefined_ones_not_at_all() -> None:
    """Means 0.5 of three patients, 0.9 of one and none: 0.7."""
    flair = [patient(case, {"flair": dice}) for case, dice in (("A", 0.4), ("B", 0.5), ("C", 0.6))]
    results = [*flair, patient("D", {"t2": 0.9, "t1": math.nan}), patient("E", {"t2": math.nan})]
    assert mean_of_subsets(subset_means(results, CONFIG), "WT") == pytest.approx(0.7)
    assert math.isnan(mean_of_subsets({"t1": {"WT": math.nan}}, "WT"))


def test_card_keeps_shares_by_subset_and_region() -> None:
    card = card_scores(TWO, CONFIG, "brats2020")
    assert card["subsets"] == subset_means(TWO, CONFIG)
    assert card["subsets"]["flair"] == pytest.approx({"WT": 0.6, "TC": 0.6, "ET": 0.3})
    assert (card["patients"], card["policy"], card["metric"]) == (2, "brats2020", "dice")


def test_every_score_has_a_title_with_its_unit() -> None:
    for metric in METRICS.values():
        for key in metric.score_keys:
            unit = " in mm" if key.endswith("_mm") else " in mL" if key.endswith("_ml") else " in %"
            assert title_of(key).endswith(unit), key


@pytest.mark.parametrize(
    ("key", "convention", "reference", "predicted", "value", "said"),
    [
        ("dice", "both_empty", 0, 0, 1.0, "1 with both masks empty"),
        ("hd95_mm", "one_empty", 9, 0, 373.0, "1 with one empty"),
        ("dice", "one_empty", 0, 9, 0.0, "1 with one empty"),
        ("dice", "one_empty", 9, 0, 0.0, "1 missed altogether (0)"),
        ("nsd", "one_empty", 9, 0, 0.0, "1 missed altogether (0)"),
        ("dice", "", 9, 9, 1.0, ""),
        ("volume_ml", "one_empty", 9, 0, 0.0, ""),
        ("sensitivity", "one_empty", 9, 0, 0.0, ""),
        ("sensitivity", "one_empty", 0, 9, 0.0, "1 with one empty"),
        ("precision", "one_empty", 9, 0, 0.0, "1 with one empty"),
        ("precision", "one_empty", 0, 9, 0.0, ""),
        ("lesionwise_dice", "one_empty", 9, 0, 0.0, ""),
        ("hd95_mm", "one_empty", 9, 0, math.nan, "1 undefined and left out of the means"),
    ],
)
def test_what_the_policy_decided(
    key: str, convention: str, reference: int, predicted: int, value: float, said: str
) -> None:
    counts = COUNTS | {"reference_voxels": reference, "predicted_voxels": predicted}
    found = _decided([PatientScores("a", (Row("t1", "WT", {key: value}, counts, convention),))], key)
    assert found == (f"of 1 scores: {said}" if said else "")
