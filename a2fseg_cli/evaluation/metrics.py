"""Scores of a predicted mask against the truth: overlap, surface distances, lesions, volumes.

The names of the metrics and policies are plain data, so that `--help` shares them without SimpleITK.
Masks are boolean arrays (D, H, W); spacing is (z, y, x) in mm; undefined is `math.nan`. Beyond the edge of
an image there is background, so padding both masks with zeros changes no score.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from a2fseg_cli.errors import UsageError

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.integer]
FloatArray = npt.NDArray[np.float64]
Box = tuple[IntArray, IntArray]
Convention = Literal["", "both_empty", "one_empty"]

PERCENTILE = 95
NSD_TOLERANCE_MM = 1.0

# BraTS 2023, adult glioma. Truth lesions merge when their dilations touch; 50 voxels of 1 mm are dropped, 51 count.
LESION_DILATIONS = 3
LESION_DILATION_CONNECTIVITY = 26
LESION_DROPPED_MM3 = 50.0
LESION_PENALTY_MM = 374.0


@dataclass(frozen=True)
class Metric:
    """A metric that can be asked for.

    Attributes:
        score_keys: Names of the scores it yields, unit as suffix.
        definition: One line for help texts and file headers.
    """

    score_keys: tuple[str, ...]
    definition: str


METRICS: dict[str, Metric] = {
    "dice": Metric(("dice",), "2 TP / (2 TP + FP + FN)"),
    "hd95": Metric(("hd95_mm",), "95th percentile of the surface distances, in the definition of the policy"),
    "nsd": Metric(("nsd",), "normalised surface Dice at a tolerance, as google-deepmind/surface-distance defines it"),
    "lesionwise": Metric(
        ("lesionwise_dice", "lesionwise_hd95_mm"),
        f"BraTS 2023, adult glioma: truth merged by {LESION_DILATIONS} dilations "
        f"({LESION_DILATION_CONNECTIVITY}-connected), truth lesions of {LESION_DROPPED_MM3:g} mm3 or less dropped, "
        f"missed or invented lesions Dice 0 and HD95 {LESION_PENALTY_MM:g} mm",
    ),
    "sensitivity": Metric(("sensitivity",), "TP / (TP + FN)"),
    "precision": Metric(("precision",), "TP / (TP + FP)"),
    "volume": Metric(("volume_ml", "reference_volume_ml"), "predicted and true volume"),
}
DEFAULT_METRICS = ("dice", "hd95")


@dataclass(frozen=True)
class Policy:
    """What a score is where a mask is empty, and which HD95 is meant.

    Attributes:
        hd95: `pooled` or `directed`, see `HD95_DEFINITIONS`.
        both_empty_overlap: Dice, surface Dice, sensitivity and precision where both masks are empty.
        both_empty_distance_mm: HD95 where both masks are empty.
        one_empty_distance_mm: HD95 where exactly one mask is empty; Dice and surface Dice are 0 there.
        undefined_ratio: Sensitivity or precision where its denominator is 0 though one mask is not empty.
    """

    hd95: Literal["pooled", "directed"]
    both_empty_overlap: float
    both_empty_distance_mm: float
    one_empty_distance_mm: float
    undefined_ratio: float


# 373.12866 mm is the diagonal of 240 x 240 x 155 voxels of 1 mm, as nnU-Net's evaluation of BraTS 2020 writes it.
POLICIES: dict[str, Policy] = {
    "brats2020": Policy("pooled", 1.0, 0.0, 373.12866, 0.0),
    "brats2023": Policy("directed", 1.0, 0.0, 374.0, 0.0),
    "nan": Policy("directed", math.nan, math.nan, math.nan, math.nan),
}
DEFAULT_POLICY = "brats2020"

HD95_DEFINITIONS = {
    "pooled": "95th percentile of both directed distances pooled, between border voxels (MedPy's definition)",
    "directed": "larger of the two directed 95th percentiles, weighted by surface element area "
    "(google-deepmind/surface-distance)",
}


def metric_definition(policy: str) -> str:
    """Return one line that names the policy, its HD95 and its empty cases, for the header of a file of scores.

    Raises:
        UsageError: no such policy.
    """
    rules = _policy(policy)
    both = "undefined"
    if not math.isnan(rules.both_empty_overlap):
        both = f"Dice {rules.both_empty_overlap:g}, HD95 {rules.both_empty_distance_mm:g} mm"
    one = "undefined"
    if not math.isnan(rules.one_empty_distance_mm):
        one = f"{rules.one_empty_distance_mm:.8g} mm"
    return (
        f"policy {policy}: HD95 is the {HD95_DEFINITIONS[rules.hd95]}; "
        f"both masks empty: {both}; one empty: Dice 0, HD95 {one}"
    )


@dataclass(frozen=True)
class Counts:
    """Raw voxel counts of one region, from which any other convention can be recomputed."""

    true_positives: int
    false_positives: int
    false_negatives: int
    reference_voxels: int
    predicted_voxels: int


@dataclass(frozen=True)
class Scores:
    """Scores of one region of one patient.

    Attributes:
        values: Score by key (`METRICS[...].score_keys`), in the order asked for; NaN where undefined.
        counts: Raw voxel counts.
        convention: `both_empty` or `one_empty` where the policy's convention, not the masks, decided values.
        lesions: What the lesion-wise means are made of; None unless `lesionwise` was asked for.
    """

    values: dict[str, float]
    counts: Counts
    convention: Convention
    lesions: LesionScores | None = None

    def row(self) -> dict[str, float | int | str]:
        """Return the scores, the counts and the convention as one flat row of a table."""
        row: dict[str, float | int | str] = {**self.values, **asdict(self.counts)}
        if self.lesions:
            row |= {f"lesions_{kind}": getattr(self.lesions, kind) for kind in ("hit", "missed", "invented")}
        return row | {"convention": self.convention}


def score(
    reference: Reference,
    prediction: BoolArray,
    metrics: Iterable[str] = DEFAULT_METRICS,
    policy: str = DEFAULT_POLICY,
    tolerance_mm: float = NSD_TOLERANCE_MM,
) -> Scores:
    """Return the scores of a predicted mask.

    Args:
        reference: The true mask, prepared once and used for any number of predictions.
        prediction: Predicted mask (D, H, W), the reference's shape.
        metrics: Keys of `METRICS`.
        policy: Key of `POLICIES`.
        tolerance_mm: Distance up to which surfaces agree, for `nsd`.

    Raises:
        UsageError: no such metric or policy.
        ValueError: the masks differ in shape, or the prediction is not boolean.
    """
    rules = _policy(policy)
    predicted = CroppedMask.from_array(prediction, reference.mask.spacing_mm)
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction has the shape {prediction.shape}, the reference {reference.shape}")
    counts = _count(reference.mask, predicted)
    values: dict[str, float] = {}
    lesions: LesionScores | None = None
    for metric in metrics:
        if metric not in METRICS:
            raise UsageError(f"Unknown metric {metric!r}; expected some of {', '.join(METRICS)}.")
        if metric == "lesionwise":
            lesions = score_lesions(reference, predicted, rules)
            values |= {"lesionwise_dice": lesions.dice, "lesionwise_hd95_mm": lesions.hd95_mm}
        else:
            values |= _values(metric, reference.mask, predicted, counts, rules, tolerance_mm)
    return Scores(values, counts, _convention(counts), lesions)


class Reference:
    """A true mask with everything about it that does not depend on the prediction, computed once when needed.

    Args:
        mask: Boolean mask (D, H, W). It is copied as far as needed; later changes have no effect.
        spacing_mm: Voxel spacing (z, y, x).

    Raises:
        ValueError: the mask is not a boolean (D, H, W) array, or the spacing is not three positive numbers.
    """

    def __init__(self, mask: BoolArray, spacing_mm: Sequence[float]) -> None:
        self.mask = CroppedMask.from_array(mask, spacing_mm)
        self.shape = mask.shape

    @cached_property
    def lesions(self) -> list[Lesion]:
        """The lesions of the mask after merging, small ones included."""
        return find_lesions(self.mask)


def _policy(name: str) -> Policy:
    if name not in POLICIES:
        raise UsageError(f"Unknown policy {name!r}; expected one of {', '.join(POLICIES)}.")
    return POLICIES[name]


def _convention(counts: Counts) -> Convention:
    if counts.reference_voxels and counts.predicted_voxels:
        return ""
    return "one_empty" if counts.reference_voxels or counts.predicted_voxels else "both_empty"


def _values(
    metric: str, reference: CroppedMask, predicted: CroppedMask, counts: Counts, rules: Policy, tolerance_mm: float
) -> dict[str, float]:
    """Return the scores of one metric by key; lesion-wise scores have a function of their own."""
    empty = _convention(counts)
    if metric == "volume":
        return {"volume_ml": predicted.volume_mm3 / 1000, "reference_volume_ml": reference.volume_mm3 / 1000}
    if metric == "hd95":
        if empty:
            distance = rules.both_empty_distance_mm if empty == "both_empty" else rules.one_empty_distance_mm
            return {"hd95_mm": distance}
        hd95 = pooled_hd95_mm if rules.hd95 == "pooled" else directed_hd95_mm
        return {"hd95_mm": hd95(reference, predicted)}
    if empty == "both_empty":
        return {metric: rules.both_empty_overlap}
    if metric == "nsd":
        return {"nsd": 0.0 if empty else surface_dice(reference, predicted, tolerance_mm)}
    hits = counts.true_positives
    if metric == "dice":
        return {"dice": 2 * hits / (counts.reference_voxels + counts.predicted_voxels)}
    whole = counts.reference_voxels if metric == "sensitivity" else counts.predicted_voxels
    return {metric: hits / whole if whole else rules.undefined_ratio}


class CroppedMask:
    """A mask cropped to its bounding box, with its surfaces, each computed once when needed.

    Attributes:
        crop: The mask inside its bounding box; (0, 0, 0) voxels where it is empty.
        start: Index (z, y, x) of the crop's first voxel in the image.
        spacing_mm: Voxel spacing (z, y, x).
        voxels: Number of voxels that are set.
    """

    def __init__(self, crop: BoolArray, start: IntArray, spacing_mm: tuple[float, float, float]) -> None:
        self.crop = crop
        self.start = start
        self.spacing_mm = spacing_mm
        self.voxels = int(np.count_nonzero(crop))

    @classmethod
    def from_array(cls, mask: BoolArray, spacing_mm: Sequence[float]) -> CroppedMask:
        """Return the mask of a whole image (D, H, W). Raises: ValueError."""
        if mask.dtype != np.bool_ or mask.ndim != 3:
            raise ValueError(f"expected a boolean (D, H, W) mask, got {mask.dtype} with {mask.ndim} axes")
        if len(spacing_mm) != 3 or not all(0 < mm < math.inf for mm in spacing_mm):
            raise ValueError(f"expected a spacing of three positive numbers in mm, got {tuple(spacing_mm)}")
        z, y, x = map(float, spacing_mm)
        start = np.zeros(3, np.int64)
        for axis in range(3):
            others = tuple(other for other in range(3) if other != axis)
            filled = np.flatnonzero(mask.any(axis=others))
            first, stop = (int(filled[0]), int(filled[-1]) + 1) if filled.size else (0, 0)
            mask = mask[(slice(None),) * axis + (slice(first, stop),)]
            start[axis] = first
        return cls(mask.copy(), start, (z, y, x))

    @classmethod
    def from_points(cls, points: IntArray, spacing_mm: tuple[float, float, float]) -> CroppedMask:
        """Return the mask of the voxels `points` (N, 3), N at least 1."""
        start = points.min(axis=0)
        crop = np.zeros(points.max(axis=0) - start + 1, np.bool_)
        crop[tuple((points - start).T)] = True
        return cls(crop, start, spacing_mm)

    @property
    def volume_mm3(self) -> float:
        """Volume of the voxels that are set."""
        return self.voxels * math.prod(self.spacing_mm)

    @cached_property
    def border(self) -> Surface:
        """Centres of the voxels with at least one of their six face neighbours outside the mask."""
        padded = np.pad(self.crop, 1)
        middle = slice(1, -1)
        border = self.crop.copy()
        inner = padded[:-2, middle, middle] & padded[2:, middle, middle]
        for neighbours in (
            (padded[middle, :-2, middle], padded[middle, 2:, middle]),
            (padded[middle, middle, :-2], padded[middle, middle, 2:]),
        ):
            inner &= neighbours[0]
            inner &= neighbours[1]
        border &= ~inner
        return Surface(np.argwhere(border) + self.start, self.spacing_mm)

    @cached_property
    def surfels(self) -> Surface:
        """Corners where voxels in and out of the mask meet, with the area of the surface that passes there.

        Corner (z, y, x) lies between the voxels (z - 1, y - 1, x - 1) and (z, y, x).
        """
        padded = np.pad(self.crop, 1).astype(np.uint8)
        codes = np.zeros([size + 1 for size in self.crop.shape], np.uint8)
        for bit, (z, y, x) in enumerate(_CUBE):
            codes |= padded[z : z + codes.shape[0], y : y + codes.shape[1], x : x + codes.shape[2]] << bit
        points = np.argwhere((codes != 0) & (codes != 255))
        areas_mm2 = surfel_areas_mm2(self.spacing_mm)[codes[tuple(points.T)]]
        return Surface(points + self.start, self.spacing_mm, areas_mm2)


def _count(reference: CroppedMask, predicted: CroppedMask) -> Counts:
    """Return the voxel counts of two masks of one image."""
    box = _intersection(_box(reference), _box(predicted))
    hits = 0
    if box is not None:
        hits = int(np.count_nonzero(reference.crop[_inside(box, reference)] & predicted.crop[_inside(box, predicted)]))
    return Counts(hits, predicted.voxels - hits, reference.voxels - hits, reference.voxels, predicted.voxels)


def _box(mask: CroppedMask) -> Box:
    return mask.start, mask.start + np.array(mask.crop.shape)


def _intersection(first: Box, second: Box) -> Box | None:
    """Return the common part of two boxes (first voxel, one past the last), None where there is none."""
    start, stop = np.maximum(first[0], second[0]), np.minimum(first[1], second[1])
    return (start, stop) if (start < stop).all() else None


def _inside(box: Box, mask: CroppedMask) -> tuple[slice, ...]:
    """Return the slices of a mask's crop that cover a box within it."""
    return tuple(slice(int(first), int(last)) for first, last in zip(*(edge - mask.start for edge in box), strict=True))


