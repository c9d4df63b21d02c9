"""The evaluation as one call: patients, masks, scores, tables and files. Nothing is printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from a2fseg_cli.cluster.crew import Crew
from a2fseg_cli.cluster.job import absolute
from a2fseg_cli.core.config import ModelConfig, all_subsets
from a2fseg_cli.core.device import choose_compute
from a2fseg_cli.errors import UsageError
from a2fseg_cli.evaluation.cohort import Failure, Report, score_cohort
from a2fseg_cli.evaluation.existing_masks import ExistingMasks
from a2fseg_cli.evaluation.kept_scores import KeptScores
from a2fseg_cli.evaluation.mask_source import MaskSource
from a2fseg_cli.evaluation.metrics import (
    CALIBRATION,
    DEFAULT_METRICS,
    DEFAULT_POLICY,
    NSD_TOLERANCE_MM,
    metric_definition,
)
from a2fseg_cli.evaluation.network_masks import NetworkMasks
from a2fseg_cli.evaluation.options import ScoringOptions
from a2fseg_cli.evaluation.outputs import Outputs
from a2fseg_cli.evaluation.patient_scores import PatientScores
from a2fseg_cli.evaluation.result import EvaluationResult
from a2fseg_cli.evaluation.scored_cohort import ScoredCohort
from a2fseg_cli.evaluation.selected_cases import SelectedCases, selected_cases
from a2fseg_cli.inference.cleaning import least_volumes
from a2fseg_cli.inference.elsewhere import compute_of
from a2fseg_cli.inference.predictor import Segmenter, WindowOptions
from a2fseg_cli.weights.cache import resolve_weights
from a2fseg_cli.weights.file_format import inspect_weights

MOST_MODALITIES = 8  # of which all subsets, 255, are still computed

Subsets = Sequence[str | Sequence[str]] | Literal["all"]


@dataclass(frozen=True)
class Start:
    """What is known when the first patient is about to be scored.

    Attributes:
        patients: How many this process scores.
        network: Device, why it was taken, precision and weights in one line; empty where files are scored.
        share: Of a shared cohort, `1 of 3 patients (SLURM array)`; else empty.
    """

    patients: int
    network: str
    share: str


def evaluate(
    data: str | Path,
    *,
    subsets: Subsets | None = None,
    predictions: str | Path | None = None,
    split: str | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    policy: str = DEFAULT_POLICY,
    nsd_tolerance_mm: float = NSD_TOLERANCE_MM,
    labels: str = "auto",
    prediction_labels: str | Mapping[str, int] = "auto",
    compare: str | None = None,
    output: str | Path | None = None,
    figure: str | None = None,
    write_card: str | Path | None = None,
    overwrite: bool = False,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    window: tuple[int, int, int] | None = None,
    overlap: float = WindowOptions.overlap,
    tta: bool | None = None,
    remove_small: Mapping[str, float] | None = None,
    fill_holes: bool = False,
    num_parts: int | None = None,
    part_id: int | None = None,
    crew: Crew | None = None,
    on_start: Callable[[Start], None] = lambda _: None,
    on_patient: Report = lambda *_: None,
) -> EvaluationResult:
    """Return the scores of subsets of modalities, or of label maps that exist, against the expert's masks.

    Args:
        data: A cohort's folder (BIDS too), a patient's, or a CSV (case, t1, t1c, t2, flair, seg).
        subsets: Such as `["t1c+flair"]`; "all"; None takes all that a patient has.
        predictions: Folder of label maps of any tool, scored in place of the network's. A `dataset.json` of nnU-Net in
            it says which value is which class.
        split: `FILE` or `FILE:NAME`: JSON, name to list of cases; only these are scored.
        metrics: Keys of METRICS.
        policy: Key of POLICIES: HD95, and what an empty region gets.
        nsd_tolerance_mm: Distance up to which surfaces agree, for `nsd`.
        labels: Scheme of the truth: auto, or a key of SCHEMES.
        prediction_labels: The same of `predictions`, or the value of each class: `NCR=2,ED=1,ET=3`, or a mapping.
        compare: "paper" puts the published Dice beside ours.
        output: Folder for tables, CSV, JSON and charts; scores that are in it already are taken over.
        figure: Case that is drawn from FLAIR to all modalities, into `output`.
        write_card: File that becomes a copy of the weights with these scores in their card.
        overwrite: Replace `write_card` and scores of other settings.
        weights: Name or file; None takes the bundled ones.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32, bf16 or fp16.
        window: Edges (D, H, W) in voxels; None plans it.
        overlap: Least overlap of neighbouring windows, a share of the edge.
        tta: Test-time mirroring over all three axes (True), none (False), or as the weights say (None).
        remove_small: Region to the volume in mm3 under which its parts are removed from the network's masks.
        fill_holes: Then also fill holes of these.
        num_parts: In how many parts the cohort is shared; None reads the variables of a SLURM array or of torchrun.
        part_id: Which of them is this process's, from 0.
        crew: Workers that share the patients (`connected`), whose device and precision are meant.
        on_start: Called once, before the first patient.
        on_patient: Called with each patient's scores or failure, and whether they were taken over.

    Raises:
        UsageError: parameters that contradict each other or are not known, an output that would be overwritten.
        InputError: no patient, no prediction for any, or a file of settings that cannot be understood.
        WeightsError: the weights are missing, damaged or not for this tool.
        ResourceError: memory or disk ran out.
    """
    windows = WindowOptions(window, overlap, tta)
    if crew is not None:  # workers have working folders of their own
        data, predictions = Path(data).absolute(), absolute(predictions)
    given: dict[str, Any] = {
        "subsets": subsets,
        "figure": figure,
        "write_card": write_card,
        "device": device,
        "precision": precision,
    }
    given |= {"remove_small": remove_small or None, "fill_holes": fill_holes or None}
    _check_masks(given | vars(windows), predictions is not None, prediction_labels, metrics)
    if write_card is not None and (remove_small or fill_holes):
        raise UsageError(
            "write_card: a card holds the scores of the network as it is, without remove_small, fill_holes."
        )
    if compare not in (None, "paper") or (compare and "dice" not in metrics):
        raise UsageError(f"compare {compare}: expected paper, whose scores are Dice, and dice among the metrics.")
    folder, card = (None if path is None else Path(path) for path in (output, write_card))
    outputs = Outputs(folder, card, figure, overwrite)
    outputs.check(subsets == "all", metrics)

    segmenter = None
    if predictions is None:
        compute = choose_compute(device, precision) if crew is None else compute_of(crew, device, precision)
        segmenter = Segmenter(resolve_weights(weights), compute, windows)
    config = segmenter.config if segmenter else _config_of(weights)
    options = ScoringOptions(
        _subsets(subsets, config.modalities),
        tuple(dict.fromkeys(metrics)),
        policy,
        labels,
        _label_text(prediction_labels),
        attention=output is not None and predictions is None,
        nsd_tolerance_mm=nsd_tolerance_mm,
        remove_small=least_volumes(config, remove_small or {}),
        fill_holes=fill_holes,
    )
    cases = selected_cases(Path(data), split, config.modalities, num_parts, part_id)
    if figure and figure not in [case.name for case in cases.every]:
        raise UsageError(f"figure {figure}: no such patient among {', '.join(case.name for case in cases.every)}.")
    source = _masks(segmenter, predictions, cases, config, options)
    on_start(Start(len(cases.own), source.description, cases.share(len(cases.own))))
    return _written(_score(source, options, cases, outputs, on_patient, crew), outputs, compare is not None)


def _check_masks(
    network: Mapping[str, Any], from_files: bool, prediction_labels: str | Mapping[str, int], metrics: Sequence[str]
) -> None:
    """Refuse what would run the network beside files that are scored, and the reverse. Raises: UsageError."""
    usual = {"device": "auto", "precision": "auto", **vars(WindowOptions())}
    given = [name for name, value in network.items() if value != usual.get(name)]
    if from_files and given:
        raise UsageError(f"predictions are files that are scored; {', '.join(given)} would run the network.")
    if from_files and CALIBRATION in metrics:
        raise UsageError(f"metrics {CALIBRATION}: masks have no probabilities; leave predictions out.")
    if not from_files and prediction_labels != "auto":
        raise UsageError("prediction_labels needs predictions.")
    if not 0 <= network["overlap"] < 1:
        raise UsageError(f"overlap {network['overlap']}: expected 0 up to, but not including, 1.")


def _config_of(weights: str | Path | None) -> ModelConfig:
    """Return whose classes files are scored in: of BraTS, or of the weights that were named."""
    return ModelConfig() if weights is None else inspect_weights(resolve_weights(weights)).config


def _masks(
    segmenter: Segmenter | None,
    predictions: str | Path | None,
    cases: SelectedCases,
    config: ModelConfig,
    options: ScoringOptions,
) -> MaskSource:
    """Return where the masks come from: the network, else the files."""
    if predictions is None:
        assert segmenter is not None
        return NetworkMasks(segmenter, options)
    return ExistingMasks.of_folder(Path(predictions), cases.every, config, options)


def _subsets(subsets: Subsets | None, modalities: Sequence[str]) -> tuple[tuple[str, ...], ...] | None:
    """Return the subsets asked for, each in the model's order. Raises: UsageError for an unknown modality."""
    if subsets is None:
        return None
    if subsets == "all":
        if len(modalities) > MOST_MODALITIES:
            raise UsageError(f"all subsets: 2^{len(modalities)} - 1 of them; name those you want.")
        return tuple(all_subsets(modalities))
    in_order = []
    for subset in [subsets] if isinstance(subsets, str) else subsets:
        parts = [part.strip().lower() for part in (subset.split("+") if isinstance(subset, str) else subset)]
        if not parts or not set(parts) <= set(modalities) or len(set(parts)) != len(parts):
            name = "+".join(parts)
            raise UsageError(f"subset {name}: expected some of {', '.join(modalities)}, joined by +.")
        in_order.append(tuple(m for m in modalities if m in parts))
    return tuple(dict.fromkeys(in_order))


