"""Where weights lie on this machine, and how they get there: verified first, named afterwards."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from a2fseg_cli.errors import ResourceError, WeightsError
from a2fseg_cli.files import atomic_write, file_state, remove_abandoned
from a2fseg_cli.weights.download import TIMEOUT_S, DownloadFailed, download, refuse_when_offline
from a2fseg_cli.weights.file_format import sha256_of
from a2fseg_cli.weights.folders import bundled_weights_folder, cache_folder
from a2fseg_cli.weights.manifest import Manifest, ManifestEntry, default_entry
from a2fseg_cli.weights.registry import known_weights, register
from a2fseg_cli.weights.strict_json import printable

_COPY_BYTES = 2**20

Progress = Callable[[int], None]  # bytes that have arrived; starts again from 0 at the next mirror


def cached_path(entry: ManifestEntry) -> Path:
    """Return where a downloaded entry lies. The checksum in the name keeps the files of two manifests apart."""
    return cache_folder() / "weights" / f"{entry.sha256[:12]}-{entry.file}"


def local_path(entry: ManifestEntry) -> Path | None:
    """Return the file of an entry if there is one on this machine, bundled or cached; unverified."""
    path = bundled_weights_folder() / entry.file if entry.bundled else cached_path(entry)
    return path if os.path.isfile(path) else None  # false as well where the cache cannot be looked into


def verify(entry: ManifestEntry) -> Path:
    """Return the file of an entry after comparing size and SHA-256.

    Raises:
        WeightsError: It is not on this machine, or not what the manifest says.
    """
    path = local_path(entry)
    if path is None:
        if entry.bundled:
            raise WeightsError(f"{entry.name}: the bundled file {entry.file} is missing. Install a2fseg again.")
        raise WeightsError(
            f"{entry.name}: these weights are not on this machine. Run `a2fseg download-weights {entry.name}`."
        )
    if not _is_intact(path, entry):
        advice = "Install a2fseg again." if entry.bundled else f"Run `a2fseg download-weights {entry.name}`."
        raise WeightsError(f"{path}: damaged: not the file with sha256 {entry.sha256}. {advice}")
    return path


def resolve_weights(name_or_path: str | Path | None = None, manifest: Manifest | None = None) -> Path:
    """Return the weights file that a user means; never uses the network.

    Args:
        name_or_path: An existing file, a name in the manifest, or None for the default weights.
        manifest: What is known on this machine by default: the package's own, and what was downloaded.

    Raises:
        WeightsError: There is no such file or name, or it is not on this machine yet, or damaged.
    """
    if name_or_path is not None and os.path.isfile(name_or_path):
        return Path(name_or_path)
    if name_or_path is not None and _reads_as_path(name_or_path):
        raise WeightsError(f"{printable(str(name_or_path))}: no such weights file.")
    manifest = manifest or known_weights()
    return verify(default_entry(manifest) if name_or_path is None else manifest.entry(str(name_or_path)))


def fetch(
    entry: ManifestEntry,
    *,
    progress: Progress | None = None,
    insecure: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> Path:
    """Return the file of an entry, downloading it unless it is on this machine and intact.

    The mirrors are tried in order. A file gets its name only after its SHA-256 was found right, so an interrupted
    download leaves nothing that looks finished, and two processes at once do not hurt each other.

    Args:
        entry: What to get.
        progress: Called with the number of bytes that have arrived.
        insecure: Whether http is acceptable beside https.
        timeout_s: Longest silence of a server, seconds.

    Raises:
        WeightsError: No mirror delivered the file, there is none, or `A2FSEG_OFFLINE` is set.
        ResourceError: The cache folder cannot be written or the disk is full.
    """
    if entry.bundled:
        return verify(entry)
    path = cached_path(entry)
    if os.path.isfile(path) and _is_intact(path, entry):
        register(entry)
        return path
    refuse_when_offline(entry.name)
    reasons = []
    for url in entry.urls:

        def source(write: Callable[[bytes], object], url: str = url) -> None:
            download(url, write, limit_bytes=entry.size_bytes, timeout_s=timeout_s, insecure=insecure)

        try:
            return _store(entry, source, progress)
        except DownloadFailed as error:
            reasons.append(f"{url}: {error}")
    raise WeightsError(
        f"{entry.name}: not downloaded: {'; '.join(reasons) or 'the manifest has no URL for it'}.\n"
        f"Get {entry.file} by other means and import it by `a2fseg download-weights {entry.name}` from the file."
    )


def import_file(path: Path, entry: ManifestEntry) -> Path:
    """Return the cached copy of a file that came by other means, after comparing size and SHA-256.

    Raises:
        WeightsError: The file cannot be read or is not the entry's.
        ResourceError: The cache folder cannot be written or the disk is full.
    """
    sha256 = sha256_of(path)
    if sha256 != entry.sha256:
        raise WeightsError(f"{path}: not {entry.name}: sha256 is {sha256}, expected {entry.sha256}. Not imported.")
    if entry.bundled:
        return verify(entry)

    def source(write: Callable[[bytes], object]) -> None:
        try:
            with path.open("rb") as file:
                chunks = iter(lambda: file.read(_COPY_BYTES), b"")
                for chunk in chunks:
                    write(chunk)
        except OSError as error:  # of reading: what `write` cannot do is a ResourceError
            raise WeightsError(f"{path}: cannot be read: {error.strerror}. Not imported.") from error

    try:
        return _store(entry, source, None)
    except DownloadFailed as error:
        raise WeightsError(f"{path}: {error}. Not imported.") from error


class _Checked:
    """Writes to a file, counts and hashes; a full disk is told apart from a broken connection."""

    def __init__(self, file: BinaryIO, path: Path, progress: Progress | None) -> None:
        self._file = file
        self._path = path
        self._progress = progress
        self.sha256 = hashlib.sha256()
        self.size_bytes = 0

    def write(self, chunk: bytes) -> None:
        try:
            self._file.write(chunk)
        except OSError as error:
            raise ResourceError(f"{self._path}: cannot be written ({error.strerror}).") from error
        self.sha256.update(chunk)
        self.size_bytes += len(chunk)
        if self._progress:
            self._progress(self.size_bytes)


def _store(
    entry: ManifestEntry, source: Callable[[Callable[[bytes], object]], None], progress: Progress | None
) -> Path:
    """Write what `source` delivers to the cache; it gets its name if it is the entry's file. Raises: DownloadFailed."""
    path = cached_path(entry)
    remove_abandoned(path.parent)
    try:
        with atomic_write(path) as file:
            checked = _Checked(file, path, progress)
            source(checked.write)
            if checked.size_bytes != entry.size_bytes:
                raise DownloadFailed(f"ends after {checked.size_bytes} of {entry.size_bytes} bytes")
            if checked.sha256.hexdigest() != entry.sha256:
                raise DownloadFailed(f"wrong content: sha256 {checked.sha256.hexdigest()}, expected {entry.sha256}")
        register(entry)
    except ResourceError as error:
        raise ResourceError(f"{error} A2FSEG_HOME names another folder for the cache.") from error
    return path


def _is_intact(path: Path, entry: ManifestEntry) -> bool:
    state = file_state(path)
    return state is not None and state[1] == entry.size_bytes and sha256_of(path) == entry.sha256


def _reads_as_path(name_or_path: str | Path) -> bool:
    text = str(name_or_path)
    return isinstance(name_or_path, Path) or "/" in text or os.sep in text or Path(text).suffix == ".safetensors"
