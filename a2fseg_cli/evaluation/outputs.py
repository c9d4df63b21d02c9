"""What an evaluation writes: tables, charts, the figure of one patient, and weights that carry their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from a2fseg_cli.core.networks import parameter_shapes
from a2fseg_cli.errors import UsageError, some
from a2fseg_cli.evaluation.calibration import of_patients, reliability_rows
from a2fseg_cli.evaluation.formats import latex, markdown, scores_csv
from a2fseg_cli.evaluation.means import attention_means, dice_of_patients
from a2fseg_cli.evaluation.metrics import metric_definition
from a2fseg_cli.evaluation.network_masks import NetworkMasks
from a2fseg_cli.evaluation.progression import draw_progression
from a2fseg_cli.evaluation.scored_cohort import ScoredCohort
from a2fseg_cli.evaluation.summary import card_scores
from a2fseg_cli.evaluation.tables import Table
from a2fseg_cli.files import atomic_write_text, check_place, csv_text, json_text
from a2fseg_cli.reporting import charts
from a2fseg_cli.weights.file_format import load_weights, save_weights


@dataclass
class Written:
    """The files that were written, what was left out and why, and what to know of them."""

    files: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Outputs:
    """What is asked for.

    Attributes:
        folder: Of the tables and charts; None writes none.
        card: File that becomes a copy of the weights with the scores in their card.
        figure: Case that is drawn from FLAIR to all modalities, into `folder`.
        overwrite: Whether what is there may be replaced.
    """

    folder: Path | None = None
    card: Path | None = None
    figure: str | None = None
    overwrite: bool = False

    def check(self, every_subset: bool, metrics: Sequence[str]) -> None:
        """Refuse what could not be written, or would lack its scores. Raises: UsageError, ResourceError."""
        if self.figure and self.folder is None:
            raise UsageError("figure needs an output folder.")
        if self.card is None:
            return
        if not every_subset or "dice" not in metrics:
            raise UsageError("write_card stores the Dice of all subsets: expected all subsets, and dice in metrics.")
        check_place(self.card)
        if self.card.exists() and not self.overwrite:
            raise UsageError(f"{self.card} exists. Give overwrite, or another name.")

    def write(self, scored: ScoredCohort, tables: Sequence[Table], summary: Mapping[str, Any]) -> Written:
        """Write all that is asked for and can be; nothing where no patient was scored.

        Raises:
            ResourceError: a file cannot be written.
        """
        written = Written()
        if scored.patients and self.folder:
            written.files += _write_tables(self.folder, scored, tables, summary)
        if scored.patients and isinstance(scored.source, NetworkMasks):
            self._draw_figure(scored, scored.source, written)
            self._write_card(scored, scored.source, written)
        return written

    def _draw_figure(self, scored: ScoredCohort, source: NetworkMasks, written: Written) -> None:
        if not self.figure or self.folder is None:
            return
        if self.figure not in [scores.case for scores in scored.patients]:
            failed = self.figure in [failure.case for failure in scored.failures]
            why = "could not be scored" if failed else "is another part's, not scored yet"
            written.warnings.append(f"{self.figure} {why}; the figure was not drawn.")
            return
        written.files.append(self.folder / f"progression_{self.figure}.png")
        case = next(case for case in scored.cases.every if case.name == self.figure)
        draw_progression(source, case, written.files[-1])

    def _write_card(self, scored: ScoredCohort, source: NetworkMasks, written: Written) -> None:
        """Copy the weights with the scores in their card."""
        if self.card is None:
            return
        some, every = len(scored.patients), len(scored.cases.every)
        if some < every:
            written.warnings.append(f"{some} of {every} patients are scored; {self.card} was not written.")
            return
        file, tensors = load_weights(source.segmenter.weights.path, parameter_shapes)
        scores = card_scores(scored.patients, file.config, source.options.policy, scored.kinds)
        card = {**file.card, "scores": scores}
        written.warnings += _not_kept_aside(file.card, [patient.case for patient in scored.patients])
        copy = save_weights(self.card, tensors, file.config, card)
        written.files.append(copy.path)
        written.notes.append(f"{copy.path}: sha256 {copy.sha256}")


def _not_kept_aside(card: Mapping[str, Any], cases: Sequence[str]) -> list[str]:
    """Return a warning where the card would call patients test patients whom the weights were made with."""
    data = card.get("data", {})
    seen = {name for part in ("train", "validation") for name in data.get(part, ())}
    known = [case for case in cases if case in seen]
    if not known:
        return []
    return [
        f"the weights were trained or chosen on {len(known)} of these {len(cases)} patients ({some(known, 3)}), and "
        "their card now calls all of them test patients. Score those that were kept aside (split)"
    ]


def _write_tables(
    folder: Path, scored: ScoredCohort, tables: Sequence[Table], summary: Mapping[str, Any]
) -> list[Path]:
    """Write the scores of every patient, the summary, the tables and their charts; return the files."""
    config, options = scored.source.config, scored.options
    definition = metric_definition(options.policy, options.metrics)
    texts = {
        "scores.csv": scores_csv(scored.patients, options.metrics, options.policy),
        "summary.json": json_text(summary),
        "table.md": markdown(tables, definition),
        "table.tex": latex(tables, definition),
    }
    for name, text in texts.items():
        atomic_write_text(folder / name, text)
    files = [folder / name for name in texts]
    if "dice" in options.metrics:
        files.append(folder / "dice.png")
        charts.write_dice_boxes(files[-1], dice_of_patients(scored.patients, config))
    if attention := attention_means(scored.patients, config):
        files.append(folder / "attention.png")
        charts.write_attention_bars(files[-1], attention)
    if curves := of_patients(scored.patients, config):
        files += [folder / "reliability.csv", folder / "reliability.png"]
        atomic_write_text(files[-2], csv_text(reliability_rows(curves)))
        points = {
            region: {subset: regions[region].points for subset, regions in curves.items() if regions[region].points}
            for region, _ in config.regions
        }
        charts.write_reliability(files[-1], points)
    return files
