"""Label schemes: which voxel value means which class, and regions as unions of classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import InputError

# Value of (background, NCR, ED, ET). From 2024 on, 3 stays ET and 4 is the resection cavity, which this
# tool does not know: such files are refused with the value named, never guessed.
SCHEMES: dict[str, tuple[int, ...]] = {"brats2018": (0, 1, 2, 4), "brats2023": (0, 1, 2, 3)}


def has_schemes(config: ModelConfig) -> bool:
    """Return whether the classes are those of BraTS; other tasks' label values stand in the configuration."""
    return config.classes == ModelConfig().classes


def scheme_values(config: ModelConfig, scheme: str) -> tuple[int, ...]:
    """Return the voxel value of each class, of BraTS's in a scheme. Raises: KeyError for an unknown scheme."""
    return SCHEMES[scheme] if has_schemes(config) else config.label_values


def detect_scheme(values: Sequence[int], path: str) -> str:
    """Return the scheme that the values of a label map show.

    {0, 1, 2} alone fits both; then `brats2023` is returned, since both read it alike.

    Raises:
        InputError: a value that no scheme knows, or 3 and 4 together.
    """
    found = set(values)
    for scheme in ("brats2023", "brats2018"):
        if found <= set(SCHEMES[scheme]):
            return scheme
    unknown = sorted(found - {0, 1, 2, 3, 4})
    what = f"unknown label {unknown[0]}" if unknown else "labels 3 and 4 together (2024 scheme with a cavity?)"
    raise InputError(f"{path}: {what}; expected 0, 1, 2 and either 3 (brats2023) or 4 (brats2018).")


def to_classes(labels: npt.NDArray[np.integer], values: Sequence[int], path: str) -> npt.NDArray[np.uint8]:
    """Return class indices (D, H, W) for a label map whose class k has the voxel value `values[k]`.

    Raises:
        InputError: a voxel value that is not in `values`.
    """
    unknown = sorted(set(np.unique(labels).tolist()) - set(values))
    if unknown:
        raise InputError(f"{path}: unknown label {unknown[0]}; expected {', '.join(map(str, values))}.")
    classes = np.zeros(labels.shape, np.uint8)
    for index, value in enumerate(values):
        classes[labels == value] = index
    return classes


def to_labels(classes: npt.NDArray[np.uint8], values: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Return the label map (D, H, W) whose class k is written as `values[k]`."""
    table: npt.NDArray[np.uint8] = np.asarray(values, np.uint8)
    return table[classes]


def region_mask(classes: npt.NDArray[np.uint8], members: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Return the mask (D, H, W) of a region: the voxels of any of its classes."""
    mask = np.zeros(classes.shape, np.bool_)
    for index in members:
        mask |= classes == index
    return mask


def region_dice(classes: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8], config: ModelConfig) -> dict[str, float]:
    """Return the Dice, 0 to 1, of each region of two class maps (D, H, W); 1 where both are empty.

    For choosing weights and for comparing results with each other; scores that are reported come from
    `evaluation.metrics`, under a stated policy.
    """
    dice = {}
    for region, _ in config.regions:
        members = config.region_classes(region)
        a, b = region_mask(classes, members), region_mask(others, members)
        size = np.count_nonzero(a) + np.count_nonzero(b)
        dice[region] = 2 * np.count_nonzero(a & b) / size if size else 1.0
    return dice
