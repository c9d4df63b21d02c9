"""What was downloaded to this machine, by name: one small manifest an entry, beside the files.

So that weights from another manifest than the package's own are listed and found by their name afterwards.
"""

from __future__ import annotations

from pathlib import Path

from a2fseg_cli.errors import WeightsError
from a2fseg_cli.weights.folders import cache_folder
from a2fseg_cli.weights.manifest import (
    Manifest,
    ManifestEntry,
    entry_fields,
    read_manifest,
    write_manifest_text,
)


def known_weights() -> Manifest:
    """Return the package's own manifest, and behind its entries those that were downloaded from others.

    An entry on disk that cannot be read is passed over: the weights have to be downloaded again.
    """
    own = read_manifest()
    names = {entry.name for entry in own.entries}
    others = []
    for path in sorted(_folder().glob("*.json")):
        try:
            others += [entry for entry in read_manifest(path, insecure=True).entries if entry.name not in names]
        except WeightsError:
            continue
    return Manifest((*own.entries, *others), own.source)


def check_free(entry: ManifestEntry) -> None:
    """Accept an entry of another manifest unless its name means other weights, which come with the package.

    Raises:
        WeightsError: it does.
    """
    for own in read_manifest().entries:
        if own.name == entry.name and own.sha256 != entry.sha256:
            raise WeightsError(
                f"{entry.name}: the name of weights that come with a2fseg (sha256 {own.sha256[:12]}); those of "
                f"this manifest are others ({entry.sha256[:12]}). They need another name in their manifest."
            )


def check_own_name(name: str) -> None:
    """Accept a name for new weights unless weights that come with the package have it. Raises: WeightsError."""
    if name in {entry.name for entry in read_manifest().entries}:
        raise WeightsError(f"{name}: the name of weights that come with a2fseg. Give yours another.")


def register(entry: ManifestEntry) -> None:
    """Note that the weights of an entry are on this machine; of one name the latest counts. Raises: ResourceError."""
    if entry.name not in {own.name for own in read_manifest().entries}:
        write_manifest_text(_folder() / f"{entry.name}.json", [{**entry_fields(entry), "default": False}])


def _folder() -> Path:
    return cache_folder() / "weights" / "known"
