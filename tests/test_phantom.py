"""The synthetic patient: anatomy of the right size, tissue means as measured, the same voxels for the same seed."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk

from a2fseg_cli.errors import ResourceError
from a2fseg_cli.phantom import Phantom, make_phantom, write_phantom
from a2fseg_cli.phantom.measured import TUMOUR_Z

COARSE = {"size": (39, 60, 60), "spacing_mm": (4.0, 4.0, 4.0)}


@pytest.fixture(scope="module")
def patient() -> Phantom:
    return make_phantom(0)


def z_scored(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    brain = image[image > 0]
    return (image - brain.mean()) / brain.std()


def neighbours_of(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    grown = mask.copy()
    for axis in range(3):
        grown |= np.roll(mask, 1, axis) | np.roll(mask, -1, axis)
    return grown & ~mask


def test_grid_and_background(patient: Phantom) -> None:
    assert list(patient.images) == ["t1", "t1c", "t2", "flair"]
    brain = patient.images["t1"] > 0
    for image in patient.images.values():
        assert image.shape == (155, 240, 240)
        assert image.dtype == np.float32
        assert image.min() == 0
        np.testing.assert_array_equal(image > 0, brain)
    assert not patient.truth[~brain].any()
    assert not brain[:, 0].any()
    assert not brain[:, :, 0].any()


def test_brain_has_a_brains_size(patient: Phantom) -> None:
    brain = patient.images["t1"] > 0
    lengths = [int(np.ptp(np.flatnonzero(brain.any(axes)))) + 1 for axes in ((1, 2), (0, 2), (0, 1))]
    assert lengths == pytest.approx([140, 170, 137], abs=12)
    assert 1200 < brain.sum() / 1000 < 1750  # mL


@pytest.mark.parametrize("modality", ["t1", "t1c", "t2", "flair"])
def test_tumour_has_the_measured_z_scores(patient: Phantom, modality: str) -> None:
    scores = z_scored(patient.images[modality])
    found = [scores[patient.truth == index].mean() for index in (1, 2, 3)]
    assert found == pytest.approx([mean for mean, _spread in TUMOUR_Z[modality]], abs=0.25)


def test_contrast_of_normal_tissue(patient: Phantom) -> None:
    normal = (patient.images["t1"] > 0) & (patient.truth == 0)
    t1, t2, flair = (z_scored(patient.images[name])[normal] for name in ("t1", "t2", "flair"))
    csf, white = t1 < -2, (t1 > 0.7) & (t1 < 1.3)
    grey = (t1 > -0.8) & (t1 < -0.2)
    assert t2[csf].mean() > 2 > t2[grey].mean() > t2[white].mean()
    assert flair[csf].mean() < -1.5 < flair[white].mean() < flair[grey].mean() + 0.3


def test_rim_encloses_the_necrosis(patient: Phantom) -> None:
    around = patient.truth[neighbours_of(patient.truth == 1)]
    assert (around == 3).mean() > 0.9
    around = patient.truth[neighbours_of(patient.truth == 3)]
    assert {1, 2} <= set(around.tolist())


def test_tumour_keeps_to_one_hemisphere(patient: Phantom) -> None:
    sides = [int((patient.truth[..., half] > 0).sum()) for half in (slice(0, 119), slice(119, 240))]
    assert min(sides) < 0.02 * max(sides)


@pytest.mark.parametrize("seed", range(6))
def test_every_seed_has_all_three_classes(seed: int) -> None:
    millilitres = np.bincount(make_phantom(seed, **COARSE).truth.ravel(), minlength=4) * 0.064
    assert min(millilitres[1:]) > 2
    assert 25 < millilitres[1:].sum() < 220


def test_equal_seeds_equal_voxels() -> None:
    first, second, other = (make_phantom(seed, **COARSE) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.truth, second.truth)
    for name in first.images:
        np.testing.assert_array_equal(first.images[name], second.images[name])
    assert not np.array_equal(first.truth, other.truth)


def test_a_coarser_grid_shows_the_same_tumour(patient: Phantom) -> None:
    coarse = make_phantom(0, **COARSE)
    fine_ml, coarse_ml = (patient.truth > 0).sum() * 0.001, (coarse.truth > 0).sum() * 0.064
    assert coarse_ml == pytest.approx(fine_ml, rel=0.1)
    fine_mm = np.argwhere(patient.truth > 0).mean(0) - (np.array(patient.truth.shape) - 1) / 2
    coarse_mm = 4 * (np.argwhere(coarse.truth > 0).mean(0) - (np.array(coarse.truth.shape) - 1) / 2)
    assert coarse_mm == pytest.approx(fine_mm, abs=2)


def test_a_small_grid_cuts_the_brain() -> None:
    phantom = make_phantom(0, (20, 24, 28))
    assert phantom.images["flair"].shape == (20, 24, 28)
    assert (phantom.images["flair"] > 0).all()


@pytest.mark.parametrize(
    ("size", "spacing_mm"), [((0, 8, 8), (1.0, 1.0, 1.0)), ((8, 8, 8), (1.0, 0.0, 1.0)), ((2, 2, 2), (900.0,) * 3)]
)
def test_impossible_grids_are_refused(size: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"spacing|misses the brain"):
        make_phantom(0, size, spacing_mm)


def test_files_have_the_challenges_grid(tmp_path: Path, patient: Phantom) -> None:
    paths = write_phantom(tmp_path / "new" / "folder", seed=0)
    assert {name: path.name for name, path in paths.items()} == {
        name: f"phantom_{name}.nii.gz" for name in ("t1", "t1c", "t2", "flair", "seg")
    }
    for path in paths.values():
        image = sitk.ReadImage(str(path))
        assert image.GetPixelID() == sitk.sitkInt16
        assert image.GetSize() == (240, 240, 155)
        assert image.GetSpacing() == (1, 1, 1)
        assert image.GetOrigin() == (0, -239, 0)
        assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(paths["seg"]))), patient.truth)
    t1c = sitk.GetArrayFromImage(sitk.ReadImage(str(paths["t1c"])))
    np.testing.assert_array_equal(t1c == 0, patient.images["t1c"] == 0)


def test_a_disk_that_is_full_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = make_phantom(0, (8, 8, 8), (8.0, 8.0, 8.0))
    monkeypatch.setattr("a2fseg_cli.phantom.make_phantom", lambda _: small)
    monkeypatch.setattr("a2fseg_cli.files.os.fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(ResourceError, match="the disk is full"):
        write_phantom(tmp_path)
    assert not list(tmp_path.iterdir())
