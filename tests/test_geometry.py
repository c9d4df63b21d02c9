"""Geometry: corners, orientation, canonical axes, same grid."""

from __future__ import annotations

import itertools
import math

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from a2fseg_cli.imaging.geometry import Geometry, axes_between, axes_to_canonical, largest_corner_offset_mm, same_grid


def _signed_permutations() -> list[tuple[float, ...]]:
    matrices = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[list(order), range(3)] = signs
            matrices.append(tuple(matrix.ravel().tolist()))
    return matrices


SIGNED_PERMUTATIONS = _signed_permutations()


def _rotation(axis: int, degrees: float) -> np.ndarray:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = np.eye(3)
    first, second = (i for i in range(3) if i != axis)
    matrix[first, first] = matrix[second, second] = c
    matrix[first, second], matrix[second, first] = -s, s
    return matrix


def test_corners_by_hand() -> None:
    geometry = Geometry((2, 3, 4), (10.0, 2.0, 0.5), (100.0, 200.0, 300.0))
    corners = geometry.corners_mm()
    assert corners[0].tolist() == [100, 200, 300]
    assert corners[1].tolist() == [101.5, 200, 300]  # 3 steps of 0.5 mm in x
    assert corners[7].tolist() == [101.5, 204, 310]
    assert geometry.voxel_volume_ml == 0.01


@given(
    st.sampled_from(SIGNED_PERMUTATIONS),
    st.integers(0, 2),
    st.floats(-180, 180),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.floats(0.1, 9)] * 3),
    st.tuples(*[st.floats(-300, 300)] * 3),
)
def test_corners_are_those_of_simpleitk(matrix, axis, degrees, size, spacing, origin) -> None:
    direction = _rotation(axis, degrees) @ np.reshape(matrix, (3, 3))
    geometry = Geometry(size, spacing, origin, tuple(direction.ravel().tolist()))
    image = sitk.Image(*size[::-1], sitk.sitkUInt8)
    image.SetSpacing(spacing[::-1])
    image.SetOrigin(origin)
    image.SetDirection(geometry.direction)
    ends = [(z, y, x) for z in (0, size[0] - 1) for y in (0, size[1] - 1) for x in (0, size[2] - 1)]
    expected = [image.TransformIndexToPhysicalPoint(end[::-1]) for end in ends]
    np.testing.assert_allclose(geometry.corners_mm(), expected, atol=1e-6)


@pytest.mark.parametrize("direction", SIGNED_PERMUTATIONS)
def test_orientation_is_that_of_simpleitk_and_nibabel(direction) -> None:
    orientation = Geometry((2, 2, 2), (1.0, 1.0, 1.0), direction=direction).orientation
    assert orientation == sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction)
    ras = np.eye(4)
    ras[:3, :3] = np.reshape(direction, (3, 3)) * [[-1], [-1], [1]]
    assert orientation == "".join(nibabel.aff2axcodes(ras))


@given(st.sampled_from(SIGNED_PERMUTATIONS), st.integers(0, 2), st.floats(-44, 44))
def test_canonical_axes_grow_left_posterior_superior(matrix, axis, degrees) -> None:
    direction = _rotation(axis, degrees) @ np.reshape(matrix, (3, 3))
    geometry = Geometry((2, 3, 4), (1.0, 1.0, 1.0), direction=tuple(direction.ravel().tolist()))
    index = np.stack(np.meshgrid(*map(np.arange, geometry.size), indexing="ij"))
    world = np.tensordot(direction, index[::-1], axes=1)  # LPS coordinates, each (D, H, W)
    permutation, flips = axes_to_canonical(geometry)
    for coordinate, array_axis in ((0, 2), (1, 1), (2, 0)):
        canonical = np.flip(world[coordinate].transpose(permutation), flips)
        assert (np.diff(canonical, axis=array_axis) > 0).all()


def test_identity_needs_nothing() -> None:
    assert axes_to_canonical(Geometry((2, 3, 4), (1.0, 1.0, 1.0))) == ((0, 1, 2), ())


def test_flipped_axes_by_hand() -> None:
    # File axis x runs toward superior, y toward right, z toward posterior.
    geometry = Geometry((2, 3, 4), (1.0, 1.0, 1.0), direction=(0, -1, 0, 0, 0, 1, 1, 0, 0))
    assert geometry.orientation == "SRP"
    assert axes_to_canonical(geometry) == ((2, 0, 1), (2,))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("noise", [0.0, 1e-12, -1e-12])
def test_ties_at_45_degrees_use_every_axis_once_whatever_the_last_bit(axis, noise) -> None:
    direction = _rotation(axis, 45 + noise)
    geometry = Geometry((2, 3, 4), (1.0, 1.0, 1.0), direction=tuple(direction.ravel().tolist()))
    permutation, flips = axes_to_canonical(geometry)
    assert sorted(permutation) == [0, 1, 2]
    assert (permutation, flips) == ((0, 1, 2), ())
    assert geometry.obliqueness_deg == pytest.approx(45)


