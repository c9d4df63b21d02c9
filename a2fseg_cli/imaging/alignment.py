"""Do sequences on one grid show the brain in one place, and all of it? A quick look before the network's.

A grid says where the voxels lie, not the brain: a sequence that was never co-registered, but resampled to another's
grid, passes every check of sizes and origins. FLAIR turned by 3 degrees and 3 mm costs 0.07 of the whole tumour's
Dice, by 10 degrees and 15 mm 0.32.

Two sequences show the same borders between tissues in different grey values, dark to bright in one and bright to dark
in the other. What is compared is therefore the direction of the border alone, not its sign: the products
g gᵀ / (|g|² + a little) of the gradient g (normalised gradient fields: Haber and Modersitzki, MICCAI 2006). A rigid
motion is fitted to it by Gauss-Newton steps in which the gradients of the reference stand still (inverse
compositional: Baker and Matthews, IJCV 2004). Only the inside of the brain counts: outlines agree wherever one mask
was laid over all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]
Triple = tuple[float, float, float]

# On 82 BraTS patients with four sequences: each of the four turned by 3 degrees and 3 mm is found in all of them (at
# 2.5 mm one T2 is missed); FLAIR by 1 degree and 1 mm is warned of in 6, five of which are warned of as they are.
MOST_DEGREES = 2.0
MOST_MM = 2.3
# At 4 mm the angle's error doubles; at 2 mm the time does.
_GRID_MM = 3.0
# All points of the brain (about 30,000) find nothing that 8,000 do not; 4,000 double the largest error.
_POINTS = 8000
_FEWEST_POINTS = 500
_STEPS = 10
# A step that moves no voxel by more than this ends the fit.
_SMALL_STEP_MM = 0.05
# Added to |g|², in medians of |g|² in the brain: weaker borders than that count less.
_WEAK = 0.3
# A turned stack of the six products g gᵀ as a vector: an orthonormal base of the symmetric matrices.
_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
_BASE = np.zeros((6, 3, 3))
for _k, (_a, _b) in enumerate(_PAIRS):
    _BASE[_k, _a, _b] = _BASE[_k, _b, _a] = 1.0 if _a == _b else np.sqrt(0.5)
# Coarse to fine: voxels of the working grid, and whether the products are averaged over 3 x 3 x 3 of them. Averaged
# ones lead from far (10 degrees and 15 mm; without, a third of the way), plain ones end nearer.
_LEVELS = ((2, True), (1, True), (1, False))
# A gap holds cubes of three working voxels in a row, 9 mm. Of 400 sequences one has a gap above 3.7 mL that way: the
# one whose field of view is cut, 537 mL. Plainly counted, rims of up to 17 mL differ between masks.
_LEAST_GAP_ML = 10.0


@dataclass(frozen=True)
class Misalignment:
    """A sequence that lies elsewhere than another.

    Attributes:
        moving: The sequence that is off.
        against: The one it was compared with.
        degrees: Angle of the rigid motion between the two, at least 0.
        mm: How far it moves the brain's points on average.
    """

    moving: str
    against: str
    degrees: float
    mm: float

    @property
    def message(self) -> str:
        """The finding in words."""
        angle = "1 degree" if round(self.degrees) == 1 else f"{self.degrees:.0f} degrees"
        return f"{self.moving} lies about {angle} and {self.mm:.0f} mm off {self.against}: co-register the sequences"


@dataclass(frozen=True)
class Gap:
    """A sequence that shows too little of the brain.

    Attributes:
        name: The sequence.
        missing_ml: How much of the brain it does not show, in mL.
        against: The sequences that show it.
    """

    name: str
    missing_ml: float
    against: tuple[str, ...]

    @property
    def message(self) -> str:
        """The finding in words."""
        others = self.against
        shown = f"{others[0]} shows" if len(others) == 1 else f"{', '.join(others[:-1])} and {others[-1]} show"
        return f"{self.name} does not cover {self.missing_ml:.0f} mL of the brain that {shown}"


def misalignments(
    images: Mapping[str, Field], masks: Mapping[str, Mask], spacing_mm: Sequence[float], threads: int = 2
) -> list[Misalignment]:
    """Return the sequences that lie more than 2 degrees or 2.3 mm off the others.

    Two sequences that agree are linked, and so are those that agree with the same third: of two noisy ones, each may
    agree with the sharp one only. The largest linked group is right; of two as large, the one with `t1c`, then the one
    with the first sequence. Every sequence outside it is reported against `t1c` or else the first of the group. With
    two sequences nobody can say which one moved: the second is reported, or the one that is not `t1c`.

    With two sequences no third one can vouch for a noisy pair: of 82 patients as they are, T1c and FLAIR alone warn of
    3, of 18 others of 4; with all four sequences 5 and 2.

    A sequence with fewer than 500 points of 3 mm inside its brain cannot be judged and is left out.

    Args:
        images: By sequence, (D, H, W) float32, all on one grid, axes canonical (any order of axes gives the same).
        masks: By sequence, (D, H, W), where the image shows brain.
        spacing_mm: Of that grid (z, y, x).
        threads: How many sequences are worked on at a time. It changes no result.

    Raises:
        ValueError: masks of other sequences than the images, or of another shape.
    """
    if set(images) != set(masks) or len({a.shape for a in (*images.values(), *masks.values())}) > 1:
        raise ValueError("every image needs a mask, all of one shape")
    names = sorted(images, key=lambda name: name != "t1c")
    box = _bounding_box(masks.values())
    if len(names) < 2 or box is None:
        return []
    factors = _factors(spacing_mm)

    def look(name: str) -> list[_Level]:
        image, share = _shrink(images[name][box], masks[name][box], factors)
        return _levels(image, share, [s * f for s, f in zip(spacing_mm, factors, strict=True)])

    with ThreadPoolExecutor(threads) as pool:
        levels = dict(zip(names, pool.map(look, names), strict=True))
        names = [name for name in names if np.count_nonzero(levels[name][-1].inside) >= _FEWEST_POINTS]
        if len(names) < 2:
            return []
        references: dict[str, _Reference] = {}
        found: dict[tuple[str, str], tuple[float, float]] = {}

        def fit(pairs: list[tuple[str, str]]) -> None:
            new = [name for name in dict.fromkeys(a for a, _ in pairs) if name not in references]
            references.update(zip(new, pool.map(lambda name: _Reference(levels[name]), new), strict=True))
            motions = pool.map(lambda pair: references[pair[0]].motion(levels[pair[1]]), pairs)
            found.update(zip(pairs, motions, strict=True))

        def apart() -> list[tuple[str, str]]:
            groups = _groups(names, found)
            return [pair for pair in combinations(names, 2) if not any(set(pair) <= set(group) for group in groups)]

        fit([(names[0], name) for name in names[1:]])
        # Only those that the first sequence does not link are compared with the others, and then the other way round.
        fit([pair for pair in apart() if pair not in found])
        fit([(b, a) for a, b in apart()])
    first, *others = _groups(names, found)
    reference = first[0]
    moved = sorted((name for group in others for name in group), key=names.index)
    result = []
    for name in moved:
        result.append(Misalignment(name, reference, *found[reference, name]))
    return result


def _groups(names: list[str], found: Mapping[tuple[str, str], tuple[float, float]]) -> list[list[str]]:
    """Return the names in linked groups, the largest first."""
    groups = [[name] for name in names]
    for (a, b), (degrees, mm) in found.items():
        if degrees <= MOST_DEGREES and mm <= MOST_MM:
            linked = [group for group in groups if a in group or b in group]
            groups = [group for group in groups if group not in linked] + [[n for group in linked for n in group]]
    groups = [sorted(group, key=names.index) for group in groups]
    return sorted(groups, key=lambda group: (-len(group), names.index(group[0])))


def coverage_gaps(masks: Mapping[str, Mask], spacing_mm: Sequence[float]) -> list[Gap]:
    """Return the sequences that do not show a part of the brain that most of the others show.

    The part has to hold more than 10 mL in pieces of 9 mm and more: masks of two sequences differ by a rim. What the
    sequence shows beyond the others is taken off: a brain that lies elsewhere as a whole lacks nothing (that is for
    `misalignments`). With two sequences, only the one with the smaller brain can have a gap.

    Args:
        masks: By sequence, (D, H, W), where the image shows brain; all on one grid.
        spacing_mm: Of that grid (z, y, x).

    Raises:
        ValueError: masks of different shapes.
    """
    if len({mask.shape for mask in masks.values()}) > 1:
        raise ValueError("the masks must have one shape")
    box = _bounding_box(masks.values())
    if len(masks) < 2 or box is None:
        return []
    factors = _factors(spacing_mm)
    cell_ml = float(np.prod(factors) * np.prod(spacing_mm)) / 1000
    shown = {name: _sums(mask[box], factors) > np.prod(factors) / 2 for name, mask in masks.items()}
    smallest = min(shown, key=lambda name: int(np.count_nonzero(shown[name])))
    gaps = []
    for name, own in shown.items():
        others = {other: mask for other, mask in shown.items() if other != name}
        if len(others) == 1 and name != smallest:
            continue
        most: Mask = np.sum(list(others.values()), axis=0) > len(others) / 2
        missing: Mask = most & ~own
        beyond: Mask = own & ~most
        missing_ml = (np.count_nonzero(missing) - np.count_nonzero(beyond)) * cell_ml
        thick_ml = (np.count_nonzero(_thick(missing)) - np.count_nonzero(_thick(beyond))) * cell_ml
        if min(missing_ml, thick_ml) > _LEAST_GAP_ML:
            against = tuple(o for o, mask in others.items() if 2 * np.count_nonzero(mask & missing) > missing.sum())
            gaps.append(Gap(name, missing_ml, against))
    return gaps


def _bounding_box(masks: Iterable[Mask]) -> tuple[slice, slice, slice] | None:
    """Return the smallest box that holds every true voxel of all masks; None if there is none."""
    first: list[float] = [np.inf] * 3
    last: list[float] = [-np.inf] * 3
    for mask in masks:
        plane = np.any(mask, axis=0)
        for axis, hit in enumerate((np.any(mask, axis=(1, 2)), np.any(plane, axis=1), np.any(plane, axis=0))):
            where = np.flatnonzero(hit)
            if len(where):
                first[axis], last[axis] = min(first[axis], where[0]), max(last[axis], where[-1] + 1)
    if not np.isfinite(first[0]):
        return None
    z, y, x = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return z, y, x


def _factors(spacing_mm: Sequence[float]) -> tuple[int, int, int]:
    """Return how many voxels of each axis make one of the working grid."""
    z, y, x = (max(1, round(_GRID_MM / spacing)) for spacing in spacing_mm)
    return z, y, x


def _sums(volume: npt.NDArray[Any], factors: Sequence[int]) -> npt.NDArray[Any]:
    """Return the sums of blocks of voxels (float32; of a mask uint16); what is left over at the far ends is dropped."""
    kind: npt.DTypeLike = np.float32
    if volume.dtype == np.bool_:
        volume, kind = volume.view(np.uint8), np.uint16
    for axis, factor in enumerate(factors):
        stop = volume.shape[axis] // factor * factor
        lead = (slice(None),) * axis
        total: npt.NDArray[Any] = volume[(*lead, slice(0, stop, factor))].astype(kind)
        for start in range(1, factor):
            total += volume[(*lead, slice(start, stop, factor))]
        volume = total
    return volume


def _shrink(image: Field, mask: Mask, factors: Sequence[int]) -> tuple[Field, Field]:
    """Return the mean of the image in the brain of each block of voxels (0 without any), and the brain's share."""
    count = _sums(mask, factors).astype(np.float32)
    total = _sums(np.where(mask, image, np.float32(0)), factors)
    return total / np.maximum(count, 1), count / np.float32(np.prod(factors))


