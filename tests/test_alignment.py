"""Sequences that lie elsewhere, and those that show too little of the brain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from a2fseg_cli.cases.discovery import find_cases
from a2fseg_cli.imaging import alignment
from a2fseg_cli.imaging.alignment import Gap, Misalignment, coverage_gaps, misalignments
from a2fseg_cli.imaging.border_fit import Motion
from a2fseg_cli.imaging.mutual_information import gain
from a2fseg_cli.imaging.reading import read_image
from a2fseg_cli.imaging.working_grid import CoarseImage

Volume = npt.NDArray[np.float32]
SHAPE = (50, 60, 50)
SPACING = (3.0, 3.0, 3.0)
MIDDLE_MM = np.array([n * s / 2 for n, s in zip(SHAPE, SPACING, strict=True)])
# Of the synthetic brain's axes the longest half is 75 mm: its surface lies at least 15 mm inside the grid.
HALF_MM = (60.0, 75.0, 60.0)


def rotation(axis: tuple[float, float, float], degrees: float) -> npt.NDArray[np.float64]:
    """Return the matrix of a turn round an axis (z, y, x)."""
    z, y, x = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -x, y], [x, 0, -z], [-y, z, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def brain(
    bright: tuple[float, float, float, float],
    turn: npt.NDArray[np.float64] | None = None,
    shift_mm: tuple[float, float, float] = (0, 0, 0),
) -> tuple[Volume, npt.NDArray[np.bool_]]:
    """Return an ellipsoid with two blobs and a sheet, about the grid's middle, after a turn and a shift; its mask.

    Computed, not resampled: what is turned is the formula. `bright` are the values of the ellipsoid and of what is in
    it.
    """
    voxels = np.stack(np.indices(SHAPE), -1)
    place = (voxels + 0.5) * np.array(SPACING) - MIDDLE_MM - np.array(shift_mm)
    if turn is not None:
        place = place @ turn  # the inverse of the turn, applied to rows
    mask = (np.square(place / np.array(HALF_MM)).sum(-1)) < 1

    def soft(distance_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return 1 / (1 + np.exp(distance_mm / 1.5))

    def blob(centre: tuple[float, float, float], half: tuple[float, float, float]) -> npt.NDArray[np.float64]:
        return soft((np.sqrt(np.square((place - centre) / np.array(half)).sum(-1)) - 1) * min(half))

    value = np.full(SHAPE, bright[0])
    value += (bright[1] - bright[0]) * blob((10, 5, 18), (25, 35, 9))
    value += (bright[2] - bright[0]) * blob((-15, -30, -20), (12, 15, 22))
    value += (bright[3] - bright[0]) * soft(np.abs(place[..., 2] + 0.2 * place[..., 1]) - 3)
    # No tissue is one grey value: folds of 23, 29 and 31 mm.
    value += 0.2 * (bright[1] - bright[0]) * np.cos(place * (2 * np.pi / np.array((23, 29, 31)))).sum(-1)
    return np.where(mask, value, 0).astype(np.float32), mask


T1C = (100.0, 40.0, 160.0, 60.0)
FLAIR = (80.0, 20.0, 60.0, 150.0)  # the second blob and the sheet the other way round


def found(
    turn: npt.NDArray[np.float64] | None = None, shift_mm: tuple[float, float, float] = (0, 0, 0)
) -> list[Misalignment]:
    """Return what is found of a FLAIR after a turn and a shift, beside a T1c in its place."""
    still, moved = brain(T1C), brain(FLAIR, turn, shift_mm)
    return misalignments({"t1c": still[0], "flair": moved[0]}, {"t1c": still[1], "flair": moved[1]}, SPACING)


def test_sequences_in_one_place_are_not_reported() -> None:
    assert found() == []


def test_a_shift_moves_every_point_as_far() -> None:
    (off,) = found(shift_mm=(0, 3, 4))  # 3, 4, 5: a right-angled triangle
    assert (off.moving, off.against) == ("flair", "t1c")
    assert off.mm == pytest.approx(5, abs=0.3)
    assert off.degrees < 0.5


def test_a_turn_about_the_middle() -> None:
    """Round z, a point 30 mm from the axis goes 30 mm times the angle in radians.

    The mean distance from the z axis of points in an ellipsoid is 3 pi / 16 = 0.59 times the half axes, here of 60 and
    75 mm (67 mm: 40 mm). By 6 degrees, 0.105, that is 4 mm.
    """
    (off,) = found(rotation((1, 0, 0), 6))
    assert off.degrees == pytest.approx(6, abs=0.3)
    assert off.mm == pytest.approx(4.2, abs=0.4)


def test_a_turn_and_a_shift_in_words() -> None:
    (off,) = found(rotation((1, 1, 0), 4), shift_mm=(0, 0, 5))
    assert off.message.startswith("flair lies about 4 degrees and ")
    assert off.message.endswith(" mm off t1c: co-register the sequences")
    assert Misalignment("t1", "t2", 1.2, 3.4).message.startswith("t1 lies about 1 degree and 3 mm off t2:")


def test_half_of_what_is_warned_of_is_not() -> None:
    assert found(rotation((0, 1, 0), 1), shift_mm=(1, 0, 0)) == []


def test_the_image_turned_under_the_common_mask_is_found_by_its_inside() -> None:
    still, moved = brain(T1C), brain(FLAIR, rotation((0, 1, 1), 5), (2, 0, 2))
    common = still[1] & moved[1]
    images = {"t1c": np.where(common, still[0], 0), "flair": np.where(common, moved[0], 0)}
    (off,) = misalignments(images, {"t1c": common, "flair": common}, SPACING)
    assert off.degrees == pytest.approx(5, abs=0.5)


def test_whoever_is_alone_moved_also_where_it_is_t1c() -> None:
    """T1, T2 and FLAIR agree: T1c is reported, against the first of them."""
    turn = rotation((1, 0, 0), 5)
    volumes = {"t1": brain(T1C), "t1c": brain(T1C, turn), "t2": brain(FLAIR), "flair": brain(FLAIR)}
    (off,) = misalignments({n: v[0] for n, v in volumes.items()}, {n: v[1] for n, v in volumes.items()}, SPACING)
    assert (off.moving, off.against) == ("t1c", "t1")


def test_two_against_two_t1c_is_right() -> None:
    turn = rotation((1, 0, 0), 5)
    volumes = {"t1": brain(T1C, turn), "t1c": brain(T1C), "t2": brain(FLAIR, turn), "flair": brain(FLAIR)}
    off = misalignments({n: v[0] for n, v in volumes.items()}, {n: v[1] for n, v in volumes.items()}, SPACING)
    assert [(m.moving, m.against) for m in off] == [("t1", "t1c"), ("t2", "t1c")]


def test_number_of_threads_and_order_of_axes_change_nothing() -> None:
    still, moved = brain(T1C), brain(FLAIR, rotation((1, 2, 3), 5), (1, 2, 2))
    images, masks = {"t1c": still[0], "flair": moved[0]}, {"t1c": still[1], "flair": moved[1]}
    one, two = (misalignments(images, masks, SPACING, threads=n) for n in (1, 2))
    assert one == two
    flipped = [{n: a.transpose(2, 0, 1)[:, ::-1] for n, a in m.items()} for m in (images, masks)]
    (other,) = misalignments(flipped[0], flipped[1], SPACING)
    assert other.degrees == pytest.approx(one[0].degrees, abs=0.2)
    assert other.mm == pytest.approx(one[0].mm, abs=0.2)


@settings(max_examples=12)
@given(
    axis=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1),
    degrees=st.floats(0, 8),
    shift_mm=st.tuples(*[st.floats(-4, 4)] * 3),
)
def test_small_motions_are_measured(
    axis: tuple[float, float, float], degrees: float, shift_mm: tuple[float, float, float]
) -> None:
    """To half a degree and half a mm; the truth of the mm is the mean over the brain's voxels."""
    turn = rotation(axis, degrees)
    places = (np.argwhere(brain(T1C)[1]) + 0.5) * np.array(SPACING) - MIDDLE_MM
    mm = float(np.linalg.norm(places @ turn.T + np.array(shift_mm) - places, axis=1).mean())
    off = found(turn, shift_mm)
    if off:
        assert off[0].degrees == pytest.approx(degrees, abs=0.5)
        assert off[0].mm == pytest.approx(mm, abs=0.5)
    else:
        assert degrees < 2.5
        assert mm < 2.8


