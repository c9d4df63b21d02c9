"""Which software made a result."""

from __future__ import annotations

import platform

from a2fseg_cli import __version__


def versions() -> dict[str, str]:
    """Return the version of this tool, of Python and of the libraries that results depend on."""
    import numpy as np
    import SimpleITK as sitk
    import torch

    return {
        "a2fseg": __version__,
        "torch": torch.__version__,
        "SimpleITK": sitk.Version.VersionString(),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
