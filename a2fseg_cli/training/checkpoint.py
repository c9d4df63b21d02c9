"""Checkpoints for resuming: written to a temporary name and renamed, read without executing anything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from a2fseg_cli.errors import WeightsError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write the state (tensors and plain values) so that a kill at any moment leaves the old or the new one."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return a saved state. Raises: WeightsError when it cannot be read as plain tensors and values."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no checkpoint to resume from; start without --resume.") from error
    except Exception as error:
        raise WeightsError(f"{path}: not a checkpoint of this tool ({type(error).__name__}).") from error
    return state
