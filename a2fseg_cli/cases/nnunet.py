"""nnU-Net's raw data sets, of version 1 and 2, and those of the Medical Segmentation Decathlon.

`dataset.json` names channels and labels; `imagesTr/CASE_0000.nii.gz` is channel 0 of a case (a Decathlon file without
such a number holds all channels as volumes), `labelsTr/CASE.nii.gz` its truth. nnU-Net writes the same `dataset.json`
beside its predictions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from a2fseg_cli.cases.case import Case, printable_name, too_long
from a2fseg_cli.cases.folders import checked_folder, images_in
from a2fseg_cli.cases.names import Kind, image_stem, modality_of, read_name
from a2fseg_cli.cases.volumes import channel_modalities
from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.marking import is_marked
from a2fseg_cli.weights.strict_json import parse_object, printable

FILE_NAME = "dataset.json"
_IMAGES = {"imagesTr": "labelsTr", "imagesVal": "labelsVal", "imagesTs": "labelsTs"}
_CHANNEL = re.compile(r"(.+)_(\d{4})")
# How data sets write the classes and regions of BraTS, letters only, lower case.
_CLASS_NAMES = {
    "ET": ("et", "enhancingtumor", "enhancingtumour", "enhancing", "enhancingcore", "gdenhancingtumor"),
    "ED": ("ed", "edema", "oedema", "peritumoraledema", "peritumoraloedema", "snfh"),
    "NCR": (
        "ncr", "net", "ncrnet", "netc", "necrosis", "necrotic", "necroticcore", "nonenhancing", "nonenhancingtumor",
        "nonenhancingtumour", "nonenhancingtumorcore", "necroticandnonenhancingtumor",
        "necroticandnonenhancingtumorcore",
    ),
    "TC": ("tc", "tumorcore", "tumourcore", "core"),
    "WT": ("wt", "wholetumor", "wholetumour", "whole"),
}  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    """What a `dataset.json` says.

    Attributes:
        channels: Names of the channels, in order, as they are written.
        labels: Voxel values of each label, the background left out; a region has several.
    """

    channels: tuple[str, ...]
    labels: Mapping[str, tuple[int, ...]]

    @property
    def class_values(self) -> dict[str, int]:
        """Voxel value of each class: NCR, ED and ET where the names are BraTS's, other names as they are written.

        Regions are taken apart: of WT = (1, 2, 3), TC = (2, 3) and ET = (3,), ED is 1 and NCR 2.
        """
        known = {_class_name(name): set(values) for name, values in self.labels.items()}
        if {"WT", "TC", "ET"} <= known.keys() and known["ET"] < known["TC"] < known["WT"]:
            known |= {"NCR": known["TC"] - known["ET"], "ED": known["WT"] - known["TC"]}
            del known["WT"], known["TC"]
        return {name: min(values) for name, values in known.items() if len(values) == 1}


def _class_name(name: str) -> str:
    letters = re.sub(r"[^a-z]", "", name.lower())
    return next((known for known, names in _CLASS_NAMES.items() if letters in names), name)


def read_dataset(path: Path) -> Dataset:
    """Return what a `dataset.json` says. Raises: InputError when it cannot be read or is none."""
    try:
        fields = parse_object(path.read_bytes())
        channels = fields.get("channel_names", fields.get("modality", {}))
        channels = dict(enumerate(channels)) if isinstance(channels, list) else channels
        numbered = sorted((int(number), str(name)) for number, name in channels.items())
        labels = dict(_label(name, value) for name, value in fields.get("labels", {}).items())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from error
    except (AttributeError, TypeError, ValueError) as error:
        expected = "channel_names (or modality), number to name, and labels"
        raise InputError(f"{path}: no dataset.json of nnU-Net ({error}). Expected {expected}.") from error
    if [number for number, _ in numbered] != list(range(len(numbered))):
        raise InputError(f"{path}: channels {', '.join(str(n) for n, _ in numbered)}. Expected 0, 1, 2 and so on.")
    background = ("background", "ignore")
    return Dataset(
        tuple(name for _, name in numbered),
        {name: values for name, values in labels.items() if name.lower() not in background and values != (0,)},
    )


def _label(name: str, value: Any) -> tuple[str, tuple[int, ...]]:
    """Return a label's name and values; version 1 and the Decathlon write {"1": "edema"}, version 2 {"edema": 1}."""
    if isinstance(value, str):
        return value, (int(name),)
    return name, tuple(int(item) for item in value) if isinstance(value, list) else (int(value),)


