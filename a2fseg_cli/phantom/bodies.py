"""The bodies that make up a head: signed distances in mm to their surfaces, positive inside.

Places are (x, y, z) in mm from the brain's centre, to the patient's left, back and head.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from a2fseg_cli.phantom.fields import Field, Triple, norm


def cerebrum(p: Sequence[Field]) -> Field:
    """Return the signed distance to the hemispheres' surface, temporal lobes included."""
    x, y, z = np.abs(p[0]), p[1], p[2]
    taper = 1 + 0.0022 * np.maximum(-y, 0)  # the frontal lobes are narrower than the parietal ones
    upper = ellipsoid((x * taper, y, z - 20), (67, 86, 50))
    temporal = ellipsoid((x - 37, y + 2, z + 24), (24, 42, 25))
    return smooth_union([upper, temporal], 3.0)


def hindbrain(p: Sequence[Field]) -> Field:
    """Return the signed distance to the surface of cerebellum and brain stem."""
    x, y, z = np.abs(p[0]), p[1], p[2]
    cerebellum = ellipsoid((x - 20, y - 46, z + 40), (36, 33, 26))
    stem = capsule((x, y, z), (0, 8, -6), (0, 26, -75), 12, 10)
    return smooth_union([cerebellum, stem], 3.0)


def ventricles(p: Sequence[Field], width: float) -> Field:
    """Return the signed distance to the ventricles' walls, their width a share of the usual."""
    x, y, z = np.abs(p[0]), p[1], p[2]
    stations = [
        ((8, -32, 11), 4.0),
        ((9, -6, 21), 4.5),
        ((20, 28, 17), 7.0),
        ((31, 18, -8), 3.0),
        ((30, -6, -18), 2.0),
    ]
    parts = [capsule((x, y, z), a, b, ra * width, rb * width) for (a, ra), (b, rb) in pairwise(stations)]
    parts.append(capsule((x, y, z), (21, 30, 14), (22, 50, 8), 6 * width, 2.5 * width))
    parts.append(ellipsoid((x, y - 2, z), (2.2 * width, 14, 9)))
    parts.append(ellipsoid((x, y - 34, z + 34), (6 * width, 5, 9)))
    return np.asarray(np.maximum.reduce(parts), np.float32)


def deep_grey(p: Sequence[Field]) -> Field:
    """Return the signed distance to thalamus, caudate and putamen."""
    x, y, z = np.abs(p[0]), p[1], p[2]
    thalamus = ellipsoid((x - 11, y - 9, z - 4), (8, 14, 10))
    caudate = ellipsoid((x - 15, y + 24, z - 11), (5, 11, 7))
    putamen = ellipsoid((x - 26 - 0.15 * y, y + 4, z - 2), (5.5, 17, 11))
    return np.asarray(np.maximum.reduce([thalamus, caudate, putamen]), np.float32)


def ellipsoid(p: Sequence[Field], radii: Triple) -> Field:
    """Return the signed distance to an ellipsoid's surface, to first order: value of the form over its slope."""
    form = norm([a / r for a, r in zip(p, radii, strict=True)])
    slope = norm([a / r**2 for a, r in zip(p, radii, strict=True)])
    return np.asarray(form * (1 - form) / np.maximum(slope, 1e-4), np.float32)


def capsule(p: Sequence[Field], start: Triple, stop: Triple, r_start: float, r_stop: float) -> Field:
    """Return the signed distance to a tube from `start` to `stop` whose radius changes evenly on the way."""
    along = [b - a for a, b in zip(start, stop, strict=True)]
    offset = [a - s for a, s in zip(p, start, strict=True)]
    share = (offset[0] * along[0] + offset[1] * along[1] + offset[2] * along[2]) / sum(a * a for a in along)
    share = np.clip(share, 0, 1)
    distance = norm([o - share * a for o, a in zip(offset, along, strict=True)])
    return np.asarray(r_start + share * (r_stop - r_start) - distance, np.float32)


def smooth_union(parts: Sequence[Field], radius_mm: float) -> Field:
    """Return the union's signed distance with the seam rounded: a soft maximum."""
    first, second = parts
    return np.asarray(radius_mm * np.logaddexp(first / radius_mm, second / radius_mm), np.float32)
