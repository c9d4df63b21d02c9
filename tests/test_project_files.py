"""What stands beside the code is true: the citation, how to contribute, the container; and shells complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from a2fseg_cli import __version__

PROJECT = Path(__file__).parents[1]


def test_the_citation_has_the_version_and_the_paper() -> None:
    text = (PROJECT / "CITATION.cff").read_text()
    assert f"\nversion: {__version__}\n" in text
    assert "\nlicense: Apache-2.0\n" in text
    assert "doi: 10.1007/978-3-031-43901-8_64" in text


def test_contributing_names_files_and_tables_that_exist() -> None:
    text = (PROJECT / "CONTRIBUTING.md").read_text()
    paths = [word for word in re.findall(r"`([\w./]+)`", text) if "/" in word and not word.startswith("..")]
    assert len(paths) > 15
    assert [path for path in paths if not (PROJECT / path).exists()] == []
    for table, path in re.findall(r"`([A-Z]+)` of `([\w./]+)`", text):
        assert re.search(rf"^{table}\b.*=", (PROJECT / path).read_text(), re.MULTILINE), table
    for heading in ("network", "format", "metric", "option"):
        assert f"## Add a{'n' * (heading == 'option')} {heading}" in text


def test_the_container_is_run_by_nobody_special() -> None:
    lines = (PROJECT / "Containerfile").read_text().splitlines()
    assert "USER 1000" in lines
    assert lines.index("USER 1000") > max(i for i, line in enumerate(lines) if line.startswith("RUN"))
    assert 'ENTRYPOINT ["a2fseg"]' in lines
    torch = next(line for line in (PROJECT / "pyproject.toml").read_text().splitlines() if line.startswith('  "torch'))
    assert torch.strip(" ,") in "\n".join(lines)


def complete(line: str, word: int) -> set[str]:
    """Return what a bash proposes for a word of a line."""
    given = {"COMP_WORDS": line, "COMP_CWORD": str(word), "_A2FSEG_COMPLETE": "complete_bash"}
    code = (
        "import sys; sys.argv = ['a2fseg']; from a2fseg_cli.cli.main import main\n"
        "try:\n    main()\nfinally:\n    assert not {'torch', 'numpy', 'SimpleITK'} & set(sys.modules)"
    )
    environment = os.environ | given | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("line", "word", "proposed"),
    [
        ("a2fseg pre", 1, {"predict", "prepare"}),
        ("a2fseg re", 1, {"report"}),
        ("a2fseg predict --vi", 2, {"--viewer"}),
        ("a2fseg view case seg.nii.gz --unc", 4, {"--uncertainty"}),
    ],
)
def test_the_shell_completes_commands_and_options(line: str, word: int, proposed: set[str]) -> None:
    """At once: nothing heavy is loaded for it."""
    assert complete(line, word) == proposed


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_script_is_shown(shell: str) -> None:
    arguments = ["a2fseg", "--show-completion", shell]
    code = f"import sys; sys.argv = {arguments}; from a2fseg_cli.cli.main import main; main()"
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f"_A2FSEG_COMPLETE=complete_{shell}" in done.stdout
