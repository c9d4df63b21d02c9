"""Tables of a comparison: a column a method, differences to the best, and what each method takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from a2fseg_cli.evaluation.comparison import HIGHER, MEANS, Comparison, Difference, smallest_corrected_p
from a2fseg_cli.evaluation.metrics import score_keys
from a2fseg_cli.evaluation.published import METHODS, REGIONS, TABLE_1, TABLE_1_MEANS
from a2fseg_cli.evaluation.significance import LEVEL, smallest_p
from a2fseg_cli.evaluation.statistics import summarise
from a2fseg_cli.evaluation.tables import (
    OTHER_PATIENTS,
    Table,
    marked,
    marks_of,
    number_text,
    published_beside,
    scale_of,
    title_of,
    two_digits,
)


def all_tables(
    comparison: Comparison,
    differences: Sequence[Difference],
    metrics: Sequence[str],
    policy: str,
    compare: bool,
    parameters: Mapping[str, int],
) -> tuple[Table, ...]:
    """Return for each score a table a region and the differences to the best, then what each method takes.

    Args:
        comparison: The scores.
        differences: Of all pairs, of every score that has better and worse.
        metrics: Keys of METRICS.
        policy: Under which the scores were computed.
        compare: Whether the published Dice stands beside them.
        parameters: Of each network, how many it has.
    """
    tables = []
    for key in score_keys(metrics):
        mine = [difference for difference in differences if difference.key == key]
        published = compare and key == "dice" and published_beside(comparison.subsets, comparison.config)
        tables += [method_table(comparison, mine, key, region, policy, published) for region in comparison.regions]
        if mine:
            tables.append(difference_table(comparison, mine, key))
    return (*tables, *([cost_table(comparison, parameters)] if parameters else []))


def method_table(
    comparison: Comparison, differences: Sequence[Difference], key: str, region: str, policy: str, published: bool
) -> Table:
    """Return one score of one region: a row a subset, then the means; a column a method.

    The best of a row is bold, and what cannot be told from it underlined.
    """
    counts = comparison.scored(key, region)
    same = len(set(counts.values())) == 1
    columns = METHODS if published and region in REGIONS else ()
    marks = marks_of(comparison.subsets, comparison.config)
    rows, bold, underlined = [], set(), set()
    for i, row in enumerate(comparison.rows):
        means = [comparison.mean(name, key, row, region) for name in comparison.names]
        mark = [MEANS, *[""] * (len(marks) - 1)] if row == MEANS else marked(row, comparison.config)
        having = [] if same else [str(counts.get(row, ""))]
        cells = [number_text(mean, key) for mean in means] + [_published(name, row, region, counts) for name in columns]
        rows.append((*mark, *cells, *having))
        best, leaders = comparison.best(key, row, region), comparison.leaders(key, row, region)
        for j, name in enumerate(comparison.names, len(marks)):
            if name in leaders and len(comparison.names) > 1:
                bold.add((i, j))
            elif _not_told_apart(differences, row, region, {best, name}):
                underlined.add((i, j))
    n = f"{min(counts.values())}" if same else f"{min(counts.values())} to {max(counts.values())}"
    return Table(
        f"{region}, {title_of(key, comparison.nsd_tolerance_mm)}, mean over patients, n = {n}, policy {policy}",
        (*marks, *comparison.names, *(f"{name} (paper)" for name in columns), *([] if same else ["n"])),
        tuple(rows),
        len(marks),
        (*_notes(comparison, differences, key, region), *([OTHER_PATIENTS] if columns else [])),
        frozenset(bold),
        frozenset(underlined),
    )


def difference_table(comparison: Comparison, differences: Sequence[Difference], key: str) -> Table:
    """Return the differences to the best method, of the means over the subsets or of the only subset."""
    row = comparison.rows[-1]
    rows = []
    for region in comparison.regions:
        for difference in to_the_best(comparison, differences, key, region):
            numbers = (difference.mean, difference.low, difference.high)
            cells = [two_digits(scale_of(key) * number) for number in numbers]
            tests = [_p(difference.p), _p(difference.p_corrected), str(difference.patients)]
            rows.append((region, difference.first, difference.second, *cells, *tests))
    of = "means over subsets" if row == MEANS else row
    return Table(
        f"Differences to the best, {title_of(key, comparison.nsd_tolerance_mm)}, {of}",
        ("region", "method", "less the best", "difference", "95 % from", "to", "p", "p corrected", "patients"),
        tuple(rows),
        3,
        (
            "Interval: patients drawn with replacement, each method's scores of a patient together; not corrected, "
            "and too narrow for few patients. p: paired sign-flip test, then corrected (Holm) for all pairs of methods "
            "and all regions.",
        ),
        with_means=False,
    )


def to_the_best(
    comparison: Comparison, differences: Sequence[Difference], key: str, region: str, row: str | None = None
) -> list[Difference]:
    """Return each other method less the best one of a region, in the order of the methods.

    Args:
        comparison: The scores.
        differences: Of all pairs.
        key: Of the score.
        region: Of the score.
        row: Of the table; None takes the means over subsets, or the only subset.
    """
    row = row or comparison.rows[-1]
    best = comparison.best(key, row, region)
    turned = [
        difference if difference.second == best else difference.turned()
        for difference in differences
        if (difference.key, difference.subset, difference.region) == (key, row, region)
        and best in (difference.first, difference.second)
    ]
    return sorted(turned, key=lambda difference: comparison.names.index(difference.first))


def cost_table(comparison: Comparison, parameters: Mapping[str, int]) -> Table:
    """Return what each network takes: parameters, and seconds a patient, as measured in this run."""
    rows, subsets = [], comparison.subsets_of_patients
    of = f"{min(subsets)}" if min(subsets) == max(subsets) else f"{min(subsets)} to {max(subsets)}"
    for name, count in parameters.items():
        seconds = [scores.seconds for scores in comparison.methods[name]]
        network, total = (summarise([s[kind] for s in seconds if kind in s]).median for kind in ("network", "total"))
        rows.append((name, two_digits(count / 1e6), two_digits(network), two_digits(total)))
    return Table(
        f"What a patient takes, {of} subset{'s' * (max(subsets) != 1)}",
        ("method", "parameters, million", "s in the network", "s with reading and scoring"),
        tuple(rows),
        1,
        ("Medians over patients, in this run or in the one whose scores were taken over, beside whatever else ran.",),
        with_means=False,
    )


def _published(method: str, row: str, region: str, subsets: Mapping[str, int]) -> str:
    """Return a published Dice; the published means only beside the means of the same 15 subsets."""
    if row == MEANS:
        return two_digits(TABLE_1_MEANS[method][region]) if set(subsets) == set(TABLE_1[method]) else ""
    return two_digits(TABLE_1[method].get(row, {}).get(region, math.nan))


def _not_told_apart(differences: Sequence[Difference], row: str, region: str, pair: set[str]) -> bool:
    return any(
        {difference.first, difference.second} == pair
        and (difference.subset, difference.region) == (row, region)
        and not math.isnan(difference.p)
        and not difference.told_apart
        for difference in differences
    )


def _notes(comparison: Comparison, differences: Sequence[Difference], key: str, region: str) -> list[str]:
    notes = []
    scores = sum(comparison.counts().values())
    undefined = {name: scores - comparison.defined(name, key, region) for name in comparison.names}
    if any(undefined.values()):
        counts = ", ".join(f"{name} {count}" for name, count in undefined.items())
        notes.append(
            f"undefined: {counts} of {scores} scores; what one method has not is left out for all, so that means and "
            "differences are of the same patients"
        )
    families = {
        "means over subsets": [d for d in differences if d.subset == MEANS],
        "single subsets": [d for d in differences if d.subset != MEANS],
    }
    families = {name: members for name, members in families.items() if members}
    if families:
        sizes = ", ".join(f"{sum(not math.isnan(d.p) for d in m)} of {name}" for name, m in families.items())
        better = "highest" if key in HIGHER else "lowest"
        notes.append(
            f"Bold: the best ({better}). Underlined: not to be told from it (paired sign-flip test, p >= {LEVEL:g} "
            f"after Holm's correction for all pairs of methods and all regions: {sizes})."
        )
    return notes + [note for name, members in families.items() if (note := _hopeless(name, members))]


def _hopeless(name: str, differences: Sequence[Difference]) -> str:
    """Return a line where no difference could have been told from chance, however large; else nothing."""
    least = smallest_corrected_p(differences)
    if not least >= LEVEL:
        return ""
    patients, number = max(d.patients for d in differences), sum(not math.isnan(d.p) for d in differences)
    return (
        f"With {patients} patient{'s' * (patients != 1)} the test cannot give less than p = "
        f"{smallest_p(patients):.3g}, corrected for {number} comparison{'s' * (number != 1)} of {name} {least:.2g}: no "
        "difference of these could be told from chance, however large."
    )


def _p(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}" if value >= 0.0001 else "< 0.0001"