def coarse(values: npt.NDArray[np.floating]) -> CoarseImage:
    """Return an image at 3 mm that is all brain."""
    return CoarseImage(values.astype(np.float32), np.ones(values.shape, np.float32), np.full(3, 3.0))


def test_the_right_motion_raises_the_mutual_information_and_its_opposite_does_not() -> None:
    """Independent grey values, the other way round in the second image and one voxel of 3 mm to the right."""
    values = np.random.default_rng(0).random((24, 24, 24))
    still, moving = coarse(values), coarse(1 - np.roll(values, 1, axis=2))
    right, wrong = (Motion(np.eye(3), np.array([0, 0, mm]), np.full(3, 36.0), 0.0, 3.0) for mm in (3.0, -3.0))
    assert gain(still, moving, right) > 50  # from almost nothing to ln 16
    assert gain(still, moving, wrong) < 0.2
    assert gain(still, coarse(1 - values), right) == pytest.approx(-1, abs=0.02)
    assert gain(still, coarse(np.ones((24, 24, 24))), right) == 0
    assert gain(still, moving, Motion(np.eye(3), np.array([0, 0, 69.0]), np.full(3, 36.0), 0.0, 69.0)) == np.inf


def test_too_little_to_judge_is_left_out() -> None:
    image = np.arange(8000, dtype=np.float32).reshape(20, 20, 20)
    mask = np.ones((20, 20, 20), bool)
    assert misalignments({"t1": image, "t2": image[::-1]}, {"t1": mask, "t2": mask}, (1, 1, 1)) == []
    assert misalignments({"t1": image, "t2": image}, {"t1": ~mask, "t2": ~mask}, (1, 1, 1)) == []
    assert misalignments({"t1": image}, {"t1": mask}, (1, 1, 1)) == []