class Surface:
    """Points of a surface on a regular grid, and distances to them.

    The distance map is kept with the box it covers, so that many predictions near one truth share it.

    Attributes:
        points: Grid indices (N, 3), N at least 1.
        areas_mm2: Area at each point (N,), or None where all count alike.
    """

    def __init__(
        self, points: IntArray, spacing_mm: tuple[float, float, float], areas_mm2: FloatArray | None = None
    ) -> None:
        self.points = points
        self.areas_mm2 = areas_mm2
        self._spacing_mm = spacing_mm
        self._box: Box = points.min(axis=0), points.max(axis=0) + 1
        self._squared_mm2: npt.NDArray[np.float32] | None = None

    def distances_mm(self, points: IntArray) -> FloatArray:
        """Return the distance (N,) from each of the grid indices (N, 3) to the nearest point of this surface."""
        start = np.minimum(self._box[0], points.min(axis=0))
        stop = np.maximum(self._box[1], points.max(axis=0) + 1)
        if self._squared_mm2 is None or (start < self._box[0]).any() or (stop > self._box[1]).any():
            self._box = start, stop
            self._squared_mm2 = self._distance_map(start, stop)
        squared = self._squared_mm2[tuple((points - self._box[0]).T)].astype(np.float64)
        # Maurer's map is signed: points of the surface itself may lie inside it. They are at distance 0.
        distances_mm: FloatArray = np.sqrt(np.maximum(squared, 0))
        return distances_mm

    def _distance_map(self, start: IntArray, stop: IntArray) -> npt.NDArray[np.float32]:
        """Return the squared distances in a box. Background all round it: Maurer's map needs some to be exact."""
        import SimpleITK as sitk

        surface = np.zeros(stop - start + 2, np.uint8)
        surface[tuple((self.points - start + 1).T)] = 1
        image = sitk.GetImageFromArray(surface)
        image.SetSpacing(self._spacing_mm[::-1])
        squared = sitk.SignedMaurerDistanceMap(image, False, True, True)
        distances: npt.NDArray[np.float32] = sitk.GetArrayFromImage(squared)[1:-1, 1:-1, 1:-1]
        return distances


