"""How the files of a cohort are named: side by side with plain names, or as a BIDS derivative."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from a2fseg_cli import __version__
from a2fseg_cli.cases.bids_names import BidsName, bids_name
from a2fseg_cli.cases.case import Case
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import UsageError
from a2fseg_cli.files import json_text, parse_json
from a2fseg_cli.imaging.formats.suffixes import DICOM
from a2fseg_cli.imaging.writing import check_output_name
from a2fseg_cli.inference.options import OutputOptions
from a2fseg_cli.reporting.label_tables import bids_lookup_table
from a2fseg_cli.weights.file_format import WeightsFile

BIDS_VERSION = "1.11.2"
DESCRIPTION = "dataset_description.json"
MAKER = "a2fseg"
# What lies in the folder and has no name in the specification; a validator passes over it.
_NOT_BIDS = "status*.csv\nlongitudinal.csv\nlabels.txt\n*_uncertainty.nii.gz\n*_attention.nii.gz\n*.png\n*.html\n"


class Layout(Protocol):
    """Names of files in a cohort's folder."""

    def check(self, folder: Path, cases: Iterable[Case]) -> None:
        """Refuse a folder or patients whose results could not be told apart. Raises: UsageError."""

    def segmentation(self, folder: Path, case: Case) -> Path:
        """Return the segmentation of a case."""

    def map(self, segmentation: Path, kind: str, of: str = "") -> Path:
        """Return a map beside a segmentation.

        Args:
            segmentation: Its name.
            kind: `region`, `prob`, `uncertainty` or `attention`.
            of: The region or the modality.
        """

    def sidecar(self, segmentation: Path) -> Path | None:
        """Return the JSON beside a segmentation that says what it is."""

    def folder_files(
        self, folder: Path, config: ModelConfig, options: OutputOptions, weights: WeightsFile
    ) -> dict[Path, str]:
        """Return the files that describe the whole folder and are not there yet, or say something else."""


class PlainLayout:
    """`OUT/<case>_seg.nii.gz`, and the maps beside it with what they are behind its name."""

    def check(self, folder: Path, cases: Iterable[Case]) -> None:
        """Return: the names of cases differ."""

    def segmentation(self, folder: Path, case: Case) -> Path:
        """Return `<case>_seg.nii.gz`."""
        return folder / f"{case.name}_seg.nii.gz"

    def map(self, segmentation: Path, kind: str, of: str = "") -> Path:
        """Return e.g. `<case>_seg_prob_WT.nii.gz`, whatever the segmentation's format."""
        return segmentation.with_name("_".join([stem_of(segmentation), kind, *([of] if of else [])]) + ".nii.gz")

    def sidecar(self, segmentation: Path) -> Path | None:
        """Return None."""
        return None

    def folder_files(
        self, folder: Path, config: ModelConfig, options: OutputOptions, weights: WeightsFile
    ) -> dict[Path, str]:
        """Return none."""
        return {}


