"""Outlines of a mask's slice, as lines."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Line = npt.NDArray[np.float64]


def outlines(mask: npt.NDArray[np.bool_]) -> list[Line]:
    """Return the closed outlines of a slice of a mask, (n, 2) points (x, y) each, in pixels.

    They cross half-way between the middles of a pixel inside and one outside. The corner of the first pixel is (0, 0),
    its middle (0.5, 0.5).

    Args:
        mask: (rows, columns).
    """
    from contourpy import contour_generator

    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return []
    columns = np.flatnonzero(mask.any(0))
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float64)
    lines = contour_generator(z=np.pad(part, 1)).lines(0.5)
    corner = np.array((columns[0] - 0.5, rows[0] - 0.5))
    return [np.asarray(line) + corner for line in lines]
