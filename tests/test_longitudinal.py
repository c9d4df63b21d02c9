"""Several examinations of one person: who and when, the two diameters of RANO, the table, plot and page."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from toys import small_cohort

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.case_lists import read_case_table
from a2fseg_cli.cases.discovery import find_cases
from a2fseg_cli.cases.time_points import TimePoint, places_in_time, several_time_points, time_point
from a2fseg_cli.errors import InputError
from a2fseg_cli.reporting.longitudinal import (
    NO_ASSESSMENT,
    Measurement,
    longitudinal_csv,
    longitudinal_page,
    longitudinal_plot,
)
from a2fseg_cli.reporting.volumes import largest_axial_diameters_mm

Run = Callable[..., tuple[int, str, str]]
Mask = npt.NDArray[np.bool_]


@pytest.mark.parametrize(
    ("name", "subject", "session", "day"),
    [
        ("sub-01_ses-1", "sub-01", "ses-1", None),
        ("sub-01_ses-20190131", "sub-01", "ses-20190131", date(2019, 1, 31)),
        ("Patient-001_week-012", "Patient-001", "week-012", None),
        ("Patient-001_week-012-2", "Patient-001", "week-012-2", None),
        ("P_1_2019-01-31", "P_1", "2019-01-31", date(2019, 1, 31)),
        ("P1_20190231", "P1", "20190231", None),  # no such day
        ("BraTS-GLI-00002-001", "BraTS-GLI-00002", "001", None),
        ("Brats18_2013_2_1", "Brats18_2013_2_1", "", None),
        ("sub-01", "sub-01", "", None),
    ],
)
def test_a_name_tells_person_and_examination(name: str, subject: str, session: str, day: date | None) -> None:
    assert time_point(Case(name, {})) == TimePoint(subject, session, day)


def test_examinations_are_in_the_order_of_time() -> None:
    """Numbers in names count as numbers; dates before names; a person with one examination has no course."""
    names = ("P_week-10", "P_week-9", "P_baseline", "Q_day-1", "R_2020-02-01", "R_2019-12-31")
    found = several_time_points([*(Case(name, {}) for name in names), Case("Q_day-2", {}, problem="broken")])
    order = {subject: [case.name for _, case in points] for subject, points in found.items()}
    assert order == {"P": ["P_baseline", "P_week-9", "P_week-10"], "R": ["R_2019-12-31", "R_2020-02-01"]}


def test_places_on_the_axis_of_time() -> None:
    dated = [TimePoint("P", "a", date(2019, 12, 31)), TimePoint("P", "b", date(2020, 3, 1))]
    assert places_in_time(dated) == ([0, 61], "")  # 2020 is a leap year: 1 + 31 + 29
    weeks = [TimePoint("P", "week-000"), TimePoint("P", "week-44")]
    assert places_in_time(weeks) == ([0, 44], "week")
    assert places_in_time([weeks[0], TimePoint("P", "day-3")]) == ([0, 1], "")


def test_folders_of_examinations(tmp_path: Path) -> None:
    """A folder a person with one a time, and BIDS sessions."""
    for place in ("P1/week-000/t1c", "P1/week-012/t1c", "sub-2/ses-1/anat/sub-2_ses-1_ce-GD_T1w"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / f"{place}.nii.gz").touch()
    points = {time_point(case) for case in find_cases(tmp_path)}
    expected = {("P1", "week-000"), ("P1", "week-012"), ("sub-2", "ses-1")}
    assert {(point.subject, point.session) for point in points} == expected


def test_columns_of_a_table(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("subject,session,date,t1c\nP1,a,2019-01-31,x.nii\nP1,b,20190301,y.nii\n")
    cases = read_case_table(table)
    assert [case.name for case in cases] == ["P1_a", "P1_b"]
    assert [time_point(case).day for case in cases] == [date(2019, 1, 31), date(2019, 3, 1)]
    table.write_text("case,subject,t1c\none,P1,x.nii\ntwo,,y.nii\n")
    assert [time_point(case) for case in read_case_table(table)] == [TimePoint("P1"), TimePoint("two")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,date,t1c\nA,2019-01-31,x.nii\n", "a session or a date without a subject"),
        ("case,subject,date,t1c\nA,P,31.1.2019,x.nii\n", "Expected year, month and day, such as 2019-01-31"),
        ("subject,session,t1c\nP/1,a,x.nii\n", "Expected a name that can be a file name"),
        ("subject,t1c\nP,x.nii\n", "no column case"),
    ],
)
def test_a_table_that_cannot_be_right(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        read_case_table(tmp_path / "t.csv")


def plane(shape: Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], Mask], mm: float = 0.25) -> Mask:
    """Return one slice of 50 x 50 mm, voxels of `mm`, with a shape of its middle's coordinates in mm."""
    n = round(50 / mm)
    y, x = ((np.indices((n, n)) + 0.5) * mm) - 25
    return shape(y, x)[None]


