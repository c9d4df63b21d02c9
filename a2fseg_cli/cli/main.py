"""The command `a2fseg`: its commands, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from a2fseg_cli import __version__
from a2fseg_cli.cli.console import guarded_streams, say
from a2fseg_cli.cli.demo import demo
from a2fseg_cli.cli.download_weights import download_weights
from a2fseg_cli.cli.evaluate import evaluate
from a2fseg_cli.cli.info import info
from a2fseg_cli.cli.needs import Command
from a2fseg_cli.cli.predict import predict
from a2fseg_cli.cli.prepare import prepare
from a2fseg_cli.cli.report import report
from a2fseg_cli.cli.train import train
from a2fseg_cli.cli.view import view
from a2fseg_cli.errors import A2FSegError, ResourceError, is_out_of_memory

app = typer.Typer(
    name="a2fseg",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Outline brain tumours in MR images from any subset of T1, T1c, T2 and FLAIR. "
    "No telemetry; no network but for download-weights and --scheduler.",
)
app.command("predict", cls=Command)(predict)
app.command("prepare", cls=Command)(prepare)
app.command("evaluate", cls=Command)(evaluate)
app.command("train", cls=Command)(train)
app.command("view", cls=Command)(view)
app.command("report", cls=Command)(report)
app.command("download-weights", cls=Command)(download_weights)
app.command("demo", cls=Command)(demo)
app.command("info", cls=Command)(info)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"a2fseg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


class _Stopped(BaseException):
    """Ctrl-C, or SIGTERM as a batch system sends it before it kills. Args: the signal."""


def _stop(number: int, _frame: FrameType | None) -> None:
    raise _Stopped(number)


def main() -> None:
    """Run the command line. A2FSegError becomes its message on stderr and its exit code."""
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # nohup and the like have it ignored
        signal.signal(signal.SIGINT, _stop)
    with guarded_streams() as stdout:
        code = _run()
        stdout.flush()
        if stdout.full and code == 0:
            say("Error: stdout: the disk is full, what was printed is lost. The files that were asked for are whole.")
            code = ResourceError.exit_code
    sys.exit(code)


def _run() -> int | str | None:
    """Run the command and return its exit code."""
    try:
        app()
    except A2FSegError as error:
        if str(error):  # another process of a training has said it
            say(f"Error: {error}")
        return error.exit_code
    except _Stopped as stopped:
        (number,) = stopped.args
        word = "Interrupted" if number == signal.SIGINT else "Terminated"
        say(f"{word}; nothing half written.")
        return 128 + int(number)  # 130 and 143, as shells count
    except (MemoryError, ImportError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        say("Error: out of memory. Close other programs or take another machine.")
        return ResourceError.exit_code
    except SystemExit as exit_:  # how the library of commands ends, also when all is well
        return exit_.code
    return 0
