"""How far several trainings of the same network lie apart, and which networks differ by more than that.

A paired test over patients tells whether these weights are better; whether the network is, another training must show.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import tukey_hsd

LEVEL = 0.05


def trainings_table(means: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Return Markdown: the mean of each training, how far trainings lie apart, and what differs by more.

    Args:
        means: Region (or whatever a column is) to network to the mean Dice in % of each of its trainings. Networks with
            a single training are shown, but tell nothing of another one and are left out of the tests.
    """
    networks = list(dict.fromkeys(name for of in means.values() for name in of))
    rows = [f"| each training | {' | '.join(means)} |", "|---" * (1 + len(means)) + "|"]
    for name in networks:
        cells = [", ".join(f"{value:.1f}" for value in of.get(name, ())) for of in means.values()]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    columns = [_tested({name: values for name, values in of.items() if len(values) > 1}) for of in means.values()]
    names = ("standard deviation of trainings", "told from a difference of", "told apart")
    rows += [f"| {name} | {' | '.join(cells)} |" for name, cells in zip(names, zip(*columns, strict=True), strict=True)]
    return "\n".join(rows) + (
        "\n\nDice in %. Standard deviation: within networks, all together. Told apart: by Tukey's test of all pairs "
        f"of a column, at {100 * LEVEL:g} %, over trainings on the same patients. Networks trained once are in neither."
    )


def _tested(of: Mapping[str, Sequence[float]]) -> tuple[str, str, str]:
    """Return the standard deviation, the least difference told, and the pairs told apart, best first."""
    if not of:
        return "-", "-", "-"
    within = sum(statistics.variance(values) * (len(values) - 1) for values in of.values())
    deviation = (within / sum(len(values) - 1 for values in of.values())) ** 0.5
    if len(of) < 2 or not within:
        return f"{deviation:.1f}", "-", "-"
    ordered = sorted(of, key=lambda name: -statistics.mean(of[name]))
    test = tukey_hsd(*(of[name] for name in ordered))
    half = test.confidence_interval(1 - LEVEL).high - test.statistic
    least = half[~np.eye(len(ordered), dtype=bool)].max()
    pairs = []
    for i, better in enumerate(ordered):
        if worse := [ordered[j] for j in range(i + 1, len(ordered)) if test.pvalue[i, j] < LEVEL]:
            pairs.append(f"{better} from {', '.join(worse)}")
    return f"{deviation:.1f}", f"{least:.1f}", "; ".join(pairs) or "none"
