"""Do the grey values of two sequences tell more about each other after a motion? A second opinion on a fit of borders.

Borders of noisy or thick-sliced sequences agree best at a motion that is none. Mutual information (Viola and Wells,
IJCV 1997; Maes et al., IEEE TMI 1997) sees the whole brain, not its borders alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.imaging.border_fit import FEWEST_POINTS, Motion
from a2fseg_cli.imaging.working_grid import CoarseImage, Field, linear

# Equally filled, of each sequence. 32 part turned sequences from those in place less well than 16.
_BINS = 16
# Blocks at the rim mix brain and what is around it.
_BRAIN_SHARE = 0.5
_MOVED_SHARE = 0.9


def gain(reference: CoarseImage, moving: CoarseImage, motion: Motion) -> float:
    """Return by which share the mutual information is higher after the motion than without it.

    Args:
        reference: The sequence that stands still.
        moving: The other one, on the same grid.
        motion: From the first to the second.

    Returns:
        0.5 if it is half as high again, below 0 if the motion lowers it; infinite where fewer than 500 points lie in
        the brain of both before and after: nothing contradicts the motion.
    """
    shape, spacing_mm = reference.values.shape, reference.spacing_mm[:, None]
    index = np.flatnonzero((reference.share > _BRAIN_SHARE) & (moving.share > _MOVED_SHARE))
    centre_mm = motion.centre_mm[:, None]
    place_mm = (np.stack(np.unravel_index(index, shape)) + 0.5) * spacing_mm - centre_mm
    moved = (motion.turn @ place_mm + motion.shift_mm[:, None] + centre_mm) / spacing_mm - 0.5
    rows = np.stack([moving.values.ravel(), moving.share.ravel()], axis=1)
    after = linear(rows, shape, moved.astype(np.float32))
    both = after[:, 1] > _MOVED_SHARE
    if np.count_nonzero(both) < FEWEST_POINTS:
        return float("inf")
    still = _bins(reference.values.take(index[both]))
    without = _information(still, _bins(moving.values.take(index[both])))
    # A constant image says nothing either way: no gain.
    return _information(still, _bins(after[both, 0])) / max(without, 1e-9) - 1 if without > 0 else 0.0


def _bins(values: Field) -> npt.NDArray[np.intp]:
    """Return in which of 16 equally filled bins each value falls."""
    limits = np.quantile(values, np.arange(1, _BINS) / _BINS)
    # Rounding by interpolation does not part what was one grey value: such limits lie just below it.
    limits -= 1e-4 * (limits[-1] - limits[0])
    return np.searchsorted(limits, values)


def _information(first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]) -> float:
    """Return the mutual information of two lists of bins, in nats."""
    joint = np.bincount(first * _BINS + second, minlength=_BINS**2).reshape(_BINS, _BINS)
    return _entropy(joint.sum(axis=0)) + _entropy(joint.sum(axis=1)) - _entropy(joint)


def _entropy(counts: npt.NDArray[Any]) -> float:
    """Return the entropy of a histogram, in nats."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
