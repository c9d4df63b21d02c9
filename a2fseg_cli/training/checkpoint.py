"""Checkpoints for resuming: written to a temporary name and renamed, read without executing anything."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from a2fseg_cli.errors import ResourceError, WeightsError
from a2fseg_cli.files import atomic_write


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write the state (tensors and plain values) so that a kill at any moment leaves the old or the new one.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    with atomic_write(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's name for a write that failed
            raise ResourceError(f"{path}: cannot be written, the disk is probably full. Free space.") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return a saved state. Raises: WeightsError when it cannot be read as plain tensors and values."""
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's, of pickles that it then refuses
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no checkpoint to resume from; start without resume.") from error
    except Exception as error:
        raise WeightsError(f"{path}: not a checkpoint of this tool ({type(error).__name__}).") from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: not a checkpoint of this tool ({type(state).__name__}).")
    return state