def pooled_hd95_mm(reference: CroppedMask, predicted: CroppedMask) -> float:
    """Return the 95th percentile of both directed border distances pooled, as MedPy's `hd95` defines it.

    Neither mask may be empty.
    """
    first, second = reference.border, predicted.border
    distances_mm = np.concatenate((second.distances_mm(first.points), first.distances_mm(second.points)))
    return float(np.percentile(distances_mm, PERCENTILE))


def directed_hd95_mm(reference: CroppedMask, predicted: CroppedMask) -> float:
    """Return the larger of the two directed 95th percentiles, each surface element weighted by its area.

    As `compute_robust_hausdorff` of google-deepmind/surface-distance defines it: the first distance at which
    the elements up to it hold 95 % of the area. Neither mask may be empty.
    """
    first, second = reference.surfels, predicted.surfels
    return max(
        _area_percentile(second.distances_mm(first.points), _areas(first)),
        _area_percentile(first.distances_mm(second.points), _areas(second)),
    )


def _areas(surface: Surface) -> FloatArray:
    assert surface.areas_mm2 is not None
    return surface.areas_mm2


def _area_percentile(distances_mm: FloatArray, areas_mm2: FloatArray) -> float:
    order = np.lexsort((areas_mm2, distances_mm))
    share = np.cumsum(areas_mm2[order]) / np.sum(areas_mm2)
    index = min(int(np.searchsorted(share, PERCENTILE / 100)), len(order) - 1)
    return float(distances_mm[order[index]])


