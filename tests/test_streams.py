"""Nothing that becomes of stdout and stderr ends a run or spoils a result."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from a2fseg_cli.cli.console import Stream

COMMAND = [sys.executable, "-m", "a2fseg_cli"]


@pytest.fixture
def cohort(phantom: Path, tmp_path: Path) -> Path:
    for name in ("A", "B"):
        (tmp_path / "cohort" / name).mkdir(parents=True)
        shutil.copy(phantom / "P1_flair.nii.gz", tmp_path / "cohort" / name / "flair.nii.gz")
    return tmp_path / "cohort"


class Full(io.StringIO):
    """A stream on a disk that is full."""

    encoding = "ascii"  # type: ignore[assignment]

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_stream_escapes_what_it_cannot_write_and_never_raises() -> None:
    text = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    stream = Stream(text)
    stream.write("M\udcfcller \u00fc")  # a name in Latin-1, as Python holds it, and a letter that ASCII lacks
    stream.flush()
    assert text.buffer.getvalue() == b"M\\udcfcller \\xfc"  # type: ignore[attr-defined]
    full = Stream(Full())
    assert full.write("lost") == 4
    full.flush()
    assert full.full
    nothing = Stream(None)
    assert nothing.write("lost") == 4
    assert not nothing.full


def shell(command: str, *, cohort: Path, weights: Path, out: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "A": " ".join(COMMAND), "C": str(cohort), "W": str(weights), "O": str(out)}
    return subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)


def test_readers_that_are_gone_and_full_disks_cost_nothing_but_words(
    cohort: Path, toy_weights: Path, tmp_path: Path
) -> None:
    """One run with both: stderr into a pipe whose reader leaves at once, stdout onto a full disk."""
    script = '$A predict $C -o $O --weights $W 2>&1 >/dev/full | head -c 1 >/dev/null; echo "${PIPESTATUS[0]}"'
    done = shell(script, cohort=cohort, weights=toy_weights, out=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*_seg.nii.gz")) == ["A_seg.nii.gz", "B_seg.nii.gz"]
    assert done.stdout.strip() == "5"  # what was to be printed is lost
    assert "Traceback" not in done.stderr


def test_a_closed_stderr_does_not_spoil_json(cohort: Path, toy_weights: Path, tmp_path: Path) -> None:
    script = "$A predict $C/A -o $O/s.nii.gz --weights $W --json 2>&-"
    done = shell(script, cohort=cohort, weights=toy_weights, out=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["modalities"] == "flair"
