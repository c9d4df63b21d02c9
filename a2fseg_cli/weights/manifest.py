"""The manifest of weights: what exists, how large it is, its checksum, its licence, where to get it.

`{"version": 1, "weights": [entry, ...]}`. Fields that this version does not know have no effect, so that newer
manifests stay readable; a manifest that an older tool would misread has a higher version and is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from a2fseg_cli.errors import WeightsError
from a2fseg_cli.files import atomic_write
from a2fseg_cli.weights.file_format import sha256_of
from a2fseg_cli.weights.folders import manifest_path
from a2fseg_cli.weights.header import MAX_FILE_BYTES
from a2fseg_cli.weights.strict_json import parse_object, printable

VERSION = 1
MAX_MANIFEST_BYTES = 2**20

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_TEXT = 2000


@dataclass(frozen=True)
class ManifestEntry:
    """One weights file in a manifest.

    Attributes:
        name: What users call it.
        file: Bare file name, `.safetensors`.
        sha256: Of the file, 64 lower-case hexadecimal digits.
        size_bytes: Of the file; no download goes beyond it.
        licence: Licence of the weights, not of the code.
        description: One line.
        preset: Preset of the network's size, or empty.
        urls: Mirrors, tried in order.
        bundled: Whether the file comes with the package.
        default: Whether it is taken when no name is given.
    """

    name: str
    file: str
    sha256: str
    size_bytes: int
    licence: str
    description: str
    preset: str = ""
    urls: tuple[str, ...] = ()
    bundled: bool = False
    default: bool = False


@dataclass(frozen=True)
class Manifest:
    """The entries of a manifest, and the file or URL they come from."""

    entries: tuple[ManifestEntry, ...]
    source: str

    def entry(self, name: str) -> ManifestEntry:
        """Return the entry of that name. Raises: WeightsError, which lists the names there are."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        names = ", ".join(entry.name for entry in self.entries) or "none"
        raise WeightsError(f"{printable(repr(name))}: no weights of this name in {self.source}. It lists: {names}.")


def read_manifest(path: Path | None = None, *, insecure: bool = False) -> Manifest:
    """Return the manifest in a file, the package's own by default.

    Args:
        path: The file.
        insecure: Accept `http` URLs beside `https`.

    Raises:
        WeightsError: The file cannot be read or is not a manifest.
    """
    path = path or manifest_path()
    try:
        if not path.is_file():
            raise WeightsError(f"{path}: no such manifest file.")
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}).") from error
    return parse_manifest(data, str(path), insecure=insecure)


def parse_manifest(data: bytes, source: str, *, insecure: bool = False) -> Manifest:
    """Return the manifest in `data`, checked field by field.

    An entry that is not bundled and has no URL lies beside its manifest, where `source` is a URL.

    Args:
        data: The JSON text.
        source: File or URL, for messages and for such entries.
        insecure: Accept `http` URLs beside `https`.

    Raises:
        WeightsError: It is not a manifest, or of a newer version.
    """
    try:
        if len(data) > MAX_MANIFEST_BYTES:
            raise ValueError(f"more than {MAX_MANIFEST_BYTES} bytes")
        table = parse_object(data)
        version = table.get("version")
        if type(version) is not int or version < 1 or not isinstance(table.get("weights"), list):
            raise ValueError('expected {"version": 1, "weights": [...]}')
        if version > VERSION:
            raise WeightsError(f"{source}: manifest version {version}, this a2fseg reads {VERSION}. Upgrade a2fseg.")
        entries = tuple(_parse_entry(raw, source, insecure) for raw in table["weights"])
        _check_together(entries)
    except ValueError as error:
        raise WeightsError(f"{source}: not a manifest of weights: {printable(str(error), 300)}.") from error
    return Manifest(entries, source)


def default_entry(manifest: Manifest) -> ManifestEntry:
    """Return the entry marked as default, or the only one there is.

    Raises:
        WeightsError: There is none; names what can be given instead.
    """
    marked = [entry for entry in manifest.entries if entry.default]
    if marked:
        return marked[0]
    if len(manifest.entries) == 1:
        return manifest.entries[0]
    names = ", ".join(entry.name for entry in manifest.entries)
    advice = f"Name one of: {names}." if names else "Give a weights file."
    raise WeightsError(f"{manifest.source}: no default weights. {advice}")


def manifest_entry_for(
    path: Path,
    *,
    name: str,
    licence: str,
    description: str,
    preset: str = "",
    urls: Sequence[str] = (),
    bundled: bool = False,
    default: bool = False,
) -> dict[str, Any]:
    """Return the manifest entry of a weights file on this disk; checksum and size are taken from the file.

    Without `urls` the file is expected beside the manifest on whatever server both are copied to.

    Raises:
        WeightsError: The file cannot be read, or a field would not be accepted in a manifest.
    """
    raw = {
        "name": name,
        "file": path.name,
        "sha256": sha256_of(path),
        "size_bytes": path.stat().st_size,
        "licence": licence,
        "description": description,
        "preset": preset,
        "urls": list(urls),
        "bundled": bundled,
        "default": default,
    }
    try:
        _parse_entry(raw, str(path), insecure=True)
    except ValueError as error:
        raise WeightsError(f"{path}: no manifest entry can be made: {printable(str(error), 300)}.") from error
    return raw