def surface_dice(reference: CroppedMask, predicted: CroppedMask, tolerance_mm: float) -> float:
    """Return the share of both surfaces' area that lies within a tolerance of the other surface.

    As `compute_surface_dice_at_tolerance` of google-deepmind/surface-distance defines it, except that a
    distance of exactly the tolerance counts as within it however floating point rounds (three steps of
    0.4 mm are 1.2 mm). Neither mask may be empty.
    """
    first, second = reference.surfels, predicted.surfels
    limit_mm = tolerance_mm * (1 + 1e-6)
    near_mm2 = np.sum(_areas(first)[second.distances_mm(first.points) <= limit_mm])
    near_mm2 += np.sum(_areas(second)[first.distances_mm(second.points) <= limit_mm])
    return float(near_mm2 / (np.sum(_areas(first)) + np.sum(_areas(second))))


# The eight voxels round a corner; voxel k sets bit k of the corner's neighbour code.
_CUBE = tuple(itertools.product((0, 1), repeat=3))

# Area vectors of the surface round a corner, in eighths of a voxel face, one a direction, without sign: the
# triangles of marching cubes with vertices halfway along the edges. (1, 1, 1) cuts one voxel corner off;
# (8, 0, 0) is a flat wall across axis 0. These facts of google-deepmind/surface-distance's triangulation are
# the same under rotation, mirroring and complement, which leave 13 neighbour codes with a surface.
_SURFACE_CODES = {
    0b00000001: ((1, 1, 1),),
    0b00000011: ((4, 4, 0),),
    0b00000110: ((2, 2, 2),),
    0b00000111: ((3, 3, 3), (4, 0, 0)),
    0b00001111: ((8, 0, 0),),
    0b00010110: ((3, 3, 3),),
    0b00010111: ((6, 6, 6),),
    0b00011000: ((2, 2, 2),),
    0b00011001: ((1, 1, 1), (0, 4, 4)),
    0b00011011: ((4, 4, 4), (0, 2, 2), (2, 0, 2)),
    0b00011110: ((4, 4, 4), (4, 0, 0)),
    0b00111100: ((8, 8, 0),),
    0b01101001: ((4, 4, 4),),
}


