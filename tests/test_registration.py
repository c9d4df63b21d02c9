"""Co-registration: heads are found again, spoiled ones are told, and what is brought over is what was there."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.alignment import misalignments
from a2fseg_cli.imaging.brain import brain_mask
from a2fseg_cli.imaging.geometry import Geometry, same_grid
from a2fseg_cli.imaging.reading import MedicalImage, image_of, read_image
from a2fseg_cli.imaging.rigid_grid import coarser, coverage, itk_transform, resample_rigidly
from a2fseg_cli.phantom import make_phantom
from a2fseg_cli.phantom.head import random_motion, rough_mask, scan, scan_geometry, scan_mask, with_head
from a2fseg_cli.raw.registration import (
    check_motion,
    covered,
    register,
    resample_onto,
    write_transform,
)
from a2fseg_cli.raw.registration_check import Quality
from a2fseg_cli.raw.rigid_search import mean_distance_mm, region_of

CENTRE = np.array([0.0, 0.0, 0.0])
CORNERS = np.array(list(itertools.product((-65.0, 65.0), (-85.0, 85.0), (-70.0, 70.0))))
SIZE = (60, 72, 60)
# The middle of the grid at 0.
GRID = Geometry(SIZE, (3.0, 3.0, 3.0), (-88.5, -106.5, -88.5))


def stripped(seed: int) -> dict[str, MedicalImage]:
    made = make_phantom(seed, SIZE, (3.0, 3.0, 3.0))
    return {name: image_of(f"{name}.nii.gz", array, GRID) for name, array in made.images.items()}


@pytest.fixture(scope="module")
def brains() -> list[dict[str, MedicalImage]]:
    """Two synthetic patients at 3 mm."""
    return [stripped(0), stripped(1)]


@pytest.fixture(scope="module")
def heads(brains: list[dict[str, MedicalImage]]) -> dict[str, tuple[MedicalImage, np.ndarray, np.ndarray]]:
    """Scans of 5 mm: T1c as the head lies, axial; FLAIR turned by 25 degrees and 30 mm, sagittal; the other's FLAIR."""
    still = np.eye(4)
    turned = random_motion(np.random.default_rng(3), CENTRE, 25.0, 30.0)
    middle = np.linalg.inv(turned)[:3, 3]
    grids = {"t1c": scan_geometry(CENTRE, "axial", 5.0, 2.0), "flair": scan_geometry(middle, "sagittal", 5.0, 2.0)}
    scans = {}
    for key, patient, name, motion in (
        ("t1c", brains[0], "t1c", still),
        ("flair", brains[0], "flair", turned),
        ("other", brains[1], "flair", turned),
    ):
        # Synthetic patients have one anatomy; another person's brain also has another shape, here by 7 % in two axes.
        lies = replace(GRID, spacing_mm=(2.8, 3.2, 3.0)) if key == "other" else GRID
        brain = brain_mask(patient[name].array)
        grid = grids[name]
        head = with_head(replace(patient[name], geometry=lies), brain, name)
        taken = scan(head, grid, motion, noise=15.0, seed=1)
        scans[key] = (taken, rough_mask(scan_mask(brain, lies, grid, motion), grid, seed=2), motion)
    return scans


def test_a_head_is_found_again(heads: dict[str, tuple[MedicalImage, np.ndarray, np.ndarray]]) -> None:
    fixed, fixed_brain, _ = heads["t1c"]
    moving, moving_brain, motion = heads["flair"]
    masks = {"fixed_brain": fixed_brain, "moving_brain": moving_brain}
    truth = np.linalg.inv(motion)
    registration = register(moving, fixed, **masks)
    assert mean_distance_mm(np.eye(4), truth, CORNERS) > 30
    assert mean_distance_mm(registration.matrix, truth, CORNERS) < 1.5
    assert registration.problem is None
    assert registration.degrees == pytest.approx(25, abs=1)
    assert registration.quality.overlap > 0.9
    again = register(moving, fixed, **masks)
    assert np.array_equal(again.matrix, registration.matrix)
    assert again == replace(registration, matrix=again.matrix)
    brought = resample_onto(moving, registration.matrix, fixed.geometry)
    assert same_grid(brought.geometry, fixed.geometry)
    # Brought over, it needs no motion any more.
    assert check_motion(np.eye(4), brought, fixed, fixed_brain=fixed_brain).problem is None


