"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import SimpleITK as sitk
import torch

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.model import A2FSeg
from a2fseg_cli.imaging.phantom import make_phantom
from a2fseg_cli.weights.file_format import save_weights

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def cases_dir() -> Path:
    """The folder with the 51 real patients; tests that need it are skipped where it does not exist."""
    folder = DATA / "cases"
    if not folder.is_dir():
        pytest.skip("the real patients (../shared/data/cases) are not on this machine")
    return folder


@pytest.fixture(scope="session")
def toy_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random network at 4 mm: fast, and its masks are as good as any for tests of files."""
    config = ModelConfig(features_per_stage=(4, 8), spacing_mm=(4.0, 4.0, 4.0), window=(16, 16, 16))
    torch.manual_seed(3)
    network = A2FSeg(config)
    torch.nn.init.zeros_(network.head.bias)  # undecided, so that there are masks
    path = tmp_path_factory.mktemp("weights") / "toy.safetensors"
    save_weights(path, network.state_dict(), config, {"name": "toy"})
    return path


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patient's folder with four modalities at 3 mm."""
    folder = tmp_path_factory.mktemp("phantom") / "P1"
    folder.mkdir()
    made = make_phantom(size=(50, 64, 64), spacing_mm=(3.0, 3.0, 3.0))
    for modality, array in made.images.items():
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((3.0, 3.0, 3.0))
        sitk.WriteImage(image, folder / f"P1_{modality}.nii.gz")
    return folder
