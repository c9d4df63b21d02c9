"""Tables and splits: as spreadsheets write them, and refused with the line that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2fseg_cli.cases.case_lists import read_case_table, read_split
from a2fseg_cli.errors import InputError


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
    "text", ["case,t1\r\nA,c.nii\r\n,\r\n,\r\n", "case,t1,,\r\nA,c.nii,,\r\n,,,\r\n", "case;t1;\r\nA;c.nii;;;\r\n"]
)
def test_empty_cells_that_a_spreadsheet_adds_are_nothing(tmp_path, text) -> None:
    (case,) = read_case_table(_table(tmp_path, text))
    assert (case.name, case.images) == ("A", {"t1": tmp_path / "c.nii"})


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
        ("case,t1\n,\n", "no case below"),
        ("case,t1\n,a.nii\n", "line 2: the case is named ''"),
        ("case,t1,,\nP,a.nii,,b.nii\n", "line 2: 4 cells, expected 2"),
        ("case,,t1\nP,,a.nii\n", "line 1: unknown column ''"),
        ("case,t1,t2\nP,a.nii\n", "line 2: 2 cells, expected 3"),
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
