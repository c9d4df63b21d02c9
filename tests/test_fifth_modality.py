"""A fifth modality as a default is one row of the table: flag, heading, file names and networks follow from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from a2fseg_cli.modalities import BRATS_MODALITIES, best_background

# The table is read when the package is imported: a process of its own, in which the module is the file and a row more.
PROGRAM = """
import importlib.util, json, sys
from pathlib import Path

spec = importlib.util.find_spec("a2fseg_cli.modalities")
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
row = '    Modality("swi", "SWI", ("swan",), ("swan",), ("swi",)),\\n)\\nBY_NAME'
text = Path(spec.origin).read_text("utf-8")
assert text.count(")\\nBY_NAME") == 1
exec(text.replace(")\\nBY_NAME", row), vars(module))

from typer.testing import CliRunner

from a2fseg_cli.cases.case_lists import read_case_table
from a2fseg_cli.cases.discovery import find_cases
from a2fseg_cli.cli.main import app
from a2fseg_cli.core.config import ModelConfig

help_ = CliRunner().invoke(app, ["predict", "--help"], env={"COLUMNS": "120", "NO_COLOR": "1"})
folder = Path(sys.argv[1])
cases = [*find_cases(folder), *read_case_table(folder / "list.csv")]
print(json.dumps({
    "help": help_.output,
    "cases": {case.name: {m: path.name for m, path in case.images.items()} for case in cases},
    "modalities": ModelConfig().modalities,
    "heading": module.heading("swi"),
}))
"""


@pytest.fixture(scope="module")
def with_swi(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("cohort")
    for name in ("A/A_t1.nii.gz", "A/A_SWI.nii.gz", "B/B_flair.nii.gz", "B/B_swan.nii.gz", "B/B_adc.nii.gz"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    for name in ("sub-01_swi.nii.gz", "sub-01_ce-gd_T1w.nii.gz"):
        (folder / "sub-01" / "anat").mkdir(parents=True, exist_ok=True)
        (folder / "sub-01" / "anat" / name).touch()
    (folder / "list.csv").write_text("case,t2,swan\nlisted,A/A_t1.nii.gz,A/A_SWI.nii.gz\n")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], check=True, capture_output=True, text=True, timeout=120
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_command_has_its_flags(with_swi: dict[str, Any]) -> None:
    assert "--swi" in with_swi["help"]
    assert "--swan" in with_swi["help"]


def test_files_are_found_by_its_names(with_swi: dict[str, Any]) -> None:
    assert with_swi["cases"] == {
        "A": {"t1": "A_t1.nii.gz", "swi": "A_SWI.nii.gz"},
        "B": {"flair": "B_flair.nii.gz", "swi": "B_swan.nii.gz"},  # an ADC map is still none of the sequences
        "sub-01": {"t1c": "sub-01_ce-gd_T1w.nii.gz", "swi": "sub-01_swi.nii.gz"},
        "listed": {"t2": "A_t1.nii.gz", "swi": "A_SWI.nii.gz"},
    }


def test_new_networks_take_it_last(with_swi: dict[str, Any]) -> None:
    assert with_swi["modalities"] == [*BRATS_MODALITIES, "swi"]
    assert with_swi["heading"] == "SWI"


def test_without_the_row_it_is_another_kind_of_image(tmp_path: Path) -> None:
    from a2fseg_cli.cases.discovery import find_cases

    for name in ("A_t1.nii.gz", "A_SWI.nii.gz"):
        (tmp_path / name).touch()
    (case,) = find_cases(tmp_path)
    assert list(case.images) == ["t1"]


@pytest.mark.parametrize(
    ("names", "best"),
    [
        (BRATS_MODALITIES, "flair"),
        (("t1", "t1c", "t2"), "t2"),
        (("t1", "t1c"), "t1c"),
        (("adc", "t1"), "t1"),
        (("pet", "adc"), "pet"),  # none has a rank: the first
    ],
)
def test_the_image_that_a_picture_shows(names: tuple[str, ...], best: str) -> None:
    assert best_background(names) == best
