"""Weights by name: what there is, where it lies, and how it gets here. `download-weights` as functions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from a2fseg_cli.errors import UsageError, WeightsError
from a2fseg_cli.weights import cache
from a2fseg_cli.weights.download import fetch_manifest
from a2fseg_cli.weights.file_format import sha256_of
from a2fseg_cli.weights.manifest import Manifest, ManifestEntry, default_entry, read_manifest
from a2fseg_cli.weights.registry import check_free, known_weights

# Given an entry, what shows how many of its bytes have arrived.
Show = Callable[[ManifestEntry], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class WeightsState:
    """Weights of a manifest, and what became of them; `path` is None where they are not on this machine."""

    entry: ManifestEntry
    state: str
    path: Path | None


@dataclass(frozen=True)
class Obtained:
    """What became of the weights asked for, and why some could not be had."""

    states: tuple[WeightsState, ...]
    problems: tuple[WeightsError, ...] = ()


def list_weights(name: str | None = None, manifest: str | None = None, allow_http: bool = False) -> Obtained:
    """Return what exists and where it lies; nothing is downloaded but the manifest of a URL.

    Args:
        name: Only these; all by default.
        manifest: A file or a URL; what is known on this machine by default.
        allow_http: Accept http URLs beside https.

    Raises:
        WeightsError: the manifest cannot be had, or does not list the name.
    """
    known = open_manifest(manifest, allow_http)
    entries = [known.entry(name)] if name else known.entries
    return Obtained(tuple(_listed(entry) for entry in entries))


def obtain_weights(
    name: str | None = None,
    *,
    everything: bool = False,
    manifest: str | None = None,
    from_file: Path | None = None,
    verify: bool = False,
    allow_http: bool = False,
    show: Show | None = None,
) -> Obtained:
    """Bring weights to this machine, or check those that are here.

    Args:
        name: In the manifest; its default weights without one.
        everything: All that the manifest lists.
        manifest: A file or a URL; what is known on this machine by default.
        from_file: Take this file, that came by other means, instead of a download.
        verify: Compare the SHA-256 of what is here; nothing is downloaded.
        allow_http: Accept http URLs beside https.
        show: Shows how many bytes have arrived.

    Raises:
        UsageError: options that contradict each other.
        WeightsError: the manifest cannot be had, or does not list the weights.
    """
    if (everything and (name is not None or from_file is not None)) or (verify and from_file is not None):
        raise UsageError("One of everything, a name, from_file and verify; those given exclude each other.")
    known = open_manifest(manifest, allow_http)
    entries: tuple[ManifestEntry, ...]
    if everything or (verify and name is None):
        entries = known.entries
    elif from_file is not None and name is None:
        entries = (_entry_of_file(known, from_file),)
    else:
        entries = (known.entry(name) if name else default_entry(known),)
    states, problems = [], []
    for entry in entries:
        try:
            check_free(entry)
            if verify:
                states.append(_verified(entry, must_exist=name is not None))
            elif from_file is not None:
                states.append(WeightsState(entry, "imported", cache.import_file(from_file, entry)))
            else:
                states.append(_fetched(entry, allow_http, show))
        except WeightsError as error:
            problems.append(error)
    return Obtained(tuple(states), tuple(problems))


def open_manifest(source: str | None, allow_http: bool = False) -> Manifest:
    """Return the manifest of a file or a URL, or what is known on this machine. Raises: WeightsError."""
    if source is None:
        return known_weights()
    if "://" in source:
        return fetch_manifest(source, insecure=allow_http)
    return read_manifest(Path(source), insecure=allow_http)


def _entry_of_file(manifest: Manifest, path: Path) -> ManifestEntry:
    sha256 = sha256_of(path)
    for entry in manifest.entries:
        if entry.sha256 == sha256:
            return entry
    raise WeightsError(f"{path}: no weights in {manifest.source} have its sha256, {sha256}. Not imported.")


def _listed(entry: ManifestEntry) -> WeightsState:
    path = cache.local_path(entry)
    if path is None:
        return WeightsState(entry, "missing" if entry.bundled else "not downloaded", None)
    return WeightsState(entry, "bundled" if entry.bundled else "downloaded", path)


def _verified(entry: ManifestEntry, *, must_exist: bool) -> WeightsState:
    if not must_exist and not entry.bundled and cache.local_path(entry) is None:
        return _listed(entry)
    return WeightsState(entry, "intact", cache.verify(entry))


def _fetched(entry: ManifestEntry, allow_http: bool, show: Show | None) -> WeightsState:
    if entry.bundled:
        return WeightsState(entry, "bundled, nothing to download", cache.fetch(entry))
    was_here, arrived = cache.local_path(entry) is not None, False
    with show(entry) if show else nullcontext(lambda _: None) as advance:

        def progress(done_bytes: int) -> None:
            nonlocal arrived
            arrived = True
            advance(done_bytes)

        path = cache.fetch(entry, progress=progress, insecure=allow_http)
    return WeightsState(entry, "already here" if was_here and not arrived else "downloaded", path)
