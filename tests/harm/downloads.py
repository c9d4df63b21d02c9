"""Manifests and downloads that are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harm.commands import Content, put, write
from harm.files import ENTRY, manifest
from harm.kinds import Kind


def _listed(name: str, words: str, content: Content, *options: str, code: int = 4, file: str = "m.json") -> Kind:
    """A manifest to list or download from; its name is said, and `words`."""

    def build(folder: Path) -> Sequence[object]:
        return ["download-weights", "--manifest", put(folder / "m.json", content), *(options or ("--list",))]

    return Kind("manifest or download", name, code, (file, words), build)


def download_kinds() -> Iterator[Kind]:
    def entry(**changes: Any) -> bytes:
        return manifest({key: value for key, value in (ENTRY | changes).items() if value is not None})

    yield _listed("missing", "no such manifest file", lambda path: None)
    yield _listed("folder", "no such manifest file", Path.mkdir)
    yield _listed("empty", "not a manifest", b"")
    yield _listed("not JSON", "not a manifest", b"<html><body>403</body></html>")
    yield _listed("nested without end", "nested too deeply", b'{"version": ' + b"[" * 100_000)
    yield _listed("a list", "not a JSON object", b"[]")
    yield _listed("more than a megabyte", "more than 1048576 bytes", b" " * 2**21)
    yield _listed("newer version", "manifest version 2, this a2fseg reads 1. Upgrade", manifest(version=2))
    yield _listed(".. in a name", "file '../toy.safetensors'", entry(file="../toy.safetensors"))
    yield _listed("absolute path", "file '/etc/toy.safetensors'", entry(file="/etc/toy.safetensors"))
    yield _listed("another file type", "does not end in .safetensors", entry(file="toy.pt"))
    yield _listed("file:// URL", "expected https, found file", entry(urls=["file:///etc/passwd"]))
    yield _listed("http:// URL", "http is not encrypted", entry(urls=["http://weights.invalid/x"]))
    yield _listed("password in a URL", "user name or password", entry(urls=["https://me:secret@weights.invalid/x"]))
    yield _listed("no sha256", "sha256 must be", entry(sha256=None))
    yield _listed("short sha256", "sha256 must be", entry(sha256="ab"))
    yield _listed("no size", "size_bytes must be", entry(size_bytes=None))
    yield _listed("control sequence in a text", "control characters", entry(description="\x1b[2J"))
    yield _listed("the same name twice", "occurs twice", manifest(ENTRY, ENTRY))
    yield _listed("name that is not there", "'huge': no weights of this name", manifest(), "huge")
    yield _listed("no default", "no default weights", manifest(ENTRY, ENTRY | {"name": "b"}), "--quiet")
    yield _listed(
        "not downloaded yet", "these weights are not on this machine", manifest(), "toy", "--verify", file="toy"
    )
    yield _listed("download while offline", "A2FSEG_OFFLINE is set", manifest(), "toy", file="toy")
    yield _listed(
        "options that exclude each other",
        "--list and --verify exclude",
        manifest(),
        "--list",
        "--verify",
        code=2,
        file="",
    )

    def at(url: str) -> Callable[[Path], Sequence[object]]:
        return lambda _: ["download-weights", "--list", "--manifest", url]

    online = {"A2FSEG_OFFLINE": "0"}
    group = "manifest or download"
    yield Kind(group, "manifest at a file:// URL", 4, ("expected https, found file",), at("file:///etc/passwd"), online)
    yield Kind(group, "manifest at a http:// URL", 4, ("not encrypted",), at("http://weights.invalid/m.json"), online)

    def imported(content: Content, *name: str, home: Content | None = None) -> Callable[[Path], Sequence[object]]:
        def build(folder: Path) -> Sequence[object]:
            path = put(folder / "by-post.bin", content)
            sha256 = _sha256(b"good")
            table = write(folder / "m.json", manifest(ENTRY | {"sha256": sha256, "size_bytes": 4}))
            if home is not None:
                put(folder / "home", home)
            return ["download-weights", *name, "--manifest", table, "--from-file", path]

        return build

    yield Kind(group, "wrong hash of a file", 4, ("by-post.bin: not toy: sha256 is",), imported(b"evil", "toy"))
    yield Kind(group, "file that nobody lists", 4, ("by-post.bin: no weights in",), imported(b"evil"))
    yield Kind(group, "folder to import", 4, ("by-post.bin: is a folder",), imported(Path.mkdir, "toy"))
    yield Kind(group, "nothing to import", 4, ("by-post.bin: no such",), imported(lambda path: None, "toy"))
    no_place = ("home", "cannot be written", "A2FSEG_HOME")
    yield Kind(group, "cache that is a file", 5, no_place, imported(b"good", "toy", home=b"mine"))


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()
