"""The arrows between the rooms: imports go down only, read as text."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "a2fseg_cli"
# From the top down; a room may import from its own line and from every line below it. `versions`, `files`, `errors`
# and `modalities` are the ground.
LAYERS = (
    ("cli", "api", "__main__"),
    ("training", "evaluation"),
    ("inference",),
    ("raw",),
    ("reporting", "phantom"),
    ("cases",),
    ("dicom",),
    ("imaging", "weights", "cluster"),
    ("core",),
    ("versions", "files", "errors", "modalities", "__init__"),
)
LEVEL = {room: len(LAYERS) - depth for depth, rooms in enumerate(LAYERS) for room in rooms}
FORBIDDEN_BELOW_CLI = ("typer", "rich", "click")


def room_of(path: Path) -> str:
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Return every module that a file imports, wherever in it: `a2fseg_cli.core.config`, `typer`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    here = room_of(path)
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "a2fseg_cli":
            room = parts[1] if len(parts) > 1 and parts[1] in LEVEL else "__init__"
            if path.name == "__init__.py" and path.parent == PACKAGE:
                continue  # the public names, which it imports when they are first used
            assert room == here or LEVEL[room] < LEVEL[here] or _same_line(room, here), f"{here} imports {name}"
        elif here != "cli":
            assert parts[0] not in FORBIDDEN_BELOW_CLI, f"{here} imports {name}"


def _same_line(one: str, other: str) -> bool:
    return LEVEL[one] == LEVEL[other] and LEVEL[one] in (1, len(LAYERS))  # the top and the ground


def test_nothing_below_cli_prints_or_exits() -> None:
    for path in FILES:
        if room_of(path) in ("cli", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("print", "exit", "input"), f"{path}: {node.func.id}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) != ("sys", "exit"), path


def test_nothing_below_cli_names_a_flag() -> None:
    """A message of the library names the parameter: a notebook has no flags. Words about the code may name one."""
    for path in FILES:
        if room_of(path) in ("cli", "__main__"):
            continue
        tree = ast.parse(path.read_text())
        words = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in words:
                assert not re.search(r"(^|[\s(`])--[a-z]", node.value), f"{path.name}: {node.value[:80]!r}"


def test_no_room_is_missing_in_the_layers() -> None:
    assert {room_of(path) for path in FILES} <= set(LEVEL)
