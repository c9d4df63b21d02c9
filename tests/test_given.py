"""A mask that was given: measured as it is, on the grid of one of the images, and said not to be ours."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

Run = Callable[..., tuple[int, str, str]]


def write(path: Path, array: object, spacing: tuple[float, float, float] = (2.0, 2.0, 4.0)) -> Path:
    image = sitk.GetImageFromArray(np.asarray(array))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    """A ball of noise as T1c, at 2 x 2 x 4 mm, and its FLAIR on a grid of its own, twice as coarse in the plane."""
    folder = tmp_path / "sub-1_ses-2"
    folder.mkdir()
    rng = np.random.default_rng(0)
    z, y, x = np.indices((20, 48, 48))
    ball = ((z - 10) / 9) ** 2 + ((y - 24) / 22) ** 2 + ((x - 24) / 22) ** 2 < 1
    t1c = (ball * (100 + rng.normal(0, 10, ball.shape))).astype(np.float32)
    write(folder / "t1c.nii.gz", t1c)
    write(folder / "flair.nii.gz", t1c[:, ::2, ::2][:, ::-1], (4.0, 4.0, 4.0))
    return folder


def labels(values: tuple[int, int, int]) -> np.ndarray:
    """ED a block of 2 x 10 x 12 voxels, in it ET of 1 x 5 x 6 with NCR of 1 x 1 x 2 inside."""
    array = np.zeros((20, 48, 48), np.uint8)
    ncr, ed, et = values
    array[9:11, 20:30, 18:30] = ed
    array[9, 22:27, 20:26] = et
    array[9, 24, 22:24] = ncr
    return array


@pytest.mark.parametrize(
    ("values", "more"),
    [((1, 2, 3), ()), ((1, 2, 4), ()), ((7, 1, 9), ("--labels", "NCR=7,ED=1,ET=9"))],
)
def test_numbers_by_hand(
    run: Run, patient: Path, tmp_path: Path, values: tuple[int, int, int], more: tuple[str, ...]
) -> None:
    """A voxel has 2 * 2 * 4 mm3 = 0.016 mL: NCR 2 voxels, ET 28, ED 240 - 30 = 210."""
    mask = write(tmp_path / "hand.nii.gz", labels(values))
    page, table = tmp_path / "page.html", tmp_path / "numbers.csv"
    code, out, err = run("report", patient, mask, "-o", page, "--stats", table, *more)
    assert code == 0, err
    (row,) = csv.DictReader(table.read_text().splitlines())
    found = {name: float(row[f"{name}_ml"]) for name in ("NCR", "ED", "ET", "TC", "WT")}
    assert found == pytest.approx({"NCR": 0.032, "ED": 3.36, "ET": 0.448, "TC": 0.48, "WT": 3.84})
    assert (row["case"], row["subject"], row["session"]) == ("sub-1_ses-2", "sub-1", "ses-2")
    # ET: 5 rows of 6 voxels of 2 mm: 12 mm from side to side, 8 mm from the first row's middle to the last one's.
    assert float(row["ET_diameter_mm"]) == pytest.approx(np.hypot(12, 8), abs=0.01)
    text = page.read_text()
    assert "The mask hand.nii.gz was given, not made by a2fseg: no network ran. Measured on T1c, FLAIR" in text
    assert hashlib.sha256(mask.read_bytes()).hexdigest() in text
    assert str(tmp_path) not in text
    assert "guess" not in text.split("</style>")[1]
    assert "flair.nii.gz: resampled to the grid of" in err
    assert str(page) in out


def test_json_and_a_mask_on_the_other_sequences_grid(run: Run, patient: Path, tmp_path: Path) -> None:
    """A mask on FLAIR's grid is measured there: 4 * 4 * 4 mm3 a voxel."""
    array = np.zeros((20, 24, 24), np.uint8)
    array[8:10, 10:14, 10:14] = 2
    mask = write(tmp_path / "m.nii.gz", array, (4.0, 4.0, 4.0))
    code, out, _ = run("report", patient, mask, "-o", tmp_path / "p.html", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["volumes_ml"] == {"WT": pytest.approx(32 * 0.064), "TC": 0, "ET": 0}
    assert told["guesses"] == {}


def test_without_t1c_nothing_shows_what_enhances(run: Run, patient: Path, tmp_path: Path) -> None:
    (patient / "t1c.nii.gz").unlink()
    mask = write(tmp_path / "m.nii.gz", labels((1, 2, 3))[:, ::2, ::2], (4.0, 4.0, 4.0))
    _, _, err = run("report", patient, mask, "-o", tmp_path / "p.html")
    assert "Without T1c nothing in these images shows what enhances." in err


def test_what_is_refused(run: Run, patient: Path, tmp_path: Path) -> None:
    mask = write(tmp_path / "m.nii.gz", labels((1, 2, 3)))
    page = tmp_path / "p.html"
    code, _, err = run("report", patient, write(tmp_path / "x.nii.gz", labels((1, 2, 9))), "-o", page)
    assert (code, "unknown label 9" in err) == (3, True)
    other = write(tmp_path / "y.nii.gz", labels((1, 2, 3)), (2.0, 2.0, 3.0))
    code, _, err = run("report", patient, other, "-o", page)
    assert (code, "another grid" in err) == (3, True)
    code, _, err = run("report", patient, mask, "-o", page, "--stats", tmp_path / "x.txt")
    assert (code, "expected a name ending in .json or .csv" in err) == (2, True)
    (tmp_path / "n.json").write_text("mine")
    code, _, err = run("report", patient, mask, "-o", page, "--stats", tmp_path / "n.json")
    assert (code, "n.json exists. Overwrite it (--overwrite)" in err) == (2, True)
    assert not page.exists()
