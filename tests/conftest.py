"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def cases_dir() -> Path:
    """The folder with the 51 real patients; tests that need it are skipped where it does not exist."""
    folder = DATA / "cases"
    if not folder.is_dir():
        pytest.skip("the real patients (../shared/data/cases) are not on this machine")
    return folder
