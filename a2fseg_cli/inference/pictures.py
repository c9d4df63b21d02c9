"""What the pictures of a patient are drawn from, on the grid of the file that was written."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.inference.patient import Patient
from a2fseg_cli.inference.predictor import Prediction
from a2fseg_cli.reporting.colours import DEFAULT_PALETTE
from a2fseg_cli.reporting.scene import Scene


def scene_of(
    patient: Patient,
    classes: npt.NDArray[np.uint8],
    config: ModelConfig,
    guesses: Collection[str] = (),
    palette: str = DEFAULT_PALETTE,
    prediction: Prediction | None = None,
) -> Scene:
    """Return a patient's segmentation with the images under it.

    Args:
        patient: Read with its pictures.
        classes: Class indices (D, H, W) on the file's grid.
        config: Names of classes and regions.
        guesses: Classes whose volume is a guess.
        palette: Which colours, a key of PALETTES.
        prediction: What the network says; with it the scene has an uncertainty.
    """
    z, y, x = (axis.start for axis in patient.frame)
    depth, height, width = patient.prepared.route.crop.shape
    return Scene(
        backdrops=patient.backdrops,
        classes=np.ascontiguousarray(patient.framed(classes)),
        spacing_mm=patient.spacing_mm,
        class_names=config.classes,
        members={region: config.region_classes(region) for region, _ in config.regions},
        guesses=guesses,
        palette=palette,
        start=(z, y, x),
        whole=(depth, height, width),
        uncertainty=None if prediction is None else _uncertainty(patient, prediction),
    )


def entropy(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the entropy over the classes (C, d, h, w) as a share of its largest value, log C: (d, h, w)."""
    logarithms = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    share: npt.NDArray[np.float32] = -(probabilities * logarithms).sum(axis=0) / np.float32(np.log(len(probabilities)))
    return share


def _uncertainty(patient: Patient, prediction: Prediction) -> npt.NDArray[np.float32]:
    """Return the entropy of what pictures show, 0 outside the brain's box."""
    route = patient.prepared.route
    return route.crop.undo(route.resample.undo(entropy(prediction.probabilities)))[patient.frame]
