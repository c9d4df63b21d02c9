"""What a kind of bad input is, and how it is tried: by the command, in a folder of its own."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

COMMAND = (sys.executable, "-m", "a2fseg_cli")

Run = Callable[[Sequence[str], Mapping[str, str], Path], tuple[int, str, str]]


@dataclass(frozen=True)
class Kind:
    """One kind of bad input.

    Attributes:
        group: What is bad.
        name: How.
        code: The exit code that is promised.
        words: What stderr has to say.
        build: Writes the files into a folder and returns the command's arguments.
        env: Variables of the environment.
        lines: The most lines that stderr may have; tables have more.
        leaves: Patterns of files that may be there afterwards, whole and useful.
        by_permission: It needs a user whom file permissions refuse, who is not root.
    """

    group: str
    name: str
    code: int
    words: tuple[str, ...]
    build: Callable[[Path], Sequence[object]]
    env: Mapping[str, str] = field(default_factory=dict)
    lines: int = 3
    leaves: tuple[str, ...] = ()
    by_permission: bool = False

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


def try_kind(kind: Kind, folder: Path, run: Run) -> None:
    """Do the harm in a folder that is empty, by `run(arguments, variables, working folder)`.

    Raises:
        AssertionError: with all that went wrong.
    """
    arguments = [str(argument) for argument in kind.build(folder)]
    before = _snapshot(folder)
    code, _, err = run(arguments, {"A2FSEG_HOME": str(folder / "home"), "A2FSEG_OFFLINE": "1", **kind.env}, folder)
    changed = [path for path, state in _snapshot(folder).items() if before.pop(path, None) != state]
    said, lines = " ".join(err.split()), [line for line in err.splitlines() if line.strip()]
    left = [path for path in changed if not any(fnmatch(path, pattern) for pattern in kind.leaves)]
    problems = [f"exit code {code}, expected {kind.code}"] if code != kind.code else []
    problems += [f"not said: {word!r}" for word in kind.words if word not in said]
    problems += [f"{len(lines)} lines on stderr, expected at most {kind.lines}"] if len(lines) > kind.lines else []
    problems += ["a traceback"] if "Traceback" in err else []
    problems += [f"left behind or changed: {', '.join(left)}"] if left else []
    problems += [f"removed: {', '.join(before)}"] if before else []
    if problems:
        raise AssertionError(f"{kind}: {'; '.join(problems)}\n{' '.join(arguments)}\n{err}")


def _snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return mode, size and time of everything in a folder; of folders only that they are there."""
    found = {}
    for path in folder.rglob("*"):
        state = path.lstat()
        times = (0, 0) if path.is_dir() else (state.st_size, state.st_mtime_ns)
        found[str(path.relative_to(folder))] = (state.st_mode, *times)
    return found


def run_command(arguments: Sequence[str], env: Mapping[str, str], folder: Path) -> tuple[int, str, str]:
    """Run the command in a process of its own; root gives up to read what permissions forbid."""
    ran = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=_obey_permissions if sys.platform == "linux" and os.geteuid() == 0 else None,
    )
    return ran.returncode, ran.stdout, ran.stderr


def _obey_permissions() -> None:
    """Take CAP_DAC_OVERRIDE (1) and CAP_DAC_READ_SEARCH (2) from what this process may start (PR_CAPBSET_DROP, 24)."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (1, 2):
        libc.prctl(24, capability, 0, 0, 0)
