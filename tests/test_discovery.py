"""Discovery: naming styles, what is no image, patients in folders and tables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2fseg_cli.cases.case_lists import read_case_table, read_split
from a2fseg_cli.cases.discovery import Case, _read_name, find_cases
from a2fseg_cli.errors import InputError
from a2fseg_cli.modalities import BRATS_MODALITIES, MODALITIES


def _touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def modality_of(path: Path, modalities=BRATS_MODALITIES) -> str | None:
    named = _read_name(path, modalities)
    return named.modality if named else None


def only_case(folder: Path, modalities=BRATS_MODALITIES) -> Case:
    (case,) = find_cases(folder, modalities)
    return case


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("BraTS20_Training_001_t1ce.nii.gz", "t1c"),
        ("BraTS20_Training_001_t1.nii.gz", "t1"),
        ("BraTS-GLI-00000-000-t1n.nii.gz", "t1"),
        ("BraTS-GLI-00000-000-t1c.nii.gz", "t1c"),
        ("BraTS-GLI-00000-000-t2W.nii.gz", "t2"),
        ("BraTS-GLI-00000-000-t2f.nii.gz", "flair"),
        ("UPENN-GBM-00001_11_T1GD.nii.gz", "t1c"),
        ("TCGA-02-0006_1996.08.23_t1Gd.nii.gz", "t1c"),
        ("x_fla.nrrd", "flair"),
        ("FLAIR.nii.gz", "flair"),
        ("T1CE.NII", "t1c"),
        ("t2.MHA", "t2"),
        ("sub-01_T1w.nii.gz", "t1"),
        ("sub-01_ce-GD_T1w.nii.gz", "t1c"),
        ("sub-01_ses-2_ce-gadolinium_acq-mprage_run-1_T1w.nii", "t1c"),
        ("ce-GD_T1w.nii.gz", "t1c"),
        ("sub-01_T2w.nii.gz", "t2"),
        ("sub-01_acq-T1_FLAIR.nii.gz", "flair"),
        ("P1_T1_Gd.nii.gz", "t1c"),
        ("P1_T2_FLAIR.nii.gz", "flair"),
        ("P1_CE_T1.nii.gz", "t1c"),
        ("P1_T1+.nii", "t1c"),
        ("T1+C.nii.gz", "t1c"),
        ("T1_pre.nii", "t1"),
        ("T1-post.nii", "t1c"),
        ("t1_contrast.nii", "t1c"),
        ("T1c_brain.nii.gz", "t1c"),
        ("T1_Gd_bet_n4.nii.gz", "t1c"),
        ("flair_coreg_brain.nii.gz", "flair"),
        ("T1_brain_mask.nii.gz", None),
        ("FLAIR_to_T1_reg.nii.gz", None),
        ("P1_FLAIR_in_T1.nii.gz", None),
        ("brain.nii.gz", None),
        # The patient's name does not count.
        ("Brats18_T1_study_t2.nii.gz", "t2"),
        ("flair01_t1.nii.gz", "t1"),
        ("segment_mask01_t1.nii.gz", "t1"),
        # No images, or nothing that is known.
        ("Brats18_T1_study.nii.gz", None),
        ("flair01.nii.gz", None),
        ("x_seg.nii.gz", None),
        ("x_t1_seg.nii.gz", None),
        ("seg_t1.nii.gz", None),
        ("x_t1_mask.nii.gz", None),
        ("x_mask_t1.nii.gz", None),
        ("case_attention_t1c.nii.gz", None),
        ("case_attention_t1_ce.nii.gz", None),
        ("case_prob_t1.nii.gz", None),
        ("case_a2fseg_x_y_flair.nii.gz", None),
        ("x_T2star.nii.gz", None),
        ("sub-01_label-tumour_mask.nii.gz", None),
        ("x_t1_0000.nii.gz", None),
        ("x_t1.png", None),
        ("x_t1.nii.gz.part", None),
        ("._x_t1.nii.gz", None),
        (".nii.gz", None),
        ("___.nii.gz", None),
    ],
)
def test_modality_by_name(name, modality) -> None:
    assert modality_of(Path(name)) == modality


@given(
    st.text("abcXYZ0123456789_-. ", max_size=20),
    st.sampled_from([(row.name, word) for row in MODALITIES for word in (row.name, *row.aliases)]),
    st.sampled_from("_-. "),
    st.sampled_from([".nii", ".nii.gz", ".nrrd", ".mha"]),
    st.booleans(),
)
def test_every_alias_counts_after_any_name(patient, pair, separator, extension, upper) -> None:
    modality, alias = pair
    name = f"p{patient}{separator}{alias}{extension}"
    assert modality_of(Path(name.upper() if upper else name)) == modality


@given(st.text(max_size=30))
def test_no_name_breaks_it(stem) -> None:
    assert modality_of(Path(stem.replace("/", "") + ".nii.gz")) in (None, *BRATS_MODALITIES)


def test_other_modalities_go_by_their_own_name() -> None:
    assert modality_of(Path("x_ADC.nii"), ("adc", "t2")) == "adc"
    assert modality_of(Path("x_t1ce.nii"), ("t1", "t1ce")) == "t1ce"
    assert modality_of(Path("x_t1ce.nii"), ("t1c", "t1ce")) == "t1ce"  # own name before another one's alias
    assert modality_of(Path("sub-1_ce-GD_T1w.nii"), ("t1", "t2")) is None  # never a T1 without contrast


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
    _touch(tmp_path / "a", "FLAIR.nii", "T1c study.nii", "brain_mask.nii", "x_region_WT.nii", "a_a2fseg.nii")
    case = only_case(tmp_path / "a")
    assert list(case.images) == ["flair"]
    assert case.warnings == ("a: left aside, since their names do not say which of t1, t1c, t2, flair: T1c study.nii",)
    _touch(tmp_path / "b", "T2.nii", "t1ce.nii")
    assert only_case(tmp_path / "b", ("t1", "t2")).warnings == ()  # known, and not this network's


def test_folders_without_a_named_image_are_passed_over(tmp_path) -> None:
    _touch(tmp_path, "a/T2.nii", "atlas/MNI152.nii", "c/notes.txt", "d/raw.nii", "d/anat/d_T2w.nii")
    a, d = find_cases(tmp_path)
    assert (a.name, d.name, list(d.images)) == ("a", "d", ["t2"])


def test_side_by_side_the_warning_is_of_the_patient_it_concerns(tmp_path) -> None:
    _touch(tmp_path, "A_t1.nii", "B_t1.nii", "B_adc.nii", "A_flair.nii")
    a, b = find_cases(tmp_path)
    assert a.warnings == ()
    assert "B_adc.nii" in b.warnings[0]
    _touch(tmp_path, "C_adc.nii")
    assert "C_adc.nii" in find_cases(tmp_path)[0].warnings[0]  # of nobody


def test_t1_after_something_is_taken_without_contrast_and_says_so(tmp_path) -> None:
    _touch(tmp_path, "post_T1.nii")
    case = only_case(tmp_path)
    assert list(case.images) == ["t1"]
    assert case.warnings == ("post_T1.nii: taken as t1 without contrast; a T1 with it is named t1c",)


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
    _touch(tmp_path, "AX_T2.nii", "SAG_FLAIR.nii")
    (case,) = find_cases(tmp_path)
    assert list(case.images) == ["t2", "flair"]
    assert "ax, sag" in case.warnings[0]


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


def test_a_bare_file_among_several_patients_is_refused(tmp_path) -> None:
    _touch(tmp_path / "A", "A_t1.nii", "B_t1.nii", "flair.nii")
    with pytest.raises(InputError, match="a second patient named A"):
        find_cases(tmp_path / "A")


def test_grades_in_folders_of_their_own(tmp_path) -> None:
    _touch(tmp_path, "HGG/one/one_t1.nii", "LGG/one/one_t1.nii", "LGG/two/two_t1.nii")
    assert [case.name for case in find_cases(tmp_path)] == ["HGG_one", "LGG_one", "two"]


def test_names_that_cannot_be_told_apart_are_refused(tmp_path) -> None:
    _touch(tmp_path, "A/B_C/T1.nii", "A_B/C/T1.nii", "C/T1.nii", "B_C/T1.nii")
    with pytest.raises(InputError, match="second patient named A_B_C"):
        find_cases(tmp_path)


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


def _table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "patients.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_case_table(tmp_path) -> None:
    path = _table(tmp_path, "\ufeffCase,T1CE,flair,seg\nP2,a/b.nii,,\n\nP1,/x.nii,c.nii,s.nii\n")
    p2, p1 = read_case_table(path)
    assert (p2.name, p2.images, p2.truth) == ("P2", {"t1c": tmp_path / "a/b.nii"}, None)
    assert (p1.images, p1.truth) == ({"t1c": Path("/x.nii"), "flair": tmp_path / "c.nii"}, tmp_path / "s.nii")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_case_table_as_spreadsheets_write_it(tmp_path, separator) -> None:
    (case,) = read_case_table(_table(tmp_path, "case,t1,t2\r\nP,a.nii,\r\n".replace(",", separator)))
    assert case.images == {"t1": tmp_path / "a.nii"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty table"),
        ("case,t1\n", "no case below"),
        ("case,t1,age\nP,a.nii,7\n", "line 1: unknown column 'age'"),
        ("t1,t2\na.nii,\n", "line 1: no column case"),
        ("case,t1,t1n\nP,a.nii,b.nii\n", "line 1: two columns for t1"),
        ("case,t1\nP,a.nii\nP,b.nii\n", "line 3: case P stands"),
        ("case,t1\nP,\n", "line 2: case P has no image"),
        ("case,t1\n,\n", "line 2: the case is named ''"),
        ("case,t1\n../P,a.nii\n", "line 2: the case is named '../P'"),
        ("case,t1\nP,a.nii,b.nii\n", "line 2: 3 cells, expected 2"),
        ('case,t1\n"P,a.nii\n', "no CSV table"),
    ],
)
def test_case_table_errors_name_the_line(tmp_path, text, message) -> None:
    with pytest.raises(InputError, match=message):
        read_case_table(_table(tmp_path, text))


def test_case_table_that_is_none(tmp_path) -> None:
    path = tmp_path / "x.csv"
    with pytest.raises(InputError, match="No such file"):
        read_case_table(path)
    path.write_bytes(b"\xff\xfe\x00case")
    with pytest.raises(InputError, match="no CSV table in UTF-8"):
        read_case_table(path)


@given(st.text(max_size=60))
def test_any_text_is_a_table_or_an_input_error(tmp_path_factory, text) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(("case,t1\n" + text).encode("utf-8", "surrogatepass"))
    try:
        cases = read_case_table(path)
    except InputError:
        return
    assert all(case.name and case.images for case in cases)


def test_a_case_table_with_odd_cells(tmp_path) -> None:
    (case,) = read_case_table(_table(tmp_path, "case,t1\nA,~nobody-of-that-name/x.nii\n"))
    assert case.images == {"t1": tmp_path / "~nobody-of-that-name/x.nii"}
    with pytest.raises(InputError, match="line 2: the case is named"):
        read_case_table(_table(tmp_path, f"case,t1\n{'A' * 300},x.nii\n"))


def test_discovery_needs_neither_torch_nor_simpleitk() -> None:
    code = "import sys, a2fseg_cli.cases.discovery; print({'torch', 'SimpleITK', 'numpy'} & set(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONUTF8": "1"}
    )
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "name to list"),
        ('{"train": "a"}', "name to list"),
        ('{"train": [1]}', "name to list"),
        ('{"train": ["a", "b"], "test": ["b"]}', "b stands in it twice"),
        ("{", "not a JSON file"),
    ],
)
def test_splits_that_are_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_split(path)


def test_a_split_is_read(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text('{"train": ["a"], "test": ["b", "c"]}')
    assert read_split(path) == {"train": ["a"], "test": ["b", "c"]}