def test_a_mask_that_is_missing_or_of_another_shape_is_refused() -> None:
    image, mask = np.zeros((4, 4, 4), np.float32), np.zeros((4, 4, 4), bool)
    with pytest.raises(ValueError, match="needs a mask"):
        misalignments({"t1": image, "t2": image}, {"t1": mask}, (1, 1, 1))
    with pytest.raises(ValueError, match="one shape"):
        misalignments({"t1": image}, {"t1": mask[1:]}, (1, 1, 1))
    with pytest.raises(ValueError, match="one shape"):
        coverage_gaps({"t1": mask, "t2": mask[1:]}, (1, 1, 1))


def cube(*cut: slice) -> npt.NDArray[np.bool_]:
    """Return a brain of 90 mm cubed at 1 mm, 729 mL, in a grid of 100 cubed, without a part."""
    mask = np.zeros((100, 100, 100), bool)
    mask[3:93, 3:93, 3:93] = True
    if cut:
        mask[cut] = False
    return mask


def test_a_cut_field_of_view_is_said_in_ml() -> None:
    """The lowest 30 slices of 90 x 90 mm: 243 mL."""
    cut = cube(slice(0, 33))
    (gap,) = coverage_gaps({"t1": cube(), "t1c": cube(), "flair": cut}, (1, 1, 1))
    assert gap == Gap("flair", pytest.approx(243), ("t1", "t1c"))
    assert gap.message == "flair does not cover 243 mL of the brain that t1 and t1c show"
    (gap,) = coverage_gaps({"flair": cut, "t1c": cube()}, (1, 1, 1))
    assert gap.message == "flair does not cover 243 mL of the brain that t1c shows"


def test_spacing_counts_in_ml() -> None:
    """The same voxels at 3, 1 and 1 mm are three times as much."""
    (gap,) = coverage_gaps({"t1": cube(), "flair": cube(slice(0, 33))}, (3, 1, 1))
    assert gap.missing_ml == pytest.approx(729)


@pytest.mark.parametrize(
    "other",
    [
        cube(),
        cube(slice(0, 9)),  # a rim of 6 mm, 49 mL
        cube(slice(40, 58), slice(40, 58), slice(40, 58)),  # a hole of 6 mL
        np.roll(cube(), (5, -3, 5), (0, 1, 2)),  # as a whole elsewhere
    ],
    ids=["same", "rim", "small hole", "moved"],
)
def test_no_gap(other: npt.NDArray[np.bool_]) -> None:
    assert coverage_gaps({"t1c": cube(), "flair": other}, (1, 1, 1)) == []


