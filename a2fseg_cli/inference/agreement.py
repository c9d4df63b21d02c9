"""Which modality matters here: the agreement of fewer modalities with all that are there, and the attention weights.

Checks without a truth, at the cost of the cheap fusions only: the encoders run once for all subsets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from a2fseg_cli.core.config import all_subsets, subset_name
from a2fseg_cli.imaging.labels import region_dice
from a2fseg_cli.imaging.preprocessing import Prepared
from a2fseg_cli.inference.predictor import Prediction, Segmenter

# Subset, such as t1c+flair, to region to Dice with the result of all modalities that are present.
Agreement = Mapping[str, Mapping[str, float]]


def segment_with_agreement(
    segmenter: Segmenter, prepared: Prepared, attention: bool = False
) -> tuple[Prediction, Agreement]:
    """Return the result of all present modalities, and its Dice with that of every smaller subset of them.

    The masks are compared on the network's grid, before anything is removed from them or filled. A region that is
    empty in both agrees (1).
    """
    config = segmenter.config
    names = segmenter.model.present_names(prepared.present)
    smaller = [subset for subset in all_subsets(names) if len(subset) < len(names)]
    masks = [prepared.present, *(config.presence(subset) for subset in smaller)]
    results = segmenter.segment_subsets(prepared.images, masks, [attention] + [False] * len(smaller))
    full = next(results)
    reference = found_classes(full)
    agreement = {
        subset_name(subset, config.modalities): region_dice(reference, found_classes(result), config)
        for subset, result in zip(smaller, results, strict=True)
    }
    return full, agreement


def found_classes(result: Prediction) -> npt.NDArray[np.uint8]:
    """Return the class indices (d, h, w) on the network's grid."""
    classes: npt.NDArray[np.uint8] = result.probabilities.argmax(axis=0).astype(np.uint8)
    return classes


def attention_inside(
    attention: Mapping[str, npt.NDArray[np.float32]], classes: npt.NDArray[np.uint8], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return the mean of each modality's attention map inside each class; of the true ones, Figure 3 of the paper.

    Args:
        attention: Modality to its weight (d, h, w), on the network's grid.
        classes: Class indices (d, h, w) there, true or found.
        names: Name of each class, background first; the background and classes without a voxel are left out.
    """
    means = {}
    for index, name in enumerate(names):
        inside = classes == index
        if index and inside.any():
            means[name] = {m: float(weight[inside].mean(dtype=np.float64)) for m, weight in attention.items()}
    return means


def agreement_rows(agreement: Agreement, regions: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the table's rows: subset and Dice in % for each region."""
    return [(subset, *(f"{100 * dice[region]:.1f}" for region in regions)) for subset, dice in agreement.items()]
