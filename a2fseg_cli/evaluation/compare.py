"""Several methods on the same patients: each is scored as it would be alone, then they are compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from a2fseg_cli.cases.time_points import several_time_points
from a2fseg_cli.core.config import ModelConfig, subset_name
from a2fseg_cli.core.networks import parameter_shapes
from a2fseg_cli.errors import UsageError, some
from a2fseg_cli.evaluation.comparison import Comparison
from a2fseg_cli.evaluation.comparison_outputs import plain_values, write_comparison
from a2fseg_cli.evaluation.mask_folders import check_complete, folders_of, not_scored
from a2fseg_cli.evaluation.method_tables import all_tables
from a2fseg_cli.evaluation.methods import Method
from a2fseg_cli.evaluation.metrics import CALIBRATION, metric_definition, score_keys
from a2fseg_cli.evaluation.one_method import Request, config_of, evaluate_one, subsets_in_order
from a2fseg_cli.evaluation.patient_scores import PREDICTIONS, PatientScores
from a2fseg_cli.evaluation.result import EvaluationResult
from a2fseg_cli.evaluation.selected_cases import SelectedCases, had_by_some, selected_cases
from a2fseg_cli.evaluation.tables import NOTHING_PUBLISHED, published_beside

_OF_ONE = ("figure", "write_card", "kinds", "num_parts", "part_id")


@dataclass(frozen=True)
class _Scored:
    """One method's scores, and what was said of them."""

    method: Method
    patients: tuple[PatientScores, ...]
    results: tuple[EvaluationResult, ...]


def compare_methods(request: Request, methods: Sequence[Method]) -> EvaluationResult:
    """Return the scores of all methods, side by side, with the differences between them.

    Args:
        request: What is asked for; its `weights` and `predictions` are not looked at.
        methods: Networks and folders of masks.

    Raises:
        UsageError: as `evaluate`; the methods have different sequences or regions, a folder lacks a subset.
        InputError: as `evaluate`; a folder lacks the mask of a patient.
        WeightsError: as `evaluate`.
        ResourceError: memory or disk ran out.
    """
    _check(request, methods)
    config = _shared_config(methods)
    asked = subsets_in_order(request.subsets, config.modalities)
    cases = selected_cases(Path(request.data), request.split, config.modalities, 1, 0)
    subsets = None if asked is None else had_by_some(asked, cases, config.modalities)
    folders = {m.name: folders_of(m, subsets, config.modalities) for m in methods if m.folder}
    for method in methods:
        for subset, folder in folders.get(method.name, {}).items():
            check_complete(method, subset, folder, _having(cases, subset, config).every)
    scored = []
    for method in methods:
        if method.folder:
            of_method = _score_folders(request, method, folders[method.name], cases, methods, config)
        else:
            of_method = _score_network(request, method, cases, bool(folders) and subsets is None)
        scored.append(of_method)
    notes = [not_scored(m, folders[m.name], asked or (), config.modalities) for m in methods if m.folder]
    if lacking := [subset_name(subset, config.modalities) for subset in asked or () if subset not in (subsets or ())]:
        notes.append(f"{len(lacking)} subsets, of which no patient has all sequences: {some(lacking)}")
    return _result(request, scored, cases, config, [note for note in notes if note])


def _check(request: Request, methods: Sequence[Method]) -> None:
    request.check()
    if given := [name for name in _OF_ONE if getattr(request, name) is not None]:
        raise UsageError(
            f"{', '.join(given)}: for one network or folder without a name of its own (NAME=), not for a comparison."
        )
    networks = [method for method in methods if method.folder is None]
    if not networks and (running := [name for name in request.running if name != "subsets"]):
        raise UsageError(f"predictions are files that are scored; {', '.join(running)} would run the network.")
    if len(networks) < len(methods):
        if request.remove_small or request.fill_holes or request.keep_tiny:
            raise UsageError(
                "predictions are scored as they are, beside networks too: leave remove_small, fill_holes, keep_tiny."
            )
        if CALIBRATION in request.metrics:
            raise UsageError(f"metrics {CALIBRATION}: masks have no probabilities; leave predictions out.")
    elif request.prediction_labels != "auto":
        raise UsageError("prediction_labels needs predictions.")


def _shared_config(methods: Sequence[Method]) -> ModelConfig:
    """Return sequences and regions of all methods. Raises: UsageError where networks differ in them, WeightsError."""
    networks = [(method.name, config_of(method.weights)) for method in methods if method.folder is None]
    if not networks:
        return ModelConfig()
    (first, config), *others = networks
    for name, other in others:
        for what, mine, theirs in (
            ("sequences", config.modalities, other.modalities),
            ("regions", config.regions, other.regions),
        ):
            if mine != theirs:
                raise UsageError(f"{first} and {name} cannot be compared: {what} {_words(mine)}, and {_words(theirs)}.")
    return config


def _words(values: Sequence[str] | Sequence[tuple[str, tuple[str, ...]]]) -> str:
    return ", ".join(value if isinstance(value, str) else f"{value[0]}={'+'.join(value[1])}" for value in values)


def _having(cases: SelectedCases, subset: str, config: ModelConfig) -> SelectedCases:
    """Return the patients who have the sequences of a subset; all of them for masks of whatever a patient has."""
    names = set() if subset == PREDICTIONS else set(subset.split("+"))
    every = tuple(case for case in cases.every if names <= set(case.images) & set(config.modalities))
    return SelectedCases(every, every, "")


