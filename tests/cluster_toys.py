"""A scheduler and workers as processes on loopback, with faults that a preload script puts into a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

PROJECT = Path(__file__).parents[1]
# What every preload script begins with: faults go into the one function that a patient passes on a worker.
_HEAD = """
import os, signal, time
from pathlib import Path
import a2fseg_cli.inference.cohort_of_workers as worker_side
from a2fseg_cli.errors import ResourceError

# Dask runs the script twice: the second time the fault is already in its place.
real = worker_side.__dict__.setdefault("real_segment_patient", worker_side.segment_patient)
marks = Path({marks!r})

def mark(name, patient):
    (marks / f"{{name}}-{{patient.name}}-{{os.getpid()}}-{{time.monotonic_ns()}}").touch()
"""


class Lab:
    """A scheduler and its workers; all of them end with the block.

    Args:
        folder: For the scheduler's file, logs, scripts and the marks that faults leave.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.marks = folder / "lab", folder / "lab" / "marks"
        self.marks.mkdir(parents=True)
        self.file = self.folder / "scheduler.json"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.clients: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        self.start_scheduler()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        for process in (*self.processes, *self.clients):
            process.kill() if process in self.clients else process.terminate()
        for process in (*self.processes, *self.clients):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for client in self.clients:
            for stream in (client.stdout, client.stderr):
                stream.close()  # type: ignore[union-attr]

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{len(self.processes)}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", f"distributed.cli.{module}", "--scheduler-file", str(self.file), *arguments],
                    stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": str(PROJECT)}, cwd=self.folder,
                )
            )  # fmt: skip
        return self.processes[-1]

    def start_scheduler(self) -> subprocess.Popen[bytes]:
        self.file.unlink(missing_ok=True)
        process = self._start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        wait_for(self.file.exists)
        return process

    def worker(self, name: str, fault: str = "", threads: int = 1, nanny: bool = False) -> subprocess.Popen[bytes]:
        """Start a worker; `fault` is Python that may set `worker_side.segment_patient`, for which `real` stands."""
        script = self.folder / f"{name}.py"
        script.write_text(_HEAD.format(marks=str(self.marks)) + fault)
        preload = ["--preload", str(script)] if fault else []
        where = ["--local-directory", str(self.folder), "--no-dashboard", "--nanny" if nanny else "--no-nanny"]
        return self._start("dask_worker", "--name", name, "--nthreads", str(threads), *where, *preload)

    def client(self, command: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        """Start `a2fseg` as a client of the scheduler."""
        self.clients.append(start(command, *arguments, "--scheduler", self.file, **environment))
        return self.clients[-1]

    def marked(self, name: str) -> list[list[str]]:
        """Return what `mark` left under a name, in order: patient, process, nanoseconds."""
        marks = [path.name.split("-") for path in self.marks.glob(f"{name}-*")]
        return sorted((mark[1:] for mark in marks), key=lambda mark: int(mark[2]))


def wait_for(condition: Callable[[], object], seconds: float = 240) -> None:
    """Return once a condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start `a2fseg` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "a2fseg_cli", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT), **environment},
    )  # fmt: skip


def finished(process: subprocess.Popen[str], seconds: float = 300) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of a process."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def kill(pid: int) -> None:
    """As the kernel ends a process that takes too much memory."""
    os.kill(pid, signal.SIGKILL)
