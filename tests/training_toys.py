"""Small patients, a small network and a scripted source of chances, for the tests of training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from a2fseg_cli.cases.case import Case
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.device import Compute
from a2fseg_cli.training.data import Sample
from a2fseg_cli.training.loop import Setup, Trainer
from a2fseg_cli.training.recipe import Recipe
from a2fseg_cli.training.run_folder import RunFolder

CONFIG = ModelConfig(
    modalities=("t1", "flair"),
    classes=("background", "lesion"),
    label_values=(0, 1),
    regions=(("lesion", ("lesion",)),),
    features_per_stage=(4, 8),
    patch_size=(8, 8, 8),
)
RECIPE = Recipe(epochs=4, iterations_per_epoch=2, random_subsets=1, augment=True, ema_decay=0.9, seed=5)
CUBES = (1.0, 1.0, 1.0)  # spacing in mm
CPU = Compute(torch.device("cpu"), "fp32", "for the tests")


def lesion_sample(edge: int = 16, name: str = "patient") -> Sample:
    """A cube of lesion, bright in FLAIR and dark in T1, in noise."""
    random = np.random.default_rng(edge)
    classes = np.zeros((edge,) * 3, np.uint8)
    classes[edge // 4 : edge // 2 + 1, edge // 4 : edge // 2 + 1, edge // 3 : -edge // 4] = 1
    images = random.standard_normal((2, edge, edge, edge)) * 0.5
    images[0] -= 1.5 * classes
    images[1] += 2.5 * classes
    return Sample(name, images.astype(np.float16), classes, (True, True))


def numbered_sample(shape: tuple[int, int, int]) -> Sample:
    """Every voxel has its own value, from 1 (up to 2048, exact in float16), the same in both modalities."""
    values = np.arange(1, math.prod(shape) + 1, dtype=np.float16).reshape(shape)
    assert values.max() <= 2048
    classes = (np.arange(math.prod(shape)).reshape(shape) % 7 % 3).astype(np.uint8)
    return Sample("numbered", np.stack([values, -values]), classes, (True, True))


class Scripted(np.random.Generator):
    """A generator whose chances come from a list (then 1, so that nothing more happens) and whose values are given."""

    def __init__(self, chances: list[float], values: list[Any] | None = None) -> None:
        super().__init__(np.random.PCG64(0))
        self.chances, self.values = iter(chances), iter(values or [])

    def random(self, *_: Any, **__: Any) -> Any:
        return next(self.chances, 1.0)

    def uniform(self, *_: Any, **__: Any) -> Any:
        return next(self.values)


def trainer(folder: Path, recipe: Recipe = RECIPE, config: ModelConfig = CONFIG, **changes: Any) -> Trainer:
    """A trainer of two patients, validated on a third, unless `changes` says otherwise."""
    parts = {"train": [lesion_sample(12), lesion_sample(16)], "validation": [lesion_sample(10)]} | changes
    folder.mkdir(exist_ok=True)
    return Trainer(Setup(config, recipe, folder=RunFolder(folder), compute=CPU, card={"name": "test"}, **parts))


def write_case(folder: Path, name: str = "one", seed: int = 0) -> Case:
    """Write a patient with a block of lesion, 4 x 5 x 6 voxels of 1 mm; return it as `find_cases` would."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    shape = (12, 14, 16)
    for kind in ("t1", "flair", "seg"):
        array = np.zeros(shape, np.uint8 if kind == "seg" else np.float32)
        if kind == "seg":
            array[4:8, 4:9, 4:10] = 1
        else:
            array[2:-2, 2:-2, 2:-2] = random.uniform(1, 2, (8, 10, 12))
        files[kind] = folder / f"{name}_{kind}.nii.gz"
        sitk.WriteImage(sitk.GetImageFromArray(array), str(files[kind]))
    return Case(name, {m: files[m] for m in ("t1", "flair")}, files["seg"])


def write_cohort(folder: Path, names: Sequence[str]) -> Path:
    """Write a folder with one patient of T1 and FLAIR a sub-folder, all of them different."""
    for seed, name in enumerate(names):
        write_case(folder / name, name, seed)
    return folder
