"""What `evaluate` prints and writes when it is done: tables, figures, and weights that carry their scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2fseg_cli.cli.console import print_json, print_table, say
from a2fseg_cli.files import atomic_write_text, json_text

if TYPE_CHECKING:
    from a2fseg_cli.cases.discovery import Case
    from a2fseg_cli.evaluation.cohort import Evaluation
    from a2fseg_cli.evaluation.patient_scores import PatientScores
    from a2fseg_cli.evaluation.tables import Table
    from a2fseg_cli.inference.predictor import Segmenter


def show_scores(
    evaluation: Evaluation,
    results: Sequence[PatientScores],
    failed: dict[str, str],
    compare: bool,
    output: Path | None,
    json_: bool,
) -> None:
    """Print the tables, and write them where a folder was given."""
    from a2fseg_cli.evaluation.metrics import metric_definition
    from a2fseg_cli.evaluation.tables import comparison_tables, score_keys, score_table, summary

    task, config = evaluation.task, evaluation.config
    tables = [score_table(results, config, task.policy, key, task.nsd_tolerance_mm) for key in score_keys(task.metrics)]
    tables += comparison_tables(results, config) if compare and "dice" in task.metrics else []
    content = summary(results, failed, config, task.metrics, task.policy, _origin(evaluation))
    if json_:
        print_json(content)
    else:
        for table in tables:
            print(table.title)
            print_table(table.columns, table.rows)
            for note in table.notes:
                print(note)
        print(metric_definition(task.policy))
    missing = [result.case for result in results if result.missing]
    if missing:
        say(f"Warning: no prediction for {', '.join(missing)}; empty masks were scored.")
    if output is not None:
        _write(evaluation, results, tables, content, output)


def _origin(evaluation: Evaluation) -> dict[str, Any]:
    """Return what made the predictions, and with which versions they were scored."""
    from a2fseg_cli.versions import versions

    origin: dict[str, Any] = {"versions": versions(), "settings": vars(evaluation.task)}
    if segmenter := evaluation.segmenter:
        origin["weights"] = {"file": segmenter.weights.path.name, "sha256": segmenter.weights.sha256}
        origin["device"] = {"name": str(segmenter.compute.device), "precision": segmenter.compute.precision}
        origin["inference"] = vars(segmenter.inference)
    return origin


def _write(
    evaluation: Evaluation,
    results: Sequence[PatientScores],
    tables: Sequence[Table],
    content: dict[str, Any],
    output: Path,
) -> None:
    from a2fseg_cli.evaluation.formats import latex, markdown, scores_csv
    from a2fseg_cli.evaluation.metrics import metric_definition
    from a2fseg_cli.evaluation.tables import attention_means, dice_of_patients
    from a2fseg_cli.reporting.charts import write_attention_bars, write_dice_boxes

    task, config = evaluation.task, evaluation.config
    definition = metric_definition(task.policy)
    atomic_write_text(output / "scores.csv", scores_csv(results, task.metrics, task.policy))
    atomic_write_text(output / "summary.json", json_text(content))
    atomic_write_text(output / "table.md", markdown(tables, definition))
    atomic_write_text(output / "table.tex", latex(tables, definition))
    if "dice" in task.metrics:
        write_dice_boxes(output / "dice.png", dice_of_patients(results, config))
    if attention := attention_means(results, config):
        write_attention_bars(output / "attention.png", attention)


def draw_progression(evaluation: Evaluation, segmenter: Segmenter, case: Case, output: Path) -> None:
    """Draw one patient from ever more modalities, as Figure 2 of the paper."""
    from a2fseg_cli.evaluation.cohort import progression
    from a2fseg_cli.imaging.label_maps import check_on_grid, read_classes
    from a2fseg_cli.imaging.preprocessing import canonical_spacing_mm
    from a2fseg_cli.inference.patient import OutputOptions, load_patient
    from a2fseg_cli.modalities import heading
    from a2fseg_cli.reporting.overlay import write_subset_progression

    if case.problem or case.truth is None:
        return
    patient = load_patient(case.name, case.images, evaluation.config, OutputOptions())
    truth = read_classes(case.truth, evaluation.config, evaluation.task.labels)
    truth = check_on_grid(truth, patient.reference, patient.geometry)
    reorient = patient.prepared.route.reorient
    columns = enumerate(progression(segmenter, patient))
    write_subset_progression(
        output / f"progression_{case.name}.png",
        reorient.apply(patient.shown[1]),
        [(f"{'+ ' if n else ''}{heading(name)}", reorient.apply(classes)) for n, (name, classes) in columns],
        reorient.apply(truth.classes),
        canonical_spacing_mm(patient.geometry, reorient),
        evaluation.config.classes,
        title=case.name,
    )


def write_scored_weights(segmenter: Segmenter, results: Sequence[PatientScores], policy: str, path: Path) -> None:
    """Copy the weights with the scores in their card."""
    from a2fseg_cli.core.a2fseg import parameter_shapes
    from a2fseg_cli.evaluation.tables import card_scores
    from a2fseg_cli.weights.file_format import load_weights, save_weights

    file, tensors = load_weights(segmenter.weights.path, parameter_shapes)
    card = {**file.card, "scores": card_scores(results, file.config, policy)}
    written = save_weights(path, tensors, file.config, card)
    say(f"{written.path}: sha256 {written.sha256}")