class BidsLayout:
    """A BIDS derivative: `OUT/sub-01/ses-1/anat/sub-01_ses-1_space-orig_seg-a2fseg_dseg.nii.gz`.

    Names follow BIDS 1.11.2, Imaging derivatives: Discrete Segmentations (`dseg`), Probabilistic Segmentations
    (`probseg`) and Masks (`mask`), where `space-orig` is the space of the images themselves. `seg-` tells the
    segmentations of several tools apart; masks have no such entity, `desc-` does it for them. For uncertainty and
    attention the specification has no suffix: `.bidsignore` lists theirs. The tool's name, a word in every name,
    also keeps these files from being taken for images or an expert's truths.
    """

    _START = "_space-orig"
    _OURS = f"{_START}_seg-a2fseg"

    def check(self, folder: Path, cases: Iterable[Case]) -> None:
        """Refuse two patients of one name, one without any, and another data set's folder. Raises: UsageError."""
        taken: dict[str, str] = {}
        for case in cases:
            if case.problem:
                continue
            key = str(_name(case)).lower()  # names that differ in case only are one file on some systems
            if key in taken:
                raise UsageError(
                    f"layout bids: {taken[key]} and {case.name} would both be {_name(case)}, since only letters and "
                    "digits count. List them in a CSV under other names."
                )
            taken[key] = case.name
        _known_description(folder)

    def segmentation(self, folder: Path, case: Case) -> Path:
        """Return the discrete segmentation of a case."""
        name = _name(case)
        return folder / name.folder / f"{name}{self._OURS}_dseg.nii.gz"

    def map(self, segmentation: Path, kind: str, of: str = "") -> Path:
        """Return a mask (`region`), a probabilistic segmentation (`prob`), or a map without a name in BIDS."""
        start = segmentation.name.removesuffix(f"{self._OURS}_dseg.nii.gz")
        label = re.sub(r"[^0-9A-Za-z+]+", "", of)
        ending = {
            "region": f"{self._START}_label-{label}_desc-a2fseg_mask",
            "prob": f"{self._OURS}_label-{label}_probseg",
            "uncertainty": f"{self._OURS}_uncertainty",
            "attention": f"{self._OURS}_desc-{label}_attention",
        }[kind]
        return segmentation.with_name(f"{start}{ending}.nii.gz")

    def sidecar(self, segmentation: Path) -> Path | None:
        """Return the JSON of the segmentation's own name."""
        return segmentation.with_name(f"{stem_of(segmentation)}.json")

    def folder_files(
        self, folder: Path, config: ModelConfig, options: OutputOptions, weights: WeightsFile
    ) -> dict[Path, str]:
        """Return the description, the lookup table, and the JSON that holds for all maps of one suffix.

        What the user added to the description stays, and so do the files that say the same whatever was run.
        (BIDS 1.11.2: Dataset description, Derived dataset and pipeline description; what lies at the top holds for
        all files below: Inheritance principle.)

        Raises:
            UsageError: the description there is of another data set.
        """
        files = {folder / "dseg.tsv": bids_lookup_table(config.classes, options.label_values(config), options.colours)}
        known = _known_description(folder)
        description = _described(known, weights)
        if description != known:
            files[folder / DESCRIPTION] = json_text(description)
        constant = {".bidsignore": _NOT_BIDS}
        if options.probabilities:
            constant["probseg.json"] = json_text(segmentation_record("Probability of a region of the tumour"))
        if options.regions:
            constant["mask.json"] = json_text(
                segmentation_record("Mask of a region of the tumour") | {"Type": "Lesion"}
            )
        return files | {folder / name: text for name, text in constant.items() if not (folder / name).exists()}


PLAIN, BIDS = PlainLayout(), BidsLayout()
LAYOUTS: dict[str, Layout] = {"plain": PLAIN, "bids": BIDS}


def layout_named(name: str) -> Layout:
    """Return a layout by its name. Raises: UsageError."""
    if name not in LAYOUTS:
        raise UsageError(f"layout {name}: expected {' or '.join(LAYOUTS)}.")
    return LAYOUTS[name]


def segmentation_record(description: str) -> dict[str, Any]:
    """Return what BIDS's JSON says of any segmentation: that a program made it, in the space of the images."""
    return {"Description": description, "Manual": False, "SpatialReference": "orig"}


def stem_of(image: Path) -> str:
    """Return an image's name without its extension. Raises: UsageError for a name without one."""
    return image.name[: -len(check_output_name(image, DICOM))]


def _name(case: Case) -> BidsName:
    name = bids_name(case.name)
    if name is None:
        raise UsageError(
            f"layout bids: the name {case.name!r} has no letter A to Z and no digit, of which a subject's label is "
            "made. List the patient in a CSV under another name."
        )
    return name


def _known_description(folder: Path) -> dict[str, Any]:
    """Return what describes the folder already, nothing where no file does.

    Raises:
        UsageError: it is of another data set, or cannot be read.
    """
    path = folder / DESCRIPTION
    try:
        known = parse_json(path.read_text("utf-8"))
        own = any(maker["Name"] == MAKER for maker in known["GeneratedBy"])
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, KeyError):
        own = False
    if not own:
        raise UsageError(
            f"{path} is another data set's. Expected a folder of its own for a derivative, such as "
            "derivatives/a2fseg in the data set."
        )
    return dict(known)


def _described(known: dict[str, Any], weights: WeightsFile) -> dict[str, Any]:
    """Return a description with this version and these weights; what else is known stays."""
    name = weights.card.get("name") or weights.path.stem
    maker = {
        "Name": MAKER,
        "Version": __version__,
        "Description": f"Outlines of brain tumours, with the weights {name}, sha256 {weights.sha256}",
    }
    others = [other for other in known.get("GeneratedBy", []) if other["Name"] != MAKER]
    fixed = {"BIDSVersion": BIDS_VERSION, "DatasetType": "derivative", "GeneratedBy": [maker, *others]}
    return {"Name": "a2fseg: outlines of brain tumours"} | known | fixed