@cache
def surfel_areas_mm2(spacing_mm: tuple[float, float, float]) -> FloatArray:
    """Return the area of the surface that passes round a corner, for each of the 256 neighbour codes.

    Args:
        spacing_mm: Voxel spacing (z, y, x).
    """
    z, y, x = spacing_mm
    faces_mm2 = np.array([y * x, z * x, z * y])
    areas = np.zeros(256)
    for code, vectors in _SURFACE_CODES.items():
        for order in itertools.permutations(range(3)):
            area = sum(float(np.linalg.norm(np.array(vector)[list(order)] / 8 * faces_mm2)) for vector in vectors)
            for mirrored in _CUBE:
                turned = _turn(code, order, mirrored)
                areas[turned] = areas[255 - turned] = area
    return areas


def _turn(code: int, order: Sequence[int], mirrored: Sequence[int]) -> int:
    """Return the neighbour code after its axes were permuted and then mirrored."""
    turned = 0
    for bit, corner in enumerate(_CUBE):
        if code >> bit & 1:
            z, y, x = (corner[axis] ^ flip for axis, flip in zip(order, mirrored, strict=True))
            turned |= 1 << (4 * z + 2 * y + x)
    return turned


@dataclass(frozen=True)
class Lesion:
    """A lesion of the truth: components that merge when dilated.

    Attributes:
        mask: Its own voxels.
        reach: Its voxels dilated, inside a crop of their own.
    """

    mask: CroppedMask
    reach: CroppedMask


