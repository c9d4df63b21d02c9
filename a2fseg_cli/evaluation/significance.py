"""Whether two methods differ on the same patients: paired sign-flip tests, paired bootstrap, Holm's correction.

The patients are what is drawn and what is exchanged: a patient's scores of two methods stay together. Scores of Dice
are skewed and pile up at 0 and 1, so nothing here assumes a normal distribution.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Values = Sequence[float] | FloatArray

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
    return sign_flip_ps(np.asarray(differences, np.float64)[None], seed)[0]


def sign_flip_ps(differences: FloatArray, seed: int = 0) -> list[float]:
    """Return `sign_flip_p` of many comparisons (K, P) by patient; random exchanges are drawn once for all of them."""
    there = ~np.isnan(differences)
    patients = there.sum(axis=1)
    values = np.where(there, differences, 0.0)  # a difference of nothing has no say in any exchange
    observed = np.abs(values.sum(axis=1)) - _EQUAL * np.abs(values).sum(axis=1)
    p = np.full(len(values), np.nan)
    for k in np.flatnonzero((patients > 0) & (patients <= MOST_EXACT)):
        sums = every_exchange(int(patients[k])) @ values[k, there[k]]
        p[k] = np.mean(np.abs(sums) >= observed[k])
    if (many := np.flatnonzero(patients > MOST_EXACT)).size:
        p[many] = _random_shares(values[many], observed[many], seed)
    return [float(value) for value in p]


@functools.lru_cache(maxsize=1)
def every_exchange(patients: int) -> FloatArray:
    """Return all 2^n exchanges of sign (2^n, n) of n patients, as 1 and -1."""
    bits = (np.arange(2**patients)[:, None] >> np.arange(patients)) & 1
    return np.asarray(1.0 - 2.0 * bits, np.float64)


def _random_shares(values: FloatArray, observed: FloatArray, seed: int) -> FloatArray:
    """Return the share of random exchanges at least as far from 0, for each row of values (K, P)."""
    random, extreme = np.random.default_rng(seed), np.ones(len(values))
    for start in range(0, RANDOM_FLIPS, _CHUNK):
        size = (min(_CHUNK, RANDOM_FLIPS - start), values.shape[1])
        signs = 1.0 - 2.0 * random.integers(0, 2, size, np.int8)
        extreme += np.count_nonzero(np.abs(signs @ values.T) >= observed, axis=0)
    return np.asarray(extreme / (RANDOM_FLIPS + 1))


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