def _score_network(request: Request, method: Method, cases: SelectedCases, as_files: bool) -> _Scored:
    """Score a network; where masks of unnamed subsets stand beside it, its rows get their name."""
    output = request.output / method.name if request.output else None
    one = replace(request, weights=method.weights, output=output, compare=None, method=method.name)
    result = evaluate_one(replace(one, prediction_labels="auto"), cases)
    patients = tuple(_renamed(scores, PREDICTIONS) if as_files else scores for scores in result.patients)
    return _Scored(method, patients, (result,))


def _score_folders(
    request: Request,
    method: Method,
    folders: dict[str, Path],
    cases: SelectedCases,
    methods: Sequence[Method],
    config: ModelConfig,
) -> _Scored:
    """Score a method's masks, folder by folder, and join the rows of each patient."""
    classes = next((other.weights for other in methods if other.folder is None), None)
    plain = Request(request.data)
    one = replace(
        request, weights=classes, compare=None, subsets=None, device=plain.device, precision=plain.precision,
        windows=plain.windows, method=method.name,
    )  # fmt: skip
    joined: dict[str, PatientScores] = {}
    results = []
    for subset, folder in folders.items():
        place = request.output / method.name if request.output else None
        place = place / subset if place and len(folders) > 1 else place
        having = _having(cases, subset, config)
        results.append(evaluate_one(replace(one, predictions=folder, output=place), having))
        for scores in results[-1].patients:
            before = joined.get(scores.case)
            renamed = _renamed(scores, subset)
            joined[scores.case] = replace(before, rows=(*before.rows, *renamed.rows)) if before else renamed
    in_order = [joined[case.name] for case in cases.every if case.name in joined]
    return _Scored(method, tuple(in_order), tuple(results))


def _renamed(scores: PatientScores, subset: str) -> PatientScores:
    return replace(scores, rows=tuple(replace(row, subset=subset) for row in scores.rows))


def _result(
    request: Request, scored: Sequence[_Scored], cases: SelectedCases, config: ModelConfig, notes: Sequence[str]
) -> EvaluationResult:
    """Compare the patients that every method was scored on, write what is asked for, and return all of it."""
    every = [(of.method.name, result) for of in scored for result in of.results]
    failures = [replace(failure, method=name) for name, result in every for failure in result.failures]
    failed = sorted({failure.case for failure in failures})
    warnings = [f"{name}: {text}" for name, result in every for text in result.warnings]
    if failed:
        warnings.append(
            f"{len(failed)} of {len(cases.every)} patients are left out of the comparison, since not every method "
            f"could be scored on them: {', '.join(failed)}."
        )
    if several := several_time_points(cases.every):
        person, points = next(iter(several.items()))
        more = f", and {len(several) - 1} more persons have several" if len(several) > 1 else ""
        warnings.append(
            f"{len(points)} examinations are of {person}{more}: tests and intervals take each for another person's "
            "and find more than there is."
        )
    patients = {of.method.name: [s for s in of.patients if s.case not in failed and s.rows] for of in scored}
    comparison = Comparison(patients, config, request.nsd_tolerance_mm)
    if request.compare and comparison.patients and not published_beside(comparison.subsets, config):
        warnings.append(NOTHING_PUBLISHED)
    lacking = [case.name for case in cases.every if case.name not in (*failed, *comparison.patients)]
    if lacking:
        notes = [*notes, f"{len(lacking)} of {len(cases.every)} patients have none of the subsets: {some(lacking)}."]
    told = EvaluationResult(
        (), (), tuple(failures), {}, metric_definition(request.policy, request.metrics), tuple(warnings),
        (*notes, *(f"{name}: {text}" for name, result in every for text in result.notes)), "", len(cases.every),
        tuple(file for _, result in every for file in result.files), patients,
    )  # fmt: skip
    return _compared(request, scored, comparison, told) if comparison.patients else told


def _compared(
    request: Request, scored: Sequence[_Scored], comparison: Comparison, told: EvaluationResult
) -> EvaluationResult:
    """Return the result with tables, differences and summary, written where there is an output folder."""
    metrics = tuple(dict.fromkeys(request.metrics))
    differences = tuple(d for key in score_keys(metrics) for d in comparison.differences(key))
    parameters = {of.method.name: _parameters(of.method) for of in scored if of.method.folder is None}
    tables = all_tables(comparison, differences, metrics, request.policy, bool(request.compare), parameters)
    failed = {failure.name: failure.reason for failure in told.failures}
    origins = {of.method.name: _origin(of) for of in scored}
    summary = plain_values(comparison, differences, metrics, request.policy, origins, failed)
    files = write_comparison(request.output, comparison, differences, tables, summary) if request.output else []
    return replace(told, tables=tables, differences=differences, summary=summary, files=(*told.files, *files))


def _parameters(method: Method) -> int:
    """Return the number of a network's parameters."""
    return sum(math.prod(shape) for shape in parameter_shapes(config_of(method.weights)).values())


def _origin(scored: _Scored) -> dict[str, Any]:
    """Return what made a method's masks, as its own summary says it."""
    if scored.method.folder is not None:
        return {"folder": str(scored.method.folder)}
    summary = scored.results[0].summary
    return {name: summary[name] for name in ("weights", "device", "inference") if name in summary}
