"""Scores of a predicted mask against the truth: overlap, surface distances, lesions, volumes.

The names of the metrics and policies are plain data, so that `--help` shares them without SimpleITK.
Masks are boolean arrays (D, H, W); spacing is (z, y, x) in mm; undefined is `math.nan`. Beyond the edge of
an image there is background, so padding both masks with zeros changes no score.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from a2fseg_cli.errors import UsageError
from a2fseg_cli.evaluation.lesions import (
    DILATION_CONNECTIVITY,
    DILATIONS,
    DROPPED_MM3,
    PENALTY_MM,
    Lesion,
    find_lesions,
    score_lesions,
)
from a2fseg_cli.evaluation.masks import CroppedMask, common_voxels
from a2fseg_cli.evaluation.surfaces import BoolArray, directed_hd95_mm, pooled_hd95_mm, surface_dice

Convention = Literal["", "both_empty", "one_empty"]

NSD_TOLERANCE_MM = 1.0
CALIBRATION = "calibration"  # of a network's probabilities; masks have none


@dataclass(frozen=True)
class Metric:
    """A metric that can be asked for.

    Attributes:
        score_keys: Names of the scores it yields, unit as suffix.
        definition: One line for help texts and file headers.
    """

    score_keys: tuple[str, ...]
    definition: str


MASK_METRICS: dict[str, Metric] = {
    "dice": Metric(("dice",), "2 TP / (2 TP + FP + FN)"),
    "hd95": Metric(("hd95_mm",), "95th percentile of the surface distances, in the definition of the policy"),
    "nsd": Metric(("nsd",), "normalised surface Dice at a tolerance, as google-deepmind/surface-distance defines it"),
    "lesionwise": Metric(
        ("lesionwise_dice", "lesionwise_hd95_mm"),
        f"BraTS 2023, adult glioma: truth merged by {DILATIONS} dilations "
        f"({DILATION_CONNECTIVITY}-connected), truth lesions of {DROPPED_MM3:g} mm3 or less dropped, "
        f"missed or invented lesions Dice 0 and HD95 {PENALTY_MM:g} mm",
    ),
    "sensitivity": Metric(("sensitivity",), "TP / (TP + FN)"),
    "precision": Metric(("precision",), "TP / (TP + FP)"),
    "volume": Metric(("volume_ml", "reference_volume_ml"), "predicted and true volume"),
}
METRICS = {
    **MASK_METRICS,
    CALIBRATION: Metric(
        ("ece",),
        "expected calibration error: mean distance between the probability of a bin's voxels and their share in the "
        "region, over voxels of 1 % or more on the network's grid",
    ),
}
DEFAULT_METRICS = ("dice", "hd95")


def score_keys(metrics: Iterable[str]) -> list[str]:
    """Return the keys of the scores that these metrics yield."""
    return [key for metric in metrics for key in METRICS[metric].score_keys]


@dataclass(frozen=True)
class Policy:
    """What a score is where a mask is empty, and which HD95 is meant.

    Attributes:
        hd95: `pooled` or `directed`, see `HD95_DEFINITIONS`.
        both_empty_overlap: Dice, surface Dice, sensitivity and precision where both masks are empty.
        both_empty_distance_mm: HD95 where both masks are empty.
        one_empty_distance_mm: HD95 where exactly one mask is empty; Dice and surface Dice are 0 there.
        undefined_ratio: Sensitivity or precision where its denominator is 0 though one mask is not empty.
    """

    hd95: Literal["pooled", "directed"]
    both_empty_overlap: float
    both_empty_distance_mm: float
    one_empty_distance_mm: float
    undefined_ratio: float


# 373.12866 mm is the diagonal of 240 x 240 x 155 voxels of 1 mm, as nnU-Net's evaluation of BraTS 2020 writes it.
POLICIES: dict[str, Policy] = {
    "brats2020": Policy("pooled", 1.0, 0.0, 373.12866, 0.0),
    "brats2023": Policy("directed", 1.0, 0.0, 374.0, 0.0),
    "nan": Policy("directed", math.nan, math.nan, math.nan, math.nan),
}
DEFAULT_POLICY = "brats2020"

HD95_DEFINITIONS = {
    "pooled": "95th percentile of both directed distances pooled, between border voxels (MedPy's definition)",
    "directed": "larger of the two directed 95th percentiles, weighted by surface element area "
    "(google-deepmind/surface-distance)",
}


def metric_definition(policy: str, metrics: Collection[str]) -> str:
    """Return one line that names the policy, its empty cases and, where it is among the metrics, its HD95.

    Raises:
        UsageError: no such policy.
    """
    rules, of_distance = _policy(policy), "hd95" in metrics  # `lesionwise` has an HD95 of its own, in every policy
    both, one = "undefined", "undefined"
    if not math.isnan(rules.both_empty_overlap):
        distance = f", HD95 {rules.both_empty_distance_mm:g} mm"
        both = f"Dice {rules.both_empty_overlap:g}{distance * of_distance}"
    if not math.isnan(rules.one_empty_distance_mm):
        one = f"{rules.one_empty_distance_mm:.8g} mm"
    hd95 = f"HD95 is the {HD95_DEFINITIONS[rules.hd95]}; " * of_distance
    return f"policy {policy}: {hd95}both masks empty: {both}; one empty: Dice 0{f', HD95 {one}' * of_distance}"


@dataclass(frozen=True)
class Counts:
    """Raw voxel counts of one region, from which any other convention can be recomputed."""

    true_positives: int
    false_positives: int
    false_negatives: int
    reference_voxels: int
    predicted_voxels: int


@dataclass(frozen=True)
class Scores:
    """Scores of one region of one patient.

    Attributes:
        values: Score by key (`METRICS[...].score_keys`), in the order asked for; NaN where undefined.
        counts: Raw voxel counts.
        convention: `both_empty` or `one_empty` where the policy's convention, not the masks, decided values.
    """

    values: dict[str, float]
    counts: Counts
    convention: Convention


def score(
    reference: TruthMask,
    prediction: BoolArray,
    metrics: Iterable[str] = DEFAULT_METRICS,
    policy: str = DEFAULT_POLICY,
    tolerance_mm: float = NSD_TOLERANCE_MM,
) -> Scores:
    """Return the scores of a predicted mask.

    Args:
        reference: The true mask, prepared once and used for any number of predictions.
        prediction: Predicted mask (D, H, W), the reference's shape.
        metrics: Keys of `MASK_METRICS`.
        policy: Key of `POLICIES`.
        tolerance_mm: Distance up to which surfaces agree, for `nsd`.

    Raises:
        UsageError: no such metric or policy.
        ValueError: the masks differ in shape, or the prediction is not boolean.
    """
    rules = _policy(policy)
    predicted = CroppedMask.from_array(prediction, reference.mask.spacing_mm)
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction has the shape {prediction.shape}, the reference {reference.shape}")
    counts = _count(reference.mask, predicted)
    values: dict[str, float] = {}
    for metric in metrics:
        if metric not in MASK_METRICS:
            raise UsageError(f"Unknown metric {metric!r}; expected some of {', '.join(MASK_METRICS)}.")
        if metric == "lesionwise":
            lesions = score_lesions(
                reference.lesions, predicted, rules.both_empty_overlap, rules.both_empty_distance_mm
            )
            values |= {"lesionwise_dice": lesions.dice, "lesionwise_hd95_mm": lesions.hd95_mm}
        else:
            values |= _values(metric, reference.mask, predicted, counts, rules, tolerance_mm)
    return Scores(values, counts, _convention(counts))


class TruthMask:
    """A true mask with everything about it that does not depend on the prediction, computed once when needed.

    Args:
        mask: Boolean mask (D, H, W). It is copied as far as needed; later changes have no effect.
        spacing_mm: Voxel spacing (z, y, x).

    Raises:
        ValueError: the mask is not a boolean (D, H, W) array, or the spacing is not three positive numbers.
    """

    def __init__(self, mask: BoolArray, spacing_mm: Sequence[float]) -> None:
        self.mask = CroppedMask.from_array(mask, spacing_mm)
        self.shape = mask.shape

    @cached_property
    def lesions(self) -> list[Lesion]:
        """The lesions of the mask after merging, small ones included."""
        return find_lesions(self.mask)


def _policy(name: str) -> Policy:
    if name not in POLICIES:
        raise UsageError(f"Unknown policy {name!r}; expected one of {', '.join(POLICIES)}.")
    return POLICIES[name]


def _convention(counts: Counts) -> Convention:
    if counts.reference_voxels and counts.predicted_voxels:
        return ""
    return "one_empty" if counts.reference_voxels or counts.predicted_voxels else "both_empty"


def _values(
    metric: str, reference: CroppedMask, predicted: CroppedMask, counts: Counts, rules: Policy, tolerance_mm: float
) -> dict[str, float]:
    """Return the scores of one metric by key; lesion-wise scores have a function of their own."""
    empty = _convention(counts)
    if metric == "volume":
        return {"volume_ml": predicted.volume_mm3 / 1000, "reference_volume_ml": reference.volume_mm3 / 1000}
    if metric == "hd95":
        if empty:
            distance = rules.both_empty_distance_mm if empty == "both_empty" else rules.one_empty_distance_mm
            return {"hd95_mm": distance}
        if rules.hd95 == "pooled":
            return {"hd95_mm": pooled_hd95_mm(reference.border, predicted.border)}
        return {"hd95_mm": directed_hd95_mm(reference.surfels, predicted.surfels)}
    if empty == "both_empty":
        return {metric: rules.both_empty_overlap}
    if metric == "nsd":
        return {"nsd": 0.0 if empty else surface_dice(reference.surfels, predicted.surfels, tolerance_mm)}
    hits = counts.true_positives
    if metric == "dice":
        return {"dice": 2 * hits / (counts.reference_voxels + counts.predicted_voxels)}
    whole = counts.reference_voxels if metric == "sensitivity" else counts.predicted_voxels
    return {metric: hits / whole if whole else rules.undefined_ratio}


def _count(reference: CroppedMask, predicted: CroppedMask) -> Counts:
    """Return the voxel counts of two masks of one image."""
    hits = common_voxels(reference, predicted)
    return Counts(hits, predicted.voxels - hits, reference.voxels - hits, reference.voxels, predicted.voxels)
