"""From the file's grid to the network's and back: every step undone, values by hand and against scipy."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from a2fseg_cli.cases.discovery import find_cases
from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.geometry import Geometry, axes_to_canonical
from a2fseg_cli.imaging.labels import SCHEMES, detect_scheme, to_classes
from a2fseg_cli.imaging.preprocessing import CropStep, Reorient, Resample, Route, bounding_box, brain_mask, prepare
from a2fseg_cli.imaging.reading import MedicalImage, read_image, read_label_map
from a2fseg_cli.imaging.restoring import Box, classes_to_file

Array = npt.NDArray[Any]
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
DIRECTIONS = [
    tuple(float(value) for value in (np.eye(3)[list(axes)] * signs).ravel())
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def restored(route: Route, probabilities: Array) -> Array:
    """The most probable class on the file's whole grid."""
    shape = route.reorient.undo(np.empty(route.crop.shape, np.bool_)).shape
    return classes_to_file(route, probabilities).placed(Box((0, 0, 0), shape))  # type: ignore[arg-type]


def image(
    array: Array,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    direction: tuple[float, ...] = IDENTITY,
    name: str = "t1.nii.gz",
) -> MedicalImage:
    depth, height, width = array.shape
    geometry = Geometry((depth, height, width), spacing_mm, direction=direction)
    return MedicalImage(np.ascontiguousarray(array, np.float32), geometry, Path(name))


def brain_in(shape: tuple[int, int, int], margin: int = 2, seed: int = 0) -> Array:
    """Positive random values in a box, zero in a margin around it."""
    array = np.zeros(shape, np.float32)
    inner = tuple(slice(margin, n - margin) for n in shape)
    array[inner] = np.random.default_rng(seed).uniform(1, 2, array[inner].shape)
    return array


def ball(shape: tuple[int, int, int], radius_mm: float, spacing_mm: tuple[float, float, float]) -> Array:
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return np.sqrt(z**2 + y**2 + x**2) <= radius_mm


def dice(a: Array, b: Array) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("direction", DIRECTIONS, ids=range(48))
def test_reorient_is_itks_and_is_undone(direction: tuple[float, ...]) -> None:
    """ITK's DICOMOrient to LPS as the oracle, for all 48 permutations and flips."""
    array = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    reorient = Reorient(*axes_to_canonical(image(array, direction=direction).geometry))
    oracle = sitk.GetImageFromArray(array)
    oracle.SetDirection(direction)
    canonical = reorient.apply(array)
    np.testing.assert_array_equal(canonical, sitk.GetArrayFromImage(sitk.DICOMOrient(oracle, "LPS")))
    np.testing.assert_array_equal(reorient.undo(canonical), array)


@given(
    st.tuples(*[st.integers(6, 9)] * 3),
    st.sampled_from(DIRECTIONS),
    st.tuples(*[st.sampled_from([0.5, 1.0, 3.0])] * 3),
    st.integers(0, 99),
)
def test_identity_through_all_steps(
    shape: tuple[int, int, int], direction: tuple[float, ...], spacing_mm: tuple[float, float, float], seed: int
) -> None:
    """With the file's own spacing as the working spacing: values and grid come back exactly."""
    array = brain_in(shape, seed=seed)
    patient = image(array, spacing_mm, direction)
    permutation, _ = axes_to_canonical(patient.geometry)
    z, y, x = (spacing_mm[axis] for axis in permutation)
    prepared = prepare({"t1": patient}, ("t1",), (z, y, x))
    assert prepared.images.shape == (1, *(shape[axis] - 4 for axis in permutation))
    np.testing.assert_array_equal(prepared.route.to_file(prepared.route.to_network(array)), array)
    # And what the network got is the z-score of the same voxels.
    inside = array != 0
    scored = np.where(inside, (array - array[inside].mean()) / array[inside].std(), 0)
    np.testing.assert_allclose(prepared.route.to_file(prepared.images[0]), scored, atol=1e-4)


def test_crop_puts_zero_outside() -> None:
    crop = CropStep((2, 2, 4), (0, 1, 1), (2, 2, 3))
    array = np.arange(16).reshape(2, 2, 4)
    assert crop.apply(array).tolist() == [[[5, 6]], [[13, 14]]]
    assert crop.undo(crop.apply(array)).tolist() == [[[0, 0, 0, 0], [0, 5, 6, 0]], [[0, 0, 0, 0], [0, 13, 14, 0]]]


def test_resampled_ramp_by_hand() -> None:
    """Four voxels to two: the new centres lie at 0.5 and 2.5. Back: at -0.25 (the edge), 0.25, 0.75, 1.25."""
    ramp = np.array([0, 1, 2, 3], np.float32).reshape(1, 1, 4)
    resample = Resample((1, 1, 4), (1, 1, 2))
    half = resample.apply(ramp)
    assert half.tolist() == [[[0.5, 2.5]]]
    assert resample.undo(half).ravel().tolist() == pytest.approx([0.5, 1.0, 2.0, 2.5], abs=1e-6)


