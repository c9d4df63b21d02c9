"""A tiny network and small patients, for tests of everything but their masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from a2fseg_cli.core.a2fseg import A2FSeg
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.modalities import BRATS_MODALITIES
from a2fseg_cli.phantom import make_phantom
from a2fseg_cli.weights.file_format import save_weights


def toy_network(folder: Path, modalities: tuple[str, ...] = BRATS_MODALITIES) -> Path:
    """Write the weights of a tiny random network at 4 mm; return the file."""
    config = ModelConfig(modalities, features_per_stage=(4, 8), spacing_mm=(4.0, 4.0, 4.0), patch_size=(16, 16, 16))
    torch.manual_seed(3)
    network = A2FSeg(config)
    torch.nn.init.zeros_(network.head.bias)  # undecided, so that there are masks
    path = folder / "toy.safetensors"
    save_weights(path, network.state_dict(), config, {"name": "toy"})
    return path


def small_cohort(folder: Path, count: int) -> Path:
    """Write patients of 50 x 64 x 64 voxels with T1c and FLAIR, each with values of its own; return the folder."""
    made = make_phantom(size=(50, 64, 64), spacing_mm=(3.0, 3.0, 3.0))
    for index in range(count):
        (folder / f"case{index}").mkdir(parents=True)
        for m in ("t1c", "flair"):
            image = sitk.GetImageFromArray(made.images[m] * np.float32(1 + 0.01 * index))
            image.SetSpacing((3.0, 3.0, 3.0))
            sitk.WriteImage(image, str(folder / f"case{index}" / f"{m}.nii.gz"))
    return folder
