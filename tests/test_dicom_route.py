"""From a DICOM study to a DICOM segmentation, by the command: which series, which study, where the result lies."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_toys import FLAIR, T1, T1C, T2, Examination

from a2fseg_cli.imaging.geometry import Geometry, same_grid
from a2fseg_cli.imaging.reading import image_of, read_image
from a2fseg_cli.imaging.rigid_grid import itk_image
from a2fseg_cli.phantom import make_phantom
from a2fseg_cli.phantom.head import random_motion, scan, scan_geometry

Run = Callable[..., tuple[int, str, str]]
SIZE = (60, 72, 60)
GRID = Geometry(SIZE, (3.0, 3.0, 3.0), (-88.5, -106.5, -88.5))
SEGMENTS = ["NCR", "ED", "ET"]
NAMES = ("DOE^JANE", "ID-DOE")  # in the text of a picture (base64) "DOE" alone may stand by chance


def image(name: str, grid: Geometry = GRID, motion: np.ndarray | None = None, seed: int = 0) -> sitk.Image:
    """Return a sequence of a synthetic stripped brain, whole numbers, as a scanner with this grid shows it."""
    array = make_phantom(seed, SIZE, (3.0, 3.0, 3.0)).images[name]
    shown = image_of(name, array, GRID)
    if motion is not None:
        shown = scan(shown, grid, motion)
    return itk_image(np.rint(shown.array).clip(0, 4095).astype(np.int16), shown.geometry)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """T1c, FLAIR and T2 on one grid; a localiser, a diffusion map and a CT, which are none of them."""
    folder = tmp_path_factory.mktemp("dicom") / "S1"
    made = Examination(folder)
    made.add(1, {"SeriesDescription": "localizer", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]})
    made.add(2, {"SeriesDescription": "ep2d_diff_ADC", "ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]})
    for number, (name, tags) in enumerate({"t2": T2, "flair": FLAIR, "t1c": T1C}.items(), 3):
        made.add_image(number, tags, image(name))
    return folder


def test_the_study_is_understood(study: Path, run: Run) -> None:
    code, shown, _ = run("predict", study, "--dry-run", "--json")
    assert code == 0
    rows = {row["file"].split(" ")[1]: row for row in json.loads(shown) if row["file"]}
    assert {key: row["modality"] for key, row in rows.items()} == {
        "1": "-",
        "2": "-",
        "3": "t2",
        "4": "flair",
        "5": "t1c",
    }
    assert "DOE" not in shown


def test_segmentation_in_and_out_of_dicom(study: Path, run: Run, tmp_path: Path, toy_weights: Path) -> None:
    """The same voxels as in a NIfTI; read back by highdicom."""
    hd = pytest.importorskip("highdicom")
    nifti, dicom = tmp_path / "seg.nii.gz", tmp_path / "seg.dcm"
    for out in (nifti, dicom):
        code, _, said = run("predict", study, "-o", out, "--weights", toy_weights)
        assert code == 0, said
    expected = read_image(nifti)
    assert expected.array.any()
    read = hd.seg.segread(dicom)
    assert [read.get_segment_description(n).segment_label.split()[0] for n in (1, 2, 3)] == SEGMENTS
    volume = read.get_volume(combine_segments=True)
    index = np.argwhere(volume.array)
    places = volume.affine @ np.vstack([index.T, np.ones(len(index))])
    x, y, z = np.rint((places[:3].T - np.array(GRID.origin_mm)) / 3.0).astype(int).T
    back = np.zeros_like(expected.array)
    back[z, y, x] = volume.array[tuple(index.T)]
    assert np.array_equal(back, expected.array)


def test_a_mask_is_looked_at_on_its_study(study: Path, run: Run, tmp_path: Path, toy_weights: Path) -> None:
    """Masks of the study's grid go back through `report` and `view`; a DICOM object is named as what it is."""
    mask = tmp_path / "s.seg.nrrd"
    assert run("predict", study, "-o", mask, "--weights", toy_weights)[0] == 0
    packed = shutil.make_archive(str(tmp_path / "exam"), "zip", study)
    for source in (study, packed):
        page = tmp_path / f"{Path(source).stem}.html"
        code, _, said = run("report", source, mask, "-o", page)
        assert code == 0, said
        assert not any(name in page.read_text() for name in NAMES)
    assert run("view", study, mask, "-o", tmp_path / "v.html")[0] == 0
    (tmp_path / "s.dcm").write_bytes(bytes(128) + b"DICM")
    code, _, said = run("report", study, tmp_path / "s.dcm", "-o", tmp_path / "no.html")
    assert code == 3
    assert ".seg.nrrd" in said


