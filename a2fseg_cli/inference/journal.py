"""What is new of a file that is too long to be written anew after each patient: kept beside it until that pays."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from a2fseg_cli.errors import InputError
from a2fseg_cli.files import not_written, parse_json

# The share of a run's time that writing whole files may take. Written anew after each of 10,000 patients, a table of
# 10,000 rows, 0.1 s each, took as long as the patients; a table of 1,000 rows, 10 ms, still follows every patient that
# takes half a second or more.
_SHARE = 0.02


class Journal:
    """Notes beside a file, a line of JSON each: with them the file is complete at any moment, killed or not.

    The file itself is only ever replaced as a whole, when `due` says so and at the end of a run, and the notes are
    gone then. A run that was killed leaves `.NAME.journal`; whoever reads the file reads its notes too.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f".{path.name}.journal")
        self._due = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the file may be written anew: its last writing took no more than `_SHARE` of the time since."""
        return time.monotonic() >= self._due

    @property
    def holds_notes(self) -> bool:
        """Whether there are notes that the file may not have."""
        return self.path.exists()

    def read(self) -> list[Any]:
        """Return the notes in their order; of a line that a kill or a full disk cut nothing is left.

        Raises:
            InputError: they cannot be read.
        """
        try:
            lines = self.path.read_text("utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror}.") from error
        notes = []
        for line in lines:
            with suppress(ValueError):
                notes.append(parse_json(line))
        return notes

    def add(self, note: Any) -> None:
        """Keep a note, plain values, on the disk. Raises: ResourceError, as `atomic_write`."""
        # A line of its own, whatever was cut before it. The file is opened anew each time: another run on the same
        # folder may have taken it away meanwhile.
        line = f"\n{json.dumps(note, default=str)}\n".encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                file.write(line)
                os.fsync(file.fileno())
        except OSError as error:
            raise not_written(self.path, error) from error

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Time the block, in which the file is written with all notes, and remove them behind it."""
        began = time.monotonic()
        yield
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        now = time.monotonic()
        self._due = now + (now - began) / _SHARE
