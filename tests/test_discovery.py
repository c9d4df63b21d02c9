"""Patients in folders: what is a case, what it is called, which file is its truth, and what is said of the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.discovery import find_cases
from a2fseg_cli.errors import InputError
from a2fseg_cli.modalities import BRATS_MODALITIES


def _touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def only_case(folder: Path, modalities=BRATS_MODALITIES) -> Case:
    (case,) = find_cases(folder, modalities)
    return case


def test_modalities_come_in_the_order_asked_for(tmp_path) -> None:
    _touch(tmp_path, "x_flair.nii", "x_t1.nii", "x_t1c.nii", "notes.txt", "x_seg.nii")
    assert list(only_case(tmp_path).images) == ["t1", "t1c", "flair"]
    assert list(only_case(tmp_path, ("flair", "t1")).images) == ["flair", "t1"]


def test_bids_anat_and_session_folders(tmp_path) -> None:
    one = _touch(tmp_path / "a", "anat/sub-1_T1w.nii.gz", "anat/sub-1_ce-GD_T1w.nii.gz")
    assert list(only_case(one).images) == ["t1", "t1c"]
    two = _touch(tmp_path / "b", "ses-1/anat/sub-1_ses-1_FLAIR.nii.gz")
    assert list(only_case(two).images) == ["flair"]


def test_two_candidates_are_both_named(tmp_path) -> None:
    _touch(tmp_path, "x_t1ce.nii.gz", "x_t1gd.nii.gz", "x_t2.nii.gz")
    assert "2 candidates for t1c: x_t1ce.nii.gz, x_t1gd.nii.gz" in (only_case(tmp_path).problem or "")


def test_nothing_found_says_what_was_looked_for(tmp_path) -> None:
    _touch(tmp_path, "scan.nii.gz")
    with pytest.raises(InputError, match=r"t1ce.*\.nrrd"):
        find_cases(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        find_cases(tmp_path / "missing")
    with pytest.raises(InputError, match="a file"):
        find_cases(tmp_path / "scan.nii.gz")


@pytest.mark.parametrize(
    "name", ["seg.nii.gz", "x_seg.nii.gz", "x-seg.nii", "x_truth.mha", "x_label.nrrd", "SEG.nii", "x_ground_truth.nii"]
)
def test_truth_by_name(tmp_path, name) -> None:
    others = ("x_t1.nii", "x_brain_seg.nii", "x_brain_mask.nii", "x_pred_seg.nii", "x_a2fseg_seg.nii")
    _touch(tmp_path, name, *others)
    assert only_case(tmp_path).truth == tmp_path / name


def test_truth_missing_or_ambiguous(tmp_path) -> None:
    _touch(tmp_path, "x_t1.nii")
    assert only_case(tmp_path).truth is None
    _touch(tmp_path, "x_seg.nii", "x_label.nii")
    case = only_case(tmp_path)
    assert case.truth is None
    assert "2 candidates for the truth, none taken: x_label.nii, x_seg.nii" in case.warnings[0]


def test_an_image_whose_name_says_nothing_is_left_aside_with_a_warning(tmp_path) -> None:
    _touch(tmp_path / "a", "FLAIR.nii", "study 7.nii", "brain_mask.nii", "x_region_WT.nii", "a_a2fseg.nii", "ADC.nii")
    case = only_case(tmp_path / "a")
    assert list(case.images) == ["flair"]
    assert case.warnings == ("a: left aside, since nothing says which of t1, t1c, t2, flair they are: study 7.nii",)
    assert case.problem is None
    _touch(tmp_path / "b", "T2.nii", "t1ce.nii")
    assert only_case(tmp_path / "b", ("t1", "t2")).warnings == ()  # known, and not this network's


def test_a_folder_of_which_nothing_is_understood_is_a_case_with_a_problem(tmp_path) -> None:
    """An image of other kinds makes none, and what lies above the patients is said with the first of them."""
    _touch(tmp_path, "a/T2.nii", "p2/scan1.nii", "p2/scan2.nii", "c/notes.txt", "d/raw.nii", "d/anat/d_T2w.nii")
    _touch(tmp_path, "masks/brain_mask.nii", "dwi/ADC.nii", "x/y/z/u/v/w/FLAIR.nii", "template.nii")
    a, d, p2, deep = find_cases(tmp_path)
    assert (a.name, d.name, list(d.images)) == ("a", "d", ["t2"])
    assert a.warnings == (f"{tmp_path}: left aside, since nothing says which of t1, t1c, t2, flair: template.nii",)
    assert p2.problem == (
        f"{tmp_path}/p2: no image is one of t1, t1c, t2, flair by its name or its JSON: scan1.nii, scan2.nii. Rename "
        "them, or list the patient in a CSV."
    )
    assert (deep.name, list(deep.images)) == ("x_y_z_u_v_w", ["flair"])


def test_a_patient_with_none_of_the_networks_sequences_has_a_problem(tmp_path) -> None:
    _touch(tmp_path, "a/T2.nii", "b/T1c.nii")
    a, b = find_cases(tmp_path, ("t1", "t2"))
    assert (a.problem, "T1c.nii (t1c)" in (b.problem or "")) == (None, True)


def test_side_by_side_the_warning_is_of_the_patient_it_concerns(tmp_path) -> None:
    _touch(tmp_path, "A_t1.nii", "B_t1.nii", "B_scan.nii", "A_flair.nii")
    a, b = find_cases(tmp_path)
    assert a.warnings == ()
    assert "B_scan.nii" in b.warnings[0]
    _touch(tmp_path, "C_scan.nii")
    assert "C_scan.nii" in find_cases(tmp_path)[0].warnings[0]  # of nobody


def test_a_t1_that_may_have_contrast_fails_the_patient_unless_it_may_be_left_aside(tmp_path) -> None:
    _touch(tmp_path, "post_T1.nii", "FLAIR.nii")
    assert 'post_T1.nii may be t1 or t1c: "post" may mean' in (only_case(tmp_path).problem or "")
    (case,) = find_cases(tmp_path, ignore_unknown=True)
    assert (case.problem, list(case.images)) == (None, ["flair"])
    assert "left aside, since it cannot be told which sequence they are: post_T1.nii" in case.warnings[0]


@pytest.mark.parametrize(("other", "taken"), [("T1.nii", "t1c"), ("T1_pre.nii", "t1c"), ("T1_Gd.nii", "t1")])
def test_the_other_t1_tells_what_the_post_one_is(tmp_path, other, taken) -> None:
    _touch(tmp_path, "post_T1.nii", other)
    case = only_case(tmp_path)
    assert (case.problem, case.images[taken]) == (None, tmp_path / "post_T1.nii")
    assert f"post_T1.nii: taken as {taken}, since {other} is" in case.warnings[0]


def test_another_patients_t1_tells_nothing(tmp_path) -> None:
    _touch(tmp_path, "A_post_T1.nii", "A_flair.nii", "B_T1.nii", "B_flair.nii")
    a, b = find_cases(tmp_path)
    assert "may be t1 or t1c" in (a.problem or "")
    assert b.problem is None


def test_a_link_that_leads_nowhere_is_an_image_that_cannot_be_read(tmp_path) -> None:
    _touch(tmp_path, "sub/T1.nii")
    (tmp_path / "sub" / "FLAIR.nii").symlink_to(tmp_path / "not fetched")
    os.mkfifo(tmp_path / "sub" / "T2.nii")
    assert list(only_case(tmp_path).images) == ["t1", "flair"]


def test_a_patient_has_the_name_that_the_user_gave_the_folder(tmp_path, monkeypatch) -> None:
    _touch(tmp_path / "real", "T1.nii")
    (tmp_path / "patient_007").symlink_to(tmp_path / "real")
    assert only_case(tmp_path / "patient_007").name == "patient_007"
    monkeypatch.chdir(tmp_path / "real")
    assert only_case(Path(".")).name == "real"


def test_a_patient_folder_is_one_case(tmp_path) -> None:
    folder = _touch(tmp_path / "P7", "P7_t1.nii", "P7_flair.nii", "P7_seg.nii")
    (case,) = find_cases(folder)
    assert (case.name, list(case.images), case.truth) == ("P7", ["t1", "flair"], folder / "P7_seg.nii")
    assert case.problem is None
    assert case.warnings == ()


def test_a_cohort_with_a_broken_patient(tmp_path) -> None:
    _touch(tmp_path, "b/b_t1.nii", "a/a_t1ce.nii", "a/a_t1c.nii", "c/FLAIR.nii", "notes/x.txt", "empty/seg.nii")
    a, b, c = find_cases(tmp_path)
    assert (a.name, b.name, c.name) == ("a", "b", "c")
    assert "2 candidates for t1c" in (a.problem or "")
    assert (b.problem, c.problem) == (None, None)


def test_a_patient_whose_file_names_differ_is_one_case_with_a_warning(tmp_path) -> None:
    _touch(tmp_path, "Miller_AX_T2.nii", "Meyer_SAG_FLAIR.nii")
    (case,) = find_cases(tmp_path)
    assert list(case.images) == ["t2", "flair"]
    assert "meyer, miller" in case.warnings[0]


def test_several_patients_side_by_side(tmp_path) -> None:
    _touch(tmp_path, "A-1_t1.nii", "A-1_flair.nii", "A-1_seg.nii", "A-10_t1.nii", "B_t2.nii", "B_t2w.nii")
    first, tenth, b = find_cases(tmp_path)
    assert (first.name, list(first.images), first.truth) == ("A-1", ["t1", "flair"], tmp_path / "A-1_seg.nii")
    assert (tenth.name, list(tenth.images), tenth.truth) == ("A-10", ["t1"], None)
    assert b.name == "B"
    assert "2 candidates for t2" in (b.problem or "")


def test_a_name_that_goes_on_is_the_same_patient_and_clashes(tmp_path) -> None:
    _touch(tmp_path, "P1_t1.nii", "P1_old_t1.nii", "P1_flair.nii")
    (case,) = find_cases(tmp_path)
    assert "P1_old_t1.nii, P1_t1.nii" in (case.problem or "")


def test_bids_root(tmp_path) -> None:
    _touch(
        tmp_path,
        "dataset_description.json",
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_ce-GD_T1w.nii.gz",
        "sub-01/anat/sub-01_dseg.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_FLAIR.nii.gz",
        "sub-02/ses-b/anat/sub-02_ses-b_FLAIR.nii.gz",
        "derivatives/other/sub-01/anat/sub-01_T1w.nii.gz",
    )
    cases = find_cases(tmp_path)
    assert [case.name for case in cases] == ["sub-01", "sub-02_ses-a", "sub-02_ses-b"]
    assert cases[0].truth == tmp_path / "sub-01/anat/sub-01_dseg.nii.gz"
    assert [case.name for case in find_cases(tmp_path / "sub-02")] == ["sub-02_ses-a", "sub-02_ses-b"]


def test_flat_bids_files_keep_their_written_names(tmp_path) -> None:
    _touch(tmp_path, "sub-ABC_T1w.nii", "sub-ABC_ce-GD_T1w.nii", "sub-DEF_run-1_T1w.nii")
    abc, other = find_cases(tmp_path)
    assert (abc.name, list(abc.images)) == ("sub-ABC", ["t1", "t1c"])
    assert (other.name, list(other.images)) == ("sub-DEF", ["t1"])


@pytest.mark.parametrize(
    ("stems", "names"),
    [
        (["a_sub-01", "a_sub-02", "b_sub-03"], ["sub-01", "sub-02", "sub-03"]),
        (["sub-A1_acq-x_ses-1", "sub-A1_acq-x_ses-2", "sub-2_ses-1"], ["sub-2_ses-1", "sub-A1_ses-1", "sub-A1_ses-2"]),
    ],
    ids=str,
)
def test_no_patient_of_flat_bids_files_is_lost(tmp_path, stems, names) -> None:
    _touch(tmp_path, *(f"{stem}_T1w.nii.gz" for stem in stems))
    assert [case.name for case in find_cases(tmp_path)] == names


def test_a_bare_file_among_several_patients_is_nobodys(tmp_path) -> None:
    _touch(tmp_path / "A", "A_t1.nii", "B_t1.nii", "flair.nii")
    a, second, b = find_cases(tmp_path / "A")
    assert (a.name, second.name, b.name, b.problem) == ("A", "A (2)", "B", None)
    assert (a.problem or "").startswith("2 patients are named A")
    assert a.problem == second.problem


def test_numbers_of_series_are_no_patients(tmp_path) -> None:
    _touch(tmp_path, "3_T1.nii", "4_T2.nii", "5_FLAIR.nii", "7_T1_Gd.nii", "9_T2_COR.nii")
    assert "2 candidates for t2: 4_T2.nii, 9_T2_COR.nii" in (only_case(tmp_path).problem or "")
    (tmp_path / "9_T2_COR.nii").unlink()
    case = only_case(tmp_path)
    assert (list(case.images), case.problem, case.warnings) == (list(BRATS_MODALITIES), None, ())
    _touch(tmp_path / "side", "001_T1.nii", "001_T2.nii", "002_T1.nii", "002_T2.nii", "003_T1.nii")
    assert [case.name for case in find_cases(tmp_path / "side")] == ["001", "002", "003"]


def test_one_folder_a_series(tmp_path) -> None:
    _touch(tmp_path, "P1/3_T1/IM.nii", "P1/4_Ax_T2_FLAIR/IM.nii", "P1/5_T1_post_Gd/IM.nii", "P1/6_DWI/IM.nii")
    _touch(tmp_path, "P2/T2/x_T2.nii", "P2/post_T1/IM.nii", "P3/T1_AX/a.nii", "P3/T1_SAG/b.nii")
    p1, p2, p3 = find_cases(tmp_path)
    assert (p1.name, list(p1.images), p1.problem) == ("P1", ["t1", "t1c", "flair"], None)
    assert p1.decided["flair"] == "folder: AX T2 FLAIR"
    assert "IM.nii may be t1 or t1c" in (p2.problem or "")
    assert "2 candidates for t1: a.nii, b.nii" in (p3.problem or "")


_ODD = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20)
_ODD |= st.lists(st.sampled_from(["t1", "t2", "_", "P1", "seg", "gd", "sub-1", "\udcfc", ".", " "]), max_size=6).map(
    "".join
)
_ODD = _ODD.filter(lambda name: name.strip(".") != "")


@given(st.lists(st.lists(_ODD, min_size=1, max_size=3), min_size=1, max_size=5))
def test_no_folder_breaks_it(tmp_path_factory, paths) -> None:
    root = tmp_path_factory.mktemp("odd")
    for *folders, file in paths:
        path = root.joinpath(*folders, f"{file}.nii")
        if not any(place.is_file() for place in path.parents) and not path.is_dir():
            _touch(root, str(path.relative_to(root)))
    try:
        cases = find_cases(root)
    except InputError:
        return
    names = [case.name for case in cases]
    assert len(set(names)) == len(names)
    assert all(name.encode() and "/" not in name and name.isprintable() for name in names)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("P1/T1.nii", "P1"),
        ("Patient-001/week-000/FLAIR.nii", "Patient-001_week-000"),
        ("Patient-001/week-000/week-000_FLAIR.nii", "Patient-001_week-000"),
        ("week-000/FLAIR.nii", "root_week-000"),  # the folder given is then the patient
        ("ses-1/anat/sub-1_ses-1_FLAIR.nii", "root_ses-1"),
        ("sub-02/ses-a/anat/sub-02_ses-a_FLAIR.nii", "sub-02_ses-a"),
        ("HGG/Brats18_TCIA01_425_1/Brats18_TCIA01_425_1_t1.nii", "Brats18_TCIA01_425_1"),
        ("MICCAI_BraTS2020_TrainingData/BraTS20_Training_001/BraTS20_Training_001_t1.nii", "BraTS20_Training_001"),
        ("BraTS20_Training_001/BraTS20_Training_001_t1.nii/00001_t1.nii", "BraTS20_Training_001"),
        ("HG/0001/VSD.Brain.XX.O.MR_T1.684/VSD.Brain.XX.O.MR_T1.684.mha", "HG_0001"),
        ("siteA/P001/P001_t1.nii", "siteA_P001"),
        ("M\udcfcller/T1.nii", "M%FCller"),
        ("a\tb/T1.nii", "a%09b"),
        ("Müller 患者/T1.nii", "Müller 患者"),
    ],
)
def test_a_name_is_made_of_where_the_images_lie(tmp_path, file, name) -> None:
    _touch(tmp_path / "root", file)
    assert only_case(tmp_path / "root").name == name


_PARTS = st.sampled_from(["HGG", "LGG", "P1", "P2", "week-0", "sub-1", "ses-1", "train", "a", "b_c", "1"])
_PATHS = st.lists(_PARTS, min_size=1, max_size=3).map("/".join)


@given(_PATHS, st.lists(_PATHS, max_size=4), st.booleans())
def test_a_name_does_not_depend_on_the_neighbours(tmp_path_factory, mine, others, own) -> None:
    file = f"{mine}/{mine.split('/')[-1] if own else 'x'}_T1.nii"
    alone, together = tmp_path_factory.mktemp("t") / "root", tmp_path_factory.mktemp("t") / "root"
    _touch(alone, file)
    _touch(together, file, *(f"{other}/y_T2.nii" for other in others if not mine.startswith(other)))
    name = only_case(alone).name
    (case,) = [case for case in find_cases(together) if case.folder == together / mine]
    assert case.name == name or f" patients are named {name}:" in (case.problem or "")


def test_grades_in_folders_of_their_own(tmp_path) -> None:
    _touch(tmp_path, "HGG/one/one_t1.nii", "LGG/one/one_t1.nii", "LGG/two/two_t1.nii")
    assert [case.name for case in find_cases(tmp_path)] == ["HGG_one", "LGG_one", "LGG_two"]


def test_patients_that_would_get_one_name_have_a_problem_and_the_rest_goes_on(tmp_path) -> None:
    _touch(tmp_path, "A/B_C/T1.nii", "A_B/C/T1.nii", "C/T1.nii", "B_C/T1.nii")
    cases = find_cases(tmp_path)
    assert [case.name for case in cases] == ["A_B_C", "A_B_C (2)", "B_C", "C"]
    assert [bool(case.problem) for case in cases] == [True, True, False, False]
    assert f"2 patients are named A_B_C: {tmp_path}/A/B_C, {tmp_path}/A_B/C" in (cases[0].problem or "")


def test_a_name_that_is_too_long_for_files_is_this_patients_problem(tmp_path) -> None:
    _touch(tmp_path, "a/T1.nii", f"{'x' * 250}/T1.nii", f"{'患' * 66}/T1.nii", f"{'患' * 67}/T1.nii", "z/T1.nii")
    problems = {case.name[0]: case.problem for case in find_cases(tmp_path) if case.problem}
    assert list(problems) == ["x", "患"]
    assert "a name of 250 bytes. Expected at most 200" in (problems["x"] or "")
    assert "a name of 201 bytes" in (problems["患"] or "")


def test_a_link_to_a_folder_above_ends(tmp_path) -> None:
    _touch(tmp_path, "a/T1.nii", "b/c/notes.txt")
    (tmp_path / "b" / "c" / "up").symlink_to(tmp_path)
    assert [case.name for case in find_cases(tmp_path)] == ["a"]


def test_a_folder_that_cannot_be_listed_is_reported_and_the_rest_goes_on(tmp_path, monkeypatch) -> None:
    _touch(tmp_path, "a/T1.nii", "b/T1.nii")
    iterdir = Path.iterdir

    def refuse(folder: Path):
        if folder.name == "a":
            raise PermissionError(13, "Permission denied")
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", refuse)
    a, b = find_cases(tmp_path)
    assert "Permission denied" in (a.problem or "")
    assert b.problem is None


def test_real_patients_in_their_four_naming_styles(cases_dir) -> None:
    cases = find_cases(cases_dir)
    assert [case.name for case in cases] == sorted(folder.name for folder in cases_dir.iterdir())
    for case in cases:
        assert list(case.images) == list(BRATS_MODALITIES)
        assert case.truth is not None
        assert (case.problem, case.warnings) == (None, ())
        assert find_cases(cases_dir / case.name) == [case]


def test_real_patients_under_names_of_scanners_and_of_2013(cases_dir) -> None:
    glioma, sclerosis = sorted(find_cases(cases_dir.parent / "raw"), key=lambda case: len(case.images), reverse=True)
    assert {modality: path.name for modality, path in glioma.images.items()} == {
        "t1": "T1_AX_SE_10_se2d1.nii.gz",
        "t1c": "MRHR_T1_AX_POST_GAD_SE_13_se2d1r.nii.gz",
        "t2": "MRHR_T2_AX_SE_2_tse2d1_11.nii.gz",
        "flair": "MRHR_FLAIR_AX_SE_IR_5_tir2d1_21.nii.gz",
    }
    assert list(sclerosis.images) == ["t1", "t2", "flair"]
    (case,) = find_cases(cases_dir.parent / "naming")
    assert [path.name.split(".")[4] for path in case.images.values()] == ["MR_T1", "MR_T1c", "MR_T2", "MR_Flair"]
    assert case.truth is not None
    assert ".OT." in case.truth.name
    assert [glioma.problem, *glioma.warnings, sclerosis.problem, case.problem, *case.warnings] == [None] * 3


def test_real_patients_with_some_of_the_sequences(cases_dir) -> None:
    cases = find_cases(cases_dir.parent / "partial")
    assert [case.name for case in cases] == sorted(folder.name for folder in (cases_dir.parent / "partial").iterdir())
    assert all(case.truth is not None and case.problem is None and not case.warnings for case in cases)
    sets = ["+".join(case.images) for case in cases]
    assert {found: sets.count(found) for found in set(sets)} == {
        "flair": 130, "t1": 30, "t1+t1c+flair": 8, "t1+t1c+t2+flair": 1
    }  # fmt: skip


def test_discovery_needs_neither_torch_nor_simpleitk() -> None:
    code = "import sys, a2fseg_cli.cases.discovery; print({'torch', 'SimpleITK', 'numpy'} & set(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONUTF8": "1"}
    )
    assert run.stdout.strip() == "set()"