def test_same_grid_at_the_tolerance() -> None:
    geometry = Geometry((101, 11, 11), (1.0, 1.0, 1.0))
    assert same_grid(geometry, Geometry((101, 11, 11), (1.0, 1.0, 1.0), (0.0, 0.0099, 0.0)))
    assert not same_grid(geometry, Geometry((101, 11, 11), (1.0, 1.0, 1.0), (0.0, 0.0101, 0.0)))
    # 0.001 mm more a slice is 0.1 mm after 100 of them.
    stretched = Geometry((101, 11, 11), (1.001, 1.0, 1.0))
    assert largest_corner_offset_mm(geometry, stretched) == pytest.approx(0.1)
    assert not same_grid(geometry, stretched)
    assert same_grid(geometry, stretched, tolerance_mm=0.2)


def test_another_size_is_another_grid_however_small() -> None:
    a = Geometry((2, 2, 2), (0.001, 0.001, 0.001))
    b = Geometry((2, 2, 3), (0.001, 0.001, 0.001))
    assert largest_corner_offset_mm(a, b) < 0.01
    assert not same_grid(a, b)


@pytest.mark.parametrize(
    ("size", "spacing", "direction"),
    [
        ((0, 1, 1), (1.0, 1.0, 1.0), (1, 0, 0, 0, 1, 0, 0, 0, 1)),
        ((1, 1, 1), (1.0, 0.0, 1.0), (1, 0, 0, 0, 1, 0, 0, 0, 1)),
        ((1, 1, 1), (1.0, math.nan, 1.0), (1, 0, 0, 0, 1, 0, 0, 0, 1)),
        ((1, 1, 1), (1.0, 1.0, 1.0), (1, 0, 0, 1)),
    ],
)
def test_impossible_grids_are_refused(size, spacing, direction) -> None:
    with pytest.raises(ValueError):
        Geometry(size, spacing, direction=direction)


ORIENTATIONS = ["".join(nibabel.aff2axcodes(np.block([[np.reshape(m, (3, 3)), np.zeros((3, 1))], [0, 0, 0, 1]])))
                for m in SIGNED_PERMUTATIONS]  # fmt: skip


@given(
    st.sampled_from(SIGNED_PERMUTATIONS),
    st.integers(0, 2),
    st.floats(-40, 40),
    st.sampled_from(ORIENTATIONS),
    st.tuples(*[st.floats(0.1, 9)] * 3),
    st.tuples(*[st.floats(-300, 300)] * 3),
)
def test_axes_between_two_grids_of_one_place_are_simpleitks(matrix, axis, degrees, letters, spacing, origin) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    direction = _rotation(axis, degrees) @ np.reshape(matrix, (3, 3))
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction.ravel().tolist())
    other = sitk.DICOMOrient(image, letters)
    turn = axes_between(_geometry(image), _geometry(other))
    assert turn is not None
    np.testing.assert_array_equal(np.flip(array.transpose(turn[0]), turn[1]), sitk.GetArrayFromImage(other))


def _geometry(image: sitk.Image) -> Geometry:
    return Geometry(image.GetSize()[::-1], image.GetSpacing()[::-1], image.GetOrigin(), image.GetDirection())


def test_axes_between_by_hand() -> None:
    """x runs the other way in the second grid: 4 voxels of 2 mm, the first of which lies at 6 mm."""
    a = Geometry((2, 3, 4), (1.0, 1.0, 2.0))
    b = Geometry((2, 3, 4), (1.0, 1.0, 2.0), (6.0, 0.0, 0.0), (-1, 0, 0, 0, 1, 0, 0, 0, 1))
    assert axes_between(a, b) == ((0, 1, 2), (2,))
    assert axes_between(a, a) == ((0, 1, 2), ())


@pytest.mark.parametrize(
    "changes",
    [{"origin_mm": (6.02, 0.0, 0.0)}, {"size": (2, 4, 3)}, {"spacing_mm": (1.0, 2.0, 1.0)},
     {"direction": (-0.8, -0.6, 0, -0.6, 0.8, 0, 0, 0, 1)}, {"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}],
)  # fmt: skip
def test_no_axes_bring_voxels_that_lie_elsewhere(changes) -> None:
    b = {"size": (2, 3, 4), "spacing_mm": (1.0, 1.0, 2.0), "origin_mm": (6.0, 0.0, 0.0),
         "direction": (-1, 0, 0, 0, 1, 0, 0, 0, 1)}  # fmt: skip
    assert axes_between(Geometry((2, 3, 4), (1.0, 1.0, 2.0)), Geometry(**b | changes)) is None
