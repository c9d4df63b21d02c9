"""What workers do with each of many patients, and errors as they travel: plain values on both ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Generic, TypeVar

from a2fseg_cli import errors
from a2fseg_cli.errors import A2FSegError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class PlainError:
    """An error that a user can mend, as two texts: no process has to rebuild another's exception.

    Attributes:
        kind: Name of the class in `errors`.
        message: What it says.
    """

    kind: str
    message: str

    @classmethod
    def of(cls, error: A2FSegError) -> PlainError:
        """Return an error as plain data; one of a class of another room as the class of `errors` that it is one of."""
        family = next(base for base in type(error).__mro__ if base.__module__ == errors.__name__)
        return cls(family.__name__, str(error))

    @property
    def error(self) -> A2FSegError:
        """The error, to be raised or shown."""
        kind: type[A2FSegError] = getattr(errors, self.kind)
        return kind(self.message)


@dataclass(frozen=True)
class Opened(Generic[Item, Answer]):
    """A job on a worker, ready for items.

    Attributes:
        identity: As that of the job, but of this worker: the sha256 of the weights that it has.
        work: Does it with one item. What it raises ends the whole run; what is wrong with one item is an answer.
    """

    identity: Mapping[str, str]
    work: Callable[[Item], Answer]


class Job(ABC, Generic[Item, Answer]):
    """What is done with each of many items. It travels to the workers: plain values and absolute paths.

    Attributes:
        reads: Some of the files that are read: every worker shows that it has the same.
        writes: Folders that workers write into: every worker shows that they are the same.
        threads: Of a worker, for its one item at a time; None takes what the worker was started with.
        deterministic: Whether the same bytes are wanted every time.
    """

    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    threads: int | None = None
    deterministic: bool = False

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, str]:
        """What has to be the same on every worker, by a name to show: the weights' sha256, a hash of the options."""

    @abstractmethod
    def open(self) -> Opened[Item, Answer]:
        """Return the job made ready on a worker: here the network is loaded.

        Raises:
            A2FSegError: the worker cannot do it.
        """

    def ran_out_of_memory(self, answer: Answer) -> bool:
        """Whether an item failed for want of memory: it is then tried once more, while nothing else runs."""
        return False


@dataclass(frozen=True)
class Lost:
    """There is no answer: every worker that had the item ended, or its memory did.

    Attributes:
        reason: Which, and what to look at, in one line.
    """

    reason: str


def sample_of(files: Iterable[Sequence[Path]]) -> tuple[Path, ...]:
    """Return the first file of the first patient that has one: what every worker has to see."""
    return next((tuple(of_one[:1]) for of_one in files if of_one), ())


def absolute(path: str | PathLike[str] | None) -> Path | None:
    """Return a path that means the same to a process with another working folder; links in it stay."""
    return Path(path).absolute() if path is not None else None


def plain(value: object) -> Any:
    """Return a value for JSON: paths become texts."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
