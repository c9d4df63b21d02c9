"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from a2fseg_cli.errors import ResourceError

PART_SUFFIX = ".part"


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
    temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}{PART_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # "x" makes a new file under the umask of the user; tempfile would make one that only its owner can read.
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        raise ResourceError(f"{path}: cannot be written ({reason}). Free space or choose another folder.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises: ResourceError, as `atomic_write`."""
    with atomic_write(path) as file:
        file.write(data)


def atomic_write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all. Raises: ResourceError, as `atomic_write`."""
    atomic_write_bytes(path, text.encode())
