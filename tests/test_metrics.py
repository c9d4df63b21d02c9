"""Scores: numbers to check by hand, the empty cases, then the public tools as oracles."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from a2fseg_cli.errors import UsageError
from a2fseg_cli.evaluation.lesions import LesionScores, find_lesions, score_lesions
from a2fseg_cli.evaluation.metrics import MASK_METRICS, POLICIES, Counts, TruthMask, metric_definition, score
from a2fseg_cli.evaluation.surfaces import Surface, surfel_areas_mm2

Mask = npt.NDArray[np.bool_]
UNIT = (1.0, 1.0, 1.0)
SPACINGS = [UNIT, (3.0, 2.0, 1.0), (2.5, 0.75, 0.8125)]
EMPTY = np.zeros((8, 8, 8), np.bool_)

# surface_distance reaches scipy through names that scipy deprecates.
uses_surface_distance = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def box(shape: tuple[int, int, int], *spans: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]) -> Mask:
    """A mask with the boxes z0:z1, y0:y1, x0:x1 set."""
    mask = np.zeros(shape, np.bool_)
    for (z0, z1), (y0, y1), (x0, x1) in spans:
        mask[z0:z1, y0:y1, x0:x1] = True
    return mask


def voxel(*index: int) -> Mask:
    return box((8, 8, 8), *[((index[0], index[0] + 1), (index[1], index[1] + 1), (index[2], index[2] + 1))])


def blobs(seed: int, shape: tuple[int, int, int] = (24, 30, 27)) -> tuple[Mask, Mask]:
    """Two masks that overlap in part: smoothed noise above a threshold, one with more noise than the other."""
    ndimage = pytest.importorskip("scipy.ndimage")
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 2.0)
    other = noise + 0.6 * ndimage.gaussian_filter(rng.normal(size=shape), 1.0)
    return noise > 0.8 * noise.std(), other > 0.9 * other.std()


def values(reference: Mask, prediction: Mask, spacing: tuple[float, float, float], policy: str, *names: str) -> Any:
    return score(TruthMask(reference, spacing), prediction, names, policy).values


# By hand


@pytest.mark.parametrize("policy", ["brats2020", "brats2023"])
@pytest.mark.parametrize(("neighbour", "mm"), [((4, 3, 3), 3.0), ((3, 4, 3), 2.0), ((3, 3, 4), 1.0)])
def test_two_neighbouring_voxels_are_one_spacing_apart(neighbour: tuple[int, int, int], mm: float, policy: str) -> None:
    assert values(voxel(3, 3, 3), voxel(*neighbour), (3, 2, 1), policy, "hd95") == {"hd95_mm": pytest.approx(mm)}


def test_cube_shifted_by_one_voxel() -> None:
    truth = box((8, 8, 8), ((2, 6), (2, 6), (2, 6)))
    shifted = box((8, 8, 8), ((2, 6), (2, 6), (3, 7)))
    scores = score(TruthMask(truth, UNIT), shifted, ("dice", "hd95", "sensitivity", "precision"))
    # 4 x 4 x 3 = 48 of 64 voxels in common.
    assert scores.values == {"dice": 0.75, "hd95_mm": 1.0, "sensitivity": 0.75, "precision": 0.75}
    assert scores.counts == Counts(48, 16, 16, 64, 64)
    assert scores.convention == ""


def test_the_two_hd95_differ() -> None:
    """Truth is one voxel, the prediction a line of ten.

    Pooled: border distances 0, 0, 1, ..., 9 are 11 numbers; their 95th percentile lies halfway from 8 to 9.
    Weighted by area: the four corners at 9 mm hold 4 * sqrt(3) / 8 of 8 * sqrt(3) / 8 + 36 * sqrt(1 / 2) mm2,
    3.2 %, so the 95 % are reached at 8 mm.
    """
    truth, line = box((3, 3, 14), ((1, 2), (1, 2), (1, 2))), box((3, 3, 14), ((1, 2), (1, 2), (1, 11)))
    assert values(truth, line, UNIT, "brats2020", "hd95")["hd95_mm"] == pytest.approx(8.5)
    assert values(truth, line, UNIT, "brats2023", "hd95")["hd95_mm"] == pytest.approx(8.0)


@pytest.mark.parametrize(("tolerance_mm", "share"), [(1.0, 0.0), (2.0, 0.5), (2.9, 0.5), (3.0, 1.0)])
def test_surface_dice_at_tolerance(tolerance_mm: float, share: float) -> None:
    """Voxels 1 and 4 along z: their facing sides are 2 mm apart, the far sides 3 mm from the nearer one."""
    scores = score(TruthMask(voxel(1, 3, 3), UNIT), voxel(4, 3, 3), ("nsd",), tolerance_mm=tolerance_mm)
    assert scores.values == {"nsd": pytest.approx(share)}


def test_distance_of_exactly_the_tolerance_is_within() -> None:
    """Three steps of 0.4 mm are 1.2000000000000002 in floating point."""
    scores = score(TruthMask(voxel(1, 3, 3), (0.4, 9, 9)), voxel(4, 3, 3), ("nsd",), tolerance_mm=1.2)
    assert scores.values == {"nsd": 1.0}


def test_volumes_in_ml() -> None:
    truth, larger = box((9, 9, 9), ((1, 6), (1, 6), (1, 5))), box((9, 9, 9), ((1, 6), (1, 6), (1, 9)))
    # 100 and 200 voxels of 3 x 2 x 1 mm.
    assert values(truth, larger, (3, 2, 1), "brats2020", "volume") == {
        "volume_ml": pytest.approx(1.2),
        "reference_volume_ml": pytest.approx(0.6),
    }


def test_sensitivity_and_precision() -> None:
    truth, quarter = box((9, 9, 9), ((1, 5), (1, 5), (1, 5))), box((9, 9, 9), ((1, 5), (1, 5), (4, 6)))
    # 16 of 64 true voxels found, 16 of 32 predicted ones right.
    assert values(truth, quarter, UNIT, "brats2020", "sensitivity", "precision") == {
        "sensitivity": 0.25,
        "precision": 0.5,
    }


def test_surface_area_of_a_cube() -> None:
    """Edge of 3 voxels at (3, 2, 1) mm: 4 wall corners a side, 2 cut corners an edge, 8 corner triangles."""
    mask = TruthMask(box((5, 5, 5), ((1, 4), (1, 4), (1, 4))), (3, 2, 1)).mask
    walls = 2 * 4 * (3 * 2 + 3 * 1 + 2 * 1)
    cuts = 4 * 2 * (math.hypot(2, 3) + math.hypot(2, 6) + math.hypot(3, 6)) / 2
    corners = 8 * math.sqrt(2**2 + 3**2 + 6**2) / 8
    assert mask.surfels.areas_mm2 is not None
    assert mask.surfels.areas_mm2.sum() == pytest.approx(walls + cuts + corners)


# Empty masks

NAN = math.nan
FULL = voxel(3, 3, 3)
EXPECTED_WHEN_EMPTY = {
    # policy, truth, prediction: dice, hd95, nsd, sensitivity, precision, lesion-wise dice and hd95
    ("brats2020", "both"): (1, 0, 1, 1, 1, 1, 0),
    ("brats2020", "truth"): (0, 373.12866, 0, 0, 0, 0, 374),
    ("brats2020", "prediction"): (0, 373.12866, 0, 0, 0, 0, 374),
    ("brats2023", "both"): (1, 0, 1, 1, 1, 1, 0),
    ("brats2023", "truth"): (0, 374, 0, 0, 0, 0, 374),
    ("brats2023", "prediction"): (0, 374, 0, 0, 0, 0, 374),
    ("nan", "both"): (NAN, NAN, NAN, NAN, NAN, NAN, NAN),
    ("nan", "truth"): (0, NAN, 0, NAN, 0, 0, 374),
    ("nan", "prediction"): (0, NAN, 0, 0, NAN, 0, 374),
}


def test_every_policy_has_its_empty_cases() -> None:
    assert {policy for policy, _ in EXPECTED_WHEN_EMPTY} == set(POLICIES)


@pytest.mark.parametrize(("policy", "empty"), EXPECTED_WHEN_EMPTY)
def test_empty_masks(policy: str, empty: str) -> None:
    full = box((8, 8, 8), ((1, 5), (1, 5), (1, 5)))
    truth = EMPTY if empty in ("both", "truth") else full
    prediction = EMPTY if empty in ("both", "prediction") else full
    names = ("dice", "hd95", "nsd", "sensitivity", "precision", "lesionwise")
    scores = score(TruthMask(truth, UNIT), prediction, names, policy)
    assert list(scores.values.values()) == pytest.approx(EXPECTED_WHEN_EMPTY[policy, empty], abs=0, nan_ok=True)
    assert scores.convention == ("both_empty" if empty == "both" else "one_empty")


def test_penalty_of_brats2020_is_the_diagonal_of_its_images() -> None:
    assert POLICIES["brats2020"].one_empty_distance_mm == pytest.approx(math.hypot(240, 240, 155), abs=1e-5)


# The face


def test_score_keys_come_in_the_order_asked_for() -> None:
    scores = score(TruthMask(FULL, UNIT), FULL, list(MASK_METRICS)[::-1])
    assert list(scores.values) == [
        key for metric in list(MASK_METRICS)[::-1] for key in MASK_METRICS[metric].score_keys
    ]


def test_definitions_name_the_policy_and_the_hd95() -> None:
    assert metric_definition("brats2020", ["hd95"]).startswith("policy brats2020: HD95 is the 95th percentile of both")
    assert "373.12866 mm" in metric_definition("brats2020", ["hd95"])
    assert "surface-distance" in metric_definition("brats2023", ["hd95"])
    assert "both masks empty: undefined; one empty: Dice 0, HD95 undefined" in metric_definition("nan", ["hd95"])
    for metrics in (["dice"], ["dice", "lesionwise"]):  # whose HD95 is not the policy's
        assert metric_definition("brats2020", metrics) == (
            "policy brats2020: both masks empty: Dice 1; one empty: Dice 0"
        )


def test_unknown_names_are_named_with_the_choices() -> None:
    reference = TruthMask(FULL, UNIT)
    with pytest.raises(UsageError, match=r"'dise'; expected some of dice, hd95"):
        score(reference, FULL, ("dise",))
    with pytest.raises(UsageError, match=r"'brats2021'; expected one of brats2020"):
        score(reference, FULL, ("dice",), "brats2021")
    with pytest.raises(UsageError, match="brats2021"):
        metric_definition("brats2021", ["dice"])


def test_what_is_no_pair_of_masks_is_refused() -> None:
    reference = TruthMask(FULL, UNIT)
    with pytest.raises(ValueError, match="shape"):
        score(reference, np.zeros((8, 8, 9), np.bool_))
    with pytest.raises(ValueError, match="uint8"):
        score(reference, FULL.astype(np.uint8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 axes"):
        TruthMask(FULL[0], UNIT)
    with pytest.raises(ValueError, match="spacing"):
        TruthMask(FULL, (1, 0, 1))


def test_import_does_not_load_simpleitk() -> None:
    code = "import sys, a2fseg_cli.evaluation.metrics; sys.exit('SimpleITK' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# What must not matter

small_masks = arrays(np.bool_, (4, 5, 3), elements=st.booleans())
padding = st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 3)


@settings(max_examples=25)
@given(small_masks, small_masks, padding, st.sampled_from(SPACINGS), st.sampled_from(sorted(POLICIES)))
def test_padding_both_masks_changes_nothing(
    truth: Mask, prediction: Mask, pad: Any, spacing: tuple[float, float, float], policy: str
) -> None:
    tight = score(TruthMask(truth, spacing), prediction, MASK_METRICS, policy)
    wide = score(TruthMask(np.pad(truth, pad), spacing), np.pad(prediction, pad), MASK_METRICS, policy)
    assert wide.values == pytest.approx(tight.values, abs=1e-6, nan_ok=True)
    assert (wide.counts, wide.convention) == (tight.counts, tight.convention)


@settings(max_examples=40)
@given(small_masks, small_masks, st.sampled_from(SPACINGS), st.sampled_from(sorted(POLICIES)))
def test_truth_and_prediction_may_change_places(
    truth: Mask, prediction: Mask, spacing: tuple[float, float, float], policy: str
) -> None:
    there = values(truth, prediction, spacing, policy, "dice", "hd95", "nsd", "sensitivity")
    back = values(prediction, truth, spacing, policy, "dice", "hd95", "nsd", "precision")
    assert list(there.values()) == pytest.approx(list(back.values()), abs=1e-6, nan_ok=True)


def test_a_reference_gives_the_same_scores_however_often_and_in_whatever_order() -> None:
    """Its distance map grows with the predictions it has met."""
    truth, near = blobs(1)
    truth, near = np.pad(truth, 4), np.pad(near, 4)
    before, behind = near.copy(), near.copy()
    before[0, 1, 2] = behind[-1, -2, -3] = True
    reference = TruthMask(truth, (3, 2, 1))
    for prediction in (near, behind, near, truth, before, behind):
        assert score(reference, prediction, MASK_METRICS) == score(
            TruthMask(truth, (3, 2, 1)), prediction, MASK_METRICS
        )


def test_a_reference_is_independent_of_later_changes_to_its_mask() -> None:
    truth = FULL.copy()
    reference = TruthMask(truth, UNIT)
    truth[:] = False
    assert score(reference, FULL).values == {"dice": 1.0, "hd95_mm": 0.0}


@settings(max_examples=60)
@given(small_masks, small_masks, st.sampled_from(SPACINGS))
def test_distances_are_euclidean(surface: Mask, queries: Mask, spacing: tuple[float, float, float]) -> None:
    """Against every pair of points: the map behind it must be exact, also for points of the surface itself."""
    targets, points = np.argwhere(surface), np.argwhere(queries)
    if not len(targets) or not len(points):
        return
    pairs = (points[:, None] - targets[None]) * np.array(spacing)
    expected = np.sqrt((pairs**2).sum(axis=2)).min(axis=1)
    np.testing.assert_allclose(Surface(targets, spacing).distances_mm(points), expected, atol=1e-4, rtol=0)
    growing = Surface(targets[:1], spacing)
    alone = np.sqrt((pairs[:, 0] ** 2).sum(axis=1))
    for index in reversed(range(len(points))):
        np.testing.assert_allclose(growing.distances_mm(points[index : index + 1]), alone[index], atol=1e-4, rtol=0)


# Lesions, 1 mm voxels: a cube of edge 4 is 64 mm3 and counts

WIDE = (12, 12, 40)
EMPTY_WIDE = np.zeros(WIDE, np.bool_)


def cube(x: int, edge: int = 4, z: int = 4) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    return ((z, z + edge), (4, 4 + edge), (x, x + edge))


def lesions(truth: Mask, prediction: Mask, policy: str = "brats2023") -> LesionScores:
    rules = POLICIES[policy]
    predicted = TruthMask(prediction, UNIT).mask
    return score_lesions(
        TruthMask(truth, UNIT).lesions, predicted, rules.both_empty_overlap, rules.both_empty_distance_mm
    )


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        # Dilations of 3 voxels each meet: one lesion of 128 voxels, of which 64 are found.
        (6, LesionScores(2 / 3, pytest.approx(10.0), 1, 0, 0)),
        # One voxel more: two lesions, one found exactly, one missed.
        (7, LesionScores(0.5, 187.0, 1, 1, 0)),
    ],
)
def test_lesions_merge_when_their_dilations_touch(gap: int, expected: LesionScores) -> None:
    found, second = cube(4), cube(4 + 4 + gap)
    assert lesions(box(WIDE, found, second), box(WIDE, found)) == expected


def test_elements_of_the_dilation_differ_across_a_corner() -> None:
    """Two voxels 7 apart along all three axes: cubes of radius 3 touch at a corner that the other element lacks."""
    mask = TruthMask(box((12, 12, 12), *[((i, i + 1),) * 3 for i in (2, 9)]), UNIT).mask
    assert len(find_lesions(mask)) == len(find_lesions(mask, 26)) == 1
    assert len(find_lesions(mask, 18)) == 2


def test_small_truth_lesions_are_dropped() -> None:
    fifty, fifty_one = cube(4), ((2, 4), (4, 9), (30, 35))
    truth = box(WIDE, fifty, fifty_one)
    assert lesions(truth, box(WIDE, fifty)) == LesionScores(1.0, 0.0, 1, 0, 0)
    truth[4, 4, 30] = True
    assert lesions(truth, box(WIDE, fifty)) == LesionScores(0.5, 187.0, 1, 1, 0)


def test_what_touches_a_small_lesion_is_not_invented() -> None:
    small = box(WIDE, cube(4, edge=2))
    assert lesions(small, small) == LesionScores(1.0, 0.0, 0, 0, 0)
    assert lesions(small, EMPTY_WIDE) == LesionScores(1.0, 0.0, 0, 0, 0)
    assert math.isnan(lesions(small, small, "nan").dice)


def test_invented_components_count_whatever_their_size() -> None:
    truth = box(WIDE, cube(4))
    invented = box(WIDE, cube(4), cube(25, edge=1), cube(35, edge=1))
    assert lesions(truth, invented) == LesionScores(pytest.approx(1 / 3), pytest.approx(748 / 3), 1, 0, 2)


@pytest.mark.parametrize(("empty_voxels_between", "hit"), [(2, 1), (3, 0)])
def test_a_component_within_the_dilation_is_a_hit_without_overlap(empty_voxels_between: int, hit: int) -> None:
    found = lesions(box(WIDE, cube(4)), box(WIDE, cube(8 + empty_voxels_between)))
    assert (found.dice, found.hit, found.missed, found.invented) == (0.0, hit, 1 - hit, 1 - hit)
    assert found.hd95_mm == pytest.approx(6.0 if hit else 374.0)


def test_one_component_may_serve_two_lesions() -> None:
    truth = box(WIDE, cube(4), cube(20))
    bridge = box(WIDE, ((4, 8), (4, 8), (4, 24)))
    # 64 of 64 + 320 voxels for either.
    scores = lesions(truth, bridge)
    assert scores.dice == pytest.approx(2 * 64 / (64 + 320))
    assert (scores.hit, scores.missed, scores.invented) == (2, 0, 0)


def lesionwise_oracle(truth: Mask, prediction: Mask, spacing: tuple[float, float, float]) -> tuple[float, float]:
    """The definition again, on whole images, with scipy and surface_distance."""
    from scipy import ndimage
    from surface_distance import metrics as surface_distance

    every = np.ones((3, 3, 3))

    def reach(mask: Mask) -> Mask:
        dilated: Mask = ndimage.binary_dilation(mask, every, iterations=3)
        return dilated

    merged, n_lesions = ndimage.label(reach(truth), every)
    predicted, n_components = ndimage.label(prediction, every)
    scores, touched = [], set()
    for index in range(1, n_lesions + 1):
        lesion = truth & (merged == index)
        hits = set(np.unique(predicted[reach(lesion)])) - {0}
        touched |= hits
        if lesion.sum() * math.prod(spacing) <= 50:
            continue
        found = np.isin(predicted, list(hits)) if hits else np.zeros_like(truth)
        if not hits:
            scores.append((0.0, 374.0))
            continue
        surfaces = surface_distance.compute_surface_distances(lesion, found, spacing)
        dice = 2 * (lesion & found).sum() / (lesion.sum() + found.sum())
        scores.append((dice, surface_distance.compute_robust_hausdorff(surfaces, 95)))
    scores += [(0.0, 374.0)] * (n_components - len(touched))
    means = np.mean(scores, axis=0)
    return float(means[0]), float(means[1])


@uses_surface_distance
@pytest.mark.parametrize("seed", range(6))
def test_lesionwise_against_the_definition_on_random_blobs(seed: int) -> None:
    pytest.importorskip("surface_distance")
    spacing = SPACINGS[seed % len(SPACINGS)]
    rng = np.random.default_rng(seed)
    truth, prediction = EMPTY_WIDE.copy(), EMPTY_WIDE.copy()
    for mask in (truth, prediction, prediction):
        for z, y, x in rng.integers((0, 0, 0), WIDE, (4, 3)):
            edge = int(rng.integers(1, 6))
            mask[z : z + edge, y : y + edge, x : x + edge] = True
    prediction |= truth & (np.arange(WIDE[2]) < 20)
    ours = values(truth, prediction, spacing, "brats2023", "lesionwise")
    dice, hd95_mm = lesionwise_oracle(truth, prediction, spacing)
    assert ours["lesionwise_dice"] == pytest.approx(dice, abs=1e-6)
    assert ours["lesionwise_hd95_mm"] == pytest.approx(hd95_mm, abs=1e-4)


# Oracles


def assert_agrees_with_oracles(truth: Mask, prediction: Mask, spacing: tuple[float, float, float]) -> None:
    """MedPy for Dice and the pooled HD95, surface_distance for the directed HD95 and the surface Dice."""
    medpy = pytest.importorskip("medpy.metric.binary")
    surface_distance = pytest.importorskip("surface_distance.metrics")
    reference = TruthMask(truth, spacing)
    pooled = score(reference, prediction, ("dice", "hd95", "sensitivity", "precision"), "brats2020").values
    assert pooled["dice"] == pytest.approx(medpy.dc(prediction, truth), abs=1e-6)
    assert pooled["sensitivity"] == pytest.approx(medpy.sensitivity(prediction, truth), abs=1e-6)
    assert pooled["precision"] == pytest.approx(medpy.precision(prediction, truth), abs=1e-6)
    assert pooled["hd95_mm"] == pytest.approx(medpy.hd95(prediction, truth, spacing), abs=1e-4)

    surfaces = surface_distance.compute_surface_distances(truth, prediction, spacing)
    expected_mm = surface_distance.compute_robust_hausdorff(surfaces, 95)
    assert values(truth, prediction, spacing, "brats2023", "hd95")["hd95_mm"] == pytest.approx(expected_mm, abs=1e-4)
    for tolerance_mm in (0.5, 1.0, 2.0, 3.3):
        ours = score(reference, prediction, ("nsd",), tolerance_mm=tolerance_mm).values["nsd"]
        theirs = surface_distance.compute_surface_dice_at_tolerance(surfaces, tolerance_mm)
        assert ours == pytest.approx(theirs, abs=1e-6)


@uses_surface_distance
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(4))
def test_random_blobs_against_oracles(seed: int, spacing: tuple[float, float, float]) -> None:
    assert_agrees_with_oracles(*blobs(seed), spacing)


@uses_surface_distance
@pytest.mark.parametrize("density", [0.02, 0.3, 0.7])
def test_noise_against_oracles(density: float) -> None:
    """Every neighbour code occurs, and corners that are surrounded by surface on all sides."""
    rng = np.random.default_rng(5)
    truth, prediction = rng.random((2, 12, 11, 13)) < density
    assert_agrees_with_oracles(truth, prediction, (3, 2, 1))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_areas_of_all_neighbour_codes(spacing: tuple[float, float, float]) -> None:
    tables = pytest.importorskip("surface_distance.lookup_tables")
    theirs = tables.create_table_neighbour_code_to_surface_area(spacing)
    # Their first voxel is the highest bit, ours the lowest.
    reversed_bits = [int(f"{code:08b}"[::-1], 2) for code in range(256)]
    np.testing.assert_allclose(surfel_areas_mm2(spacing), theirs[reversed_bits], rtol=1e-12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(2))
def test_random_blobs_against_monai(seed: int) -> None:
    """Dice and surface Dice are the same functions.

    MONAI's HD95 is a third definition (larger of the two directed percentiles, border voxels, not weighted by
    area): on smooth masks it stays within one voxel of the one weighted by area.
    """
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics")
    truth, prediction = blobs(seed)
    spacing = (3.0, 2.0, 1.0)
    batch_truth, batch_prediction = (torch.from_numpy(mask)[None, None].float() for mask in (truth, prediction))
    ours = values(truth, prediction, spacing, "brats2023", "dice", "hd95", "nsd")
    dice = monai.compute_dice(batch_prediction, batch_truth, ignore_empty=False)
    assert ours["dice"] == pytest.approx(dice.item(), abs=1e-6)
    nsd = monai.compute_surface_dice(
        batch_prediction, batch_truth, [1.0], include_background=True, spacing=spacing, use_subvoxels=True
    )
    assert ours["nsd"] == pytest.approx(nsd.item(), abs=1e-6)
    hd95_mm = monai.compute_hausdorff_distance(batch_prediction, batch_truth, True, percentile=95, spacing=spacing)
    assert ours["hd95_mm"] == pytest.approx(hd95_mm.item(), abs=math.hypot(*spacing))


@uses_surface_distance
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("change", ["shifted", "eroded"])
def test_real_truth_against_oracles(cases_dir: Path, index: int, change: str) -> None:
    import SimpleITK as sitk

    ndimage = pytest.importorskip("scipy.ndimage")
    path = sorted(cases_dir.glob("*/*seg.nii.gz"))[index]
    image = sitk.ReadImage(str(path))
    truth = np.isin(sitk.GetArrayFromImage(image), (1, 3, 4))
    if change == "shifted":
        prediction = np.roll(truth, (1, -2, 3), axis=(0, 1, 2))
    else:
        prediction = ndimage.binary_erosion(truth, iterations=2)
    (window,) = ndimage.find_objects((truth | prediction).astype(np.uint8))
    spacing = image.GetSpacing()[::-1]
    assert_agrees_with_oracles(truth[window], prediction[window], spacing)
    whole = values(truth, prediction, spacing, "brats2020", *MASK_METRICS)
    assert whole == pytest.approx(values(truth[window], prediction[window], spacing, "brats2020", *MASK_METRICS))
