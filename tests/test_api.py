"""The public functions: what a notebook can do, and that the command does the same."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import a2fseg_cli
from a2fseg_cli import api
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.inference.predictor import Segmenter

Run = Callable[..., tuple[int, str, str]]
README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.fixture(scope="module")
def network(toy_weights: Path) -> Segmenter:
    return api.load_network(toy_weights, precision="fp32")


@pytest.fixture
def by_command(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> Path:
    images = ("--t1c", phantom / "P1_t1c.nii.gz", "--flair", phantom / "P1_flair.nii.gz")
    path = tmp_path / "by_command.nii.gz"
    assert run("predict", *images, "-o", path, "--weights", toy_weights, "--precision", "fp32")[0] == 0
    return path


def test_paths_images_and_arrays_give_what_the_command_gives(
    by_command: Path, phantom: Path, network: Segmenter, tmp_path: Path
) -> None:
    paths = {m: phantom / f"P1_{m}.nii.gz" for m in ("t1c", "flair")}
    images = {m: sitk.ReadImage(path) for m, path in paths.items()}
    arrays = {m: sitk.GetArrayFromImage(image) for m, image in images.items()}
    expected = nib.load(by_command)
    labels = np.asarray(expected.dataobj).transpose()
    for given, spacing in ((paths, None), (images, None), (arrays, (3, 3, 3))):
        result = a2fseg_cli.segment(**given, spacing_mm=spacing, network=network)
        assert np.array_equal(result.labels, labels)
        assert result.modalities == "t1c+flair"
        assert result.volumes_ml["WT"] == pytest.approx((labels > 0).sum() * 0.027)  # a voxel of 3 mm is 0.027 mL
    saved = a2fseg_cli.segment(**paths, network=network).save(tmp_path / "by_api.nii.gz")
    assert saved.read_bytes() == by_command.read_bytes()


def test_what_a_user_can_mend_is_one_error_with_the_reason(network: Segmenter, phantom: Path) -> None:
    array = np.zeros((8, 8, 8), np.float32)
    for given, error, words in (
        ({}, UsageError, "at least one of t1, t1c, t2, flair"),
        ({"flair": array}, UsageError, "spacing_mm"),
        ({"flair": array[0], "spacing_mm": (1, 1, 1)}, InputError, "an array of shape (8, 8)"),
        ({"flair": array, "spacing_mm": (1, 1, 1)}, InputError, "every voxel is 0"),
        ({"flair": 3}, UsageError, "int"),
        ({"images": {"pd": phantom / "P1_t1.nii.gz"}}, UsageError, "pd"),
        ({"flair": phantom / "P1_t1.nii.gz", "labels": "brats1999"}, UsageError, "brats1999"),
    ):
        with pytest.raises(error, match=re.escape(words)):
            api.segment(**given, network=network)  # type: ignore[arg-type]


def test_importing_the_package_loads_no_library() -> None:
    code = "import a2fseg_cli, sys; print([m for m in ('torch', 'SimpleITK', 'nibabel', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_everything_public_is_there_and_nothing_else() -> None:
    for name in a2fseg_cli.__all__:
        assert getattr(a2fseg_cli, name) is not None
    with pytest.raises(AttributeError):
        a2fseg_cli.os  # noqa: B018


def test_the_readmes_lines_run(phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(block.strip().splitlines()) <= 6
    monkeypatch.chdir(tmp_path)
    for name, source in (("a", "t1c"), ("b", "flair")):
        (tmp_path / f"{name}.nii.gz").write_bytes((phantom / f"P1_{source}.nii.gz").read_bytes())
    exec(block, {})
    assert (tmp_path / "seg.nii.gz").is_file()
