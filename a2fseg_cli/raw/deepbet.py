"""The two networks of deepbet, read from the installed package without running any of its code.

deepbet (Fisch et al., 2024; MIT) ships its weights as two TorchScript files inside its wheel. Its own modules need a
GUI toolkit and pandas, so only the two files are opened. A TorchScript file is a program: each is run only if it is,
byte for byte, the one that was read and measured.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from a2fseg_cli.errors import WeightsError

FloatVolume = npt.NDArray[np.float32]

PACKAGE = "deepbet"
INSTALL = 'pip install "a2fseg[raw]"'
# Of deepbet 1.0.2. They lie in the folder that holds all installed packages, where another package named `data` could
# put its own.
FILES = {
    "data/models/bbox_model.pt": "39a7b2b5f799faa1391ea97bfcdc0b9299f20d84f2316a4ff8918dc4685e40aa",
    "data/models/model.pt": "de8ee7c69654d0dd3935dc4a5d84571d8ecf4637a6bfc01df399c4c2bc86e0fd",
}
# What the brain network's input is brought to after its z-score: mean and deviation of its training images.
_MEAN, _DEVIATION = 0.449, 0.226


@dataclass(frozen=True)
class Networks:
    """deepbet's networks on a device; each takes a cube of intensities and gives the chance of brain, 0 to 1.

    Attributes:
        box: Finds the brain roughly in a cube of 128 voxels.
        brain: Finds its surface in a cube of 256 voxels.
        device: Where they run.
    """

    box: Any
    brain: Any
    device: torch.device

    def chances(self, network: Any, cube: FloatVolume, low: float, high: float) -> FloatVolume:
        """Return the chance of brain of each voxel.

        Args:
            network: `box` or `brain`.
            cube: Axes (x, y, z) of the patient: growing to the right, to the front, to the head.
            low: The intensity that becomes black; below it as well.
            high: The intensity that becomes white; above it as well.
        """
        values = ((torch.from_numpy(cube).to(self.device) - low) / (high - low)).clamp_(0, 1)
        values = (values - values.mean()) / values.std()
        with torch.inference_mode(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            output = network((values * _DEVIATION + _MEAN)[None, None])
        chances: FloatVolume = output[0, 1].cpu().numpy()
        return chances


@lru_cache(maxsize=1)
def load_networks(device: str = "cpu") -> Networks:
    """Return deepbet's networks; a second call for the same device returns the same ones.

    Raises:
        WeightsError: deepbet is not installed, or a file of it is missing or is another one.
    """
    box, brain = (_load(name, digest, device) for name, digest in FILES.items())
    return Networks(box, brain, torch.device(device))


def _load(name: str, digest: str, device: str) -> Any:
    """Return the network of one file."""
    data = _read(name, digest)
    with warnings.catch_warnings():
        # It is what the files were made for; torch 2.13 asks to move to torch.export.
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is deprecated", category=DeprecationWarning)
        return torch.jit.load(io.BytesIO(data), map_location=device).eval()  # type: ignore[no-untyped-call]


def _read(name: str, digest: str) -> bytes:
    """Return the bytes of a file of the package once they are known to be the right ones."""
    choice = "or give a brain mask"
    again = f"Install it anew (pip uninstall {PACKAGE}, then {INSTALL}), {choice}."
    try:
        path = importlib.metadata.distribution(PACKAGE).locate_file(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise WeightsError(
            f"Brain extraction needs the package {PACKAGE}, not installed here. Install it with {INSTALL}, {choice}."
        ) from error
    try:
        with open(str(path), "rb") as file:
            data = file.read()
    except OSError as error:
        raise WeightsError(f"{path}: a file of {PACKAGE} that cannot be read ({error.strerror}). {again}") from error
    actual = hashlib.sha256(data).hexdigest()
    if actual != digest:
        digests = f"SHA-256 {actual[:12]}…, expected {digest[:12]}…"
        raise WeightsError(f"{path}: not the file of {PACKAGE} 1.0.2, and not run: {digests}. {again}")
    return data