def test_a_dicom_name_needs_a_dicom_series(study: Path, run: Run, tmp_path: Path, toy_weights: Path) -> None:
    sitk.WriteImage(image("t1c"), tmp_path / "P_t1c.nii.gz")
    code, _, said = run(
        "predict", "--t1c", tmp_path / "P_t1c.nii.gz", "-o", tmp_path / "s.dcm", "--weights", toy_weights
    )
    assert code == 2
    assert "refers to a DICOM series" in said
    assert not (tmp_path / "s.dcm").exists()


def test_a_zip_leaves_nothing_behind(
    study: Path, run: Run, tmp_path: Path, toy_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    packed = shutil.make_archive(str(tmp_path / "exam"), "zip", study)
    code, _, said = run("predict", packed, "-o", tmp_path / "seg.nii.gz", "--weights", toy_weights)
    assert code == 0, said
    assert list(temporary.iterdir()) == []
    code, _, _ = run("predict", packed, "-o", tmp_path / "no.nii.gz", "--weights", toy_weights, "--require", "t1")
    assert code == 3
    assert list(temporary.iterdir()) == []


def test_two_candidates(study: Path, run: Run, tmp_path: Path, toy_weights: Path) -> None:
    """Both are listed; one is chosen by its number, or the thinner one is taken, which stands in status.csv."""
    folder = tmp_path / "S2"
    made = Examination(folder)
    made.add_image(5, T1C, image("t1c"))
    thick = scan_geometry(np.zeros(3), "axial", 6.0, 3.0, (180.0, 216.0, 180.0))
    made.add_image(6, T1C, image("t1c", thick, np.eye(4)))
    command = ("predict", folder, "-o", tmp_path / "seg.nii.gz", "--weights", toy_weights)
    code, _, said = run(*command)
    assert code == 3
    assert "series 5" in said
    assert "series 6" in said
    assert "--series" in said
    code, _, said = run(*command, "--series", "6=t1c")
    assert code == 0, said
    assert read_image(tmp_path / "seg.nii.gz").array.shape[0] == 30
    out = tmp_path / "out"
    code, _, said = run("predict", folder, "-o", out, "--weights", toy_weights, "--prefer", "thinnest")
    assert code == 0, said
    with (out / "status.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["status"] == "ok"
    assert "taken as the thinnest" in said
    assert "thinnest" in row["reason"]
    code, _, said = run(*command, "--series", "9=t1c", "--overwrite")
    assert code == 3
    assert "no series 9" in said


def test_two_dates_are_never_one_case(run: Run, tmp_path: Path, toy_weights: Path) -> None:
    folder = tmp_path / "archive" / "P9"
    Examination(folder, date="20260301").add_image(1, T1C, image("t1c"))
    Examination(folder, date="20260601").add_image(2, FLAIR, image("flair"))
    command = ("predict", folder, "--weights", toy_weights)
    code, _, said = run(*command, "-o", tmp_path / "seg.nii.gz")
    assert code == 3
    assert "20260301" in said
    assert "20260601" in said
    assert "--study" in said
    assert "DOE" not in said
    code, shown, said = run(*command, "-o", tmp_path / "seg.nii.gz", "--study", "20260601")
    assert code == 0, said
    assert "(flair)" in shown
    code, _, said = run("predict", folder.parent, "--weights", toy_weights, "-o", tmp_path / "out")
    assert code == 0, said
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == [
        "P9_20260301_seg.nii.gz",
        "P9_20260601_seg.nii.gz",
    ]


def test_raw_series_to_a_segmentation_on_the_scanners_slices(run: Run, tmp_path: Path, toy_weights: Path) -> None:
    """Series on two grids, turned and in thick slices; nothing of the person is in what is not DICOM."""
    folder = tmp_path / "S7"
    made = Examination(folder)
    turned = random_motion(np.random.default_rng(3), np.zeros(3), 12.0, 10.0)
    axial = scan_geometry(np.zeros(3), "axial", 5.0, 2.0)
    made.add_image(2, T1C, image("t1c", axial, np.eye(4)))
    made.add_image(3, FLAIR, image("flair", scan_geometry(np.linalg.inv(turned)[:3, 3], "coronal", 4.0, 2.0), turned))
    out, kept = tmp_path / "seg.dcm", tmp_path / "kept"
    more = ["--keep-prepared", kept, "--stats", tmp_path / "s.json", "--report", tmp_path / "r.html"]
    code, _, said = run("predict", folder, "--raw", "-o", out, "--weights", toy_weights, *more)
    assert code == 0, said
    assert out.exists()
    for path in (*kept.rglob("*"), tmp_path / "s.json", tmp_path / "r.html"):
        if path.is_file():
            assert not any(name.encode() in path.read_bytes() for name in NAMES)
    code, _, said = run("predict", folder, "--raw", "-o", tmp_path / "seg.nii.gz", "--weights", toy_weights)
    assert code == 0, said
    assert same_grid(read_image(tmp_path / "seg.nii.gz").geometry, axial)
    code, _, said = run("predict", folder, "-o", tmp_path / "no.nii.gz", "--weights", toy_weights)
    assert code == 3
    assert "--raw" in said


def test_dicom_beside_images_of_another_kind_is_not_looked_at(run: Run, tmp_path: Path, study: Path) -> None:
    patient = tmp_path / "P1"
    shutil.copytree(study, patient / "dicom")
    sitk.WriteImage(image("t1c"), patient / "P1_t1c.nii.gz")
    code, shown, _ = run("predict", patient, "--dry-run", "--json")
    assert code == 0
    assert [row["modality"] for row in json.loads(shown)] == ["t1c"]


def test_results_in_the_study_do_not_hide_it(run: Run, tmp_path: Path, study: Path, toy_weights: Path) -> None:
    folder = tmp_path / "S1"
    shutil.copytree(study, folder)
    command = ("predict", folder, "-o", folder / "seg.nii.gz", "--weights", toy_weights, "--regions", "--uncertainty")
    assert run(*command)[0] == 0
    code, shown, said = run(*command, "--overwrite", "--series", "4=-")
    assert code == 0, said
    assert "(t1c+t2)" in shown


def test_zips_in_a_folder_are_told(run: Run, tmp_path: Path, study: Path) -> None:
    """A cohort of which one patient is still packed; a folder with nothing but the zip."""
    packed = shutil.make_archive(str(tmp_path / "cohort" / "P2"), "zip", study)
    code, _, said = run("predict", tmp_path / "cohort", "--dry-run")
    assert code == 3
    assert "no image, but 1 zip files. Give one by itself: P2.zip" in said
    shutil.copytree(study, tmp_path / "cohort" / "P1")
    code, shown, said = run("predict", tmp_path / "cohort", "--dry-run", "--json")
    assert code == 0
    assert "1 zip files in it are not read (P2.zip)" in shown + said
    assert Path(packed).exists()


def test_t1_before_and_after_contrast(run: Run, tmp_path: Path) -> None:
    made = Examination(tmp_path / "S3")
    made.add_image(1, T1, image("t1"))
    made.add_image(2, T1C, image("t1c"))
    code, shown, _ = run("predict", tmp_path / "S3", "--dry-run", "--json")
    assert code == 0
    assert [row["modality"] for row in json.loads(shown)] == ["t1", "t1c"]
