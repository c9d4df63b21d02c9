"""The evaluation as one call: patients, masks, scores, tables and files. Nothing is printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from a2fseg_cli.cluster.crew import Crew
from a2fseg_cli.evaluation.cohort import Report
from a2fseg_cli.evaluation.compare import compare_methods
from a2fseg_cli.evaluation.methods import Given, methods_of, single
from a2fseg_cli.evaluation.metrics import DEFAULT_METRICS, DEFAULT_POLICY, NSD_TOLERANCE_MM
from a2fseg_cli.evaluation.one_method import Request, Start, Subsets, evaluate_one
from a2fseg_cli.evaluation.result import EvaluationResult
from a2fseg_cli.inference.predictor import WindowOptions

__all__ = ["Start", "evaluate"]


def evaluate(
    data: str | Path,
    *,
    subsets: Subsets | None = None,
    predictions: Given | None = None,
    split: str | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    policy: str = DEFAULT_POLICY,
    nsd_tolerance_mm: float = NSD_TOLERANCE_MM,
    labels: str = "auto",
    prediction_labels: str | Mapping[str, int] = "auto",
    compare: str | None = None,
    kinds: str | Path | None = None,
    output: str | Path | None = None,
    figure: str | None = None,
    write_card: str | Path | None = None,
    overwrite: bool = False,
    weights: Given | None = None,
    device: str = "auto",
    precision: str = "auto",
    window: tuple[int, int, int] | None = None,
    overlap: float = WindowOptions.overlap,
    tta: bool | None = None,
    remove_small: Mapping[str, float] | None = None,
    fill_holes: bool = False,
    keep_tiny: bool = False,
    num_parts: int | None = None,
    part_id: int | None = None,
    crew: Crew | None = None,
    on_start: Callable[[Start], None] = lambda _: None,
    on_patient: Report = lambda *_: None,
) -> EvaluationResult:
    """Return the scores of subsets of modalities, or of label maps that exist, against the expert's masks.

    Several methods, networks or folders of masks, are compared on the same patients: see `EvaluationResult`.

    Args:
        data: A cohort's folder (BIDS too), a patient's, or a CSV (case, t1, t1c, t2, flair, seg).
        subsets: Such as `["t1c+flair"]`; "all"; None takes all that a patient has.
        predictions: Folder of label maps of any tool, scored in place of the network's. A `dataset.json` of nnU-Net in
            it says which value is which class. Several are compared: `{"nnunet": folder, ...}`, or a list of
            `NAME=FOLDER`; where several subsets are scored, each holds one folder a subset, named like `t1c+flair`.
        split: `FILE` or `FILE:NAME`: JSON, name to list of cases; only these are scored.
        metrics: Keys of METRICS.
        policy: Key of POLICIES: HD95, and what an empty region gets.
        nsd_tolerance_mm: Distance up to which surfaces agree, for `nsd`.
        labels: Scheme of the truth: auto, or a key of SCHEMES.
        prediction_labels: The same of `predictions`, or the value of each class: `NCR=2,ED=1,ET=3`, or a mapping.
        compare: "paper" puts the published Dice beside ours.
        kinds: Also give the mean Dice by kind of patient: `truth`, with and without each region; or a CSV with the
            columns case and kind, those kinds as well. A card has them in any case. Of one method only.
        output: Folder for tables, CSV, JSON and charts; scores that are in it already are taken over. Of a comparison
            each method has a folder of its name in it.
        figure: Case that is drawn from FLAIR to all modalities, into `output`.
        write_card: File that becomes a copy of the weights with these scores in their card.
        overwrite: Replace `write_card` and scores of other settings.
        weights: Name or file; None takes the bundled ones. Several are compared, also with `predictions` that have
            names: `{"first": file, "second": file}`, or a list of `NAME=FILE`.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32, bf16 or fp16.
        window: Edges (D, H, W) in voxels; None plans it.
        overlap: Least overlap of neighbouring windows, a share of the edge.
        tta: Test-time mirroring over all three axes (True), none (False), or as the weights say (None).
        remove_small: Region to the volume in mm3 under which its parts are removed from the network's masks.
        fill_holes: Then also fill holes of these.
        keep_tiny: Also score regions that the weights' card says are rather invented, so small are they.
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
    if crew is not None:  # workers have working folders of their own
        data = Path(data).absolute()
    methods = methods_of(weights, predictions, subsets is not None)
    request = Request(
        data, subsets, None if methods else single(predictions), split, metrics, policy, nsd_tolerance_mm, labels,
        prediction_labels, compare, kinds, _path(output), figure, _path(write_card), overwrite,
        None if methods else single(weights), device, precision, WindowOptions(window, overlap, tta), remove_small,
        fill_holes, keep_tiny, num_parts, part_id, crew, "", on_start, on_patient,
    )  # fmt: skip
    return compare_methods(request, methods) if methods else evaluate_one(request)


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