def _label_text(labels: str | Mapping[str, int]) -> str:
    return labels if isinstance(labels, str) else ",".join(f"{name}={value}" for name, value in labels.items())


def _score(
    source: MaskSource,
    options: ScoringOptions,
    cases: SelectedCases,
    outputs: Outputs,
    on_patient: Report,
    crew: Crew | None,
) -> ScoredCohort:
    """Score this process's patients, and take what other parts have finished into the tables as well."""
    failures: list[Failure] = []

    def report(outcome: PatientScores | Failure, taken_over: bool) -> None:
        if isinstance(outcome, Failure):
            failures.append(outcome)
        on_patient(outcome, taken_over)

    kept = KeptScores(source, options, outputs.folder)
    patients = score_cohort(cases.own, source, kept, report, outputs.overwrite, crew)
    if len(cases.own) < len(cases.every):
        own = {scores.case: scores for scores in patients}
        known = [own.get(case.name) or kept.read(case) for case in cases.every]
        patients = [scores for scores in known if scores is not None]
    return ScoredCohort(source, options, cases, tuple(patients), tuple(failures))


def _written(scored: ScoredCohort, outputs: Outputs, compare: bool) -> EvaluationResult:
    """Write what is asked for, and return all of it."""
    tables, content = scored.tables(compare), scored.summary()
    written = outputs.write(scored, tables, content)
    return EvaluationResult(
        tables,
        scored.patients,
        scored.failures,
        content,
        metric_definition(scored.options.policy),
        (*scored.warnings(), *written.warnings),
        (*scored.source.notes, *written.notes),
        scored.share,
        len(scored.cases.own),
        tuple(written.files),
    )
