"""Outlines of a mask's slice, as lines."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Line = npt.NDArray[np.float64]
Mask2D = npt.NDArray[np.bool_]


def outlines(mask: Mask2D, own: Mask2D | None = None) -> list[Line]:
    """Return the outlines of a slice of a mask, (n, 2) points (x, y) each, in pixels; closed ones end where they begin.

    They cross half-way between the middles of a pixel inside and one outside. The corner of the first pixel is (0, 0),
    its middle (0.5, 0.5).

    Args:
        mask: (rows, columns).
        own: Only the pieces along these pixels of the mask; all by default.
    """
    from contourpy import contour_generator

    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return []
    columns = np.flatnonzero(mask.any(0))
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float64)
    lines = contour_generator(z=np.pad(part, 1)).lines(0.5)
    corner = np.array((columns[0] - 0.5, rows[0] - 0.5))
    moved = [np.asarray(line) + corner for line in lines]
    return moved if own is None else [piece for line in moved for piece in _pieces(line, np.pad(own, 1))]


def _pieces(line: Line, own: Mask2D) -> list[Line]:
    """Return the pieces of a closed line of which an end of each step lies at one of the pixels, padded by one."""
    # A point lies in the middle of the side that two pixels share: a quarter to either hand is in the one or the other.
    (x, y), (right, below) = (np.floor(line + shift).astype(np.intp).T + 1 for shift in (-0.25, 0.25))
    points = own[y, x] | own[below, right]
    steps = points[:-1] | points[1:]
    if steps.all():
        return [line]
    first = int(np.argmin(steps))  # begin where no piece runs
    steps = np.roll(steps, -first)
    turned = np.roll(line[:-1], -first, axis=0)
    turned = np.concatenate([turned, turned[:1]])
    begins = np.flatnonzero(np.diff(steps.astype(np.int8), prepend=0) == 1)
    ends = np.flatnonzero(np.diff(steps.astype(np.int8), append=0) == -1)
    return [turned[begin : end + 2] for begin, end in zip(begins, ends, strict=True)]