@dataclass(frozen=True)
class LesionScores:
    """Means over the lesions that were hit, missed or invented.

    Attributes:
        dice: Mean Dice.
        hd95_mm: Mean HD95.
        hit: Truth lesions above the size limit whose dilation a predicted component touches.
        missed: The other truth lesions above the size limit.
        invented: Predicted components that touch no truth lesion's dilation, of any size.
    """

    dice: float
    hd95_mm: float
    hit: int
    missed: int
    invented: int


def find_lesions(mask: CroppedMask, connectivity: int = LESION_DILATION_CONNECTIVITY) -> list[Lesion]:
    """Return the lesions of a mask: its parts inside the 26-connected components of the dilated mask.

    Args:
        mask: The true mask.
        connectivity: Neighbourhood of one dilation step: 26 (a cube) or 18 (a cube without its corners).
    """
    if not mask.voxels:
        return []
    dilated = _dilate(np.pad(mask.crop, LESION_DILATIONS), connectivity)
    inner = (slice(LESION_DILATIONS, -LESION_DILATIONS),) * 3
    points = np.argwhere(mask.crop)
    merged = _components(dilated)[inner][tuple(points.T)]
    lesions = []
    for part in _split(points + mask.start, merged).values():
        lesion = CroppedMask.from_points(part, mask.spacing_mm)
        reach = _dilate(np.pad(lesion.crop, LESION_DILATIONS), connectivity)
        lesions.append(Lesion(lesion, CroppedMask(reach, lesion.start - LESION_DILATIONS, mask.spacing_mm)))
    return lesions


