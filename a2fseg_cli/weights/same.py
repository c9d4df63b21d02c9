"""The same weights on another machine: where the first has them, or under a name that is known here."""

from __future__ import annotations

from pathlib import Path

from a2fseg_cli.errors import WeightsError
from a2fseg_cli.weights.cache import local_path
from a2fseg_cli.weights.file_format import sha256_of
from a2fseg_cli.weights.registry import known_weights


def same_weights(path: Path, sha256: str) -> Path:
    """Return the file with a checksum: at a path, bundled, or among what was downloaded here.

    Args:
        path: Where another machine has it.
        sha256: Of its bytes, 64 hexadecimal digits.

    Raises:
        WeightsError: it is at none of these places.
    """
    known = [local_path(entry) for entry in known_weights().entries if entry.sha256 == sha256]
    for place in (path, *known):
        if place is not None and place.is_file() and sha256_of(place) == sha256:
            return place
    why = "another file there" if path.is_file() else "not there"
    raise WeightsError(f"the weights {path} (sha256 {sha256[:12]}...) are {why}, and not among those downloaded there")
