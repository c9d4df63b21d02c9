"""One way for every command to its patients: sources, what narrows them, truths, and shares."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.checks import in_order
from a2fseg_cli.cases.nnunet import read_dataset
from a2fseg_cli.cases.selection import Selection, select_cases
from a2fseg_cli.cases.shares import share_of
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.files import atomic_write_text, json_text
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.marking import is_marked
from a2fseg_cli.imaging.writing import write_label_map, write_map

GEOMETRY = Geometry((2, 3, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
LABELS = np.zeros(GEOMETRY.size, np.uint8)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def written_by_us(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_label_map(LABELS, path, GEOMETRY, path)
    return path


# What is narrowed.


@pytest.mark.parametrize("choice", [{"select": ("run-1",)}, {"ignore_unknown": True}])
def test_a_choice_of_files_that_nothing_would_follow_is_refused(tmp_path, choice) -> None:
    table = tmp_path / "t.csv"
    atomic_write_text(table, "case,flair\na,a.nii.gz\n")
    name = next(iter(choice))
    with pytest.raises(UsageError, match=rf"nothing to choose \({name}\): a CSV"):
        select_cases(table, selection=Selection(**choice))
    with pytest.raises(UsageError, match=rf"nothing to choose \({name}\): channels"):
        select_cases(tmp_path, selection=Selection(channels=("flair",), **choice))


def test_a_required_sequence_that_is_absent_is_this_patients_problem(tmp_path) -> None:
    touch(tmp_path, "a/T1c.nii", "b/FLAIR.nii", "b/T2.nii", "c/post_T1.nii")
    a, b, c = select_cases(tmp_path, selection=Selection(require=("t1c",)))
    assert a.problem is None
    assert b.problem == "b: no t1c, which is required; there is t2, flair."
    assert "may be t1 or t1c" in (c.problem or "")  # what was wrong before is still what is said
    with pytest.raises(UsageError, match="require adc: expected some of t1, t1c, t2, flair"):
        select_cases(tmp_path, selection=Selection(require=("adc",)))


def test_which_of_several_files_is_said_by_a_part_of_its_name(tmp_path) -> None:
    names = ["sub-1_run-01_T1w", "sub-1_run-02_T1w", "sub-1_acq-ax_FLAIR", "sub-1_acq-sag_FLAIR", "sub-1_T2w"]
    touch(tmp_path / "sub-1" / "anat", *(f"{name}.nii.gz" for name in names))
    (case,) = select_cases(tmp_path)
    assert "2 candidates for t1: sub-1_run-01_T1w.nii.gz, sub-1_run-02_T1w.nii.gz" in (case.problem or "")
    assert '(select "run-01" takes sub-1_run-01_T1w.nii.gz)' in (case.problem or "")
    (case,) = select_cases(tmp_path, selection=Selection(select=("RUN-02", "acq-ax")))
    assert case.problem is None
    assert [path.name[:-7] for path in case.images.values()] == [names[1], names[4], names[2]]
    (case,) = select_cases(
        tmp_path, selection=Selection(select=("acq-ax", "run-0"))
    )  # no whole word, so it chooses nothing
    assert "acq-ax, run-0 does not decide" in (case.problem or "")


def test_only_the_cases_of_a_split(tmp_path) -> None:
    touch(tmp_path / "data", "a/T1.nii", "b/T1.nii", "c/T1.nii")
    split = tmp_path / "split.json"
    split.write_text('{"train": ["a"], "test": ["b", "c"]}')
    assert [case.name for case in select_cases(tmp_path / "data", selection=Selection(f"{split}:test"))] == ["b", "c"]
    with pytest.raises(
        UsageError, match=r"split .*split.json: expected .*split.json:NAME with NAME one of train, test"
    ):
        select_cases(tmp_path / "data", selection=Selection(str(split)))
    split.write_text('{"only": ["a", "x"]}')
    with pytest.raises(InputError, match=r"split.json, only: 1 cases are not in the data: x"):
        select_cases(tmp_path / "data", selection=Selection(str(split)))


def test_several_sources_and_a_table_with_truths(tmp_path) -> None:
    touch(tmp_path, "one/a/T1.nii", "two/b/T1.nii", "two/c/T1.nii", "x.nii", "s.nii")
    table = tmp_path / "more.csv"
    table.write_text("case,flair,seg\nc,x.nii,s.nii\nd,x.nii,s.nii\n")
    a, b, c, other, d = select_cases([tmp_path / "one", tmp_path / "two", table])
    assert [case.name for case in (a, b, c, other, d)] == ["a", "b", "c", "c (2)", "d"]
    assert (d.truth, d.images, d.problem) == (tmp_path / "s.nii", {"flair": tmp_path / "x.nii"}, None)
    assert (c.problem or "").startswith("2 patients are named c: ")


def test_images_given_one_by_one(tmp_path) -> None:
    (case,) = select_cases(None, given={"flair": tmp_path / "M\udcfcller.2.nii.gz"})
    assert (case.name, list(case.images)) == ("M%FCller.2", ["flair"])
    (case,) = select_cases(None, given={"t1": tmp_path / "a.nii"}, selection=Selection(case_name="Erika M."))
    assert case.name == "Erika M."
    for name in ("", "..", "a/b", "x" * 201, "a\nb"):
        with pytest.raises(UsageError, match="case_name"):
            select_cases(None, given={"t1": tmp_path / "a.nii"}, selection=Selection(case_name=name))
    touch(tmp_path, "p/T1.nii", "q/T1.nii")
    with pytest.raises(UsageError, match="case_name x: 2 patients"):
        select_cases(tmp_path, selection=Selection(case_name="x"))
    with pytest.raises(UsageError, match="either images"):
        select_cases(tmp_path, given={"t1": tmp_path / "a.nii"})
    with pytest.raises(UsageError, match=r"one file. Expected a folder"):
        select_cases(touch(tmp_path, "T1.nii") / "T1.nii")


def test_what_decided_is_kept(tmp_path) -> None:
    touch(tmp_path, "T1_AX_POST_GAD.nii", "scan.nii.gz")
    (tmp_path / "scan.json").write_text(json.dumps({"SeriesDescription": "Ax T2 FLAIR"}))
    (case,) = select_cases(tmp_path)
    assert case.decided == {"t1c": "name: T1 AX POST GAD", "flair": 'SeriesDescription: "Ax T2 FLAIR"'}
    assert case.folder == tmp_path


# Truths.


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_the_tools_own_result_is_never_the_truth(tmp_path, suffix) -> None:
    touch(tmp_path, "P_flair.nii")
    own = written_by_us(tmp_path / f"seg{suffix}")
    (case,) = select_cases(tmp_path)
    assert case.truth is None
    assert f"not taken for the truth, since a2fseg wrote it: {own.name}" in case.warnings[0]
    touch(tmp_path, "P_seg.nii")  # the expert's
    (case,) = select_cases(tmp_path)
    assert case.truth == tmp_path / "P_seg.nii"


def test_the_mark_survives_what_others_write_again(tmp_path) -> None:
    nibabel, sitk = pytest.importorskip("nibabel"), pytest.importorskip("SimpleITK")
    own = written_by_us(tmp_path / "seg.nii.gz")
    nibabel.save(nibabel.load(own), tmp_path / "again_seg.nii.gz")
    nibabel.save(nibabel.Nifti2Image.from_image(nibabel.load(own)), tmp_path / "nifti2_seg.nii.gz")
    for suffix in ("nii.gz", "mha", "nrrd"):
        sitk.WriteImage(sitk.ReadImage(own), tmp_path / f"itk_seg.{suffix}")
        read = sitk.ReadImage(written_by_us(tmp_path / f"own_seg.{suffix}"))
        assert read.GetSize() == (4, 3, 2)
    assert {path.name for path in tmp_path.iterdir() if is_marked(path)} >= {
        "seg.nii.gz", "again_seg.nii.gz", "nifti2_seg.nii.gz", "itk_seg.nii.gz", "own_seg.mha", "own_seg.nrrd"
    }  # fmt: skip


def test_maps_of_real_numbers_and_files_that_are_none_have_no_mark(tmp_path) -> None:
    write_map(LABELS.astype(np.float32), tmp_path / "x", GEOMETRY, tmp_path / "prob.nii.gz")
    (tmp_path / "broken.nii.gz").write_bytes(b"\x1f\x8b\x08no gzip")
    names = ("prob.nii.gz", "broken.nii.gz", "missing.nii")
    assert not any(is_marked(tmp_path / name) for name in names)


def test_truths_in_bids_derivatives(tmp_path) -> None:
    touch(tmp_path, *(f"sub-{i}/ses-{s}/anat/sub-{i}_ses-{s}_T1w.nii.gz" for i in (1, 2) for s in (1, 2)))
    expert = "derivatives/manual/sub-1/ses-{}/anat/sub-1_ses-{}_space-T1w_dseg.nii.gz"
    touch(tmp_path, expert.format(1, 1), "derivatives/fmriprep/sub-2/ses-1/anat/sub-2_ses-1_dseg.nii.gz")
    touch(tmp_path, "derivatives/a/sub-2/ses-2/anat/sub-2_ses-2_dseg.nii", "derivatives/b/sub-2/sub-2_ses-2_seg.nii")
    written_by_us(tmp_path / expert.format(2, 2))
    one, two, tissue, several = select_cases(tmp_path)
    assert one.truth == tmp_path / expert.format(1, 1)
    assert one.decided["seg"] == f"derivatives: {one.truth}"
    assert (two.truth, tissue.truth, several.truth) == (None, None, None)
    assert "2 candidates for the truth, none taken" in several.warnings[0]
    (alone,) = select_cases(tmp_path / "sub-1" / "ses-1")
    assert alone.truth == one.truth
    touch(tmp_path, "derivatives/stripped/sub-1/ses-1/anat/sub-1_ses-1_desc-brain_T1w.nii.gz")
    (stripped,) = select_cases(tmp_path / "derivatives" / "stripped")
    assert (stripped.name, stripped.truth) == ("sub-1_ses-1", one.truth)


def test_a_t1_that_cannot_be_told_matters_not_to_a_network_without_one(tmp_path) -> None:
    touch(tmp_path, "post_T1.nii", "T2.nii")
    assert select_cases(tmp_path, modalities=("t2",))[0].problem is None
    assert select_cases(tmp_path, modalities=("t2", "t1ce"))[0].problem is not None


# nnU-Net and 4-D files.

BRATS = {"channel_names": {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"}, "file_ending": ".nii.gz"}


def dataset(folder: Path, fields: dict[str, object], *names: str) -> Path:
    touch(folder, *names)
    (folder / "dataset.json").write_text(json.dumps(fields))
    return folder


def test_nnunets_raw_data_set(tmp_path) -> None:
    labels = {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3}
    names = [f"imagesTr/BRATS_{i}_000{c}.nii.gz" for i in (1, 2) for c in range(4)] + ["imagesTs/X_0003.nii.gz"]
    root = dataset(tmp_path, BRATS | {"labels": labels}, *names, "labelsTr/BRATS_1.nii.gz")
    written_by_us(root / "labelsTr" / "BRATS_2.nii.gz")
    one, two, x = select_cases(root)
    assert {m: path.name for m, path in one.images.items()} == {
        "t1": "BRATS_1_0000.nii.gz",
        "t1c": "BRATS_1_0001.nii.gz",
        "t2": "BRATS_1_0002.nii.gz",
        "flair": "BRATS_1_0003.nii.gz",
    }
    assert (one.name, one.truth, one.problem) == ("BRATS_1", root / "labelsTr" / "BRATS_1.nii.gz", None)
    assert one.truth_labels == {"ED": 1, "NCR": 2, "ET": 3}
    assert one.decided["t1c"] == 'dataset.json: channel 1 "T1ce"'
    assert two.truth is None
    assert "a2fseg wrote it" in two.warnings[0]
    assert (x.name, list(x.images), x.truth) == ("X", ["flair"], None)
    assert [case.name for case in select_cases(root, with_truth=True)] == ["BRATS_1", "BRATS_2"]
    assert [case.name for case in select_cases(root / "imagesTs", with_truth=True)] == ["X"]
    assert list(select_cases(root, selection=Selection(channels=("flair", "-", "t2", "t1")))[0].images) == [
        "t1",
        "t2",
        "flair",
    ]


def test_the_decathlons_files_hold_all_channels(tmp_path) -> None:
    fields = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
    }
    root = dataset(tmp_path, fields, "imagesTr/BRATS_001.nii.gz", "imagesTr/._BRATS_001.nii.gz")
    touch(root, "labelsTr/BRATS_001.nii.gz")
    (case,) = select_cases(root)
    assert case.channels == ("flair", "t1", "t1c", "t2")
    assert set(case.images.values()) == {root / "imagesTr" / "BRATS_001.nii.gz"}
    assert list(case.images) == ["t1", "t1c", "t2", "flair"]
    assert (case.truth, case.truth_labels) == (root / "labelsTr" / "BRATS_001.nii.gz", {"ED": 1, "NCR": 2, "ET": 3})


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        ({"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}, "ED 1 ET 3 NCR 2"),
        ({"background": 0, "WT": [1, 2, 4], "TC": [1, 4], "ET": 4}, "ED 2 ET 4 NCR 1"),
        ({"background": 0, "NETC": 1, "SNFH": 2, "ET": 3, "RC": 4}, "ED 2 ET 3 NCR 1 RC 4"),
        ({"0": "background", "1": "lesion", "255": "ignore"}, "lesion 1"),
        ({"background": 0, "liver": [1, 2], "cancer": [2]}, "cancer 2"),
    ],
)
def test_values_of_the_classes_by_name(tmp_path, labels, values) -> None:
    path = dataset(tmp_path, BRATS | {"labels": labels}) / "dataset.json"
    found = read_dataset(path).class_values
    assert " ".join(f"{name} {value}" for name, value in sorted(found.items())) == values


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channel_names": {"0": "T1", "1": "MR"}}, r"channel 1 is named 'MR', which names none of t1, t1c, t2, flair"),
        ({"channel_names": {"0": "T1 FLAIR"}}, "channel 0 is named 'T1 FLAIR'"),
        ({"channel_names": {"0": "T1", "2": "T2"}}, "channels 0, 2. Expected 0, 1, 2"),
        ({"channel_names": {"0": "T1", "1": "T1w"}}, "channels t1, t1. Expected some of .*, each once"),
        ({"channel_names": {"0": "CT"}}, "channels CT. Expected some of"),
        ({"channel_names": "T1"}, "no dataset.json of nnU-Net"),
        ({"channel_names": {"a": "T1"}}, "no dataset.json of nnU-Net"),
        ({"channel_names": {"0": "T1"}, "labels": {"a": None}}, "no dataset.json of nnU-Net"),
        ({"channel_names": {"0": "T1"}, "labels": [1]}, "no dataset.json of nnU-Net"),
    ],
)
def test_a_dataset_json_that_is_refused(tmp_path, fields, message) -> None:
    dataset(tmp_path, fields, "imagesTr/A_0000.nii.gz")
    with pytest.raises(InputError, match=message):
        select_cases(tmp_path)


def test_what_is_wrong_with_one_case_of_a_data_set_is_its_problem(tmp_path) -> None:
    names = ["A_0000.nii.gz", "A_0007.nii.gz", "B_0001.nii.gz", "C.nii.gz", "C_0000.nii.gz", f"{'x' * 230}_0000.nii.gz"]
    dataset(tmp_path, BRATS, *(f"imagesTr/{name}" for name in names))
    problems = {case.name[0]: case.problem or "" for case in select_cases(tmp_path)}
    assert "channel 0007. Expected 0000 to 0003" in problems["A"]
    assert problems["B"] == ""
    assert "C.nii.gz lies beside C_0000" in problems["C"]
    assert "a name of 230 bytes" in problems["x"]
    with pytest.raises(InputError, match="no image found"):
        select_cases(dataset(tmp_path / "empty", BRATS, "imagesTr/notes.txt"))


def test_volumes_of_4d_files_named_by_the_user(tmp_path) -> None:
    touch(tmp_path, "a/four.nii.gz", "b/four.nii.gz", "b/b_seg.nii.gz", "side/P1.nii.gz", "side/P2.nii.gz")
    touch(tmp_path, "side/P2_seg.nii.gz")
    channels = ["flair", "t1", "T1Gd", "-"]
    a, b = select_cases([tmp_path / "a", tmp_path / "b"], selection=Selection(channels=channels))
    assert (a.name, a.channels, list(a.images)) == ("a", ("flair", "t1", "t1c", "-"), ["t1", "t1c", "flair"])
    assert (b.truth, b.decided["t1c"]) == (tmp_path / "b" / "b_seg.nii.gz", "volume 2 (channels)")
    one, two = select_cases(tmp_path / "side", selection=Selection(channels=channels))
    assert (one.name, one.truth, two.name, two.truth) == ("P1", None, "P2", tmp_path / "side" / "P2_seg.nii.gz")
    assert [case.name for case in select_cases(tmp_path, selection=Selection(channels=channels))] == [
        "P1",
        "P2",
        "a",
        "b",
    ]
    (case,) = select_cases(tmp_path / "side" / "P1.nii.gz", selection=Selection(channels=channels))
    assert (case.name, set(case.images.values())) == ("P1", {tmp_path / "side" / "P1.nii.gz"})
    for wrong in (["flair", "swi"], ["t1", "t1n"], ["-"]):
        with pytest.raises(UsageError, match="channels"):
            select_cases(tmp_path / "side", selection=Selection(channels=wrong))


# Names that are not UTF-8.


def test_a_name_that_is_not_utf8_can_be_written_and_read_back(tmp_path) -> None:
    folder = Path(str(tmp_path) + "/M\udcfcller")
    touch(folder, "x_flair.nii", "scan.nii")
    (case,) = select_cases(tmp_path)
    assert case.name == "M%FCller"
    case.name.encode()
    atomic_write_text(tmp_path / "x.json", json_text({"inputs": [str(path) for path in case.images.values()]}))
    (path,) = json.loads((tmp_path / "x.json").read_text("utf-8"))["inputs"]
    assert Path(path).is_file()


# Shares.


def test_a_share_says_who_shared_and_what_is_left(monkeypatch) -> None:
    cases = [Case(name, {}) for name in "abc"]
    whole = share_of(cases)
    assert (list(whole.cases), whole.parts, whole.part, whole.words) == (cases, 1, 0, "")
    assert share_of(cases, 2, 1).words == "1 of 3 patients (num_parts 2, part_id 1)"
    assert share_of(cases, 1, 0).words == ""
    for name, value in {"COUNT": "8", "ID": "7", "MIN": "0"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert share_of(cases).words == "0 of 3 patients (SLURM array): none for part 7 of 8"
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "3")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert share_of(cases).words == "1 of 3 patients (SLURM array)"
    assert [case.name for case in share_of(cases).cases] == ["b"]
    with pytest.raises(UsageError, match="num_parts and part_id need each other"):
        share_of(cases, 2)
    with pytest.raises(UsageError, match="part_id 2: expected 0 to 1 for num_parts 2"):
        share_of(cases, 2, 2)


def test_thick_slices_are_told_once_and_last() -> None:
    thick = "thick slices (1 x 1 x 5 mm); expect a coarser result than from 1 mm images"
    told = [f"a.nii.gz: {thick}", "P1: flair lies off", f"b.nii.gz: {thick}", "P1: flair lies off"]
    assert in_order(told) == ("P1: flair lies off", f"2 images: {thick}")
    other = "c.nii.gz: thick slices (1 x 1 x 3 mm); expect a coarser result than from 1 mm images"
    assert in_order([told[0], other, told[1]]) == (told[1], told[0], other)
