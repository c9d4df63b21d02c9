"""`a2fseg download-weights`: list, download, import and verify weights."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from a2fseg_cli.cli.options import PATH
from a2fseg_cli.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from a2fseg_cli.weights.manifest import Manifest, ManifestEntry

_LINE_EVERY_S = 5.0


@dataclass(frozen=True)
class _Row:
    """What became of one entry; `path` is None where the weights are not on this machine."""

    entry: ManifestEntry
    state: str
    path: Path | None


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
            "--from-file", metavar="FILE", help="Take a file that came by other means; sha256 is checked.", **PATH
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
    from a2fseg_cli.weights.manifest import default_entry

    _check_options(name=name, list_=list_, all_=all_, from_file=from_file, verify=verify)
    found = _manifest(manifest, allow_http)
    if list_ or ((verify or all_) and name is None):
        entries = [found.entry(name)] if name else list(found.entries)
    elif from_file is not None and name is None:
        entries = [_entry_of_file(found, from_file)]
    else:
        entries = [found.entry(name) if name else default_entry(found)]

    if list_:
        _print_list([_listed(entry) for entry in entries], as_json=json_)
        return
    rows, problems = [], []
    for entry in entries:
        try:
            if verify:
                rows.append(_verified(entry, must_exist=name is not None))
            elif from_file is not None:
                rows.append(_imported(entry, from_file))
            else:
                rows.append(_fetched(entry, allow_http=allow_http, quiet=quiet))
        except WeightsError as error:
            problems.append(error)
    _print_rows(rows, as_json=json_)
    if problems:
        raise WeightsError("\n".join(map(str, problems)))


def _check_options(*, name: str | None, list_: bool, all_: bool, from_file: Path | None, verify: bool) -> None:
    tasks = {"--list": list_, "--from-file": from_file is not None, "--verify": verify}
    given = [task for task, is_given in tasks.items() if is_given]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other.")
    if all_ and name is not None:
        raise UsageError(f"--all and the name {name} exclude each other.")
    if all_ and from_file is not None:
        raise UsageError("--all and --from-file exclude each other: one file is one entry.")


def _manifest(source: str | None, allow_http: bool) -> Manifest:
    from a2fseg_cli.weights.download import fetch_manifest
    from a2fseg_cli.weights.manifest import read_manifest

    if source is not None and "://" in source:
        return fetch_manifest(source, insecure=allow_http)
    return read_manifest(Path(source) if source is not None else None, insecure=allow_http)


def _entry_of_file(manifest: Manifest, path: Path) -> ManifestEntry:
    from a2fseg_cli.weights.file_format import sha256_of

    sha256 = sha256_of(path)
    for entry in manifest.entries:
        if entry.sha256 == sha256:
            return entry
    raise WeightsError(f"{path}: no weights in {manifest.source} have its sha256, {sha256}. Not imported.")


def _listed(entry: ManifestEntry) -> _Row:
    from a2fseg_cli.weights.cache import local_path

    path = local_path(entry)
    if path is None:
        return _Row(entry, "missing" if entry.bundled else "not downloaded", None)
    return _Row(entry, "bundled" if entry.bundled else "downloaded", path)


def _verified(entry: ManifestEntry, *, must_exist: bool) -> _Row:
    from a2fseg_cli.weights import cache

    if not must_exist and not entry.bundled and cache.local_path(entry) is None:
        return _listed(entry)
    return _Row(entry, "intact", cache.verify(entry))


def _imported(entry: ManifestEntry, path: Path) -> _Row:
    from a2fseg_cli.weights.cache import import_file

    return _Row(entry, "imported", import_file(path, entry))


def _fetched(entry: ManifestEntry, *, allow_http: bool, quiet: bool) -> _Row:
    from a2fseg_cli.weights.cache import fetch, local_path

    if entry.bundled:
        return _Row(entry, "bundled, nothing to download", fetch(entry))
    was_here = local_path(entry) is not None
    with _progress(entry, quiet) as advance:
        path = fetch(entry, progress=advance, insecure=allow_http)
    return _Row(entry, "already here" if was_here and not advance.called else "downloaded", path)


class _Advance:
    """Passes the number of bytes on to what shows it, and remembers whether there were any."""

    def __init__(self, show: Callable[[int], None]) -> None:
        self._show = show
        self.called = False

    def __call__(self, done_bytes: int) -> None:
        self.called = True
        self._show(done_bytes)


@contextmanager
def _progress(entry: ManifestEntry, quiet: bool) -> Iterator[_Advance]:
    """Yield what takes the number of bytes that arrived: a bar on a terminal, else a line now and then."""
    if quiet:
        yield _Advance(lambda done_bytes: None)
    elif sys.stderr.isatty():
        with _bar(entry) as show:
            yield _Advance(show)
    else:
        yield _Advance(_lines(entry))


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
            typer.echo(f"{entry.name}: {_megabytes(done_bytes)} of {_megabytes(entry.size_bytes)}", err=True)

    return show


def _print_list(rows: list[_Row], *, as_json: bool) -> None:
    """Print one block a weights file: checksums, paths and URLs are to be copied, so nothing is wrapped."""
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        entry = row.entry
        typer.echo(f"{entry.name}{' (default)' if entry.default else ''}: {entry.description}")
        fields = [
            ("size", _megabytes(entry.size_bytes)),
            ("licence", entry.licence),
            ("sha256", entry.sha256),
            (row.state, str(row.path or "")),
            *(("URL", url) for url in entry.urls),
        ]
        for field, value in fields:
            typer.echo(f"  {field:<14} {value}".rstrip())
    if not rows:
        typer.echo("The manifest lists no weights.", err=True)


def _print_rows(rows: list[_Row], *, as_json: bool) -> None:
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        typer.echo(f"{row.entry.name}: {row.state}{f': {row.path}' if row.path else ''}")


def _print_json(rows: list[_Row]) -> None:
    from a2fseg_cli.weights.manifest import entry_fields

    table: list[dict[str, Any]] = [
        {**entry_fields(row.entry), "state": row.state, "path": str(row.path) if row.path else None} for row in rows
    ]
    typer.echo(json.dumps(table, indent=2, ensure_ascii=False))


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
