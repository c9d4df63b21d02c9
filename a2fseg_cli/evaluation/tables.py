"""Tables of scores: the paper's table, and the comparison with it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.evaluation.means import (
    by_convention,
    count_by_convention,
    mean_of_subsets,
    missed_altogether,
    subset_means,
    subset_means_of_masks,
)
from a2fseg_cli.evaluation.metrics import NSD_TOLERANCE_MM
from a2fseg_cli.evaluation.patient_scores import PREDICTIONS, PatientScores
from a2fseg_cli.evaluation.published import METHODS, MODALITIES, REGIONS, TABLE_1, TABLE_1_MEANS
from a2fseg_cli.modalities import heading

PRESENT, ABSENT = "x", "-"
NOTHING_PUBLISHED = (
    "compare paper: the paper has no Dice of these sequences, subsets and regions, so nothing of it stands beside."
)
OTHER_PATIENTS = (
    "HeMIS to A2FSeg: the paper's Table 1, means over its authors' BraTS2020 test patients. Those are other patients "
    "than ours: the columns compare tables, not methods."
)
BY_CONVENTION, WITHOUT = "n empty", "without"
ABOUT_CONVENTION = (
    f"{BY_CONVENTION}: patients whose score the convention for an empty region decided; {WITHOUT}: the mean without "
    "them"
)
# Scores shown as a percentage, and what the others are called in a table's title.
_LENGTHS_AND_VOLUMES = {
    "hd95_mm": "HD95 in mm",
    "lesionwise_hd95_mm": "lesion-wise HD95 in mm",
    "volume_ml": "predicted volume in mL",
    "reference_volume_ml": "true volume in mL",
}
_RATIOS = {
    "dice": "Dice in %",
    "nsd": "normalised surface Dice in %",
    "lesionwise_dice": "lesion-wise Dice in %",
    "sensitivity": "sensitivity in %",
    "precision": "precision in %",
    "ece": "expected calibration error in %",
}


@dataclass(frozen=True)
class Table:
    """A table ready to print.

    Attributes:
        title: What the numbers are, of how many patients, under which policy.
        columns: Headings.
        rows: Cells, as many a row as there are columns; the last row holds the means where there are several.
        marks: Number of leading columns that are not numbers.
        notes: Lines to read with it.
        bold: (row, column) of the cells that are the best of their row.
        underlined: (row, column) of the cells that cannot be told from the best.
        with_means: Whether the last of several rows holds the means.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: int
    notes: tuple[str, ...] = ()
    bold: frozenset[tuple[int, int]] = frozenset()
    underlined: frozenset[tuple[int, int]] = frozenset()
    with_means: bool = True

    def emphasised(self, bold: str, underlined: str) -> list[list[str]]:
        """Return the cells with the best and what cannot be told from it put into patterns such as `**{}**`."""
        return [
            [
                (bold if (i, j) in self.bold else underlined if (i, j) in self.underlined else "{}").format(cell)
                for j, cell in enumerate(row)
            ]
            for i, row in enumerate(self.rows)
        ]


def score_table(
    results: Sequence[PatientScores],
    config: ModelConfig,
    policy: str,
    key: str = "dice",
    nsd_tolerance_mm: float = NSD_TOLERANCE_MM,
    share: str = "",
) -> Table:
    """Return the table of the paper for one score: a row a subset, a column a region, then the means.

    For a region where the policy's convention for an empty one decided scores, two columns follow: of how many
    patients, and the mean without them.

    Args:
        results: Scores of the patients.
        config: Modalities and regions.
        policy: Under which the scores were computed.
        key: Which score; shares are given in per cent.
        nsd_tolerance_mm: With which the normalised surface Dice was computed.
        share: Of a cohort that several processes share: how many patients these are, and what shared them out.
    """
    means = subset_means(results, config, key)
    regions = [region for region, _ in config.regions]
    counts = {subset: sum(any(row.subset == subset for row in result.rows) for result in results) for subset in means}
    same = len(set(counts.values())) == 1
    marks = marks_of(means, config)
    rows = [
        [
            *marked(subset, config),
            *(number_text(row[r], key) for r in regions),
            *([] if same else [str(counts[subset])]),
        ]
        for subset, row in means.items()
    ]
    if len(means) > 1:
        cells = ["means", *[""] * (len(marks) - 1), *(number_text(mean_of_subsets(means, r), key) for r in regions)]
        rows.append([*cells, *([] if same else [""])])
    more = _columns_without_convention(results, config, key)
    n = " to ".join(str(count) for count in sorted({min(counts.values(), default=0), max(counts.values(), default=0)}))
    of = f", {share}" if share else ""
    return Table(
        f"{title_of(key, nsd_tolerance_mm)}, mean over patients, n = {n}{of}, policy {policy}",
        (*marks, *regions, *([] if same else ["n"]), *more),
        tuple((*row, *(column[index] for column in more.values())) for index, row in enumerate(rows)),
        len(marks),
        tuple(filter(None, [_decided(results, key), ABOUT_CONVENTION if more else ""])),
    )