def test_without_masks_the_tissue_is_compared(brains: list[dict[str, MedicalImage]]) -> None:
    """Two stripped brains on one grid, turned by 7 degrees and 3 mm."""
    motion = random_motion(np.random.default_rng(1), CENTRE, 7.0, 3.0)
    turned = scan(brains[0]["t1"], GRID, motion)
    registration = register(turned, brains[0]["t1c"])
    assert mean_distance_mm(registration.matrix, np.linalg.inv(motion), CORNERS) < 1.0
    assert registration.problem is None


def test_spoiled_ones_are_told(heads: dict[str, tuple[MedicalImage, np.ndarray, np.ndarray]]) -> None:
    fixed, fixed_brain, _ = heads["t1c"]
    other, other_brain, _ = heads["other"]
    moving, moving_brain, motion = heads["flair"]
    stranger = register(other, fixed, fixed_brain=fixed_brain, moving_brain=other_brain)
    assert stranger.problem is not None
    assert "another person" in stranger.problem
    truth = np.linalg.inv(motion)
    masks = {"fixed_brain": fixed_brain, "moving_brain": moving_brain}
    left = truth @ random_motion(np.random.default_rng(0), CENTRE, 60.0, 0.0)
    assert check_motion(left, moving, fixed, **masks).problem is not None
    right = check_motion(truth, moving, fixed, **masks)
    assert right.problem is None
    assert right.quality.borders > 2 * stranger.quality.borders


def test_the_words_of_the_check() -> None:
    assert Quality(0.1, 1.0, 1.0, 20).problem is None
    assert "do not fit (borders 0.010" in (Quality(0.01, 1.0, 1.0, 20).problem or "")
    assert "(12% of the mask)" in (Quality(0.1, 1.0, 0.12, 2).problem or "")


def test_a_mask_that_does_not_belong_is_refused() -> None:
    image = image_of("a.nii.gz", np.arange(1000.0).reshape(10, 10, 10), Geometry((10, 10, 10), (1.0, 1.0, 1.0)))
    with pytest.raises(ValueError, match="the mask has"):
        region_of(image, np.ones((10, 10, 9), np.bool_))
    few = np.zeros((10, 10, 10), np.bool_)
    few[0, 0, 0] = True
    with pytest.raises(InputError, match="1 voxels of tissue, too few"):
        region_of(image, few)


def test_the_middle_of_a_region_is_in_mm() -> None:
    """Two planes of 1 x 10 x 10 at z = 2 and 4: the middle is at 3 x 5 mm in z, 4.5 x 2 mm + 7 in x."""
    mask = np.zeros((10, 20, 20), np.bool_)
    mask[2, :, :] = mask[4, :, :] = True
    grid = Geometry((10, 20, 20), (5.0, 2.0, 2.0), (7.0, 0.0, 0.0))
    image = MedicalImage(np.ones((10, 20, 20), np.float32), grid, Path("a"))
    np.testing.assert_allclose(region_of(image, mask).centre_mm, (7 + 19, 19, 15))


def test_thick_slices_hold_the_mean_of_thin_ones() -> None:
    """Slices of 1 mm with 0 to 7 on slices of 4 mm: means of 0 to 3 and of 4 to 7."""
    thin = np.arange(8, dtype=np.float32)[:, None, None] * np.ones((8, 3, 3), np.float32)
    fine = Geometry((8, 3, 3), (1.0, 1.0, 1.0))
    thick = Geometry((2, 3, 3), (4.0, 1.0, 1.0), (0.0, 0.0, 1.5))
    means = resample_rigidly(thin, fine, thick, np.eye(4))
    np.testing.assert_allclose(means[:, 1, 1], (1.5, 5.5))
    # A slice of 4 mm onto a grid of 1 mm is interpolated: between 1.5 (at 1.5 mm) and 5.5 (at 5.5 mm), 1 a mm.
    back = resample_rigidly(means, thick, fine, np.eye(4))
    np.testing.assert_allclose(back[2:6, 1, 1], (2, 3, 4, 5))


def test_a_shift_is_from_fixed_to_moving_and_ends_at_the_field_of_view() -> None:
    """What lies at x = 2 in the moving image is seen at x = 0 after a motion of 2 mm; beyond is 0."""
    line = np.tile(np.arange(1, 6, dtype=np.float32), (3, 3, 1))
    grid = Geometry((3, 3, 5), (1.0, 1.0, 1.0))
    motion = np.eye(4)
    motion[0, 3] = 2.0
    np.testing.assert_allclose(resample_rigidly(line, grid, grid, motion)[1, 1], (3, 4, 5, 0, 0))
    np.testing.assert_array_equal(coverage(grid, grid, motion)[1, 1], (True, True, True, False, False))


