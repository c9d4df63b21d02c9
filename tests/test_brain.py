"""Brain masks and skulls: balls and heads whose voxels can be counted, then real patients and raw scans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from a2fseg_cli.imaging.brain import brain_mask, find_background
from a2fseg_cli.imaging.skull import skull_on
from a2fseg_cli.phantom import make_phantom

Array = npt.NDArray[Any]
SHAPE = (80, 90, 100)
ISOTROPIC = (2.0, 2.0, 2.0)


def radius(shape: tuple[int, int, int] = SHAPE) -> Array:
    """Distance of every voxel from the grid's centre, in voxels."""
    axes = [np.arange(n) - (n - 1) / 2 for n in shape]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    return np.sqrt(z * z + y * y + x * x)


BALL = radius() < 30
SMALL_BALL = radius((40, 36, 44)) < 13  # for what takes long: Lanczos interpolation, many examples


def tissue(ball: Array = BALL) -> Array:
    """A ball of whole values from 60 to 100 in a background of 0."""
    values = np.random.default_rng(0).integers(60, 101, ball.shape)
    return np.where(ball, values, 0).astype(np.float32)


def head(scalp: float = 120, bone: float = 4) -> Array:
    """A ball of brain of 60 mm radius in 2 mm voxels, in 8 mm of bone and 6 mm of scalp."""
    r = 2 * radius()
    brain = np.random.default_rng(0).integers(60, 101, SHAPE)
    return np.select([r < 60, r < 68, r < 74], [brain, bone, scalp], 0).astype(np.float32)


def dice(a: Array, b: Array) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def rings(array: Array, interpolator: int) -> Array:
    """The image, turned and moved by the interpolation."""
    image = sitk.GetImageFromArray(array)
    centre = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    transform = sitk.Euler3DTransform(centre, 0.03, 0.02, -0.04, (1.3, -0.7, 0.4))
    return sitk.GetArrayFromImage(sitk.Resample(image, image, transform, interpolator, 0.0, sitk.sitkFloat32))


def lit_plane(array: Array) -> Array:
    array[0] = 100
    return array


def lit_line(array: Array) -> Array:
    array[40, 3] = 100
    return array


def one_voxel(array: Array) -> Array:
    array[2, 2, 2] = 10
    return array


def three_voxels(array: Array) -> Array:
    array[2, 2, 2] = array[-3, -3, -3] = array[4, -9, 5] = 10
    return array


def test_exact_background_keeps_every_voxel_and_every_hole() -> None:
    array = tissue()
    array[40, 45, 50] = 0
    assert np.array_equal(brain_mask(array), array != 0)
    assert brain_mask(array).sum() == BALL.sum() - 1


@pytest.mark.parametrize("spoil", [one_voxel, three_voxels, lit_line, lit_plane])
def test_what_lies_apart_is_dropped(spoil: Callable[[Array], Array]) -> None:
    assert np.array_equal(brain_mask(spoil(tissue())), BALL)


def test_a_lit_plane_that_the_brain_touches_is_dropped() -> None:
    """The ball's top at plane 0: of the lit plane only what lies within two cells, 4 voxels, of the ball may stay."""
    array = tissue()[10:]
    assert BALL[10:][:2].any()
    mask = brain_mask(lit_plane(array))
    assert np.array_equal(mask[1:], BALL[11:])
    assert mask[0].sum() < 0.1 * mask[0].size


def test_a_smaller_part_stays_from_a_tenth_of_the_largest() -> None:
    """1,000 voxels and 125 (an eighth) are kept; 64 (a sixteenth) are not. Small grids are looked at voxel by voxel."""
    array = np.zeros((20, 20, 40), np.float32)
    array[2:12, 2:12, 2:12] = array[2:7, 2:7, 20:25] = array[2:6, 2:6, 30:34] = 5
    mask = brain_mask(array)
    assert mask.sum() == 1125
    assert not mask[:, :, 30:].any()


@pytest.mark.parametrize("interpolator", [sitk.sitkBSpline, sitk.sitkLanczosWindowedSinc], ids=["spline", "lanczos"])
@pytest.mark.parametrize("kind", [np.asarray, np.round, lambda a: np.maximum(a, 0), np.negative])
def test_ringing_is_no_tissue(interpolator: int, kind: Callable[[Array], Array]) -> None:
    """As stored: in float, in whole numbers, with negative values cut, and upside down."""
    ringing = kind(rings(tissue(SMALL_BALL), interpolator)).astype(np.float32)
    truth = rings(SMALL_BALL.astype(np.float32), sitk.sitkLinear) > 0.05
    if kind is not np.round:
        assert np.count_nonzero(ringing) > 1.2 * truth.sum()
    assert dice(brain_mask(ringing), truth) > 0.95
    assert brain_mask(ringing)[15:25, 13:23, 17:27].all()


