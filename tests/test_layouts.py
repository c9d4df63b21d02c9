"""`predict --layout bids` and `--label-file`: names checked by hand, found again, never taken for anything else."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import SimpleITK as sitk

from a2fseg_cli import __version__
from a2fseg_cli.cases.bids_names import bids_name
from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.discovery import find_cases
from a2fseg_cli.errors import UsageError
from a2fseg_cli.evaluation.predictions import find_predictions
from a2fseg_cli.inference.layouts import BIDS, PLAIN
from a2fseg_cli.reporting.label_tables import bids_lookup_table, itk_snap_labels
from a2fseg_cli.weights.file_format import inspect_weights

Run = Callable[..., tuple[int, str, str]]

SNAP_HEADING = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# Fields:
#    IDX:   Zero-based index
#    -R-:   Red color component (0..255)
#    -G-:   Green color component (0..255)
#    -B-:   Blue color component (0..255)
#    -A-:   Label transparency (0.00 .. 1.00)
#    VIS:   Label visibility (0 or 1)
#    IDX:   Label mesh visibility (0 or 1)
#  LABEL:   Label description
################################################
    0     0    0    0        0  0  0    "Clear Label"
"""
# The preview's colours: green (0.10, 0.75, 0.20), red (0.90, 0.12, 0.12), blue (0.16, 0.36, 1.00), times 255.
SNAP_BRATS2018 = """\
    1   204   82   10        1  1  1    "NCR necrotic and non-enhancing core"
    2    51  128  255        1  1  1    "ED oedema"
    4   191  255   26        1  1  1    "ET enhancing"
"""
DSEG_TSV = """\
index\tname\tabbreviation\tcolor
1\tnecrotic and non-enhancing core\tNCR\t#cc520a
2\toedema\tED\t#3380ff
3\tenhancing\tET\t#bfff1a
"""