def is_dataset(folder: Path) -> bool:
    """Whether a folder is such a data set, or the images of one."""
    try:
        if folder.name in _IMAGES and (folder.parent / FILE_NAME).is_file():
            return True
        return (folder / FILE_NAME).is_file() and any((folder / images).is_dir() for images in _IMAGES)
    except OSError:
        return False


def find_dataset(
    folder: Path, modalities: Sequence[str], *, channels: Sequence[str] = (), with_truth: bool = False
) -> list[Case]:
    """Return the cases of a data set, by name.

    Args:
        folder: The data set (all its images), or one of its folders of images.
        modalities: Those of the network.
        channels: Modality of each channel, in place of the names in `dataset.json`.
        with_truth: Only folders that have labels.

    Raises:
        InputError: `dataset.json` is not acceptable, names a channel that is not understood, or nothing was found.
    """
    root = folder if (folder / FILE_NAME).is_file() else folder.parent
    dataset = read_dataset(root / FILE_NAME)
    of_channel = _modalities_of_channels(root / FILE_NAME, dataset, modalities, channels)
    places = [folder] if root != folder else [root / name for name in _IMAGES if (root / name).is_dir()]
    if with_truth and root == folder:
        places = [place for place in places if (root / _IMAGES[place.name]).is_dir()]
    cases: list[Case] = []
    for place in places:
        files: dict[str, dict[str, Path]] = {}
        for path in images_in(checked_folder(place)):
            stem = image_stem(path) or ""
            numbered = _CHANNEL.fullmatch(stem)
            files.setdefault(numbered[1] if numbered else stem, {})[numbered[2] if numbered else ""] = path
        for name, paths in files.items():
            cases.append(_case(name, paths, place, root / _IMAGES[place.name], dataset, of_channel, modalities))
    if not cases:
        raise InputError(f"{folder}: no image found. Expected files such as imagesTr/CASE_0000.nii.gz.")
    return sorted(cases, key=lambda case: case.name)


def _modalities_of_channels(
    path: Path, dataset: Dataset, modalities: Sequence[str], channels: Sequence[str]
) -> tuple[str, ...]:
    """Return the modality of each channel, or what else it is called. Raises: InputError for one not understood."""
    if channels:
        return channel_modalities(channels, modalities)
    names = []
    for number, name in enumerate(dataset.channels):
        reading = read_name(name, modalities)
        if reading.kind in (Kind.UNREAD, Kind.UNCLEAR):
            said = f"channel {number} is named {printable(name, 40)!r}, which names none of {', '.join(modalities)}"
            raise InputError(f"{path}: {said}. Rename it, or say which channel is which (channels).")
        names.append(modality_of(reading.sequence, modalities) or name)
    if not set(names) & set(modalities) or len(set(names)) < len(names):
        raise InputError(f"{path}: channels {', '.join(names)}. Expected some of {', '.join(modalities)}, each once.")
    return tuple(names)


def _case(
    name: str,
    paths: Mapping[str, Path],
    place: Path,
    labels: Path,
    dataset: Dataset,
    channels: tuple[str, ...],
    modalities: Sequence[str],
) -> Case:
    volumes = "" in paths  # one file holds all
    numbered = {f"{number:04d}": modality for number, modality in enumerate(channels)}
    problem = too_long(printable_name(name))
    if volumes and len(paths) > 1:
        problem = f"{place}: {paths[''].name} lies beside {name}_0000. Expected either one file or one a channel."
    if not volumes and (beyond := sorted(paths.keys() - numbered.keys())):
        problem = f"{paths[beyond[0]]}: channel {beyond[0]}. Expected 0000 to {len(channels) - 1:04d} by dataset.json."
    there = {modality: paths[""] if volumes else paths.get(number) for number, modality in numbered.items()}
    images = {m: path for m in modalities if (path := there.get(m)) is not None}
    if not images and not problem:
        problem = f"{place}: {name}: none of its channels is one of {', '.join(modalities)}."
    decided = {
        modality: f'dataset.json: channel {int(number)} "{printable(said, 40)}"'
        for (number, modality), said in zip(numbered.items(), dataset.channels or channels, strict=False)
        if modality in images
    }
    truths = [path for path in images_in(labels) if image_stem(path) == name] if labels.is_dir() else []
    own = [path for path in truths if is_marked(path)]
    truths = [path for path in truths if path not in own]
    warnings = tuple(f"{name}: not taken for the truth, since a2fseg wrote it: {path}" for path in own)
    return Case(
        printable_name(name),
        images,
        truths[0] if len(truths) == 1 else None,
        problem,
        warnings,
        decided,
        place,
        channels if volumes else (),
        dataset.class_values or None,
    )
