"""Every kind of bad input by the command, in this process, and damaged files; `harm_inputs.py` starts the command."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from harm import KINDS
from harm.damage import FORMATS
from harm.fuzz import fuzz
from harm.kinds import Kind, Run, try_kind


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], call: Callable[..., int]) -> Run:
    """Run `a2fseg` in this process as `harm_inputs.run_command` does in its own; a traceback is exit code 1."""

    def command(arguments: Sequence[str], env: Mapping[str, str], folder: Path) -> tuple[int, str, str]:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(folder)
        capsys.readouterr()
        try:
            code = call(*arguments)
        except Exception:
            code = 1
            traceback.print_exc()
        return (code, *capsys.readouterr())

    return command


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_bad_input_is_refused_as_promised(kind: Kind, run: Run, tmp_path: Path) -> None:
    if kind.by_permission and os.geteuid() == 0:
        pytest.skip("root may read everything; `harm_inputs.py` gives that up")
    try_kind(kind, tmp_path, run)


def test_what_is_not_as_promised_is_told(tmp_path: Path) -> None:
    """A command that says nothing useful at length, and leaves a half file."""

    def bad(arguments: Sequence[str], env: Mapping[str, str], folder: Path) -> tuple[int, str, str]:
        (folder / "s.nii.gz.part").touch()
        (folder / "flair.nii").unlink()
        return 1, "", "Traceback\n" * 9

    kind = next(kind for kind in KINDS if str(kind) == "image: truncated .nii")
    with pytest.raises(AssertionError) as caught:
        try_kind(kind, tmp_path, bad)
    for problem in (
        "exit code 1, expected 3",
        "not said: 'flair.nii'; not said: 'truncated'",
        "9 lines on stderr, expected at most 3",
        "a traceback",
        "left behind or changed: s.nii.gz.part",
        "removed: flair.nii",
    ):
        assert problem in str(caught.value)


@pytest.mark.parametrize(("count", "seed"), [(150, 1), pytest.param(2500, 0, marks=pytest.mark.slow)])
def test_damaged_files_are_read_or_refused(count: int, seed: int, tmp_path: Path) -> None:
    tallies = fuzz(count, seed, tmp_path)
    assert {name: tally.failures for name, tally in tallies.items()} == {name: [] for name in FORMATS}
    assert sum(tally.tried for tally in tallies.values()) == count
    assert sum(tally.accepted for tally in tallies.values()) > 0
    assert all(tally.refused > 0 and tally.slowest_s < 5 and tally.extra_mib < 500 for tally in tallies.values())
