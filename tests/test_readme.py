"""The README and the commands must not part ways."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from a2fseg_cli.cli.main import app

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text()
PAGES = [README, *(path.read_text() for path in sorted((PROJECT / "docs").glob("*.md")))]


def commands(text: str) -> list[str]:
    """Return the `a2fseg` lines of the code blocks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("a2fseg ")]


def test_start_here_has_two_commands_of_one_line() -> None:
    section = README.split("## Start here")[1].split("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    assert all(len(block.strip().splitlines()) == 1 for block in blocks)
    assert blocks[0].strip().endswith("a2fseg demo")
    assert blocks[1].strip().endswith("pytest")


@pytest.mark.parametrize("line", [line for page in PAGES for line in commands(page)])
def test_every_command_shown_exists_with_its_options(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    group = typer.main.get_command(app)
    command = group.commands[words[0]] if not words[0].startswith("-") else group  # type: ignore[attr-defined]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    used = [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    assert set(used) <= known | {"-h", "--help"}


def test_every_command_is_in_the_readme() -> None:
    named = {shlex.split(line, comments=True)[1] for line in commands(README)}
    assert set(typer.main.get_command(app).commands) <= named  # type: ignore[attr-defined]


def test_the_readme_stays_short() -> None:
    assert len(README.split()) < 700


def test_every_page_is_in_the_navigation_and_links_lead_somewhere() -> None:
    navigation = (PROJECT / "mkdocs.yml").read_text()
    for path in (PROJECT / "docs").glob("*.md"):
        assert f": {path.name}" in navigation
    for page, folder in ((README, PROJECT), *((text, PROJECT / "docs") for text in PAGES[1:])):
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page):
            assert (folder / target).exists(), target
