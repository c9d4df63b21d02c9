"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

# Toy networks take four times the CPU on two threads, the phantom's products of matrices seven times on a busy machine.
# OpenBLAS reads it when numpy is loaded; the processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import SimpleITK as sitk
import torch
from hypothesis import HealthCheck, settings
from toys import toy_network

from a2fseg_cli.cli.main import main
from a2fseg_cli.phantom import make_phantom

# The same examples every time, however slow the machine: what fails, fails because of what was changed. New ones are
# looked for by `pytest --hypothesis-profile search`.
slow = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("suite", derandomize=True, **slow)
settings.register_profile("search", max_examples=1000, **slow)
settings.load_profile("suite")

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
    return toy_network(tmp_path_factory.mktemp("weights"))


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


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run `a2fseg` in this process; returns the exit code."""

    def command(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["a2fseg", *map(str, arguments)])
        try:
            main()
        except SystemExit as exit_:
            return int(exit_.code or 0)
        return 0

    return command


@pytest.fixture
def run(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `a2fseg` in this process; returns exit code, stdout, stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        return (call(*arguments), *capsys.readouterr())

    return command


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Also behind a test that asked for more threads, since they are the process's."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than a training of the tests; that it is drawn is shown by `test_training.py`."""
    from a2fseg_cli.training import run_folder

    monkeypatch.setattr(run_folder, "write_learning_curves", lambda *_: None)
