"""Texts that come from outside: JSON that would exhaust the stack is refused like any other fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from a2fseg_cli.cases.case_lists import read_split
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import InputError
from a2fseg_cli.evaluation.label_order import dataset_order
from a2fseg_cli.evaluation.patient_scores import PatientScores
from a2fseg_cli.files import parse_json

DEEP = "[" * 100_000


def test_parse_json() -> None:
    assert parse_json('{"a": [1, null]}') == {"a": [1, None]}
    for text, message in ((DEEP, "nested too deeply"), ("{", "Expecting"), ("", "Expecting value")):
        with pytest.raises(ValueError, match=message):
            parse_json(text)


def test_whoever_reads_json_refuses_what_is_nested_too_deeply(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text(DEEP)
    with pytest.raises(InputError, match="nested too deeply"):
        read_split(path)
    with pytest.raises(InputError, match="nested too deeply"):
        dataset_order(path, ModelConfig())
    with pytest.raises(ValueError, match="nested too deeply"):
        ModelConfig.from_json(DEEP)
    assert PatientScores.read(path) is None  # scored again, as a file of another format is