def _halve(image: Field, share: Field) -> tuple[Field, Field]:
    """Return the mean in the brain and the brain's share on a grid of double spacing."""
    weight = _sums(share, (2, 2, 2))
    return _sums(image * share, (2, 2, 2)) / np.maximum(weight, np.float32(1e-6)), weight / 8


def _neighbourhood(volume: Field) -> Field:
    """Return the sum of the 3 x 3 x 3 voxels around each, of the last three axes; nothing lies beyond the edges."""
    for axis in range(volume.ndim - 3, volume.ndim):
        lead = (slice(None),) * axis
        total = volume.copy()
        total[(*lead, slice(1, None))] += volume[(*lead, slice(None, -1))]
        total[(*lead, slice(None, -1))] += volume[(*lead, slice(1, None))]
        volume = total
    return volume


def _thick(mask: Mask) -> Mask:
    """Return what of the mask lies in cubes of three voxels that are in it as a whole."""
    hearts = _neighbourhood(mask.astype(np.float32)) == 27
    thick: Mask = _neighbourhood(hearts.astype(np.float32)) > 0
    return thick


@dataclass(frozen=True)
class _Level:
    """A sequence's borders at one resolution.

    Attributes:
        borders: (N, 8) float32, of every voxel in C order: six products, whether it counts (0 or 1), 0.
        inside: (d, h, w), which voxels count: in the brain, their six neighbours too.
        spacing_mm: Of the level (3,).
    """

    borders: Field
    inside: Mask
    spacing_mm: npt.NDArray[np.float64]

    def at(self, places: Field) -> Field:
        """Return the borders (n, 8) at places (3, n) in voxels, linear in between; zero beyond the grid."""
        d, h, w = self.inside.shape
        result = np.zeros((places.shape[1], 8), np.float32)
        below = np.floor(places).astype(np.int32)
        within = ((below >= 0) & (below < np.array([[d - 1], [h - 1], [w - 1]]))).all(axis=0)
        below = below[:, within]
        upper = places[:, within] - below.astype(np.float32)
        lower = 1 - upper
        corner = (below[0] * h + below[1]) * w + below[2]
        total = np.zeros((len(corner), 8), np.float32)
        for z, share_z in enumerate((lower[0], upper[0])):
            for y, share_y in enumerate((lower[1], upper[1])):
                for x, share_x in enumerate((lower[2], upper[2])):
                    row = self.borders.take(corner + ((z * h + y) * w + x), axis=0)
                    row *= (share_z * share_y * share_x)[:, None]
                    total += row
        result[within] = total
        return result


