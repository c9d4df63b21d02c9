"""The one family of errors that a user can mend.

Each says in one or two lines which file, what was found, what was expected and what to do. The command
line prints the message and exits with `exit_code`; any other exception is a bug and keeps its traceback. Memory that
ran out is told from bugs here too, by what libraries say: few of them have a type for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# Texts of an ImportError or a RuntimeError that mean it: of torch on CPU, MPS and CUDA, C++, ITK, and the loader of
# libraries ("failed to map segment from shared object", "cannot allocate memory in static TLS block").
_OUT_OF_MEMORY = (
    "out of memory",
    "DefaultCPUAllocator",
    "could not create a primitive",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "std::bad_alloc",
    "Failed to allocate memory",
    "annot allocate memory",
    "failed to map segment",
    "can't start new thread",  # Python: no room for its stack
)


class A2FSegError(Exception):
    """What the user gave, or the machine has, does not allow the work to be done."""

    exit_code = 1


class CohortError(A2FSegError):
    """Some patients of a cohort failed; the others are done."""


class UsageError(A2FSegError):
    """Options that contradict each other, a device that is not there, or an output that would be overwritten."""

    exit_code = 2


class InputError(A2FSegError):
    """An image, a folder or a table is not acceptable."""

    exit_code = 3


class WeightsError(A2FSegError):
    """Weights are missing, damaged or not for this tool."""

    exit_code = 4


class ResourceError(A2FSegError):
    """Memory or disk ran out."""

    exit_code = 5


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first names for a message, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on the host or on a card."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError | ImportError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)


@contextmanager
def naming_out_of_memory(failure: str) -> Iterator[None]:
    """Make an error of the block that says that memory ran out one that says what failed. Raises: ResourceError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(f"Out of memory: {failure}. Close other programs or take another machine.") from error
