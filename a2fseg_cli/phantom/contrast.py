"""What the tissues look like in each modality."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from a2fseg_cli.phantom.anatomy import Shares
from a2fseg_cli.phantom.fields import Field, View
from a2fseg_cli.phantom.measured import INTENSITY, NORMAL_Z, TUMOUR_Z


def intensities(
    modality: str, view: View, shares: Shares, labels: npt.NDArray[np.uint8], rng: np.random.Generator
) -> Field:
    """Return one modality's intensities of the brain's voxels, all of them at least 1."""
    number = list(INTENSITY).index(modality)
    csf, grey, white = NORMAL_Z[modality]
    value = white + (grey - white) * shares.grey
    water = -1.0 if modality.startswith("t1") else 1.0  # T1 falls where oedema holds more water, T2 rises
    value += (csf - value) * shares.csf + 0.22 * shares.texture[number]
    if modality == "flair":
        value += 0.9 * shares.periventricular
    value += {"t1": 0.2, "t1c": 3.8, "t2": -0.4, "flair": 0.2}[modality] * shares.vessel
    for name, share, (mean, spread) in zip(("NCR", "ED", "ET"), shares.tumour, TUMOUR_Z[modality], strict=True):
        pattern = water * shares.swelling if name == "ED" else shares.lumps[number]
        value += (mean + spread * pattern - value) * share
    _match_tumour(value, modality, shares, labels)
    mean, ratio = INTENSITY[modality]
    value += 0.13 * view.grain(rng)
    value = mean * (1 + ratio * value) * (1 + 0.03 * shares.bias[number])
    return np.asarray(np.maximum(value, 1.0), np.float32)


def _match_tumour(value: Field, modality: str, shares: Shares, labels: npt.NDArray[np.uint8]) -> None:
    """Shift the tumour's classes in place until their z-scores in this brain have the means of `TUMOUR_Z`."""
    voxels = np.bincount(labels, minlength=4)
    for _ in range(3):
        means = np.bincount(labels, value, 4) / np.maximum(voxels, 1)
        centre, scale = float(value.mean()), float(value.std())
        for index, (share, (target, _spread)) in enumerate(zip(shares.tumour, TUMOUR_Z[modality], strict=True), 1):
            if voxels[index]:
                value += np.float32(centre + scale * target - means[index]) * share