def _levels(image: Field, share: Field, spacing_mm: Sequence[float]) -> list[_Level]:
    """Return a sequence at all levels, coarse to fine."""
    grids = {1: (image, share), 2: _halve(image, share)}
    gradients = {factor: _gradient(*grid, np.array(spacing_mm) * factor) for factor, grid in grids.items()}
    return [_level(*gradients[factor], np.array(spacing_mm) * factor, averaged) for factor, averaged in _LEVELS]


def _gradient(image: Field, share: Field, spacing_mm: npt.NDArray[np.float64]) -> tuple[Field, Mask]:
    """Return the gradient (3, d, h, w) a mm, and where it does not reach beyond the brain; zero elsewhere."""
    brain = share > 0.5
    inside = brain.copy()
    gradient = np.zeros((3, *image.shape), np.float32)
    for axis in range(3):
        lead = (slice(None),) * axis
        before, here, after = ((*lead, part) for part in (slice(None, -2), slice(1, -1), slice(2, None)))
        if image.shape[axis] > 2:
            gradient[(axis, *here)] = (image[after] - image[before]) / np.float32(2 * spacing_mm[axis])
            inside[here] &= brain[before] & brain[after]
        inside[(*lead, slice(None, 1))] = inside[(*lead, slice(-1, None))] = False
    gradient *= inside
    return gradient, inside


