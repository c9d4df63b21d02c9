"""Which voxel value means which class in label maps of other tools, where it is said: by the user or by nnU-Net."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import InputError
from a2fseg_cli.files import parse_json
from a2fseg_cli.imaging.labels import parse_label_order

DATASET_FILE = "dataset.json"  # nnU-Net puts a copy of it beside its predictions

# What the data sets of nnU-Net and the Decathlon call the classes and regions of BraTS, letters only.
_ALIASES = {
    "NCR": ("ncrnet", "net", "necrosis", "necrotic", "necroticcore", "necrotictumorcore", "nonenhancingtumor"),
    "ED": ("edema", "oedema", "peritumoraledema", "snfh"),
    "ET": ("enhancing", "enhancingtumor", "gdenhancingtumor", "at"),
    "WT": ("whole", "wholetumor"),
    "TC": ("core", "tumorcore"),
}


@dataclass(frozen=True)
class LabelOrder:
    """The voxel value of each class, background first, and who said so."""

    values: tuple[int, ...]
    said_by: str


def prediction_order(given: str, folder: Path, config: ModelConfig) -> LabelOrder | None:
    """Return the order of the labels of predictions; None where a scheme is named, or nothing is said.

    Args:
        given: auto, a scheme, or an order such as `NCR=2,ED=1,ET=3`, which counts more than a file.
        folder: Of the predictions; a `dataset.json` of nnU-Net in it says which value is which.
        config: Whose classes.

    Raises:
        UsageError: no order of these classes.
        InputError: a `dataset.json` that cannot be understood.
    """
    if "=" in given:
        return LabelOrder(parse_label_order(given, config.classes, "prediction_labels"), "prediction_labels")
    path = folder / DATASET_FILE
    if given != "auto" or not os.path.isfile(path):  # false as well where it cannot be looked at
        return None
    return LabelOrder(dataset_order(path, config), str(path))


def order_text(values: Sequence[int], config: ModelConfig) -> str:
    """Return `NCR=2,ED=1,ET=3` for the values of the classes, background first."""
    return ",".join(f"{name}={value}" for name, value in zip(config.classes[1:], values[1:], strict=True))


def dataset_order(path: Path, config: ModelConfig) -> tuple[int, ...]:
    """Return the voxel value of each class, background first, of a `dataset.json`.

    Its `labels` are names of classes with a value each, or names of regions with the values of their classes
    (https://github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md and region_based_training.md); in nnU-Net's
    first version and the Decathlon, values with a name each.

    Raises:
        InputError: unreadable, or not every class has one value in it.
    """
    try:
        labels = parse_json(path.read_text("utf-8"))["labels"]
        members = _values_by_name(labels)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: no dataset.json of nnU-Net with labels ({error}). {_HOW_TO_SAY}") from error
    named = {_known_name(name, config): values for name, values in members.items()}
    by_class = [_values_of(name, named, config) for name in config.classes[1:]]
    if any(len(values) != 1 for values in by_class) or len(set().union(*by_class)) != len(by_class):
        raise InputError(
            f"{path}: its labels ({', '.join(members)}) do not say which value is which of "
            f"{', '.join(config.classes[1:])}. {_HOW_TO_SAY}"
        )
    return 0, *(next(iter(values)) for values in by_class)


_HOW_TO_SAY = (
    "Say it by prediction_labels: auto reads this file, a scheme or an order such as NCR=2,ED=1,ET=3 does not."
)


def _values_by_name(labels: Mapping[str, Any]) -> dict[str, set[int]]:
    """Return name to voxel values, without the background's."""
    if all(key.isdigit() for key in labels):  # of nnU-Net's first version: {"1": "edema"}
        labels = {name: int(key) for key, name in labels.items()}
    members = {
        name: {int(value) for value in (values if isinstance(values, list) else [values])}
        for name, values in labels.items()
    }
    return {name: values - {0} for name, values in members.items() if values != {0}}


def _known_name(name: str, config: ModelConfig) -> str:
    """Return the class or region of the configuration that a name means, else the name itself."""
    letters = re.sub(r"[^a-z]", "", name.lower()).replace("tumour", "tumor")
    for known in (*config.classes[1:], *(region for region, _ in config.regions)):
        if name.lower() == known.lower() or letters in (known.lower(), *_ALIASES.get(known, ())):
            return known
    return name


def _values_of(name: str, named: Mapping[str, set[int]], config: ModelConfig) -> set[int]:
    """Return the values of a class: those that stand beside it, or that lie in its regions and in no other."""
    regions = {region: members for region, members in config.regions if region in named}
    if not any(len(named[region]) > 1 for region in regions):  # no regions, or such as are a class of their own
        return named.get(name, set())
    inside = [named[region] for region, members in regions.items() if name in members]
    outside = [named[region] for region, members in regions.items() if name not in members]
    return set.intersection(*inside).difference(*outside) if inside else set()