def test_nothing_to_compare_with_is_no_gap() -> None:
    assert coverage_gaps({"t1": cube()}, (1, 1, 1)) == []
    assert coverage_gaps({"t1": ~cube() & cube(), "t2": ~cube() & cube()}, (1, 1, 1)) == []


def real(paths: dict[str, Path]) -> tuple[dict[str, Volume], dict[str, npt.NDArray[np.bool_]], tuple[float, ...]]:
    read = {name: read_image(path) for name, path in paths.items()}
    images = {name: image.array for name, image in read.items()}
    return images, {n: a != a[0, 0, 0] for n, a in images.items()}, next(iter(read.values())).geometry.spacing_mm


def turned(image: Volume, spacing_mm: tuple[float, ...], degrees: float, shift_mm: float) -> Volume:
    """Return a real image turned about the grid's middle round (1, 1, 1) and shifted to the side."""
    source = sitk.GetImageFromArray(image)
    source.SetSpacing([float(s) for s in spacing_mm[::-1]])
    motion = sitk.VersorRigid3DTransform()
    motion.SetCenter(source.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in source.GetSize()]))
    motion.SetRotation((3**-0.5,) * 3, float(np.deg2rad(degrees)))
    motion.SetTranslation((shift_mm, 0, 0))
    return sitk.GetArrayFromImage(sitk.Resample(source, motion, sitk.sitkNearestNeighbor, float(image[0, 0, 0])))


def test_a_real_flair_turned_by_three_degrees_is_found_and_its_cut_field_of_view_too(cases_dir: Path) -> None:
    images, masks, spacing_mm = real(find_cases(cases_dir / "Brats18_2013_20_1")[0].images)
    assert misalignments(images, masks, spacing_mm) == []
    (gap,) = coverage_gaps(masks, spacing_mm)
    assert (gap.name, gap.against) == ("flair", ("t1", "t1c", "t2"))
    assert gap.missing_ml == pytest.approx(546, abs=10)
    flair = turned(images["flair"], spacing_mm, 3, 3)
    (off,) = misalignments({**images, "flair": flair}, {**masks, "flair": flair != flair[0, 0, 0]}, spacing_mm)
    assert off.moving == "flair"
    assert off.degrees == pytest.approx(3, abs=0.5)


def test_borders_that_differ_are_not_reported_where_the_grey_values_agree(
    cases_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of T1c and FLAIR alone the borders say 3 degrees; registered by ITK they are 0.1 degrees and 0.4 mm off."""
    paths = find_cases(cases_dir / "Brats18_TCIA02_370_1")[0].images
    given = real({name: paths[name] for name in ("t1c", "flair")})
    assert misalignments(*given) == []
    monkeypatch.setattr(alignment, "LEAST_GAIN", -1.0)
    (off,) = misalignments(*given)
    assert off.moving == "flair"


@pytest.mark.slow
def test_training_patients_turned_are_found_and_few_others_are(cases_dir: Path) -> None:
    """Every fourth and three known ones: a cut FLAIR, a T2 turned by 12 degrees, T1 and T2 4 mm above T1c and FLAIR.

    All of them, and by how much: benchmarks/alignment.py.
    """
    known = {"Brats18_2013_20_1", "Brats18_CBICA_AQQ_1", "BraTS-SSA-00056-000"}
    names = known | set(json.loads((cases_dir.parent / "split.json").read_text())["train"][::4])
    warned, missed, gaps = [], [], []
    for case in find_cases(cases_dir):
        if case.name in names:
            images, masks, spacing_mm = real(case.images)
            warned += [case.name] if misalignments(images, masks, spacing_mm) else []
            gaps += [(case.name, gap.name) for gap in coverage_gaps(masks, spacing_mm)]
            flair = turned(images["flair"], spacing_mm, 3, 3)
            off = misalignments({**images, "flair": flair}, {**masks, "flair": flair != flair[0, 0, 0]}, spacing_mm)
            missed += [] if any("flair" in (m.moving, m.against) for m in off) else [case.name]
    assert missed == []
    assert {"Brats18_CBICA_AQQ_1", "BraTS-SSA-00056-000"} <= set(warned)
    assert len(warned) <= 4
    assert gaps == [("Brats18_2013_20_1", "flair")]