def write_manifest(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write a manifest of such entries, and `FILE.sha256` for each beside it as `sha256sum --check` reads it.

    Raises:
        ResourceError: The folder cannot be written.
    """
    for entry in entries:
        with atomic_write(path.with_name(f"{entry['file']}.sha256")) as file:
            file.write(f"{entry['sha256']}  {entry['file']}\n".encode())
    write_manifest_text(path, entries)


def write_manifest_text(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write a manifest of such entries, and nothing beside it. Raises: ResourceError."""
    text = json.dumps({"version": VERSION, "weights": list(entries)}, indent=2, ensure_ascii=False)
    with atomic_write(path) as file:
        file.write(f"{text}\n".encode())


def entry_fields(entry: ManifestEntry) -> dict[str, Any]:
    """Return an entry as JSON types."""
    return {**asdict(entry), "urls": list(entry.urls)}


def check_url(url: str, *, insecure: bool = False) -> None:
    """Refuse a URL that weights may not come from.

    Raises:
        ValueError: Other than https (or, if `insecure`, http), without a host, with a password or blanks in it.
    """
    if len(url) > _MAX_TEXT or not url.isprintable() or " " in url:
        raise ValueError(f"{printable(repr(url), 100)} is not a URL")
    parts = urlsplit(url)
    if parts.scheme == "http" and not insecure:
        raise ValueError(f"{url}: http is not encrypted; use https, or allow http")
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{url}: expected https, found {parts.scheme or 'no scheme'}")
    if not parts.hostname or parts.port == 0:  # a port that is not a number raises ValueError
        raise ValueError(f"{url}: no host")
    if "@" in parts.netloc:
        raise ValueError(f"a URL for {parts.hostname} holds a user name or password; use ~/.netrc instead")


def check_words(name: str, licence: str) -> None:
    """Refuse a name or a licence that no manifest entry could hold. Raises: ValueError."""
    _bare_name({"name": name}, "name")
    _line({"licence": licence}, "licence")


def _parse_entry(raw: Any, source: str, insecure: bool) -> ManifestEntry:
    if not isinstance(raw, dict):
        raise ValueError("an entry is not an object")
    bundled = _flag(raw, "bundled")
    file = _bare_name(raw, "file")
    if not file.endswith(".safetensors"):
        raise ValueError(f"file {file!r} does not end in .safetensors")
    sha256, size_bytes = raw.get("sha256"), raw.get("size_bytes")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError("sha256 must be 64 lower-case hexadecimal digits")
    if type(size_bytes) is not int or not 0 < size_bytes <= MAX_FILE_BYTES:
        raise ValueError(f"size_bytes must be 1 to {MAX_FILE_BYTES}")
    return ManifestEntry(
        name=_bare_name(raw, "name"),
        file=file,
        sha256=sha256,
        size_bytes=size_bytes,
        licence=_line(raw, "licence"),
        description=_line(raw, "description"),
        preset=_line({"preset": "", **raw}, "preset"),
        urls=_urls(raw.get("urls", []), file, bundled, source, insecure),
        bundled=bundled,
        default=_flag(raw, "default"),
    )


def _urls(raw: Any, file: str, bundled: bool, source: str, insecure: bool) -> tuple[str, ...]:
    if not isinstance(raw, list) or not all(isinstance(url, str) for url in raw):
        raise ValueError("urls must be a list of texts")
    if not raw and not bundled and source.startswith(("https://", "http://")):
        raw = [urljoin(source, quote(file))]
    for url in raw:
        check_url(url, insecure=insecure)
    return tuple(raw)


def _check_together(entries: Sequence[ManifestEntry]) -> None:
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names):
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    if sum(entry.default for entry in entries) > 1:
        raise ValueError("more than one default")


def _bare_name(raw: Mapping[str, Any], field: str) -> str:
    """Return a name that is safe as a file name everywhere: no folders, no blanks, no leading dot."""
    value = raw.get(field)
    if not isinstance(value, str) or not _NAME.fullmatch(value) or ".." in value:
        raise ValueError(f"{field} {printable(repr(value), 80)} must be letters, digits, '.', '_' and '-' only")
    return value


def _line(raw: Mapping[str, Any], field: str) -> str:
    value = raw.get(field)
    if not isinstance(value, str) or not value.isprintable() or len(value) > _MAX_TEXT:
        raise ValueError(f"{field} must be one line of text")
    return value


def _flag(raw: Mapping[str, Any], field: str) -> bool:
    value = raw.get(field, False)
    if not isinstance(value, bool):
        raise ValueError(f"{field} must be true or false")
    return value