def product(mask: Mask, mm: float = 0.25) -> float:
    longest, across = largest_axial_diameters_mm(mask, (5.0, mm, mm))
    return longest * across


def test_a_disc() -> None:
    """30 mm across in any direction: 900 mm2."""
    assert product(plane(lambda y, x: y**2 + x**2 < 15**2)) == pytest.approx(900, abs=4)
    assert product(plane(lambda y, x: y**2 + x**2 < 15**2, 1.0), 1.0) == pytest.approx(900, rel=0.02)


def test_a_rectangle() -> None:
    """40 x 30 mm: the diagonal is 50. The longest chord across it begins in a corner and is 30 * 50 / 40 = 37.5."""
    mask = plane(lambda y, x: (np.abs(y) < 15) & (np.abs(x) < 20))
    assert product(mask) == pytest.approx(50 * 37.5, rel=0.025)  # smoothing rounds the corners


def test_an_oblique_ellipse() -> None:
    """Axes of 40 and 12 mm, turned by 30 degrees: 480 mm2."""
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    mask = plane(lambda y, x: ((c * x + s * y) / 20) ** 2 + ((c * y - s * x) / 6) ** 2 < 1)
    assert product(mask) == pytest.approx(480, abs=4)


def test_a_rim_is_measured_from_outside_to_outside() -> None:
    """An enhancing rim of 2 mm around a core: the lesion's 30 mm, as of a whole disc."""
    rim = plane(lambda y, x: (y**2 + x**2 < 15**2) & (y**2 + x**2 > 13**2))
    assert product(rim) == pytest.approx(900, abs=4)


def test_an_oblique_line_of_voxels() -> None:
    """Nothing is left of it by smoothing, so the voxels' sides count: 12 mm up and 11 mm across."""
    longest, across = largest_axial_diameters_mm(np.eye(12, dtype=bool)[None], (1.0, 1.0, 1.0))
    assert longest == pytest.approx(np.hypot(12, 11), abs=0.01)
    assert 0.5 < across < 1.5


def test_voxels_that_are_not_square_and_the_slice_that_counts() -> None:
    """In slice 1 a row of 10 voxels of 2 mm, two rows of 3 mm high: 20 mm long; in slice 0 nothing that large."""
    mask = np.zeros((2, 8, 12), bool)
    mask[0, :6, 0] = True  # 18 mm long, 2 mm wide
    mask[1, 2:4, 1:11] = True
    longest, across = largest_axial_diameters_mm(mask, (1.0, 3.0, 2.0))
    # Through the middles of the voxels' sides: 20 mm along, 3 mm up; perpendicular chords are at most 6 mm.
    assert longest == pytest.approx(np.hypot(20, 3))
    assert 5 < across < 6.2


def measured() -> list[Measurement]:
    first = Measurement(
        TimePoint("P<1>", "week-000"), "P_0", "t1c+flair", {"NCR": 1, "ED": 9, "ET": 2, "WT": 12, "TC": 3},
        ("WT", "TC", "ET"), (30.0, 20.0),
    )  # fmt: skip
    second = Measurement(
        TimePoint("P<1>", "week-012"), "P_1", "flair", {"NCR": 0, "ED": 8, "ET": 1, "WT": 9, "TC": 1},
        ("WT", "TC", "ET"), (12.0, 9.9), ("ET", "TC"),
    )  # fmt: skip
    return [first, second]


def test_the_table() -> None:
    first, second = csv.DictReader(longitudinal_csv(measured()).splitlines())
    assert (first["subject"], first["session"], first["WT_ml"], first["NCR_ml"]) == ("P<1>", "week-000", "12", "1")
    assert (first["ET_product_mm2"], first["ET_measurable"], first["guesses"]) == ("600.0", "yes", "")
    # 9.9 mm across is less than the 10 mm that RANO asks for.
    assert (second["ET_product_mm2"], second["ET_measurable"], second["guesses"]) == ("118.8", "no", "ET+TC")


