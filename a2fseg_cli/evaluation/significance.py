"""Whether two methods differ on the same patients: paired sign-flip tests, paired bootstrap, Holm's correction.

The patients are what is drawn and what is exchanged: a patient's scores of two methods stay together. Scores of Dice
are skewed and pile up at 0 and 1, so nothing here assumes a normal distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Values = Sequence[float] | npt.NDArray[np.float64]

LEVEL = 0.05
# All 2^n exchanges of up to 14 patients (16,384) take a millisecond; beyond, so many random ones. With 100,000 a p of
# 0.00001 is the smallest, which leaves room for the correction of some thousand comparisons.
MOST_EXACT = 14
RANDOM_FLIPS = 99_999
_CHUNK = 4096  # exchanges at once, 4 MiB for 128 patients
# Sums that are equal but for rounding count as equal, as in scipy.stats.permutation_test.
_EQUAL = 1e-12


def sign_flip_p(differences: Values, seed: int = 0) -> float:
    """Return the two-sided p of a paired permutation test of the mean difference.

    Were the two methods the same, each patient's difference would have the other sign as often: p is the share of all
    exchanges of sign whose mean is at least as far from 0 as the one observed. Up to 14 patients all are counted;
    beyond, random ones, where the observed one counts as drawn too. (Edgington and Onghena, Randomization Tests; the
    same as `scipy.stats.permutation_test` with `permutation_type="samples"`.)

    Args:
        differences: One a patient; NaN where a score is undefined, which leaves the patient out.
        seed: Of the random exchanges.

    Returns:
        0 to 1; NaN where no difference is defined.
    """
    values = np.asarray(differences, np.float64)
    values = values[~np.isnan(values)]
    if not values.size:
        return math.nan
    observed = abs(values.sum()) - _EQUAL * np.abs(values).sum()
    if values.size <= MOST_EXACT:
        every = 1 - 2 * ((np.arange(2**values.size)[:, None] >> np.arange(values.size)) & 1)
        return float(np.mean(np.abs(every @ values) >= observed))
    random, extreme = np.random.default_rng(seed), 1
    for start in range(0, RANDOM_FLIPS, _CHUNK):
        size = (min(_CHUNK, RANDOM_FLIPS - start), values.size)
        signs = 1 - 2 * random.integers(0, 2, size, np.int8).astype(np.float64)
        extreme += int(np.count_nonzero(np.abs(signs @ values) >= observed))
    return extreme / (RANDOM_FLIPS + 1)


def smallest_p(patients: int) -> float:
    """Return the smallest p that `sign_flip_p` can give for so many patients: 2 of 2^n, for 8 patients 0.0078."""
    if patients < 1:
        return 1.0
    return 2 / 2**patients if patients <= MOST_EXACT else 1 / (RANDOM_FLIPS + 1)


def holm(p_values: Values) -> list[float]:
    """Return p values corrected for their number, in the order given (Holm 1979, Scand. J. Statist. 6:65-70).

    The smallest is multiplied by their number, the next by one less, and so on; none becomes less than one before it.
    With a level of 5 %, the chance that any difference is called where there is none is then 5 % at most.

    Args:
        p_values: NaN where there was nothing to test; these stay NaN and do not count.
    """
    values = np.asarray(p_values, np.float64)
    tested = [int(index) for index in np.argsort(values, kind="stable") if not math.isnan(values[index])]
    corrected, least = [math.nan] * values.size, 0.0
    for rank, index in enumerate(tested):
        least = max(least, min(1.0, float(values[index]) * (len(tested) - rank)))
        corrected[index] = least
    return corrected
