"""Do sequences on one grid show the brain in one place, and all of it? A quick look before the network's.

A grid says where the voxels lie, not the brain: a sequence that was never co-registered, but resampled to another's
grid, passes every check of sizes and origins. FLAIR turned by 3 degrees and 3 mm costs 0.07 of the whole tumour's
Dice, by 10 degrees and 15 mm 0.32.

A rigid motion is fitted to the borders between tissues (`border_fit`). Where it is large, mutual information of the
grey values (`mutual_information`) has to be higher after it, or nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from a2fseg_cli.imaging.border_fit import FEWEST_POINTS, Level, Motion, Reference, levels
from a2fseg_cli.imaging.mutual_information import gain
from a2fseg_cli.imaging.working_grid import (
    CoarseImage,
    Field,
    Mask,
    bounding_box,
    neighbourhood,
    shrink,
    sums,
    working_factors,
)

# On 82 BraTS patients with four sequences the borders show each of the four turned by 3 degrees and 3 mm in all of them
# (at 2.5 mm one T2 is missed).
MOST_DEGREES = 2.0
MOST_MM = 2.3
# Of T1c and FLAIR of 82 patients, two pairs that ITK finds in place gain at most 0.07; one 4 mm off gains 0.25 and
# FLAIR turned by 3 degrees and 3 mm 0.29 and more. With four sequences, five that are off gain 0.46 and more.
LEAST_GAIN = 0.2
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

    What the borders say is reported only where the grey values of a pair from both groups confirm it: their mutual
    information has to be a fifth higher after the motion than before, in one of the two directions.

    Of 100 patients as they are, 7 are warned of with four sequences: six are 2 to 10 mm off by an ITK registration
    too, one (T1c, 4 mm) is not. T1c and FLAIR alone warn of one of 82, rightly (4 mm), and of none of 18 others. Of
    these 18, FLAIR turned by 3 degrees and 3 mm is found in all with four sequences, with T1c alone beside it in 17;
    by 10 degrees and 15 mm in all.

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
    box = bounding_box(masks.values())
    if len(names) < 2 or box is None:
        return []
    factors = working_factors(spacing_mm)
    with ThreadPoolExecutor(threads) as pool:
        coarse = pool.map(lambda name: shrink(images[name][box], masks[name][box], spacing_mm, factors), names)
        looks = _Looks(dict(zip(names, coarse, strict=True)), pool)
        return looks.misalignments()


class _Looks:
    """Sequences and what is known of the motions between them."""

    def __init__(self, images: Mapping[str, CoarseImage], pool: ThreadPoolExecutor) -> None:
        borders = dict(zip(images, pool.map(levels, images.values()), strict=True))
        self._images = images
        self._pool = pool
        self._levels: dict[str, list[Level]] = {
            name: of_one for name, of_one in borders.items() if np.count_nonzero(of_one[-1].inside) >= FEWEST_POINTS
        }
        self._names = list(self._levels)
        self._references: dict[str, Reference] = {}
        self._motions: dict[tuple[str, str], Motion] = {}

    def misalignments(self) -> list[Misalignment]:
        """Return what lies elsewhere than the largest group."""
        if len(self._names) < 2:
            return []
        self._fit([(self._names[0], name) for name in self._names[1:]])
        # Only those that the first sequence does not link are compared with the others, and then the other way round.
        self._fit([pair for pair in self._apart() if pair not in self._motions])
        self._fit([(b, a) for a, b in self._apart()])
        first, *others = self._groups()
        moved = [name for group in others if self._confirmed(first, group) for name in group]
        found = []
        for name in sorted(moved, key=self._names.index):
            motion = self._motions[first[0], name]
            found.append(Misalignment(name, first[0], motion.degrees, motion.mm))
        return found

    def _fit(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Find the motion from the first to the second of each pair."""
        new = [name for name in dict.fromkeys(a for a, _ in pairs) if name not in self._references]
        references = self._pool.map(lambda name: Reference(self._levels[name]), new)
        self._references.update(zip(new, references, strict=True))
        motions = self._pool.map(lambda pair: self._references[pair[0]].motion(self._levels[pair[1]]), pairs)
        self._motions.update(zip(pairs, motions, strict=True))

    def _groups(self) -> list[list[str]]:
        """Return the names in linked groups, the largest first."""
        groups = [[name] for name in self._names]
        for (a, b), motion in self._motions.items():
            if motion.degrees <= MOST_DEGREES and motion.mm <= MOST_MM:
                linked = [group for group in groups if a in group or b in group]
                groups = [group for group in groups if group not in linked] + [[n for group in linked for n in group]]
        groups = [sorted(group, key=self._names.index) for group in groups]
        return sorted(groups, key=lambda group: (-len(group), self._names.index(group[0])))

    def _apart(self) -> list[tuple[str, str]]:
        """Return the pairs that no chain of agreeing ones links."""
        groups = self._groups()
        return [pair for pair in combinations(self._names, 2) if not any(set(pair) <= set(group) for group in groups)]

    def _confirmed(self, group: Sequence[str], other: Sequence[str]) -> bool:
        """Return whether the grey values support one of the motions between two groups, in either direction.

        Of two noisy sequences one direction may show it only: a fit is as good as its reference's borders are sharp.
        """
        pairs = [(a, b) for a in group for b in other]
        return any(
            gain(self._images[a], self._images[b], self._motions[a, b]) >= LEAST_GAIN
            for pair in pairs
            for a, b in (pair, pair[::-1])
        )


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
    box = bounding_box(masks.values())
    if len(masks) < 2 or box is None:
        return []
    factors = working_factors(spacing_mm)
    cell_ml = float(np.prod(factors) * np.prod(spacing_mm)) / 1000
    shown = {name: sums(mask[box], factors) > np.prod(factors) / 2 for name, mask in masks.items()}
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


def _thick(mask: Mask) -> Mask:
    """Return what of the mask lies in cubes of three voxels that are in it as a whole."""
    hearts = neighbourhood(mask.astype(np.float32)) == 27
    thick: Mask = neighbourhood(hearts.astype(np.float32)) > 0
    return thick
