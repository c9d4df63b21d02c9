"""The one family of errors that a user can mend.

Each says in one or two lines which file, what was found, what was expected and what to do. The command
line prints the message and exits with `exit_code`; any other exception is a bug and keeps its traceback.
"""


class A2FSegError(Exception):
    """What the user gave, or the machine has, does not allow the work to be done."""

    exit_code = 1


class CohortError(A2FSegError):
    """Some patients of a cohort failed; the others are done."""


class UsageError(A2FSegError):
    """Options that contradict each other, or an output that would be overwritten."""

    exit_code = 2


class InputError(A2FSegError):
    """An image, a folder or a table is not acceptable."""

    exit_code = 3


class WeightsError(A2FSegError):
    """Weights are missing, damaged or not for this tool."""

    exit_code = 4


class ResourceError(A2FSegError):
    """Memory or disk ran out, or a device is not there."""

    exit_code = 5
