"""What `docs/privacy.md` says: who a patient is goes from a header into a DICOM object and into nothing else."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_person import PERSON, series

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.dicom.segmentation import write_segmentation
from a2fseg_cli.dicom.source_series import read_source_series
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.writing import write_label_map
from a2fseg_cli.reporting.label_tables import segments

Run = Callable[..., tuple[int, str, str]]

# Long enough not to stand in compressed voxels by chance.
SECRETS = [value.encode() for value in PERSON.values() if len(value) > 7]
SEGMENTS = segments(ModelConfig().classes, (0, 1, 2, 3))


def content(path: Path) -> bytes:
    """Return a file's bytes, packed and, where it is gzip, unpacked."""
    data = path.read_bytes()
    return data + gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def secrets_in(path: Path) -> list[bytes]:
    return [secret for secret in SECRETS if secret in content(path)]


def telling_nifti(image: sitk.Image, path: Path) -> Path:
    """Write an image whose header says who the patient is, as converters from DICOM do."""
    affine = np.diag([-3.0, -3.0, 3.0, 1.0])
    made = nibabel.Nifti1Image(sitk.GetArrayFromImage(image).T, affine)
    made.header["descrip"] = b"DOE^JANE MRN-4711-0815"
    made.header["db_name"] = b"HOUSE^GREG"
    made.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b" ".join(SECRETS)))
    made.to_filename(path)
    return path


def telling_text_header(image: sitk.Image, path: Path) -> Path:
    for keyword, value in PERSON.items():
        image.SetMetaData(f"DICOM.{keyword}", value)
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def telling(phantom: Path, tmp_path: Path) -> Path:
    """A patient's folder of neutral names, every header of which tells who it is."""
    (folder := tmp_path / "P1").mkdir()
    images = {name: sitk.ReadImage(str(next(phantom.glob(f"*_{name}.nii.gz")))) for name in ("t1c", "t2", "flair")}
    files = [
        telling_nifti(images["t1c"], folder / "P1_t1c.nii.gz"),
        telling_text_header(images["t2"], folder / "P1_t2.mha"),
        telling_text_header(images["flair"], folder / "P1_flair.nrrd"),
    ]
    assert all(secrets_in(file) for file in files)
    return folder


def test_one_patients_outputs(run: Run, telling: Path, toy_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    beside = ("--preview", out / "s.png", "--report", out / "s.html", "--stats", out / "s.json", "--label-file")
    maps = ("--regions", "--probabilities", "--uncertainty", "--attention", "--agreement")
    code, said, err = run("predict", telling, "-o", out / "s.nii.gz", "--weights", toy_weights, *maps, *beside)
    assert code == 0
    files = sorted(out.iterdir())
    assert {"".join(file.suffixes) for file in files} == {".nii.gz", ".png", ".html", ".json", ".txt"}
    assert [(file.name, secrets_in(file)) for file in files if secrets_in(file)] == []
    assert not [secret for secret in SECRETS if secret.decode() in said + err]


def test_a_cohorts_outputs(run: Run, telling: Path, toy_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("--weights", toy_weights, "--layout", "bids", "--stats", out / "all.csv", "--label-file")
    assert run("predict", telling.parent, "-o", out, *arguments)[0] == 0
    files = [file for file in out.rglob("*") if file.is_file()]
    assert {file.name for file in files} >= {"status.csv", "all.csv", "dseg.tsv", "dataset_description.json"}
    assert [(file.name, secrets_in(file)) for file in files if secrets_in(file)] == []


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".seg.nrrd", ".mha", ".mgz"])
@pytest.mark.parametrize("reference", ["P1_t1c.nii.gz", "P1_flair.nrrd", "P1_t2.mha"])
def test_a_label_map_takes_the_grid_and_nothing_else(
    telling: Path, tmp_path: Path, reference: str, suffix: str
) -> None:
    size = (50, 64, 64)
    path = tmp_path / f"DOE^JANE{suffix}"
    write_label_map(np.zeros(size, np.uint8), telling / reference, Geometry(size, (3.0, 3.0, 3.0)), path, SEGMENTS)
    assert secrets_in(path) == []
    assert str(tmp_path).encode() not in content(path)


def test_a_name_that_the_user_gave_a_folder_is_in_tables_and_in_no_image(
    run: Run, phantom: Path, toy_weights: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "DOE_JANE"
    folder.mkdir()
    (folder / "t1c.nii.gz").write_bytes(next(phantom.glob("*_t1c.nii.gz")).read_bytes())
    out = tmp_path / "out"
    arguments = ("-o", out / "s.nii.gz", "--stats", out / "s.json", "--report", out / "s.html", "--label-file")
    assert run("predict", folder, "--weights", toy_weights, *arguments)[0] == 0
    naming = {file.name for file in out.iterdir() if b"DOE_JANE" in content(file)}
    assert naming == {"s.json", "s.html"}


def test_a_dicom_segmentation_says_who_it_is_of_and_names_no_file(tmp_path: Path) -> None:
    files = series(tmp_path / "s", np.zeros((2, 3, 4)), PatientComments="seen in room 3")
    made_by = {"version": "1.2", "weights_name": "big", "weights_sha256": "ab" * 32, "modalities": ("t1c",)}
    write_segmentation(
        np.ones((2, 3, 4), np.uint8),
        SEGMENTS,
        read_source_series(files).geometry,
        files,
        tmp_path / "seg.dcm",
        **made_by,
    )
    assert secrets_in(tmp_path / "seg.dcm") == SECRETS
    data = content(tmp_path / "seg.dcm")
    assert b"seen in room 3" in data
    assert str(tmp_path).encode() not in data
