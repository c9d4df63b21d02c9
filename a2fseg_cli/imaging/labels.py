"""Label schemes: which voxel value means which class, and regions as unions of classes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import InputError, UsageError

# Value of (background, NCR, ED, ET) as it is written.
SCHEMES: dict[str, tuple[int, ...]] = {
    "brats2018": (0, 1, 2, 4),
    "brats2023": (0, 1, 2, 3),
    "brats2013": (0, 1, 2, 4),
    "brats2024": (0, 1, 2, 3),
}
# Values that are read beside them, and their class. In 2013 the core that does not enhance had a value of its own (3);
# since 2017 it is one with necrosis. In 2024 the resection cavity has one (4), which the challenge counts to no region.
ALSO_READ: dict[str, Mapping[int, int]] = {"brats2013": {3: 1}, "brats2024": {4: 0}}
CAVITY = {"brats2024": 4}
# So the files of BRATS 2012 to 2015 are named, whose 3 is core even where no 4 is in the file.
_BRATS2013_NAME = "vsd.brain"
_FIVE_VALUES = "brats2013 (1 and 3 core, 2 oedema, 4 enhancing) or brats2024 (3 enhancing, 4 resection cavity)"


def has_schemes(config: ModelConfig) -> bool:
    """Return whether the classes are those of BraTS; other tasks' label values stand in the configuration."""
    return config.classes == ModelConfig().classes


def scheme_values(config: ModelConfig, scheme: str) -> tuple[int, ...]:
    """Return the voxel value of each class, of BraTS's in a scheme. Raises: KeyError for an unknown scheme."""
    return SCHEMES[scheme] if has_schemes(config) else config.label_values


def parse_label_order(text: str, classes: Sequence[str], parameter: str = "labels") -> tuple[int, ...]:
    """Return the voxel value of each class from a text such as `NCR=2,ED=1,ET=3`.

    Args:
        text: Every class but the background with its value, in any order and case. The background is 0 unless it is
            given as well.
        classes: As `ModelConfig.classes`, the background first.
        parameter: Where the text comes from, for messages.

    Raises:
        UsageError: an unknown or a missing class, one twice, a value twice, or none of 0 to 255.
    """
    expected = f"expected a value for each of {', '.join(classes[1:])}, such as "
    expected += ",".join(f"{name}={index}" for index, name in enumerate(classes[1:], 1))
    names = {name.lower(): name for name in classes}
    values: dict[str, int] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        known = names.get(name.lower())
        if known is None or known in values or not (value.isascii() and value.isdigit() and int(value) < 256):
            problem = f"{name} twice" if known in values else f"{part.strip()!r}"
            raise UsageError(f"{parameter} {text}: {problem}; {expected}.")
        values[known] = int(value)
    values.setdefault(classes[0], 0)
    if missing := [name for name in classes if name not in values]:
        raise UsageError(f"{parameter} {text}: no {missing[0]}; {expected}.")
    if len(set(values.values())) < len(values):
        raise UsageError(f"{parameter} {text}: a value stands for two classes; {expected}.")
    return tuple(values[name] for name in classes)


def detect_scheme(values: Sequence[int], path: str, parameter: str = "labels") -> str:
    """Return the scheme that the values of a label map show, or its name where that is BRATS 2013's.

    {0, 1, 2} alone fits all; then `brats2023` is returned, since all read it alike.

    Raises:
        InputError: a value that no scheme knows, or 3 and 4 together, which two schemes read differently.
    """
    distinct = set(values)
    if os.path.basename(path).lower().startswith(_BRATS2013_NAME) and distinct <= {0, 1, 2, 3, 4}:
        return "brats2013"
    for scheme in ("brats2023", "brats2018"):
        if distinct <= set(SCHEMES[scheme]):
            return scheme
    if unknown := sorted(distinct - {0, 1, 2, 3, 4}):
        raise InputError(
            f"{path}: unknown label {unknown[0]}; expected 0, 1, 2 and either 3 (brats2023) or 4 (brats2018)."
        )
    raise InputError(f"{path}: labels 3 and 4 together. Set {parameter} to {_FIVE_VALUES}.")


def to_classes(
    labels: npt.NDArray[np.integer], values: Sequence[int], path: str, also: Mapping[int, int] | None = None
) -> npt.NDArray[np.uint8]:
    """Return class indices (D, H, W) for a label map whose class k has the voxel value `values[k]`.

    Args:
        labels: (D, H, W).
        values: Voxel value of each class.
        path: The file, for messages.
        also: Further voxel values and the class that each stands for.

    Raises:
        InputError: a voxel value that is in neither.
    """
    meaning = {value: index for index, value in enumerate(values)} | dict(also or {})
    unknown = sorted(set(np.unique(labels).tolist()) - set(meaning))
    if unknown:
        raise InputError(f"{path}: unknown label {unknown[0]}; expected {', '.join(map(str, sorted(meaning)))}.")
    classes = np.zeros(labels.shape, np.uint8)
    for value, index in meaning.items():
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
