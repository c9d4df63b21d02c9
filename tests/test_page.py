"""The page about a patient: whole, valid, of one piece, and with nothing in it but what was found."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from a2fseg_cli.inference.pictures import entropy
from a2fseg_cli.reporting.page import PagePictures, page_pictures, patient_page
from a2fseg_cli.reporting.preview import write_preview
from a2fseg_cli.reporting.scene import Scene
from a2fseg_cli.reporting.slices import Backdrop
from a2fseg_cli.reporting.slider import slider

Run = Callable[..., tuple[int, str, str]]

STATS: dict[str, Any] = {
    "case": "<script>alert(1)</script>",
    "date": "2026-11-27",
    "modalities": "t1c+flair",
    "inputs": {"t1c": "/secret/place/a & b.nii.gz", "flair": "f.nii.gz"},
    "labels": [
        {"label": 3, "name": "ET", "voxels": 1500, "volume_ml": 1.5, "guess": True},
        {"label": None, "name": "WT", "voxels": 2000, "volume_ml": 2.0, "guess": False},
    ],
    "volumes_ml": {"WT": 2.0},
    "regions": {"WT": ["NCR", "ED", "ET"], "TC": ["NCR", "ET"], "ET": ["ET"]},
    "largest_axial_diameters_mm": {"WT": (21.4, 9.6)},
    "guesses": {"ET": 0.246},
    "warnings": ["<script>alert(1)</script>: thick slices"],
    "note": "without t1, t2: Dice WT 89 to 90",
    "mean_attention": {"ET": {"t1c": 0.75, "flair": 0.25}},
    "agreement_with_fewer": {"flair": {"WT": 0.913}},
    "settings": {"remove_small": {}, "fill_holes": False},
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
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data
        elif data.strip():
            self.texts.append(data)


PICTURES = PagePictures(b"JPEG picture", "Outlines of <b> 2 mL")


def test_tables_and_words() -> None:
    page = Reader(patient_page(STATS, PICTURES))
    assert ["ET enhancing", "3", "1500", "1.50", "", "guess"] in page.rows
    assert ["WT whole tumour", "", "2000", "2.00", "21 x 10", ""] in page.rows
    assert ["ET", "75.0", "25.0"] in page.rows
    assert ["flair", "91.3"] in page.rows
    assert ["t1c", "a & b.nii.gz"] in page.rows
    assert {"thick slices", "without t1, t2: Dice WT 89 to 90"} <= set(page.texts)
    assert "Tumour outlined by a2fseg from T1c, FLAIR, 2026-11-27." in page.texts
    assert "ET is a guess: from t1c+flair these weights found ET with a mean Dice of 25 %." in page.texts
    assert "WT (whole tumour) is NCR, ED and ET together. TC (tumour core) is NCR and ET together." in page.texts


def test_a_class_that_is_a_region_has_one_line() -> None:
    labels = [*STATS["labels"], {"label": None, "name": "ET", "voxels": 1500, "volume_ml": 1.5, "guess": True}]
    stats = STATS | {"labels": labels, "largest_axial_diameters_mm": {"WT": (21.4, 9.6), "ET": (8.0, 7.0)}}
    rows = [row for row in Reader(patient_page(stats, PICTURES)).rows if row and row[0].startswith("ET ")]
    assert rows == [["ET enhancing", "3", "1500", "1.50", "8 x 7", "guess"]]


def test_what_was_done_to_the_mask() -> None:
    stats = STATS | {"settings": {"remove_small": {"ET": 50.0, "WT": 100.0}, "fill_holes": True}}
    done = "parts of ET under 50 mm3 removed; parts of WT under 100 mm3 removed; holes filled"
    assert ["afterwards", done] in Reader(patient_page(stats, PICTURES)).rows
    assert not any(row[:1] == ["afterwards"] for row in Reader(patient_page(STATS, PICTURES)).rows)


def test_a_name_is_text_and_nothing_lies_elsewhere() -> None:
    text = patient_page(STATS, PICTURES)
    page = Reader(text)
    assert "<script>alert(1)</script>" in page.texts
    assert "script" not in page.tags
    (picture,) = page.addresses
    assert base64.b64decode(picture.removeprefix("data:image/jpeg;base64,")) == b"JPEG picture"
    assert 'alt="Outlines of &lt;b&gt; 2 mL"' in text
    assert "/secret/place" not in text
    assert "script-src 'none'" in text
    assert "default-src 'none'" in text


def test_what_there_is_not_has_no_heading() -> None:
    page = Reader(patient_page(STATS | {"mean_attention": {}, "agreement_with_fewer": {}, "note": ""}, PICTURES))
    assert not any("contributed" in text or "Agreement" in text or "unsure" in text for text in page.texts)
    assert sum("thick" in text for text in page.texts) == 1


def small_scene(**more: Any) -> Scene:
    image = np.full((50, 40, 30), 100, np.float32)
    classes = np.zeros(image.shape, np.uint8)
    classes[20:30, 10:20, 10:20] = 2
    classes[22:28, 12:18, 12:18] = 3
    names, members = ("background", "NCR", "ED", "ET"), {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
    return Scene({"t1c": Backdrop(image, (0, 200))}, classes, (1, 1, 1), names, members, **more)


def test_slices_to_move_through() -> None:
    """22 slices: 10 with tumour, 6 mm beyond on either side; outlines in mm, from the corner of the first voxel."""
    scene = small_scene(uncertainty=np.zeros((50, 40, 30), np.float32), start=(5, 0, 0), whole=(155, 240, 240))
    preview = io.BytesIO()
    write_preview(preview, scene)
    pictures = page_pictures(scene, preview.getvalue())
    assert pictures.words.startswith("Outlines of ED oedema, 0.8 mL; ET enhancing, 0.2 mL. On T1c, slices axial")
    text = patient_page(STATS, pictures)
    page = Reader(text)
    slices = json.loads(text.split('id="slices">')[1].split("</script>")[0])
    assert len(slices) == 22
    assert slices[0]["place"] == "axial 20 of 155"
    assert slices[0]["lines"] == {}
    assert set(slices[0]["images"]) == {"t1c", "uncertainty"}
    middle = slices[10]["lines"]
    assert set(middle) == {"ED", "ET"}
    xs = [float(point.split(",")[0]) for point in middle["ET"].strip("MZ").split()]
    assert (min(xs), max(xs)) == (12, 18)
    assert 'value="11"' in text  # it begins where ET is largest, in the middle of slices 22 to 27
    assert {"figure", "svg", "input", "script"} <= page.tags


def test_at_most_36_slices_and_not_too_many_pixels() -> None:
    deep = np.zeros((300, 400, 300), np.float32)
    classes = np.zeros(deep.shape, np.uint8)
    classes[10:290, 5:9, 5:9] = 1
    scene = Scene({"t2": Backdrop(deep, (0, 1))}, classes, (1, 1, 1), ("background", "x"), {"x": (1,)})
    html = slider(scene)
    slices = json.loads(html.split('id="slices">')[1].split("</script>")[0])
    assert 30 <= len(slices) <= 36
    picture = Image.open(io.BytesIO(base64.b64decode(slices[0]["images"]["t2"].split(",")[1])))
    assert picture.size == (165, 220)


def test_a_class_named_like_the_end_of_the_script_does_not_end_it() -> None:
    scene = replace(small_scene(), class_names=("background", "NCR", "</script>", "ET"))
    assert slider(scene).count("</script>") == 1


def test_entropy_by_hand() -> None:
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
    assert next(row[3] for row in page.rows if row[0] == "WT whole tumour") == f"{stats['volumes_ml']['WT']:.2f}"
    assert len([row for row in page.rows if row[0] in stats["agreement_with_fewer"]]) == 14 + 4  # inputs have the names
    assert list(stats["mean_attention"]["ED"]) == ["t1", "t1c", "t2", "flair"]
    assert sum(stats["mean_attention"]["ED"].values()) == pytest.approx(1, abs=0.01)
    made = out / "P1_seg_uncertainty.nii.gz" if several else tmp_path / "s_uncertainty.nii.gz"
    assert made.is_file()
    assert not list(tmp_path.rglob("*attention*"))


def test_the_title_is_the_name_that_the_user_gives(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    images = ("--t1c", phantom / "P1_t1c.nii.gz", "--flair", phantom / "P1_flair.nii.gz", "--case", "Patient 7")
    places = ("-o", tmp_path / "s.nii.gz", "--report", tmp_path / "r.html")
    code, _, err = run("predict", *images, *places, "--colours", "paper", "--weights", toy_weights)
    assert code == 0, err
    text = (tmp_path / "r.html").read_text()
    assert "<title>Patient 7 (a2fseg)</title>" in text
    assert "<h1>Patient 7</h1>" in text
    assert '<path data-name="ED" stroke="#e61f1f"/>' in text  # the paper's red