def _level(gradient: Field, inside: Mask, spacing_mm: npt.NDArray[np.float64], averaged: bool) -> _Level:
    """Return the level of a gradient."""
    borders = np.zeros((8, *inside.shape), np.float32)
    for k, (a, b) in enumerate(_PAIRS):
        np.multiply(gradient[a], gradient[b], out=borders[k])
    borders[3:6] *= np.float32(np.sqrt(2))
    length = borders[:3].sum(axis=0)
    weak = _WEAK * float(np.median(length[inside])) if inside.any() else 0.0
    borders[6] = inside
    if averaged:
        borders[:7] = _neighbourhood(borders[:7])
        borders[:6] /= np.maximum(borders[6], 1)
        length = borders[:3].sum(axis=0)
    borders[:6] *= inside / np.maximum(length + np.float32(weak), np.float32(1e-30))
    borders[6] = inside
    return _Level(np.ascontiguousarray(borders.reshape(8, -1).T), inside, spacing_mm)


class _Points:
    """The points of a reference at one level, with what a small motion changes there."""

    def __init__(self, level: _Level, centre_mm: npt.NDArray[np.float64]) -> None:
        d, h, w = level.inside.shape
        index = np.flatnonzero(level.inside)
        if len(index) > _POINTS:
            index = index[np.linspace(0, len(index) - 1, _POINTS).astype(np.intp)]
        voxels = np.stack(np.unravel_index(index, (d, h, w)))
        self.place_mm = ((voxels + 0.5) * level.spacing_mm[:, None] - centre_mm[:, None]).astype(np.float32)
        self.borders = level.borders[index, :6]
        # The voxels next to a counted one lie in the grid: its gradient needed them.
        slopes = [
            (level.borders[index + step, :6] - level.borders[index - step, :6]) / np.float32(2 * spacing)
            for step, spacing in zip((h * w, w, 1), level.spacing_mm, strict=True)
        ]
        z, y, x = self.place_mm[:, :, None]
        turns = (y * slopes[2] - x * slopes[1], x * slopes[0] - z * slopes[2], z * slopes[1] - y * slopes[0])
        # (6, n, 6): of three shifts a mm and three turns a radian, of each point, the change of each product.
        self.change = np.stack([*slopes, *turns])
        change = self.change.transpose(1, 0, 2)
        self.curvature = (change @ change.transpose(0, 2, 1)).reshape(len(index), 36)


