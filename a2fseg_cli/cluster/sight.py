"""Whether a worker sees the same files: hashes of inputs, and tokens that both sides write and read in the outputs."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from a2fseg_cli.errors import A2FSegError, ResourceError
from a2fseg_cli.files import PART_SUFFIX, atomic_write_text

# NFS may show a new file late: a client asks the server for the times of a folder it knows every 3 to 60 s, but for a
# name it never looked up at once. Longer than the usual case, shorter than anybody's patience.
_LATE_S = 10.0


@contextmanager
def tokens(folders: Sequence[Path]) -> Iterator[str]:
    """Write a token into each folder and yield its text; it and the workers' answers are gone after the block.

    The names begin with a dot and end in `.part`, as those of unfinished files do: what a kill leaves is removed later.

    Raises:
        ResourceError: a folder cannot be written.
    """
    text = secrets.token_hex(8)
    try:
        for folder in folders:
            atomic_write_text(folder / _name(text), text)
        yield text
    finally:
        for folder in folders:
            for path in folder.glob(f".{text}*{PART_SUFFIX}"):
                with suppress(OSError):
                    path.unlink()


def answer_token(folder: Path, text: str) -> tuple[str, str]:
    """Read the client's token on a worker and write the answer; return the answer's name and why not, one empty."""
    if not folder.is_dir():
        return "", f"{folder} is not there"
    if not _shows(folder / _name(text), text):
        return "", f"{folder} is another folder there: what is written into it here does not appear"
    name = _name(f"{text}-{secrets.token_hex(4)}")
    try:
        atomic_write_text(folder / name, name)
    except A2FSegError as error:
        return "", str(error)
    return name, ""


def is_answered(folder: Path, name: str) -> bool:
    """Return whether a worker's answer can be read here."""
    return _shows(folder / name, name)


def hashes_of(paths: Sequence[Path]) -> dict[str, str]:
    """Return the sha256 of each file, or why it cannot be read, by its path."""
    return {str(path): _hash(path) for path in paths}


def own_hashes(paths: Sequence[Path]) -> Mapping[str, str]:
    """Return the sha256 of each file that can be read here: the others are wrong on every machine."""
    return {path: value for path, value in hashes_of(paths).items() if len(value) == 64}


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return str(error.strerror)


def _name(text: str) -> str:
    return f".{text}{PART_SUFFIX}"


def _shows(path: Path, text: str) -> bool:
    """Return whether a file holds a text, now or a little later."""
    until = time.monotonic() + _LATE_S
    while True:
        with suppress(OSError):
            if path.read_text("utf-8") == text:
                return True
        if time.monotonic() > until:
            return False
        time.sleep(0.1)


def make_folders(folders: Sequence[Path]) -> None:
    """Make the folders that are not there. Raises: ResourceError."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(f"{folder}: cannot be made ({error.strerror}). Choose another folder.") from error