def score_lesions(reference: Reference, predicted: CroppedMask, rules: Policy) -> LesionScores:
    """Return the lesion-wise scores of BraTS 2023 for adult glioma.

    Every truth lesion is compared with all predicted 26-connected components that touch its dilation; one
    component may serve several lesions. Small truth lesions do not count, but what touches them is not invented.

    Args:
        reference: The true mask.
        predicted: The predicted mask.
        rules: Policy, for patients without any lesion that counts.
    """
    labels = _components(predicted.crop) if predicted.voxels else np.zeros(predicted.crop.shape, np.uint32)
    points = np.argwhere(predicted.crop)
    components = _split(points + predicted.start, labels[tuple(points.T)])
    touched: set[int] = set()
    scores: list[tuple[float, float]] = []
    missed = 0
    for lesion in reference.lesions:
        touching = _touching(lesion.reach, predicted, labels)
        touched |= touching
        if lesion.mask.volume_mm3 <= LESION_DROPPED_MM3:
            continue
        if not touching:
            missed += 1
            continue
        found = CroppedMask.from_points(
            np.concatenate([components[key] for key in sorted(touching)]), predicted.spacing_mm
        )
        counts = _count(lesion.mask, found)
        dice = 2 * counts.true_positives / (counts.reference_voxels + counts.predicted_voxels)
        scores.append((dice, directed_hd95_mm(lesion.mask, found)))
    invented = len(components) - len(touched)
    total = len(scores) + missed + invented
    if not total:
        return LesionScores(rules.both_empty_overlap, rules.both_empty_distance_mm, 0, 0, 0)
    hd95_mm = (sum(distance for _, distance in scores) + (missed + invented) * LESION_PENALTY_MM) / total
    return LesionScores(sum(dice for dice, _ in scores) / total, hd95_mm, len(scores), missed, invented)


def _touching(reach: CroppedMask, predicted: CroppedMask, labels: npt.NDArray[np.uint32]) -> set[int]:
    """Return the predicted components that share a voxel with a lesion's dilation."""
    box = _intersection(_box(reach), _box(predicted))
    if box is None:
        return set()
    return set(np.unique(labels[_inside(box, predicted)][reach.crop[_inside(box, reach)]]).tolist()) - {0}


def _components(mask: BoolArray) -> npt.NDArray[np.uint32]:
    """Return the 26-connected components of a mask, numbered from 1."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    labels: npt.NDArray[np.uint32] = sitk.GetArrayFromImage(sitk.ConnectedComponent(image, True))
    return labels


def _split(points: IntArray, keys: IntArray) -> dict[int, IntArray]:
    """Return the points (N, 3) grouped by their keys (N,)."""
    order = np.argsort(keys, kind="stable")
    names, starts = np.unique(keys[order], return_index=True)
    return dict(zip(names.tolist(), np.split(points[order], starts[1:]), strict=False))


def _dilate(mask: BoolArray, connectivity: int) -> BoolArray:
    """Return a mask dilated `LESION_DILATIONS` times.

    A cube is three lines one after the other; a cube without its corners is the union of three squares.
    """
    squares = {26: ((0, 1, 2),), 18: ((0, 1), (0, 2), (1, 2))}[connectivity]
    for _ in range(LESION_DILATIONS):
        steps = []
        for axes in squares:
            step = mask
            for axis in axes:
                step = _dilate_line(step, axis)
            steps.append(step)
        mask = np.logical_or.reduce(steps)
    return mask


def _dilate_line(mask: BoolArray, axis: int) -> BoolArray:
    """Return a mask with the two neighbours of every voxel along one axis set as well."""
    dilated = mask.copy()
    along_out, along_in = np.moveaxis(dilated, axis, 0), np.moveaxis(mask, axis, 0)
    along_out[1:] |= along_in[:-1]
    along_out[:-1] |= along_in[1:]
    return dilated