class _Reference:
    """A sequence that others are compared with."""

    def __init__(self, levels: Sequence[_Level]) -> None:
        fine = levels[-1]
        voxels = np.stack(np.nonzero(fine.inside))
        self.centre_mm = (voxels.mean(axis=1) + 0.5) * fine.spacing_mm
        self.points = [_Points(level, self.centre_mm) for level in levels]

    def motion(self, moving: Sequence[_Level]) -> tuple[float, float]:
        """Return by how many degrees, and how many mm on average, the brain of another sequence is off."""
        turn: npt.NDArray[np.float64] = np.eye(3)
        shift: npt.NDArray[np.float64] = np.zeros(3)
        for points, level in zip(self.points, moving, strict=True):
            turn, shift = _fit(points, level, self.centre_mm, turn, shift)
        degrees = float(np.rad2deg(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
        away = (turn - np.eye(3)) @ self.points[-1].place_mm + shift[:, None]
        return degrees, float(np.linalg.norm(away, axis=0).mean())


def _fit(
    points: _Points,
    level: _Level,
    centre_mm: npt.NDArray[np.float64],
    turn: npt.NDArray[np.float64],
    shift: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the turn (3, 3) and the shift (3,) in mm that bring the points onto the other sequence's borders."""
    farthest_mm = float(np.abs(points.place_mm).max(initial=1))
    for _ in range(_STEPS):
        scale = (turn / level.spacing_mm[:, None]).astype(np.float32)
        offset = ((shift + centre_mm) / level.spacing_mm - 0.5).astype(np.float32)
        found = level.at(scale @ points.place_mm + offset[:, None])
        weight = np.where(found[:, 6] > 0.5, found[:, 6], np.float32(0))
        if np.count_nonzero(weight) < _FEWEST_POINTS / 8:
            break
        # The products in the other sequence's axes, turned back into the reference's.
        back = np.einsum("kij,ia,lab,jb->kl", _BASE, turn.T, _BASE, turn.T)
        error = (found[:, :6] / np.maximum(found[:, 6:7], np.float32(0.5))) @ back.T.astype(np.float32)
        error -= points.borders
        squared = np.einsum("nk,nk->n", error, error)
        mean = float(weight @ squared / weight.sum())
        # Geman and McClure's weights: a tumour that one sequence alone shows does not pull.
        weight /= (1 + squared / np.float32(max(mean, 1e-12))) ** 2
        matrix = (weight @ points.curvature).reshape(6, 6).astype(np.float64)
        right = (points.change.reshape(6, -1) @ (error * weight[:, None]).ravel()).astype(np.float64)
        # A little of the diagonal keeps a brain of one kind of border (a ball) solvable.
        step = np.linalg.solve(matrix + np.eye(6) * (1e-6 * np.trace(matrix) + 1e-12), right)
        turn = turn @ _rotation(step[3:]).T
        shift = shift - turn @ step[:3]
        if np.abs(step[:3]).max() + np.abs(step[3:]).max() * farthest_mm < _SMALL_STEP_MM:
            break
    return turn, shift


def _rotation(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the rotation matrix of an axis times its angle in radians (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    z, y, x = vector / angle
    cross = np.array([[0, -x, y], [x, 0, -z], [-y, z, 0]])
    rotation: npt.NDArray[np.float64] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return rotation