@pytest.mark.parametrize("sigma", [1e-6, 1e-3, 0.1, 2.0])
@pytest.mark.parametrize("rice", [False, True])
def test_noise_is_no_tissue(sigma: float, rice: bool) -> None:
    rng = np.random.default_rng(1)
    noisy = tissue() + sigma * rng.standard_normal(SHAPE)
    if rice:
        noisy = np.hypot(noisy, sigma * rng.standard_normal(SHAPE))
    assert dice(brain_mask(noisy.astype(np.float32)), BALL) > (0.999 if rice else 0.99999)


def test_a_dark_ventricle_in_noise_is_filled() -> None:
    array = tissue()
    array[radius() < 10] = 0
    array += np.random.default_rng(1).normal(0, 0.1, SHAPE).astype(np.float32)
    assert np.array_equal(brain_mask(array), BALL)


@given(scale=st.integers(-8, 8), shift=st.integers(-1000, 1000), noise=st.booleans(), sign=st.sampled_from([1, -1]))
def test_mask_does_not_depend_on_the_intensities_scale_and_shift(
    scale: int, shift: int, noise: bool, sign: int
) -> None:
    """Powers of two and whole numbers, which floating point keeps exact. The noise is of quarters."""
    array = tissue(SMALL_BALL)
    if noise:
        array += np.random.default_rng(2).integers(-2, 3, array.shape).astype(np.float32) / 4
    changed = (sign * (array + shift) * 2.0**scale).astype(np.float32)
    assert np.array_equal(brain_mask(changed), brain_mask(array))


def test_background_within_the_brains_range() -> None:
    """Z-scored in the brain: 0 outside, and about 0 inside."""
    array = tissue()
    scored = np.where(BALL, (array - 80) / 12 + np.float32(0.01), 0).astype(np.float32)
    found = find_background(scored)
    assert found is not None
    assert (found.level, found.noise, found.side) == (0, 0, 0)
    assert np.array_equal(brain_mask(scored), BALL)
    noisy = scored + np.random.default_rng(0).normal(0, 1e-3, SHAPE).astype(np.float32)
    assert dice(brain_mask(noisy), BALL) > 0.99


def test_what_the_background_is() -> None:
    found = find_background(lit_plane(tissue() + 100))
    assert found is not None
    assert (found.level, found.noise, found.side) == (100, 0, 1)
    assert 70 < found.scale < 90
    below = find_background(100 - tissue())
    assert below is not None
    assert (below.level, below.side) == (100, -1)
    noise = np.random.default_rng(0).normal(7, 0.5, SHAPE).astype(np.float32)
    found = find_background(tissue() + noise)
    assert found is not None
    assert found.level == pytest.approx(7, abs=0.2)
    assert found.noise == pytest.approx(0.5, rel=0.15)


def test_images_without_background() -> None:
    """All tissue: every voxel but those of exactly 0. All one value: none, whatever the value."""
    noise = np.random.default_rng(0).uniform(1, 2, (12, 12, 12)).astype(np.float32)
    noise[5, 5, 5] = 0
    assert find_background(noise) is None
    assert brain_mask(noise).sum() == 12**3 - 1
    for value in (0, 7):
        assert not brain_mask(np.full((5, 5, 5), value, np.float32)).any()
    assert find_background(np.full((3, 3, 3), np.nan, np.float32)) is None


def test_tight_box_whose_corners_alone_are_background() -> None:
    ball = radius((60, 60, 60)) < 44
    assert not ball[0, 0, 0]
    assert ball[0].mean() > 0.7
    array = np.where(ball, np.random.default_rng(0).integers(60, 101, ball.shape), 3).astype(np.float32)
    assert np.array_equal(brain_mask(array), ball)