@pytest.fixture
def raw(phantom: Path, tmp_path: Path) -> Path:
    """A BIDS data set with a subject, and one with a session; T1c and FLAIR."""
    for name in ("sub-01/anat/sub-01", "sub-02/ses-1/anat/sub-02_ses-1"):
        start = tmp_path / "raw" / name
        start.parent.mkdir(parents=True)
        shutil.copy(phantom / "P1_t1c.nii.gz", f"{start}_ce-GD_T1w.nii.gz")
        shutil.copy(phantom / "P1_flair.nii.gz", f"{start}_FLAIR.nii.gz")
    return tmp_path / "raw"


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_bids_derivative(run: Run, raw: Path, toy_weights: Path) -> None:
    """Every name follows a template of the specification, or stands in .bidsignore."""
    out = raw / "derivatives/a2fseg"
    maps = ("--regions", "--probabilities", "--uncertainty", "--attention", "--label-file")
    arguments = ("predict", raw, "-o", out, "--layout", "bids", *maps, "--weights", toy_weights)
    assert run(*arguments)[0] == 0
    one, two = "sub-01/anat/sub-01_space-orig_", "sub-02/ses-1/anat/sub-02_ses-1_space-orig_"
    endings = (
        "seg-a2fseg_dseg.nii.gz", "seg-a2fseg_dseg.json",
        "label-WT_desc-a2fseg_mask.nii.gz", "label-TC_desc-a2fseg_mask.nii.gz", "label-ET_desc-a2fseg_mask.nii.gz",
        "seg-a2fseg_label-WT_probseg.nii.gz", "seg-a2fseg_label-TC_probseg.nii.gz",
        "seg-a2fseg_label-ET_probseg.nii.gz",
        "seg-a2fseg_uncertainty.nii.gz", "seg-a2fseg_desc-t1c_attention.nii.gz",
        "seg-a2fseg_desc-flair_attention.nii.gz",
    )  # fmt: skip
    top = (".bidsignore", "dataset_description.json", "dseg.tsv", "labels.txt", "mask.json", "probseg.json")
    assert files_in(out) == sorted(
        [*top, "status.csv", *(start + ending for start in (one, two) for ending in endings)]
    )
    description = json.loads((out / "dataset_description.json").read_text())
    assert (description["BIDSVersion"], description["DatasetType"]) == ("1.11.2", "derivative")
    (maker,) = description["GeneratedBy"]
    assert (maker["Name"], maker["Version"]) == ("a2fseg", __version__)
    assert maker["Description"].endswith(f"the weights toy, sha256 {inspect_weights(toy_weights).sha256}")
    assert (out / "dseg.tsv").read_text() == DSEG_TSV
    sidecar = json.loads((out / f"{one}seg-a2fseg_dseg.json").read_text())
    assert (sidecar["Manual"], sidecar["SpatialReference"], sidecar["Modalities"]) == (False, "orig", ["t1c", "flair"])
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name != "status.csv"}
    code, said, _ = run(*arguments)
    assert (code, said.startswith("0 ok, 2 skipped")) == (0, True)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_masks_of_a_derivative_are_scored_and_are_no_truths(
    run: Run, raw: Path, toy_weights: Path, tmp_path: Path
) -> None:
    out = raw / "derivatives/a2fseg"
    assert run("predict", raw, "-o", out, "--layout", "bids", "--weights", toy_weights)[0] == 0
    # Nor are they where another tool's name stands instead: the mark in the header tells them.
    copy = raw / "derivatives/manual/sub-02/ses-1/anat/sub-02_ses-1_dseg.nii.gz"
    copy.parent.mkdir(parents=True)
    shutil.copy(out / "sub-02/ses-1/anat/sub-02_ses-1_space-orig_seg-a2fseg_dseg.nii.gz", copy)
    cases = find_cases(raw)
    assert [(case.name, case.truth, case.problem) for case in cases] == [
        ("sub-01", None, None),
        ("sub-02_ses-1", None, None),
    ]
    files = find_predictions(out, cases)
    assert {name: [str(path.relative_to(out)) for path in paths] for name, paths in files.items()} == {
        "sub-01": ["sub-01/anat/sub-01_space-orig_seg-a2fseg_dseg.nii.gz"],
        "sub-02_ses-1": ["sub-02/ses-1/anat/sub-02_ses-1_space-orig_seg-a2fseg_dseg.nii.gz"],
    }
    for case in cases:  # the same voxels as an expert's truth, without the mark: Dice 1
        image = sitk.ReadImage(str(files[case.name][0]))
        for key in image.GetMetaDataKeys():
            image.EraseMetaData(key)
        sitk.WriteImage(image, str(case.images["flair"].with_name(f"{case.name}_seg.nii.gz")))
    scores = tmp_path / "scores"
    assert run("evaluate", raw, "--predictions", out, "-o", scores, "--metrics", "dice")[0] == 0
    with (scores / "scores.csv").open(newline="") as file:
        rows = [(row["case"], row["dice"]) for row in csv.DictReader(file) if row["region"] == "WT"]
    assert rows == [("sub-01", "1.0"), ("sub-02_ses-1", "1.0")]


