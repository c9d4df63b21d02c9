"""The evaluation of one network, or of one folder of masks: patients, masks, scores, tables and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from a2fseg_cli.cluster.crew import Crew
from a2fseg_cli.cluster.job import absolute
from a2fseg_cli.core.config import ModelConfig, all_subsets
from a2fseg_cli.core.device import choose_compute
from a2fseg_cli.errors import UsageError
from a2fseg_cli.evaluation.cohort import Failure, Report, score_cohort
from a2fseg_cli.evaluation.existing_masks import ExistingMasks
from a2fseg_cli.evaluation.kept_scores import KeptScores
from a2fseg_cli.evaluation.kinds import read_kinds
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
from a2fseg_cli.evaluation.selected_cases import SelectedCases, had_by_some, selected_cases
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
        method: Of several that are compared, which one begins; else empty.
    """

    patients: int
    network: str
    share: str
    method: str = ""


@dataclass(frozen=True)
class Request:
    """What is asked for: the arguments of `evaluate`, where they are explained, for one network or one folder."""

    data: str | Path
    subsets: Subsets | None = None
    predictions: str | Path | None = None
    split: str | None = None
    metrics: Sequence[str] = DEFAULT_METRICS
    policy: str = DEFAULT_POLICY
    nsd_tolerance_mm: float = NSD_TOLERANCE_MM
    labels: str = "auto"
    prediction_labels: str | Mapping[str, int] = "auto"
    compare: str | None = None
    kinds: str | Path | None = None
    output: Path | None = None
    figure: str | None = None
    write_card: Path | None = None
    overwrite: bool = False
    weights: str | Path | None = None
    device: str = "auto"
    precision: str = "auto"
    windows: WindowOptions = field(default_factory=WindowOptions)
    remove_small: Mapping[str, float] | None = None
    fill_holes: bool = False
    keep_tiny: bool = False
    num_parts: int | None = None
    part_id: int | None = None
    crew: Crew | None = None
    method: str = ""
    on_start: Callable[[Start], None] = lambda _: None
    on_patient: Report = lambda *_: None

    @property
    def running(self) -> list[str]:
        """The parameters given that would run a network."""
        usual = {"device": "auto", "precision": "auto", **vars(WindowOptions())}
        given = {
            "subsets": self.subsets,
            "figure": self.figure,
            "write_card": self.write_card,
            "device": self.device,
            "precision": self.precision,
            **vars(self.windows),
            "remove_small": self.remove_small or None,
            "fill_holes": self.fill_holes or None,
            "keep_tiny": self.keep_tiny or None,
        }
        return [name for name, value in given.items() if value != usual.get(name)]

    def check(self) -> None:
        """Refuse parameters that contradict each other, whatever is scored. Raises: UsageError."""
        if self.write_card is not None and (self.remove_small or self.fill_holes or self.keep_tiny):
            raise UsageError(
                "write_card: a card holds the scores of the network as it is, without remove_small, fill_holes, "
                "keep_tiny."
            )
        if self.write_card is not None and self.windows.tta is not None:
            raise UsageError("write_card: a card holds the scores of the network as predict runs it, without tta.")
        if self.kinds is not None and "dice" not in self.metrics:
            raise UsageError(f"kinds {self.kinds}: expected dice among the metrics.")
        if self.compare not in (None, "paper") or (self.compare and "dice" not in self.metrics):
            raise UsageError(
                f"compare {self.compare}: expected paper, whose scores are Dice, and dice among the metrics."
            )
        if not 0 <= self.windows.overlap < 1:
            raise UsageError(f"overlap {self.windows.overlap}: expected 0 up to, but not including, 1.")

    def check_masks(self) -> None:
        """Refuse what would run the network beside files that are scored, and the reverse. Raises: UsageError."""
        from_files = self.predictions is not None
        if from_files and self.running:
            named = ", ".join(self.running)
            raise UsageError(
                f"predictions are files that are scored; {named} would run the network. To compare a network with "
                "them, give both names: NAME=FILE, NAME=FOLDER."
            )
        if from_files and CALIBRATION in self.metrics:
            raise UsageError(f"metrics {CALIBRATION}: masks have no probabilities; leave predictions out.")
        if not from_files and self.prediction_labels != "auto":
            raise UsageError("prediction_labels needs predictions.")


def evaluate_one(request: Request, cases: SelectedCases | None = None) -> EvaluationResult:
    """Return the scores of one network, or of one folder of masks.

    Args:
        request: What is asked for.
        cases: The patients; None looks for them.

    Raises:
        UsageError: parameters that contradict each other or are not known, an output that would be overwritten.
        InputError: no patient, no prediction for any, or a file of settings that cannot be understood.
        WeightsError: the weights are missing, damaged or not for this tool.
        ResourceError: memory or disk ran out.
    """
    request.check()
    request.check_masks()
    groups = None if request.kinds is None else read_kinds(request.kinds)
    outputs = Outputs(request.output, request.write_card, request.figure, request.overwrite)
    outputs.check(request.subsets == "all", request.metrics)
    segmenter = None
    if request.predictions is None:
        here = request.device, request.precision
        compute = choose_compute(*here) if request.crew is None else compute_of(request.crew, *here)
        segmenter = Segmenter(resolve_weights(request.weights), compute, request.windows)
    config = segmenter.config if segmenter else config_of(request.weights)
    options = _options(request, config)
    if cases is None:
        where = Path(request.data), request.split, config.modalities
        cases = selected_cases(*where, request.num_parts, request.part_id)
    if options.subsets is not None:
        had_by_some(options.subsets, cases, config.modalities)
    if request.figure and request.figure not in [case.name for case in cases.every]:
        names = ", ".join(case.name for case in cases.every)
        raise UsageError(f"figure {request.figure}: no such patient among {names}.")
    folder = request.predictions if request.crew is None else absolute(request.predictions)
    source = _masks(segmenter, folder, cases, config, options)
    share = cases.share(len(cases.own))
    request.on_start(Start(len(cases.own), source.description, share, request.method))
    scored = _score(source, options, cases, outputs, request.on_patient, groups, request.crew)
    return _written(scored, outputs, request.compare is not None)


def _options(request: Request, config: ModelConfig) -> ScoringOptions:
    return ScoringOptions(
        subsets_in_order(request.subsets, config.modalities),
        tuple(dict.fromkeys(request.metrics)),
        request.policy,
        request.labels,
        _label_text(request.prediction_labels),
        attention=request.output is not None and request.predictions is None,
        nsd_tolerance_mm=request.nsd_tolerance_mm,
        remove_small=least_volumes(config, request.remove_small or {}),
        fill_holes=request.fill_holes,
        keep_tiny=request.keep_tiny,
    )


def config_of(weights: str | Path | None) -> ModelConfig:
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


def subsets_in_order(subsets: Subsets | None, modalities: Sequence[str]) -> tuple[tuple[str, ...], ...] | None:
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
    kinds: Mapping[str, str] | None,
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
    return ScoredCohort(source, options, cases, tuple(patients), tuple(failures), kinds)


def _written(scored: ScoredCohort, outputs: Outputs, compare: bool) -> EvaluationResult:
    """Write what is asked for, and return all of it."""
    tables, content = scored.tables(compare), scored.summary()
    written = outputs.write(scored, tables, content)
    return EvaluationResult(
        tables,
        scored.patients,
        scored.failures,
        content,
        metric_definition(scored.options.policy, scored.options.metrics),
        (*scored.warnings(compare), *written.warnings),
        (*scored.source.notes, *written.notes),
        scored.share,
        len(scored.cases.own),
        tuple(written.files),
    )
