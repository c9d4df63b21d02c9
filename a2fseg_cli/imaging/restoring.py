"""The network's result back on the file's grid, only where there is something to bring back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from a2fseg_cli.imaging.preprocessing import Route, Shape, bounding_box, centres, interpolate, largest

ClassMap = npt.NDArray[np.uint8]
FloatVolume = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Box:
    """A box of a grid: first voxel and one past the last, (z, y, x)."""

    start: Shape
    stop: Shape

    @property
    def shape(self) -> Shape:
        """Edge lengths (D, H, W)."""
        z, y, x = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def index(self) -> tuple[slice, slice, slice]:
        """The box as an index of the whole grid."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def within(self, outer: Box) -> tuple[slice, slice, slice]:
        """Return the box as an index of an array that fills `outer`."""
        z, y, x = (slice(a - first, b - first) for a, b, first in zip(self.start, self.stop, outer.start, strict=True))
        return z, y, x

    def union(self, other: Box) -> Box:
        """Return the smallest box that holds both; an empty one adds nothing."""
        if 0 in other.shape:
            return self
        if 0 in self.shape:
            return other
        z, y, x = (min(pair) for pair in zip(self.start, other.start, strict=True))
        d, h, w = (max(pair) for pair in zip(self.stop, other.stop, strict=True))
        return Box((z, y, x), (d, h, w))


EMPTY_BOX = Box((0, 0, 0), (0, 0, 0))


@dataclass(frozen=True)
class BoxedClasses:
    """Class indices of a part of the file's grid; all the rest of it is background.

    Attributes:
        classes: Class indices (d, h, w), the box's shape.
        box: Where they lie in the file's grid.
    """

    classes: ClassMap
    box: Box

    def placed(self, outer: Box) -> ClassMap:
        """Return the class map of a box that holds this one."""
        whole = np.zeros(outer.shape, np.uint8)
        whole[self.box.within(outer)] = self.classes
        return whole


def boxed(classes: ClassMap) -> BoxedClasses:
    """Return a class map (D, H, W) cut to the box of its foreground."""
    box = Box(*bounding_box(classes != 0)) if classes.any() else EMPTY_BOX
    return BoxedClasses(classes[box.index], box)


def brain_box(route: Route) -> Box:
    """Return the box of the file's grid outside which the network's prediction is background."""
    return _file_box(route, Box(route.crop.start, route.crop.stop))


def _file_box(route: Route, canonical: Box) -> Box:
    """Return where a box of the canonical grid lies in the file's."""
    start, stop = [0, 0, 0], [0, 0, 0]
    for axis, file_axis in enumerate(route.reorient.permutation):
        a, b = canonical.start[axis], canonical.stop[axis]
        if axis in route.reorient.flips:
            a, b = route.crop.shape[axis] - b, route.crop.shape[axis] - a
        start[file_axis], stop[file_axis] = a, b
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def classes_to_file(route: Route, probabilities: FloatVolume) -> BoxedClasses:
    """Return the most probable class of each voxel of the file's grid, without the background around the foreground.

    Linear interpolation is monotonous: where the background is the most probable class at every neighbour, it
    is the most probable in between. So only the voxels near a foreground winner have to be brought back, a few
    per cent of the brain for a tumour found at one place.

    Args:
        route: The way back to the file's grid.
        probabilities: (classes, d, h, w) on the network's grid.
    """
    foreground = probabilities[1] > probabilities[0]
    for other in probabilities[2:]:
        foreground |= other > probabilities[0]
    if not foreground.any():
        return BoxedClasses(np.zeros(EMPTY_BOX.shape, np.uint8), EMPTY_BOX)
    start, stop = bounding_box(foreground)
    network, source = route.resample.target, route.resample.source
    places = [centres(*sizes) for sizes in zip(network, source, strict=True)]
    wanted = [_between(place, a - 1, b) for place, a, b in zip(places, start, stop, strict=True)]
    # The way back smooths first where an axis has fewer voxels than half the network's: that is not local.
    if any(n > 2 * m for n, m in zip(network, source, strict=True)):
        wanted = [slice(0, m) for m in source]
        shares = (route.resample.undo(share) for share in probabilities)
    elif any(axis.start == axis.stop for axis in wanted):  # it lies between the file's voxels
        return BoxedClasses(np.zeros(EMPTY_BOX.shape, np.uint8), EMPTY_BOX)
    else:
        shares = (interpolate(share, [p[w] for p, w in zip(places, wanted, strict=True)]) for share in probabilities)
    depth, height, width = (axis.stop - axis.start for axis in wanted)
    winner = largest(shares, (depth, height, width))
    begin = tuple(a + axis.start for a, axis in zip(route.crop.start, wanted, strict=True))
    end = tuple(a + axis.stop for a, axis in zip(route.crop.start, wanted, strict=True))
    box = _file_box(route, Box((begin[0], begin[1], begin[2]), (end[0], end[1], end[2])))
    return BoxedClasses(route.reorient.undo(winner), box)


def _between(places: npt.NDArray[np.float64], low: float, high: float) -> slice:
    """Return which of the ascending places lie strictly between two others."""
    return slice(int(np.searchsorted(places, low, "right")), int(np.searchsorted(places, high, "left")))
