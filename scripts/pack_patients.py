"""Patients for a training elsewhere: cropped to the brain, rounded, in folders small enough to be carried.

    python scripts/pack_patients.py DATA ... -o PARTS [--split split.json] [--most-mib 64]

PARTS/part-01, part-02, ... hold one folder a patient, in NIfTI, and each is a data folder like any other: bring over
one after the other and give all of them to `a2fseg train`. Voxels stay as large as they are: `train` z-scores before
it resamples, and images of 1 mm that were packed at 1.25 mm would come out with 6 to 12 % more contrast. With --split
only its patients for training and validation are taken, and PARTS/split.json is that file.

Images are z-scored inside the brain and stored as whole numbers, 20 a standard deviation: off by 0.025 of it at most,
where the noise that training adds has up to 0.15.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.case_lists import read_split
from a2fseg_cli.cases.images import load_images, read_truth
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import InputError, ResourceError, UsageError
from a2fseg_cli.files import atomic_write_text
from a2fseg_cli.imaging.geometry import Geometry, axes_to_canonical
from a2fseg_cli.imaging.label_maps import check_on_grid
from a2fseg_cli.imaging.preprocessing import Reorient, canonical_spacing_mm, prepare
from a2fseg_cli.imaging.writing import write_image
from a2fseg_cli.training.patients import PARTS, training_cases

LEVELS = 20  # whole numbers a standard deviation
MEAN = 200  # the number of the brain's mean: the background, 0, then lies ten standard deviations below it
MARGIN = 2  # voxels of background on each side, by which the reader knows what surrounds the brain


def write_packed(case: Case, folder: Path) -> None:
    """Write a patient's images and truth (labels 1, 2, 3) into a folder, on canonical axes.

    Args:
        case: With a truth.
        folder: The patient's own, made if needed.

    Raises:
        InputError: an image or the truth that is not acceptable.
        ResourceError: the disk is full.
    """
    config = ModelConfig()
    config = replace(config, modalities=tuple(m for m in config.modalities if m in case.images))
    read = load_images(case, config.modalities)
    truth = check_on_grid(read_truth(case, config), read.reference_path, read.geometry)
    spacing_mm = canonical_spacing_mm(read.geometry, Reorient(*axes_to_canonical(read.geometry)))
    prepared = prepare(read.images, config.modalities, spacing_mm, masks=read.masks)
    size = (prepared.images.shape[1], prepared.images.shape[2], prepared.images.shape[3])
    grid = Geometry((size[0] + 2 * MARGIN, size[1] + 2 * MARGIN, size[2] + 2 * MARGIN), spacing_mm)
    for modality, image in zip(config.modalities, prepared.images, strict=True):
        numbers = np.where(image != 0, np.clip(np.rint(image * LEVELS) + MEAN, 1, 2**15 - 1), 0)
        write_image(np.pad(numbers, MARGIN).astype(np.int16), grid, folder / f"{case.name}_{modality}.nii.gz")
    classes = prepared.route.classes_to_network(truth.classes, len(config.classes))
    labels = np.asarray(config.label_values, np.int16)[classes]
    # An image, not a label map of this tool's: these are marked as found by it, and not taken for a truth.
    write_image(np.pad(labels, MARGIN), grid, folder / f"{case.name}_seg.nii.gz")


class Parts:
    """Folders part-01, part-02, ..., each filled up to so many bytes.

    Args:
        output: Where they lie; nothing may be there yet.
        most_bytes: Of the files in one of them.

    Raises:
        UsageError: the folder has files in it.
    """

    def __init__(self, output: Path, most_bytes: int) -> None:
        if output.exists() and any(output.iterdir()):
            raise UsageError(f"{output}: not empty. Give a new folder.")
        self.output, self.most_bytes, self.used = output, most_bytes, [0]

    def take(self, patient: Path) -> None:
        """Move a patient's folder into the first part that has room for it. Raises: UsageError: none can have it."""
        size = sum(file.stat().st_size for file in patient.iterdir())
        if size > self.most_bytes:
            raise UsageError(f"{patient.name}: {size} bytes, a part takes {self.most_bytes}. Allow larger parts.")
        index = next((i for i, used in enumerate(self.used) if used + size <= self.most_bytes), len(self.used))
        self.used += [0] * (index == len(self.used))
        self.used[index] += size
        place = self.output / f"part-{index + 1:02d}"
        place.mkdir(parents=True, exist_ok=True)
        patient.rename(place / patient.name)


def pack(data: Sequence[Path], output: Path, split: Path | None, most_mib: float) -> list[int]:
    """Pack the patients, and return the bytes of each part.

    Raises:
        InputError, ResourceError: as `write_packed`; a patient of the split is not there.
        UsageError: the output holds files, or a patient is larger than a part.
    """
    parts = Parts(output, math.floor(most_mib * 2**20))
    every = training_cases(data, ModelConfig().modalities)
    cases = {c.name: c for c in every if c.truth and not c.problem}
    for case in every:
        if case.name not in cases and split is None:
            print(f"left out: {case.problem or f'{case.name}: no truth'}", file=sys.stderr)
    lists = read_split(split) if split is not None else {"": sorted(cases)}
    names = [name for part in (PARTS if split is not None else lists) for name in lists.get(part, ())]
    if missing := [name for name in names if name not in cases]:
        why = next((f" {c.problem}" for c in every if c.problem and missing[0] in c.problem), "")
        raise InputError(
            f"{missing[0]}: named in the split but not found with a truth ({len(missing)} such cases).{why}"
        )
    waiting = output / "waiting"
    for name in names:
        write_packed(cases[name], waiting / name)
        parts.take(waiting / name)
    shutil.rmtree(waiting, ignore_errors=True)
    if split is not None:
        atomic_write_text(output / "split.json", json.dumps({part: lists.get(part, []) for part in PARTS}, indent=1))
    return parts.used


def main() -> None:
    """Read the options, pack, and say how large the parts are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--split", type=Path)
    parser.add_argument("--most-mib", type=float, default=64)
    options = parser.parse_args()
    try:
        used = pack(options.data, options.output, options.split, options.most_mib)
    except (InputError, ResourceError, UsageError) as error:
        parser.exit(1, f"{error}\n")
    for index, size in enumerate(used, 1):
        print(f"{options.output}/part-{index:02d}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