def _columns_without_convention(
    results: Sequence[PatientScores], config: ModelConfig, key: str
) -> dict[str, tuple[str, ...]]:
    """Return heading to cells, two columns for each region of which the convention decided a score."""
    columns: dict[str, tuple[str, ...]] = {}
    means = subset_means_of_masks(results, config, key)
    for region, _ in config.regions:
        counts = [count_by_convention(results, subset, region, key) for subset in means]
        if any(counts):
            several = len(means) > 1
            columns[f"{region} {BY_CONVENTION}"] = (*map(str, counts), *([""] if several else []))
            values = [row[region] for row in means.values()] + ([mean_of_subsets(means, region)] if several else [])
            columns[f"{region} {WITHOUT}"] = tuple(number_text(value, key) for value in values)
    return columns


def comparison_tables(results: Sequence[PatientScores], config: ModelConfig, share: str = "") -> list[Table]:
    """Return a table a region: our mean Dice beside the paper's Table 1, in %, a row a subset, then the means.

    The published means stand there only when all 15 subsets were scored. Where nothing is published, no table.
    """
    means = subset_means(results, config, "dice")
    if not published_beside(means, config):
        return []
    marks = marks_of(means, config)
    of = f", ours of {share}" if share else ""
    tables = []
    for region in (region for region, _ in config.regions if region in REGIONS):
        rows = [
            (
                *marked(subset, config),
                number_text(row[region], "dice"),
                *(two_digits(TABLE_1[method].get(subset, {}).get(region, math.nan)) for method in METHODS),
            )
            for subset, row in means.items()
        ]
        if set(means) == set(TABLE_1[METHODS[0]]):
            published = [two_digits(TABLE_1_MEANS[method][region]) for method in METHODS]
            ours = number_text(mean_of_subsets(means, region), "dice")
            rows.append(("means", *[""] * (len(marks) - 1), ours, *published))
        columns = (*marks, "ours", *METHODS)
        title = f"{region}, Dice in %{of}"
        tables.append(Table(title, columns, tuple(rows), len(marks), (OTHER_PATIENTS,)))
    return tables


def published_beside(subsets: Iterable[str], config: ModelConfig) -> bool:
    """Return whether the paper has a Dice of any of the subsets and regions."""
    regions = {region for region, _ in config.regions}
    return config.modalities == MODALITIES and any(
        regions & set(TABLE_1[METHODS[0]].get(subset, {})) for subset in subsets
    )


def marks_of(subsets: Iterable[str], config: ModelConfig) -> list[str]:
    """Return the headings before the scores: the modalities, or one for files that were scored."""
    return ["scored"] if list(subsets) == [PREDICTIONS] else [heading(m) for m in config.modalities]


def marked(subset: str, config: ModelConfig) -> list[str]:
    """Return the cells before the scores of a subset: which sequences it has."""
    names = subset.split("+")
    return [subset] if subset == PREDICTIONS else [PRESENT if m in names else ABSENT for m in config.modalities]


def _decided(results: Sequence[PatientScores], key: str) -> str:
    """Return one line on the scores that the masks alone do not give, empty where there are none."""
    rows = [row for result in results for row in result.rows if key in row.values]
    conventions = [row.convention for row in rows if by_convention(row, key) and not math.isnan(row.values[key])]
    kinds = {
        "with both masks empty": conventions.count("both_empty"),
        "with one empty": conventions.count("one_empty"),
        "missed altogether (0)": sum(missed_altogether(row, key) for row in rows),
        "undefined and left out of the means": sum(math.isnan(row.values[key]) for row in rows),
    }
    said = [f"{count} {kind}" for kind, count in kinds.items() if count]
    return f"of {len(rows)} scores: {', '.join(said)}" if said else ""


def title_of(key: str, nsd_tolerance_mm: float | None = None) -> str:
    """Return what a score is called, with its unit and, of the surface Dice, the tolerance that is given."""
    at = "" if nsd_tolerance_mm is None or key != "nsd" else f" at {nsd_tolerance_mm:g} mm"
    return (_RATIOS.get(key) or _LENGTHS_AND_VOLUMES.get(key, key)) + at


def scale_of(key: str) -> float:
    """Return what a score is multiplied by where it is shown: 100 for shares, which are per cent there."""
    return 100.0 if key in _RATIOS else 1.0


def number_text(value: float, key: str) -> str:
    """Return a score as it stands in a table; empty where it is undefined."""
    return two_digits(value * scale_of(key))


def two_digits(value: float) -> str:
    """Return a number with two decimals; empty where there is none."""
    return "" if math.isnan(value) else f"{round(value, 2) + 0.0:.2f}"  # no -0.00
