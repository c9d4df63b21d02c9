"""`a2fseg download-weights`: list, download, import and verify weights."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from a2fseg_cli.cli.console import say
from a2fseg_cli.cli.options import PATH
from a2fseg_cli.errors import WeightsError

if TYPE_CHECKING:
    from a2fseg_cli.weights.manifest import ManifestEntry
    from a2fseg_cli.weights.obtain import WeightsState

_LINE_EVERY_S = 5.0


def download_weights(
    name: Annotated[str | None, typer.Argument(help="Name in the manifest; the default weights if omitted.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show what exists and where it lies; no download.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Every entry of the manifest.")] = False,
    manifest: Annotated[
        str | None, typer.Option("--manifest", metavar="FILE|URL", help="Another manifest than the package's own.")
    ] = None,
    from_file: Annotated[
        Path | None,
        typer.Option(
            "--from-file",
            metavar="FILE",
            help="Import a file that you got in another way; its sha256 is checked.",
            **PATH,
        ),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check the sha256 of what is here; no download.")] = False,
    allow_http: Annotated[bool, typer.Option("--allow-http", help="Accept http URLs beside https.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Download, list, import or verify weights.

    The cache folder is A2FSEG_HOME or the system's; A2FSEG_OFFLINE=1 forbids every request.
    """
    from a2fseg_cli.weights.obtain import list_weights, obtain_weights

    if list_:
        _print_list(list_weights(name, manifest, allow_http).states, as_json=json_)
        return
    obtained = obtain_weights(
        name,
        everything=all_,
        manifest=manifest,
        from_file=from_file,
        verify=verify,
        allow_http=allow_http,
        show=None if quiet else _progress,
    )
    _print_rows(obtained.states, as_json=json_)
    if obtained.problems:
        raise WeightsError("\n".join(map(str, obtained.problems)))


@contextmanager
def _progress(entry: ManifestEntry) -> Iterator[Callable[[int], None]]:
    """Yield what takes the number of bytes that arrived: a bar on a terminal, else a line now and then."""
    if sys.stderr.isatty():
        with _bar(entry) as show:
            yield show
    else:
        yield _lines(entry)


@contextmanager
def _bar(entry: ManifestEntry) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(entry.name, total=entry.size_bytes)
        yield lambda done_bytes: progress.update(task, completed=done_bytes)


def _lines(entry: ManifestEntry) -> Callable[[int], None]:
    last_s = float("-inf")

    def show(done_bytes: int) -> None:
        nonlocal last_s
        if done_bytes == entry.size_bytes or time.monotonic() - last_s >= _LINE_EVERY_S:
            last_s = time.monotonic()
            say(f"{entry.name}: {_megabytes(done_bytes)} of {_megabytes(entry.size_bytes)}")

    return show


def _print_list(rows: Sequence[WeightsState], *, as_json: bool) -> None:
    """Print one block a weights file: checksums, paths and URLs are to be copied, so nothing is wrapped."""
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        entry = row.entry
        print(f"{entry.name}{' (default)' if entry.default else ''}: {entry.description}")
        fields = [
            ("size", _megabytes(entry.size_bytes)),
            ("licence", entry.licence),
            ("sha256", entry.sha256),
            (row.state, str(row.path or "")),
            *(("URL", url) for url in entry.urls),
        ]
        for field, value in fields:
            print(f"  {field:<14} {value}".rstrip())
    if not rows:
        say("The manifest lists no weights.")


def _print_rows(rows: Sequence[WeightsState], *, as_json: bool) -> None:
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        print(f"{row.entry.name}: {row.state}{f': {row.path}' if row.path else ''}")


def _print_json(rows: Sequence[WeightsState]) -> None:
    from a2fseg_cli.weights.manifest import entry_fields

    table: list[dict[str, Any]] = [
        {**entry_fields(row.entry), "state": row.state, "path": str(row.path) if row.path else None} for row in rows
    ]
    print(json.dumps(table, indent=2, ensure_ascii=False))


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