def test_the_page_says_what_it_is_not() -> None:
    page = longitudinal_page(measured(), b"png", "1.0")
    for text in (
        "P&lt;1&gt;, 2 examinations",
        NO_ASSESSMENT,
        "<td>30.0 x 20.0 mm = 600 mm²</td>",
        "<td>12.0 x 9.9 mm, not measurable ?</td>",
        "week-012 (ET, TC)",
        "do not have the same sequences",
    ):
        assert text in page
    assert not re.findall(r"<script|https?://", page)


def test_the_plot_is_a_picture_of_all_examinations() -> None:
    """Another volume makes another picture; a task without ET has one panel."""
    plots = {longitudinal_plot(measured()), longitudinal_plot(measured()[:1] * 2)}
    assert len(plots) == 2
    assert all(plot.startswith(b"\x89PNG") for plot in plots)


@pytest.fixture
def person(tmp_path: Path) -> Path:
    """A person with three examinations of T1c and FLAIR, and one with a single one."""
    cohort = small_cohort(tmp_path / "cohort", 4)
    data = tmp_path / "data"
    for index, place in enumerate(("P1/week-000", "P1/week-010", "P1/week-002", "P2/week-000")):
        shutil.copytree(cohort / f"case{index}", data / place)
    return data


def test_by_the_command(run: Run, person: Path, toy_weights: Path, tmp_path: Path) -> None:
    out, place = tmp_path / "out", tmp_path / "time"
    command = ("predict", person, "-o", out, "--longitudinal", place, "--weights", toy_weights)
    code, said, err = run(*command)
    assert code == 0, err
    assert f"Over time, 1 person: {place / 'longitudinal.csv'}" in said
    assert {path.name for path in place.iterdir()} == {
        "longitudinal.csv", "longitudinal_P1.png", "longitudinal_P1.html",
    }  # fmt: skip
    rows = list(csv.DictReader((place / "longitudinal.csv").read_text().splitlines()))
    assert [row["session"] for row in rows] == ["week-000", "week-002", "week-010"]
    for row in rows:
        mask = sitk.GetArrayFromImage(sitk.ReadImage(out / f"{row['case']}_seg.nii.gz"))
        assert float(row["ET_ml"]) == pytest.approx(np.count_nonzero(mask == 3) * 0.027, abs=0.001)
        assert float(row["WT_ml"]) == pytest.approx(np.count_nonzero(mask) * 0.027, abs=0.001)
    before = (place / "longitudinal.csv").read_text()
    shutil.rmtree(place)
    assert run(*command)[0] == 0  # all patients are finished; the course follows from their masks
    assert (place / "longitudinal.csv").read_text() == before
    shutil.rmtree(person / "P1" / "week-002")
    (person / "P1" / "week-002").mkdir()
    (person / "P1" / "week-002" / "t1c.nii.gz").write_bytes(b"no image")
    code, _, err = run(*command, "--overwrite")
    assert code == 1
    assert "P1: missing in what is shown over time, since they failed: P1_week-002" in err
    assert len((place / "longitudinal.csv").read_text().splitlines()) == 3


def test_what_is_refused_before_anything_is_done(run: Run, person: Path, toy_weights: Path, tmp_path: Path) -> None:
    more = ("--longitudinal", tmp_path / "time", "--weights", toy_weights)
    code, _, err = run("predict", person / "P2", "-o", tmp_path / "out", *more)
    assert (code, "none of the 1 patients has two examinations" in err) == (3, True)
    (tmp_path / "time").mkdir()
    (tmp_path / "time" / "longitudinal.csv").write_text("mine\n")
    code, _, err = run("predict", person, "-o", tmp_path / "out", *more)
    assert (code, "is no table of examinations" in err) == (2, True)
    assert (tmp_path / "time" / "longitudinal.csv").read_text() == "mine\n"
    assert not (tmp_path / "out").exists()


def test_a_guess_is_not_measurable_however_large() -> None:
    first, second = measured()
    assert first.measurable
    assert not replace(second, diameters_mm=(40.0, 30.0)).measurable
    assert replace(second, diameters_mm=(40.0, 30.0), guesses=()).measurable
