"""Scores of the patients kept for validation, on the working grid, with the running mean of the weights."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from a2fseg_cli.core.config import subset_name
from a2fseg_cli.core.device import Compute
from a2fseg_cli.core.network import Network
from a2fseg_cli.imaging.labels import region_dice
from a2fseg_cli.inference.predictor import Predictor
from a2fseg_cli.training.data import Sample
from a2fseg_cli.training.processes import Processes


def validation_scores(
    model: Network, mean: Mapping[str, Tensor], samples: Sequence[Sample], compute: Compute, processes: Processes
) -> dict[str, float]:
    """Return the mean Dice of each region for a fixed set of subsets, and `score`, the mean of all of them.

    The subsets: all modalities, and each one alone. A region that is empty in truth and prediction scores 1.

    Args:
        model: The network; its weights are as before when this returns.
        mean: The weights that are scored, by parameter name.
        samples: All patients for validation; each process takes its share.
        compute: Device and precision.
        processes: Those that train together.
    """
    full = tuple(True for _ in model.config.modalities)
    subsets = list(dict.fromkeys([full, *(tuple(i == k for i in range(len(full))) for k in range(len(full)))]))
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    autotune, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False  # brains differ in size
    model.load_state_dict(mean)
    mine = [patient_scores(model, compute, sample, subsets) for sample in processes.share(samples)]
    model.load_state_dict(trained)
    torch.backends.cudnn.benchmark = autotune
    patients = processes.collect(mine)
    names = dict.fromkeys(name for patient in patients for name in patient)
    row = {name: float(np.mean([patient[name] for patient in patients if name in patient])) for name in names}
    return row | {"score": float(np.mean(list(row.values())))}


def patient_scores(
    model: Network, compute: Compute, sample: Sample, subsets: Sequence[tuple[bool, ...]]
) -> dict[str, float]:
    """Return a patient's Dice by `WT t1+flair`, for those subsets whose modalities it has."""
    possible = [s for s in subsets if all(has or not wanted for has, wanted in zip(sample.present, s, strict=True))]
    config = model.config
    scores: dict[str, float] = {}
    results = Predictor(model, compute).segment_subsets(sample.images.astype(np.float32), possible)
    for subset, result in zip(possible, results, strict=True):
        name = subset_name(itertools.compress(config.modalities, subset), config.modalities)
        predicted = result.probabilities.argmax(axis=0).astype(np.uint8)
        dice = region_dice(predicted, sample.classes, config)
        scores |= {f"{region} {name}": value for region, value in dice.items()}
    return scores