def test_a_coarser_grid_fills_the_same_box() -> None:
    """10 slices of 6 mm from -3 to 57 mm are 20 of 3 mm, the first in the middle of -3 and 0."""
    cubes = coarser(Geometry((10, 4, 4), (6.0, 1.5, 1.5), (0.0, 0.0, 0.0)), 3.0)
    assert cubes.size == (20, 2, 2)
    np.testing.assert_allclose(cubes.origin_mm, (0.75, 0.75, -1.5))


def test_nothing_in_view_is_said(brains: list[dict[str, MedicalImage]]) -> None:
    image = brains[0]["t1c"]
    far = np.eye(4)
    far[0, 3] = 1000.0
    registration = check_motion(far, image, image)
    assert registration.problem is not None
    assert registration.mm == pytest.approx(1000)
    with pytest.raises(InputError, match="nothing of it lies on the reference's grid"):
        resample_onto(image, far, GRID)


def test_a_transform_is_written_as_itk_reads_it(tmp_path: Path) -> None:
    motion = random_motion(np.random.default_rng(5), np.array([1.0, 2.0, 3.0]), 20.0, 10.0)
    path = tmp_path / "flair_to_t1c.tfm"
    write_transform(motion, path)
    point = (12.0, -7.0, 30.0)
    expected = (motion @ [*point, 1.0])[:3]
    np.testing.assert_allclose(sitk.ReadTransform(str(path)).TransformPoint(point), expected, atol=1e-12)
    sitk.WriteTransform(itk_transform(motion), str(tmp_path / "itk.tfm"))
    assert path.read_text().split()[:8] == (tmp_path / "itk.tfm").read_text().split()[:8]


@pytest.mark.slow
def test_a_real_patient_turned_on_one_grid(cases_dir: Path) -> None:
    """As T1 against T1c was seen: 7 degrees and 3 mm. What lies right stays within 0.5 mm of where it is."""
    folder = cases_dir / "BraTS2021_00495"
    fixed, moving = (read_image(next(folder.glob(f"*_{name}.nii.gz"))) for name in ("t1ce", "flair"))
    middle = region_of(fixed, None).centre_mm
    corners = middle + CORNERS
    still = register(moving, fixed)
    assert mean_distance_mm(still.matrix, np.eye(4), corners) < 1.0
    motion = random_motion(np.random.default_rng(2), middle, 7.0, 3.0)
    turned = register(scan(moving, moving.geometry, motion), fixed)
    assert mean_distance_mm(turned.matrix, np.linalg.inv(motion) @ still.matrix, corners) < 0.5
    assert turned.problem is None


@pytest.mark.slow
def test_a_raw_person(cases_dir: Path) -> None:
    """Four scans with the skull on, three grids, tilted by 17 degrees against each other: one place afterwards."""
    folder = cases_dir.parent / "raw" / "TCGA-FG-6692"
    if not folder.is_dir():
        pytest.skip("the raw scans (../shared/data/raw) are not on this machine")
    files = {"t1c": "MRHR_T1_AX_POST*", "t1": "T1_AX*", "t2": "MRHR_T2*", "flair": "MRHR_FLAIR*"}
    masks = {"t1c": "t1c", "t1": "t1", "t2": "t2", "flair": "fla"}
    images = {name: read_image(next(folder.glob(pattern))) for name, pattern in files.items()}
    brains = {n: read_image(folder / "reference" / f"hdbet_mask_{m}.nii.gz").array > 0 for n, m in masks.items()}
    grid = coarser(images["t1c"].geometry, 1.5)
    inside = resample_rigidly(brains["t1c"].astype(np.float32), images["t1c"].geometry, grid, np.eye(4)) > 0.5
    brought, shown = {}, {}
    for name, image in images.items():
        registration = register(image, images["t1c"], moving_brain=brains[name], fixed_brain=brains["t1c"])
        assert registration.problem is None
        brought[name] = resample_onto(image, registration.matrix, grid).array
        shown[name] = inside & covered(image, registration.matrix, grid)
    assert misalignments(brought, shown, grid.spacing_mm) == []