@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.integers(0, 99),
)
def test_resampling_is_scipys(source: tuple[int, int, int], target: tuple[int, int, int], seed: int) -> None:
    """Linear, outer voxel faces aligned, the edge repeated; where no axis shrinks to less than half."""
    target = tuple(max(n, math.ceil(m / 2)) for n, m in zip(target, source, strict=True))  # type: ignore[assignment]
    array = np.random.default_rng(seed).standard_normal(source).astype(np.float32)
    found = Resample(source, target).apply(array)
    zoom = [n / m for n, m in zip(target, source, strict=True)]
    expected = ndimage.zoom(array, zoom, order=1, mode="nearest", grid_mode=True)
    assert found.shape == target
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_much_coarser_grids_average_instead_of_skipping() -> None:
    """Voxels 0, 10, 0, 10, ... to a quarter: all of them near 5. A ramp stays a ramp, away from the ends."""
    stripes = np.tile(np.array([0, 10], np.float32), 16).reshape(1, 1, 32)
    np.testing.assert_allclose(Resample((1, 1, 32), (1, 1, 8)).apply(stripes), 5, atol=0.5)
    ramp = np.arange(60, dtype=np.float32).reshape(60, 1, 1)
    coarse = Resample((60, 1, 1), (12, 1, 1)).apply(ramp).ravel()
    np.testing.assert_allclose(coarse[2:-2], 2 + 5 * np.arange(12)[2:-2], atol=0.02)


def test_three_voxels_to_one() -> None:
    one = Resample((3, 1, 1), (1, 1, 1)).apply(np.array([1, 4, 9], np.float32).reshape(3, 1, 1))
    assert one.tolist() == [[[4]]]


def test_z_score_in_the_own_brain_of_each_modality() -> None:
    """Two modalities with other brains and another background: each mean 0 and sd 1 inside, exactly 0 outside."""
    t1, t2 = brain_in((8, 9, 10), margin=1, seed=1), brain_in((8, 9, 10), margin=3, seed=2) * 500
    t2[t2 == 0] = -1000
    prepared = prepare({"t1": image(t1), "t2": image(t2)}, ("t1", "t1c", "t2"), (1.0, 1.0, 1.0))
    assert prepared.images.dtype == np.float32
    assert prepared.images.shape == (3, 6, 7, 8)
    assert prepared.present == (True, False, True)
    for index, array in ((0, t1), (2, t2)):
        inside = array[1:-1, 1:-1, 1:-1] != array[0, 0, 0]
        values = prepared.images[index][inside].astype(np.float64)
        assert values.mean() == pytest.approx(0, abs=1e-5)
        assert values.std() == pytest.approx(1, abs=1e-5)
        assert not prepared.images[index][~inside].any()
    assert not prepared.images[1].any()


def test_z_score_by_hand() -> None:
    """A brain of two voxels, 1 and 3: mean 2, standard deviation 1."""
    array = np.zeros((3, 3, 4), np.float32)
    array[1, 1, 1:3] = 1, 3
    prepared = prepare({"t1": image(array)}, ("t1",), (1.0, 1.0, 1.0))
    assert prepared.images.tolist() == [[[[-1, 1]]]]
    assert (prepared.route.crop.start, prepared.route.crop.stop) == ((1, 1, 1), (2, 2, 3))


def test_slots_are_in_the_models_order() -> None:
    t1, t2 = brain_in((6, 6, 6), seed=1), brain_in((6, 6, 6), seed=2)
    one = prepare({"t1": image(t1), "t2": image(t2)}, ("t2", "flair", "t1"), (1.0, 1.0, 1.0))
    other = prepare({"t2": image(t2), "t1": image(t1)}, ("t1", "t2"), (1.0, 1.0, 1.0))
    assert one.present == (True, False, True)
    np.testing.assert_array_equal(one.images[[2, 0]], other.images)


