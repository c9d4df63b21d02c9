"""Checkpoints: damaged, foreign or with code in them they are refused; a full disk leaves the old one."""

from __future__ import annotations

import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_toys import (
    CONFIG,
    trainer,
)

from a2fseg_cli.errors import ResourceError, UsageError, WeightsError
from a2fseg_cli.training.checkpoint import load_checkpoint, save_checkpoint


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [lambda o, p: p.write_bytes(pickle.dumps(o)), torch.save], ids=["pickle", "torch"])
def test_a_checkpoint_with_code_is_refused_unexecuted(tmp_path: Path, write: Any) -> None:
    one = trainer(tmp_path / "run")
    write({"config": CONFIG.to_json(), "model": Malicious(tmp_path / "owned")}, tmp_path / "run" / "last.ckpt")
    with pytest.raises(WeightsError, match=r"last.ckpt: not a checkpoint of this tool"):
        one.resume()
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x80\x02", os.urandom(100)], ids=range(4))
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"last.ckpt: not a checkpoint"):
        trainer(tmp_path).resume()


@pytest.mark.parametrize("state", [torch.zeros(3), {"config": CONFIG.to_json()}, {}, [1]], ids=range(4))
def test_a_foreign_state_is_refused(tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "last.ckpt")
    with pytest.raises(WeightsError, match=r"last.ckpt: not a checkpoint of this tool"):
        trainer(tmp_path).resume()


def test_nothing_to_resume_from(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no checkpoint to resume from"):
        trainer(tmp_path).resume()


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path).save()
    with pytest.raises(UsageError, match="another network"):
        trainer(tmp_path, config=replace(CONFIG, features_per_stage=(4, 10))).resume()


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """With a limit of 2000 bytes a file, as if the disk were full."""
    if sys.platform == "win32":
        pytest.skip("limits of a process are POSIX")
    import resource

    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"value": torch.ones(2)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(ResourceError, match=r"last.ckpt: cannot be written"):
            save_checkpoint(path, {"value": torch.ones(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_checkpoint(path)["value"].tolist() == [1, 1]
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
