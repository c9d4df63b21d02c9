"""The page about a patient: whole, valid, of one piece, and with nothing in it but what was found."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from a2fseg_cli.inference.exports import entropy
from a2fseg_cli.reporting.page import patient_page

Run = Callable[..., tuple[int, str, str]]

STATS: dict[str, Any] = {
    "case": "<script>alert(1)</script>",
    "modalities": "t1c+flair",
    "inputs": {"t1c": "/secret/place/a & b.nii.gz", "flair": "f.nii.gz"},
    "labels": [
        {"label": 3, "name": "ET", "voxels": 1500, "volume_ml": 1.5, "guess": True},
        {"label": None, "name": "WT", "voxels": 2000, "volume_ml": 2.0, "guess": False},
    ],
    "volumes_ml": {"WT": 2.0},
    "largest_axial_diameters_mm": {"WT": (21.4, 9.6)},
    "guesses": {"ET": 0.246},
    "warnings": ["thick slices"],
    "note": "without t1, t2: Dice WT 89 to 90",
    "mean_attention": {"ET": {"t1c": 0.75, "flair": 0.25}},
    "agreement_with_fewer": {"flair": {"WT": 0.913}},
    "windows": {"edges": [72, 88, 72], "count": 1},
    "weights": {"file": "tiny.safetensors", "sha256": "ab" * 32, "made_for": "For adults."},
    "device": {"name": "cpu", "reason": "no GPU", "precision": "bf16", "threads": 2},
    "seconds": {"read": 0.25, "network": 0.5},
    "versions": {"a2fseg": "0.1.0"},
}


class Reader(HTMLParser):
    """Collects text by cell, the tags, and every address; fails on tags that do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)
        elif data.strip():
            self.texts.append(data)


def test_tables_and_words() -> None:
    page = Reader(patient_page(STATS, b"\x89PNG picture"))
    assert ["ET", "3", "1500", "1.50", "guess"] in page.rows
    assert ["WT", "2000", "2.00", "21 x 10"] in page.rows
    assert ["ET", "75.0", "25.0"] in page.rows
    assert ["flair", "91.3"] in page.rows
    assert ["t1c", "a & b.nii.gz"] in page.rows
    assert {"thick slices", "without t1, t2: Dice WT 89 to 90", "Segmented from t1c, flair."} <= set(page.texts)
    guess = "ET is a guess: from t1c+flair these weights found ET with a mean Dice of 25 %."
    assert guess in page.texts


def test_a_name_is_text_and_nothing_lies_elsewhere() -> None:
    text = patient_page(STATS, b"\x89PNG picture")
    page = Reader(text)
    assert "<script>alert(1)</script>" in page.texts
    assert "script" not in page.tags
    (picture,) = page.addresses
    assert base64.b64decode(picture.removeprefix("data:image/png;base64,")) == b"\x89PNG picture"
    assert "/secret/place" not in text


def test_what_there_is_not_has_no_heading() -> None:
    page = Reader(patient_page(STATS | {"mean_attention": {}, "agreement_with_fewer": {}, "note": ""}, b""))
    assert not any("contributed" in text or "Agreement" in text for text in page.texts)
    assert sum("thick" in text for text in page.texts) == 1


def testentropy_by_hand() -> None:
    """Sure is 0, all four alike is 1, two alike is log 2 / log 4, a half."""
    probabilities = np.array([[1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]], np.float32).T.reshape(4, 1, 1, 3)
    np.testing.assert_allclose(entropy(probabilities), [[[0, 1, 0.5]]], atol=1e-6)


@pytest.mark.parametrize("several", [False, True])
def test_by_the_command(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path, several: bool) -> None:
    """One patient's page beside a preview and statistics, and a cohort's in a folder; numbers as in the statistics."""
    data = phantom.parent if several else phantom
    out, report = (tmp_path / "out", tmp_path / "pages") if several else (tmp_path / "s.nii.gz", tmp_path / "r.html")
    more = ("--agreement", "--uncertainty", "--stats", tmp_path / "s.json")
    code, _, err = run("predict", data, "-o", out, "--report", report, *more, "--weights", toy_weights)
    assert code == 0, err
    page = Reader((report / "P1.html" if several else report).read_text())
    stats = json.loads((tmp_path / "s.json").read_text())
    stats = stats[0] if several else stats
    assert next(row[2] for row in page.rows if row[0] == "WT") == f"{stats['volumes_ml']['WT']:.2f}"
    assert len([row for row in page.rows if row[0] in stats["agreement_with_fewer"]]) == 14 + 4  # inputs have the names
    assert list(stats["mean_attention"]["ED"]) == ["t1", "t1c", "t2", "flair"]
    assert sum(stats["mean_attention"]["ED"].values()) == pytest.approx(1, abs=0.01)
    made = out / "P1_seg_uncertainty.nii.gz" if several else tmp_path / "s_uncertainty.nii.gz"
    assert made.is_file()
    assert not list(tmp_path.rglob("*attention*"))
