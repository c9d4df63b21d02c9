"""Files that appear whole or not at all, what a file has become, and texts: CSV, and JSON that is valid."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import math
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from a2fseg_cli.errors import ResourceError, UsageError

PART_SUFFIX = ".part"
_ABANDONED_AFTER_S = 24 * 3600


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yield a binary file that gets the name `path` once the block ends without an exception.

    The bytes go to a name of their own beside `path` (so two writers never share one), reach the disk, and are
    renamed; a reader sees the old file or the new one. After an exception the temporary file is gone. Only a
    kill that cannot be caught leaves it behind, and its name ends in `.part`. An `OSError` of the block counts as
    one of writing; a block that also reads from elsewhere has to tell its own errors apart.

    Raises:
        ResourceError: The folder cannot be made or written, or the disk is full.
    """
    short = os.fsencode(path.name)[:100].decode(errors="ignore")  # bytes count: 78 Chinese letters are 234
    temporary = path.with_name(f".{short}.{os.getpid()}-{secrets.token_hex(4)}{PART_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # "x" makes a new file under the umask of the user; tempfile would make one that only its owner can read.
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def not_written(path: Path, error: OSError) -> ResourceError:
    """Return the error that says why a file cannot be written, and what to do."""
    reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
    return ResourceError(f"{path}: cannot be written ({reason}). Free space or choose another folder.")


def check_place(path: Path) -> None:
    """Return if nothing that can be known beforehand keeps a file from being written there; nothing is made.

    Raises:
        UsageError: A folder has that name.
        ResourceError: A file has its folder's name, or the folder is closed or cannot be looked up.
    """
    try:
        if path.is_dir():
            raise UsageError(f"{path}: a folder. Expected the name of a file to write.")
        nearest = next(folder for folder in path.parents if folder.exists())
        if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
            return
        reason = "it may not be written into" if nearest.is_dir() else "it is not a folder"
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written ({error.strerror}). Choose another folder.") from error
    raise ResourceError(f"{path}: cannot be written ({nearest}: {reason}). Choose another folder.")


def file_state(path: Path) -> tuple[str, int, int] | None:
    """Return name, size and time of change of a file, by which a changed one is told; None where there is none.

    A file that cannot be looked up has no state either: why is said by who reads it.
    """
    try:
        state = path.stat()
    except OSError:
        return None
    return path.name, state.st_size, state.st_mtime_ns


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of writers that were killed; one that still grows is younger than a day."""
    with suppress(OSError):
        for part in folder.glob(f".*{PART_SUFFIX}"):
            if time.time() - part.stat().st_mtime > _ABANDONED_AFTER_S:
                part.unlink()


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises: ResourceError, as `atomic_write`."""
    with atomic_write(path) as file:
        file.write(data)


def atomic_write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all; bytes of a name that are not UTF-8 as escapes, which JSON reads back.

    Raises:
        ResourceError: As `atomic_write`.
    """
    atomic_write_bytes(path, text.encode(errors="backslashreplace"))


def atomic_write_parts(path: Path, parts: Iterable[str]) -> None:
    """Write a text that is made part by part, as `atomic_write_text`, without ever holding all of it."""
    with atomic_write(path) as file:
        for part in parts:
            file.write(part.encode(errors="backslashreplace"))


def fingerprint(*parts: Any) -> str:
    """Return 16 hexadecimal digits that differ when any of the parts, plain values for JSON, does."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def csv_text(rows: Iterable[Mapping[str, object]], columns: Sequence[str] | None = None) -> str:
    """Return rows as CSV with a heading; without `columns`, those of all rows in the order they first occur in."""
    text = io.StringIO(newline="")
    rows = rows if columns else list(rows)
    names = columns or list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def json_text(value: Any) -> str:
    """Return a value as valid JSON, undefined numbers as null."""
    return json.dumps(finite_or_null(value), indent=1, allow_nan=False, ensure_ascii=False, default=str) + "\n"


@contextmanager
def refusing_deep_nesting() -> Iterator[None]:
    """Make the RecursionError of a block that walks through JSON one of its values. Raises: ValueError."""
    try:
        yield
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_json(text: str) -> Any:
    """Return the value of a JSON text. Raises: ValueError, also where it is nested too deeply."""
    with refusing_deep_nesting():
        return json.loads(text)


def finite_or_null(value: Any) -> Any:
    """Return plain values with every number that JSON cannot hold replaced by None."""
    if isinstance(value, Mapping):
        return {str(key): finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
