"""How scores are written: tables as Markdown and LaTeX, the scores of every patient as CSV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from a2fseg_cli.evaluation.means import by_convention
from a2fseg_cli.evaluation.metrics import POLICIES, score_keys
from a2fseg_cli.evaluation.patient_scores import PatientScores
from a2fseg_cli.evaluation.tables import ABSENT, PRESENT, Table
from a2fseg_cli.files import csv_text


def markdown(tables: Sequence[Table], definition: str) -> str:
    """Return the tables as Markdown, with the definition of the scores below."""
    parts = []
    for table in tables:
        lines = [
            f"**{table.title}**",
            "",
            _pipes(table.columns),
            _pipes([":-:" if i < table.marks else "--:" for i in range(len(table.columns))]),
            *map(_pipes, table.emphasised("**{}**", "<u>{}</u>")),
            "",
            *table.notes,
        ]
        parts.append("\n".join(lines).rstrip())
    return "\n\n".join([*parts, definition]) + "\n"


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def latex(tables: Sequence[Table], definition: str) -> str:
    """Return the tables as LaTeX `table` environments that need no package."""
    parts = [f"% {definition}"]
    for table in tables:
        aligned = "c" * table.marks + "r" * (len(table.columns) - table.marks)
        body = [_ampersands(row) for row in _latex_rows(table)]
        if len(body) > 1 and table.with_means:
            body.insert(-1, r"\hline")
        caption = _latex_text(". ".join(text.removesuffix(".") for text in (table.title, *table.notes)))
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    rf"\caption{{{caption}}}",
                    rf"\begin{{tabular}}{{{aligned}}}",
                    r"\hline",
                    _ampersands([_latex_text(column) for column in table.columns]),
                    r"\hline",
                    *body,
                    r"\hline",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


def _ampersands(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex_rows(table: Table) -> list[list[str]]:
    cells = tuple(tuple(_latex_cell(cell, i < table.marks) for i, cell in enumerate(row)) for row in table.rows)
    return replace(table, rows=cells).emphasised(r"\textbf{{{}}}", r"\underline{{{}}}")


def _latex_cell(cell: str, is_mark: bool) -> str:
    if is_mark and cell in (PRESENT, ABSENT):
        return r"$\bullet$" if cell == PRESENT else r"$\circ$"
    return _latex_text(cell)


def _latex_text(text: str) -> str:
    for character in "\\&%$#_{}":
        text = text.replace(character, f"\\{character}" if character != "\\" else "/")
    for sign, command in ((">=", r"$\geq$"), ("<", "$<$")):  # in LaTeX's own font `<` is an exclamation mark
        text = text.replace(sign, command)
    return text


def scores_csv(results: Sequence[PatientScores], metrics: Sequence[str], policy: str) -> str:
    """Return one line per patient, subset and region: scores, raw counts, conventions; undefined is empty."""
    keys = score_keys(metrics)
    counts = ["true_positives", "false_positives", "false_negatives", "reference_voxels", "predicted_voxels"]
    columns = ["case", "subset", "region", *keys, *counts, "convention", "prediction", "policy", "hd95_definition"]
    columns.append("by_convention")  # scores that the policy decided for an empty region, not the masks
    rows = [
        {
            "case": result.case,
            "subset": row.subset,
            "region": row.region,
            **{key: "" if math.isnan(value) else value for key, value in row.values.items()},
            **row.counts,
            "convention": row.convention,
            "prediction": "missing" if result.missing else "",
            "policy": policy,
            "hd95_definition": POLICIES[policy].hd95,
            "by_convention": " ".join(key for key in row.values if by_convention(row, key)),
        }
        for result in results
        for row in result.rows
    ]
    return csv_text(rows, columns)