def test_names_that_are_not_of_bids(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    """Images by flag have a folder, too: a data set is one."""
    chosen = ("--t1c", phantom / "P1_t1c.nii.gz", "--weights", toy_weights, "--layout", "bids")
    assert run("predict", *chosen, "-o", tmp_path / "out", "--case", "Brats18_2013_2_1")[0] == 0
    assert "sub-Brats18201321/anat/sub-Brats18201321_space-orig_seg-a2fseg_dseg.nii.gz" in files_in(tmp_path / "out")
    (found,) = find_predictions(tmp_path / "out", [Case("Brats18_2013_2_1", {})])["Brats18_2013_2_1"]
    assert found.name == "sub-Brats18201321_space-orig_seg-a2fseg_dseg.nii.gz"
    code, _, err = run("predict", *chosen, "-o", tmp_path / "seg.nii.gz")
    assert code == 2
    assert "seg.nii.gz: layout bids writes a data set; give a folder." in err


@pytest.mark.parametrize(
    ("case", "name", "folder"),
    [
        ("sub-01", "sub-01", "sub-01/anat"),
        ("sub-01_ses-1", "sub-01_ses-1", "sub-01/ses-1/anat"),
        ("sub-a+b", "sub-a+b", "sub-a+b/anat"),
        ("P1_ses-pre", "sub-P1_ses-pre", "sub-P1/ses-pre/anat"),
        ("sub-01_ses-pre-op", "sub-01sespreop", "sub-01sespreop/anat"),
        ("Patient-001_week-000", "sub-Patient001week000", "sub-Patient001week000/anat"),
        ("患者7", "sub-7", "sub-7/anat"),
    ],
)
def test_subject_and_session_of_a_case(case: str, name: str, folder: str) -> None:
    found = bids_name(case)
    assert (str(found), found and str(found.folder)) == (name, folder)


@pytest.mark.parametrize("case", ["患者", "___", "sub-"])
def test_a_name_without_letters_and_digits_is_refused(case: str, tmp_path: Path) -> None:
    assert bids_name(case) is None
    with pytest.raises(UsageError, match="no letter A to Z and no digit"):
        BIDS.check(tmp_path, [Case(case, {})])
    PLAIN.check(tmp_path, [Case(case, {})])


def test_two_patients_of_one_name_are_refused_and_nobodys_prediction(tmp_path: Path) -> None:
    cases = [Case("P_1", {}), Case("p1", {}), Case("P2", {})]
    with pytest.raises(UsageError, match="P_1 and p1 would both be sub-p1"):
        BIDS.check(tmp_path, cases)
    BIDS.check(tmp_path, [cases[0], Case("p1", {}, problem="no image"), cases[2]])  # writes nothing
    for name in ("sub-P1/anat/sub-P1_dseg.nii.gz", "sub-P2/anat/sub-P2_dseg.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    found = find_predictions(tmp_path, [Case("P_1", {}), Case("P1", {}), Case("P2", {})])
    assert {name: len(paths) for name, paths in found.items()} == {"P_1": 0, "P1": 0, "P2": 1}


def test_two_patients_of_one_name_in_two_shares(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    """Neither share alone has both, and the second would write over the first."""
    for name in ("P_1", "P1"):
        (tmp_path / "data" / name).mkdir(parents=True)
        shutil.copy(phantom / "P1_flair.nii.gz", tmp_path / "data" / name / "FLAIR.nii.gz")
    share = ("--num-parts", 2, "--part-id", 0)
    arguments = ("predict", tmp_path / "data", "-o", tmp_path / "out", "--layout", "bids", "--weights", toy_weights)
    code, _, err = run(*arguments, *share)
    assert (code, "P1 and P_1 would both be sub-P1" in err) == (2, True)
    assert not (tmp_path / "out").exists()


def test_what_a_killed_run_left_in_a_subjects_folder_goes(
    run: Run, raw: Path, toy_weights: Path, tmp_path: Path
) -> None:
    left = tmp_path / "out/sub-01/anat/.sub-01_dseg.nii.gz.1-ab.part"
    left.parent.mkdir(parents=True)
    left.touch()
    os.utime(left, (0, 0))  # older than a day
    assert run("predict", raw, "-o", tmp_path / "out", "--layout", "bids", "--weights", toy_weights)[0] == 0
    assert not left.exists()


def test_other_sessions_and_subjects_are_not_found(tmp_path: Path) -> None:
    names = ("sub-1_ses-2_dseg", "sub-10_dseg", "sub-1_label-WT_probseg", "sub-1_label-WT_desc-a2fseg_mask")
    for name in (*names, "sub-1_space-T1w_dseg"):
        (tmp_path / "sub-1/anat").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"sub-1/anat/{name}.nii.gz").touch()
    (found,) = find_predictions(tmp_path, [Case("sub-1", {})])["sub-1"]
    assert found.name == "sub-1_space-T1w_dseg.nii.gz"


def test_another_data_sets_folder_is_refused(run: Run, raw: Path, toy_weights: Path) -> None:
    text = '{"Name": "ours", "BIDSVersion": "1.8.0"}'
    (raw / "dataset_description.json").write_text(text)
    code, _, err = run("predict", raw, "-o", raw, "--layout", "bids", "--weights", toy_weights, "--overwrite")
    assert code == 2
    assert "dataset_description.json is another data set's" in err
    assert (raw / "dataset_description.json").read_text() == text
    assert not list(raw.rglob("*_dseg*"))


def test_what_the_user_adds_to_the_description_stays(run: Run, raw: Path, toy_weights: Path, tmp_path: Path) -> None:
    arguments = ("predict", raw, "-o", tmp_path / "out", "--layout", "bids", "--weights", toy_weights)
    assert run(*arguments)[0] == 0
    path = tmp_path / "out/dataset_description.json"
    added = json.loads(path.read_text()) | {"Name": "Ward 3", "License": "CC0"}
    path.write_text(json.dumps(added))
    assert run(*arguments)[0] == 0
    assert path.read_text() == json.dumps(added)
    added["GeneratedBy"][0]["Version"] = "0.0.1"
    path.write_text(json.dumps(added))
    code, _, err = run(*arguments)
    assert (code, "dataset_description.json exists" in err) == (2, True)
    assert run(*arguments, "--skip-existing")[0] == 0
    now = json.loads(path.read_text())
    assert (now["Name"], now["License"]) == ("Ward 3", "CC0")
    assert [maker["Version"] for maker in now["GeneratedBy"]] == [__version__]


def test_the_label_file_of_one_patient(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    arguments = ("predict", phantom, "-o", tmp_path / "s.nrrd", "--weights", toy_weights, "--label-file")
    (tmp_path / "s_labels.txt").write_text("my notes")
    code, _, err = run(*arguments, "--labels", "brats2018")
    assert (code, "s_labels.txt exists" in err) == (2, True)
    assert files_in(tmp_path) == ["s_labels.txt"]
    assert run(*arguments, "--labels", "brats2018", "--overwrite")[0] == 0
    assert files_in(tmp_path) == ["s.nrrd", "s_labels.txt"]
    assert (tmp_path / "s_labels.txt").read_text() == SNAP_HEADING + SNAP_BRATS2018


def test_the_label_file_of_a_cohort_that_is_finished(
    run: Run, phantom: Path, toy_weights: Path, tmp_path: Path
) -> None:
    arguments = ("predict", phantom, "-o", tmp_path / "out", "--weights", toy_weights)
    assert run(*arguments)[0] == 0
    assert files_in(tmp_path / "out") == ["P1_seg.nii.gz", "status.csv"]
    code, said, _ = run(*arguments, "--label-file")
    assert (code, said.startswith("0 ok, 1 skipped")) == (0, True)
    assert (
        (tmp_path / "out/labels.txt").read_text().endswith('    3   191  255   26        1  1  1    "ET enhancing"\n')
    )


def test_no_label_file_of_a_patient_that_failed(run: Run, toy_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "P1_t1c.nii.gz").write_bytes(b"not an image")
    arguments = ("predict", "--t1c", tmp_path / "P1_t1c.nii.gz", "--weights", toy_weights, "--label-file")
    assert run(*arguments, "-o", tmp_path / "out/s.nii.gz")[0] == 3
    assert not (tmp_path / "out").exists() or files_in(tmp_path / "out") == []


def test_labels_of_another_task_by_value_and_without_what_breaks_a_table() -> None:
    """Values need not rise with the classes; a quotation mark would end ITK-SNAP's name."""
    classes, values = ("background", 'the "core"', "rim"), (0, 7, 2)
    assert itk_snap_labels(classes, values) == SNAP_HEADING + (
        '    2   204  178  128        1  1  1    "rim"\n    7     0  204  255        1  1  1    "the \'core\'"\n'
    )
    assert bids_lookup_table(classes, values).splitlines()[1:] == [
        "2\trim\trim\t#ccb280",
        '7\tthe "core"\tthe "core"\t#00ccff',
    ]


def test_an_unknown_layout(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    code, _, err = run("predict", phantom, "-o", tmp_path / "o", "--layout", "flat", "--weights", toy_weights)
    assert (code, "layout flat: expected plain or bids." in err) == (2, True)
