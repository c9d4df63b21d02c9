"""Faults done for real to runs of the command; `python tests/harm_faults.py` does more of each and prints a table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import harm_faults
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="signals, mounts and limits as Linux has them"),
]


@pytest.fixture
def mounts() -> None:
    """Skip where no process may have mounts of its own."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets no process mount")


def test_killed_runs_add_up_to_one(tmp_path: Path) -> None:
    assert harm_faults.kills(3, 1, tmp_path).startswith("3 of 3 survived")


@pytest.mark.usefixtures("mounts")
def test_full_disk(tmp_path: Path) -> None:
    harm_faults.full_disk(tmp_path, (2, 8, 4096))


@pytest.mark.usefixtures("mounts")
def test_read_only_folder(tmp_path: Path) -> None:
    harm_faults.read_only(tmp_path)


def test_little_memory(tmp_path: Path) -> None:
    harm_faults.little_memory(tmp_path, (0.3, 1.1, 1.2, 2))


def test_signals(tmp_path: Path) -> None:
    harm_faults.signals(tmp_path)


def test_two_processes_on_one_folder(tmp_path: Path) -> None:
    harm_faults.two_at_once(tmp_path)


def test_vanishing_patients(tmp_path: Path) -> None:
    harm_faults.vanishing_patient(tmp_path)


@pytest.mark.parametrize("damage", [b"case,modalities,sta", b"", None])
def test_the_harness_notices_a_damaged_cohort(tmp_path: Path, damage: bytes | None) -> None:
    """A cut table, a half image: `assert_whole` must not let them pass."""
    (tmp_path / "case0_seg.nii.gz").write_bytes(b"\x1f\x8b half")
    if damage is not None:
        (tmp_path / "status.csv").write_bytes(damage)
    with pytest.raises((AssertionError, EOFError, OSError, KeyError)):
        harm_faults.assert_whole(tmp_path)