def test_skull_of_a_synthetic_head() -> None:
    """Bone of 4 between scalp of 120 and brain of about 80: the layer is 95 % darker than the brain."""
    finding = skull_on(head(), ISOTROPIC)
    assert finding.likely
    assert finding.dark_layer == pytest.approx(0.95, abs=0.02)
    # Balls of 74 and 68 mm radius without bone of 60 to 68 mm: 1,697 - 1,317 + 905 mL = 1,285 mL.
    assert finding.volume_ml == pytest.approx(1285, rel=0.03)
    assert f"{finding.dark_layer:.0%} darker" in finding.words
    bare = skull_on(head(scalp=0, bone=0), ISOTROPIC)
    assert bare.judged
    assert not bare.likely
    assert bare.dark_layer < 0.2
    assert bare.volume_ml == pytest.approx(905, rel=0.03)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a + 100,
        lambda a: -a,
        lambda a: a[:, 8:-8, 13:-13],
        lambda a: a[len(a) // 2 :],
        lambda a: np.hypot(a, np.random.default_rng(0).normal(0, 4, a.shape)),
        lambda a: np.where(a > 0, (a - 80) / 12, 0),
    ],
    ids=["shifted", "inverted", "cropped to the head", "top half", "noise", "z-scored"],
)
def test_skulls_are_found_and_brains_are_not(change: Callable[[Array], Array]) -> None:
    assert skull_on(change(head()).astype(np.float32), ISOTROPIC).likely
    bare = skull_on(change(tissue()).astype(np.float32), ISOTROPIC)
    assert bare.judged
    assert not bare.likely


@pytest.mark.parametrize("spoil", [one_voxel, three_voxels, lit_line, lit_plane])
def test_a_lit_plane_is_no_scalp(spoil: Callable[[Array], Array]) -> None:
    assert not skull_on(spoil(tissue()), ISOTROPIC).likely
    assert skull_on(spoil(head()), ISOTROPIC).likely


def test_volume_counts_beyond_two_litres() -> None:
    """A ball of 30 voxels radius of 3 mm holds 3,054 mL, more than a brain; of 2 mm 905 mL."""
    assert skull_on(tissue(), (3.0, 3.0, 3.0)).likely
    assert not skull_on(tissue(), ISOTROPIC).likely


def test_what_cannot_be_told() -> None:
    small = np.zeros((16, 18, 17), np.float32)
    small[2:14, 2:16, 2:15] = np.random.default_rng(0).integers(50, 100, (12, 14, 13))
    noise = np.random.default_rng(0).uniform(1, 2, SHAPE).astype(np.float32)
    empty = np.zeros(SHAPE, np.float32)
    for array, spacing in ((small, (4.0, 4.0, 4.0)), (noise, ISOTROPIC), (empty, ISOTROPIC), (head(), (4.0, 4.0, 4.0))):
        finding = skull_on(array, spacing)
        assert not finding.judged
        assert not finding.likely
        assert "to tell" in finding.words


def test_the_phantom_has_no_skull() -> None:
    for array in make_phantom(size=(50, 64, 64), spacing_mm=(3.0, 3.0, 3.0)).images.values():
        finding = skull_on(array, (3.0, 3.0, 3.0))
        assert finding.judged
        assert not finding.likely
        assert np.array_equal(brain_mask(array), array != 0)


def read(path: Path) -> tuple[Array, tuple[float, float, float]]:
    image = sitk.ReadImage(str(path), sitk.sitkFloat32)
    return sitk.GetArrayFromImage(image), image.GetSpacing()[::-1]


def check_stripped(path: Path) -> None:
    """The mask is that of exact background but for strays; no skull, of the whole, its box and its top half."""
    array, spacing = read(path)
    exact = array != 0
    assert np.count_nonzero(brain_mask(array) != exact) < 50, path
    z, y, x = (np.flatnonzero(exact.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3))
    box = array[z[0] : z[-1] + 1, y[0] : y[-1] + 1, x[0] : x[-1] + 1]
    for part in (array, box, box[len(box) // 2 :]):
        assert not skull_on(part, spacing).likely, path


def test_real_patients(cases_dir: Path) -> None:
    for case in ("BraTS-SSA-00120-000", "Brats17_CBICA_AXN_1"):
        for path in sorted((cases_dir / case).glob("*.nii.gz")):
            if "seg" not in path.name:
                check_stripped(path)


@pytest.mark.slow
def test_all_real_patients(cases_dir: Path) -> None:
    paths = [p for folder in (cases_dir, cases_dir.parent / "partial") for p in folder.glob("*/*.nii.gz")]
    for path in sorted(paths):
        if "seg" not in path.name:
            check_stripped(path)


def test_raw_scans(cases_dir: Path) -> None:
    """As they are, in the top half, and with the air set to 0."""
    paths = sorted((cases_dir.parent / "raw").glob("*/*.nii.gz"))
    if not paths:
        pytest.skip("the raw scans (../shared/data/raw) are not on this machine")
    for path in paths:
        array, spacing = read(path)
        found = find_background(array)
        assert found is not None
        still = np.where(array > found.level + 0.12 * found.scale, array, 0)
        for part in (array, array[len(array) // 2 :], still):
            assert skull_on(part, spacing).likely, path
