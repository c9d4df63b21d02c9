"""Where weights and their manifest lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

MANIFEST_NAME = "weights_manifest.json"


def cache_folder() -> Path:
    """Return the cache folder: `A2FSEG_HOME`, or where the system keeps a user's caches. It need not exist."""
    home = os.environ.get("A2FSEG_HOME")
    return Path(os.path.expanduser(home)) if home else platformdirs.user_cache_path("a2fseg", appauthor=False)


def bundled_weights_folder() -> Path:
    """Return the folder of the weights that come with the package."""
    return Path(__file__).parent / "bundled"


def manifest_path() -> Path:
    """Return the package's own manifest: beside this module when installed, at the project's root in a checkout."""
    installed = Path(__file__).parent / MANIFEST_NAME
    return installed if installed.is_file() else Path(__file__).parents[2] / MANIFEST_NAME
