"""The demonstration: a synthetic patient, segmented from some of its sequences and scored against its truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from a2fseg_cli.cases.case import Case
from a2fseg_cli.errors import UsageError
from a2fseg_cli.evaluation.metrics import TruthMask, score
from a2fseg_cli.files import check_place
from a2fseg_cli.imaging.label_maps import read_classes
from a2fseg_cli.imaging.labels import region_mask
from a2fseg_cli.inference.predict import run_cases
from a2fseg_cli.inference.predictor import Segmenter
from a2fseg_cli.phantom import write_phantom


@dataclass(frozen=True)
class DemoScore:
    """One region of the synthetic patient: Dice (0 to 1), volume found and true volume in mL."""

    region: str
    dice: float
    volume_ml: float
    true_volume_ml: float


@dataclass(frozen=True)
class Demo:
    """What the demonstration made.

    Attributes:
        folder: Images and truth.
        segmentation: The file.
        preview: A picture of it.
        scores: One a region.
    """

    folder: Path
    segmentation: Path
    preview: Path
    scores: tuple[DemoScore, ...]


def run_demo(folder: Path, network: Segmenter, modalities: Sequence[str] = ("t1c", "flair"), seed: int = 0) -> Demo:
    """Make a phantom, segment it and score the result.

    Args:
        folder: Where everything goes.
        network: The loaded network.
        modalities: Which of the phantom's sequences are used.
        seed: Another one makes another patient.

    Raises:
        UsageError: a seed below 0, or a modality that the network does not take.
        ResourceError: the folder cannot be written.
    """
    config = network.config
    if seed < 0:
        raise UsageError(f"seed {seed}: expected 0 or more.")
    if not modalities or not set(modalities) <= set(config.modalities):
        raise UsageError(f"modalities {'+'.join(modalities)}: expected some of {'+'.join(config.modalities)}.")
    segmentation, preview = folder / "phantom_a2fseg_seg.nii.gz", folder / "preview.png"
    check_place(segmentation)  # the phantom takes seconds
    paths = write_phantom(folder, seed)
    case = Case("phantom", {m: paths[m] for m in modalities})
    run_cases([case], network, segmentation, preview=preview, existing="overwrite")
    truth, predicted = (read_classes(path, config) for path in (paths["seg"], segmentation))
    scores = []
    for region, _ in config.regions:
        members = config.region_classes(region)
        reference = TruthMask(region_mask(truth.classes, members), truth.geometry.spacing_mm)
        found = score(reference, region_mask(predicted.classes, members), ("dice", "volume")).values
        scores.append(DemoScore(region, found["dice"], found["volume_ml"], found["reference_volume_ml"]))
    return Demo(folder, segmentation, preview, tuple(scores))