def test_scaling_and_shifting_an_image_changes_nothing() -> None:
    array = brain_in((7, 8, 9))
    other = np.where(array == 0, 100, array * 50 + 100)
    one, two = (prepare({"t1": image(a)}, ("t1",), (1.5, 1.5, 1.5)).images for a in (array, other))
    np.testing.assert_allclose(one, two, atol=1e-3)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((3, 3, 3), 7.0), "t1.nii.gz: empty"),
        (np.zeros((1, 1, 1)), "t1.nii.gz: empty"),
        (np.pad(np.full((2, 2, 2), 5.0), 1), "t1.nii.gz: every voxel of the brain has the value 5"),
        (np.pad(np.full((1, 1, 1), 5.0), 1), "t1.nii.gz: every voxel of the brain has the value 5"),
    ],
    ids=["constant", "one voxel", "constant brain", "brain of one voxel"],
)
def test_images_without_contrast_are_refused(array: Array, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare({"t1": image(array)}, ("t1",), (1.0, 1.0, 1.0))


def test_brain_mask_and_box() -> None:
    array = np.full((4, 5, 6), -1024, np.float32)
    array[1:3, 2, 3:5] = 0
    mask = brain_mask(array)
    assert mask.sum() == 4
    assert bounding_box(mask) == ((1, 2, 3), (3, 3, 5))
    array[0, 0, 0] = 3  # one corner does not change the background; of 4 voxels, a fifth is no stray
    assert brain_mask(array).sum() == 5
    with pytest.raises(ValueError, match="empty"):
        bounding_box(np.zeros((2, 2, 2), np.bool_))


def test_thick_slices() -> None:
    """Slices of 5 mm, 1 x 1 mm in them: 12 slices are 60 voxels of 1 mm, and a ramp over them stays one."""
    array = np.zeros((14, 12, 12), np.float32)
    array[1:-1, 1:-1, 1:-1] = np.arange(1, 13)[:, None, None]
    prepared = prepare({"t1": image(array, (5.0, 1.0, 1.0))}, ("t1",), (1.0, 1.0, 1.0))
    assert prepared.images.shape == (1, 60, 10, 10)
    ramp = prepared.route.to_network(array)[:, 5, 5]
    np.testing.assert_allclose(ramp[2:-2], 0.6 + 0.2 * np.arange(60)[2:-2], atol=1e-5)
    classes = np.zeros(array.shape, np.uint8)
    classes[4:9, 3:8, 3:8] = 2
    network = prepared.route.classes_to_network(classes, 3)
    assert (network == 2).sum() == pytest.approx(25 * 5 * 5, rel=0.1)
    back = restored(prepared.route, np.stack([(network == k).astype(np.float32) for k in range(3)]))
    assert dice(back == 2, classes == 2) > 0.97


def test_anisotropic_voxels_on_permuted_axes() -> None:
    """File axes (x, z, y) with (2, 3, 1) mm: the box of 8 x 6 x 10 voxels is 16 x 18 x 10 mm in x, z, y."""
    direction = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    patient = image(np.pad(brain_in((8, 6, 10), 0), 2), (2.0, 3.0, 1.0), direction)
    prepared = prepare({"t1": patient}, ("t1",), (2.0, 2.0, 2.0))
    assert axes_to_canonical(patient.geometry) == ((1, 2, 0), ())
    assert prepared.images.shape == (1, 9, 5, 8)
    assert prepared.route.to_file(prepared.images[0]).shape == (12, 10, 14)


def test_half_a_voxel_goes_up() -> None:
    """Five voxels of 0.75 mm are 2.5 voxels of 1.5 mm: three, of which none has to be smoothed."""
    prepared = prepare({"t1": image(brain_in((5, 5, 5), 0), (0.75, 0.75, 0.75))}, ("t1",), (1.5, 1.5, 1.5))
    assert prepared.images.shape == (1, 3, 3, 3)


@given(st.data(), st.tuples(*[st.integers(1, 6)] * 3), st.tuples(*[st.floats(0.3, 6)] * 3))
def test_tiny_volumes(data: st.DataObject, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> None:
    """Any small volume and voxel either is refused in one line or goes to 1.5 mm and back."""
    values = data.draw(st.lists(st.sampled_from([0, 1, 2, 7]), min_size=math.prod(shape), max_size=math.prod(shape)))
    array = np.array(values, np.float32).reshape(shape)
    try:
        prepared = prepare({"t1": image(array, spacing_mm)}, ("t1",), (1.5, 1.5, 1.5))
    except InputError:
        assert len(set(values)) < 3
        return
    crop = prepared.route.crop
    extent = [(b - a) * mm / 1.5 for a, b, mm in zip(crop.start, crop.stop, spacing_mm, strict=True)]
    assert prepared.images.shape[1:] == tuple(max(1, math.floor(edge + 0.5)) for edge in extent)
    assert np.isfinite(prepared.images).all()
    assert prepared.route.to_file(prepared.images[0]).shape == shape
    assert restored(prepared.route, np.stack([prepared.images[0]] * 2)).shape == shape


@pytest.mark.parametrize("direction", DIRECTIONS[::7], ids=range(7))
def test_classes_come_back_exactly_at_the_same_spacing(direction: tuple[float, ...]) -> None:
    array = brain_in((9, 10, 11))
    random = np.random.default_rng(3)
    classes = np.where(array != 0, random.integers(0, 4, array.shape), 0).astype(np.uint8)
    route = prepare({"t1": image(array, direction=direction)}, ("t1",), (1.0, 1.0, 1.0)).route
    network = route.classes_to_network(classes, 4)
    back = restored(route, np.stack([(network == k).astype(np.float32) for k in range(4)]))
    assert (back.dtype, back.flags.c_contiguous) == (np.uint8, True)
    np.testing.assert_array_equal(back, classes)


def test_a_ball_survives_a_coarser_grid() -> None:
    """A ball of 20 mm in voxels of 1 mm, through 1.5 mm and back."""
    shape = (54, 56, 58)
    classes = ball(shape, 20, (1.0, 1.0, 1.0)).astype(np.uint8)
    classes[ball(shape, 10, (1.0, 1.0, 1.0))] = 3
    route = prepare({"t1": image(np.pad(brain_in((50, 52, 54), 0), 2))}, ("t1",), (1.5, 1.5, 1.5)).route
    network = route.classes_to_network(classes, 4)
    assert network.shape == (33, 35, 36)
    assert (network != 0).sum() * 1.5**3 == pytest.approx((classes != 0).sum(), rel=0.03)
    back = restored(route, np.stack([(network == k).astype(np.float32) for k in range(4)]))
    assert back.shape == shape
    assert dice(back != 0, classes != 0) > 0.97
    assert dice(back == 3, classes == 3) > 0.95
    assert not (back == 2).any()


def test_largest_share_wins_and_the_first_wins_a_tie() -> None:
    route = prepare({"t1": image(brain_in((5, 5, 8), 1))}, ("t1",), (1.0, 1.0, 1.0)).route
    shares = np.zeros((3, 3, 3, 6), np.float32)
    shares[:, 0, 0, 0] = 0.2, 0.5, 0.3
    shares[:, 0, 0, 1] = 0.4, 0.2, 0.4
    shares[:, 0, 0, 2] = 0.1, 0.2, 0.7
    assert restored(route, shares)[1, 1, :4].tolist() == [0, 1, 0, 2]
    assert shares[:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.5, 0.3])


def test_a_real_patient_there_and_back(cases_dir: Path) -> None:
    """The expert's tumour through 2 mm and back; with the crop about a twentieth of the voxels."""
    case = find_cases(cases_dir)[0]
    assert case.truth is not None
    flair = read_image(case.images["flair"])
    labels, _ = read_label_map(case.truth)
    classes = to_classes(labels, SCHEMES[detect_scheme(np.unique(labels).tolist(), "truth")], "truth")
    prepared = prepare({"flair": flair}, ("flair",), (2.0, 2.0, 2.0))
    brain = prepared.images[0][prepared.images[0] != 0]
    assert (float(brain.mean()), float(brain.std())) == pytest.approx((0, 1), abs=0.15)
    network = prepared.route.classes_to_network(classes, 4)
    assert 15 < math.prod(flair.geometry.size) / network.size < 30
    back = restored(prepared.route, np.stack([(network == k).astype(np.float32) for k in range(4)]))
    assert back.shape == flair.geometry.size
    assert dice(back != 0, classes != 0) > 0.95
    np.testing.assert_allclose(
        prepared.route.to_file(prepared.route.to_network(classes.astype(np.float32))).sum(), classes.sum(), rtol=0.02
    )


@pytest.mark.parametrize("direction", [IDENTITY, (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)])
def test_the_way_back_leads_to_blocks_of_voxels(direction: tuple[float, ...]) -> None:
    """Slices that were split into three: what the network says comes back on the slices, where their middles lie."""
    blocks = (3, 1, 1)
    fine = image(brain_in((18, 12, 14), 4), (1.0, 1.0, 1.0), direction)
    prepared = prepare({"t1": fine}, ("t1",), (1.0, 1.0, 1.0), blocks=blocks)
    # The brain's box, 4 to 14, grows to whole slices: 3 to 15.
    sizes = prepared.route.reorient.apply(np.empty((12, 4, 6), np.bool_)).shape
    assert prepared.images.shape[1:] == sizes
    ramp = np.broadcast_to(np.arange(3, 15, dtype=np.float32)[:, None, None], (12, 4, 6))
    back = prepared.route.to_file(prepared.route.reorient.apply(ramp))
    assert back.shape == (6, 12, 14)
    np.testing.assert_allclose(
        back[1:5, 4:8, 4:10], np.array([4, 7, 10, 13])[:, None, None] * np.ones((4, 4, 6)), atol=0.05
    )
    assert not back[[0, 5]].any()
    classes = np.stack([1 - (ramp > 8.5), ramp > 8.5]).astype(np.float32)
    turned = np.stack([prepared.route.reorient.apply(part) for part in classes])
    mask = restored(prepared.route, turned)
    assert mask[:, 5, 5].tolist() == [0, 0, 0, 1, 1, 0]
