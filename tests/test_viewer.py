"""The viewer's page: NiiVue as it was published, the patient's voxels where they were, nothing from elsewhere."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import io
import json
import re
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from browser import CHROMIUM, Browser
from PIL import Image

from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.reporting.scene import Scene
from a2fseg_cli.reporting.slices import Backdrop
from a2fseg_cli.reporting.viewer import (
    NIIVUE_SHA256,
    NIIVUE_VERSION,
    ViewerCase,
    viewer_page,
    without_folders,
)

Run = Callable[..., tuple[int, str, str]]
NAMES = ("background", "NCR", "ED", "ET")


def shown(voxels: Any = None, **more: Any) -> ViewerCase:
    """A box of 4 x 5 x 6 voxels with one of ET at (z, y, x) = (1, 2, 4), at a spacing of (3, 2, 1) mm."""
    voxels = np.arange(120, dtype=np.float32).reshape(4, 5, 6) if voxels is None else voxels
    classes = np.zeros((4, 5, 6), np.uint8)
    classes[1, 2, 4] = 3
    members = {"WT": (1, 2, 3), "ET": (3,)}
    scene = Scene({"t1c": Backdrop(voxels, (10, 100))}, classes, (3.0, 2.0, 1.0), NAMES, members, **more)
    return ViewerCase("P1", scene, Geometry((4, 5, 6), (3.0, 2.0, 1.0), (7.0, 8.0, 9.0)))


def volumes(page: str) -> list[nibabel.Nifti1Image]:
    """Return the images inside a page."""
    texts = re.findall(r'<script type="text/plain" id="volume-\d+">([^<]*)</script>', page)
    return [nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text))) for text in texts]


def facts(page: str) -> Any:
    (text,) = re.findall(r'<script type="application/json" id="facts">(.*?)</script>', page)
    return json.loads(text)


def test_niivue_is_as_it_was_published_and_its_licences_are_there() -> None:
    folder = files("a2fseg_cli.reporting") / "niivue"
    assert hashlib.sha256((folder / "niivue.umd.js").read_bytes()).hexdigest() == NIIVUE_SHA256
    licences = (folder / "LICENSES.txt").read_text()
    assert licences.startswith(f"NiiVue {NIIVUE_VERSION} is shipped unchanged")
    assert NIIVUE_SHA256 in licences
    bundled = (
        "gl-matrix",
        "fflate",
        "nifti-reader-js",
        "zarrita",
        "numcodecs",
        "c-blosc",
        "LZ4",
        "Zstandard",
        "Roboto",
    )
    assert all(name in licences for name in ("Niivue\nAll rights reserved", *bundled))


def test_voxels_lie_where_they_lay() -> None:
    """The voxel of ET is 4 mm left, 4 mm back and 3 mm up of the first one, which is at (7, 8, 9) in LPS.

    In NIfTI's RAS that is (-11, -12, 12). Its value is 1 * 30 + 2 * 6 + 4 = 46.
    """
    image, mask = volumes(viewer_page(shown(), b""))
    ((x, y, z),) = np.argwhere(np.asanyarray(mask.dataobj) == 3)
    np.testing.assert_allclose(nibabel.affines.apply_affine(mask.affine, (x, y, z)), (-11, -12, 12), atol=1e-5)
    assert np.asanyarray(image.dataobj)[x, y, z] == 46
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    assert image.header["descrip"].tobytes().strip(b"\0") == b""


@pytest.mark.parametrize(
    ("voxels", "kind", "error"),
    [
        (np.arange(120) % 256, np.uint8, 0),
        (np.arange(120) * 100 - 500, np.int16, 0),
        (np.linspace(-1, 400, 120), np.int16, 90 / 2500 / 2),  # half a step of (100 - 10) / 2500
        (np.linspace(0, 1e7, 120), np.int16, 1e7 / 32767 / 2),  # 16 bits have no finer steps
    ],
)
def test_images_are_stored_as_whole_numbers(voxels: Any, kind: type, error: float) -> None:
    voxels = voxels.reshape(4, 5, 6).astype(np.float32)
    image = volumes(viewer_page(shown(voxels), b""))[0]
    assert image.header.get_data_dtype() == kind
    read = np.flip(image.get_fdata().T, (1, 2))
    assert np.abs(read - voxels).max() <= error * 1.01


def test_uncertainty_and_facts() -> None:
    unsure = np.zeros((4, 5, 6), np.float32)
    unsure[0, 0, 0] = 0.5
    page = viewer_page(shown(uncertainty=unsure, guesses=("ET",)), b"")
    assert volumes(page)[2].get_fdata().max() == pytest.approx(0.5, abs=1 / 255)
    told = facts(page)
    assert told["sequences"] == [{"name": "T1c", "volume": 0, "low": 0, "high": 119, "black": 10, "white": 100}]
    assert [(c["name"], c["ml"], c["guess"]) for c in told["classes"]][2] == ("ET enhancing", 0.01, True)
    # x: the 5th of 6 voxels from the right; counted from the left it is the 2nd. y: the 3rd of 5. z: the 2nd of 4.
    assert told["start"] == pytest.approx([1.5 / 6, 2.5 / 5, 1.5 / 4])


def test_a_page_loads_nothing_and_names_are_text() -> None:
    case = shown()
    case = ViewerCase("</script><img src=x>", case.scene, case.geometry, remarks=("<b>{{title}}</b>",))
    page = viewer_page(case, b"png")
    assert "</script><img src=x>" not in page
    assert html.escape("<b>{{title}}</b>") in page
    policy = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[0]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src" not in policy
    assert "unsafe-eval" not in policy
    outside = page.replace((files("a2fseg_cli.reporting") / "niivue" / "niivue.umd.js").read_text(), "")
    assert not re.findall(r"(?:src|href)=\"(?!data:image/jpeg;base64,)", outside)
    assert "This file holds the MR images of this patient." in page


def test_folders_are_left_out_of_sentences() -> None:
    paths = [Path("/secret/a.nii"), Path("/secret/a.nii.gz")]
    assert without_folders(["/secret/a.nii.gz: no /secret/a.nii"], paths) == ("a.nii.gz: no a.nii",)


@pytest.fixture
def patient(phantom: Path, tmp_path: Path) -> Path:
    """A patient's folder and beside it a mask: a block of 6 x 7 x 8 voxels of oedema with ET inside."""
    folder = tmp_path / "P1"
    folder.mkdir()
    for modality in ("t1c", "flair"):
        shutil.copy(phantom / f"P1_{modality}.nii.gz", folder)
    image = sitk.ReadImage(next(folder.glob("*flair*")))
    labels = np.zeros(image.GetSize()[::-1], np.uint8)
    labels[20:26, 30:37, 24:32] = 2
    labels[22:24, 32:35, 26:30] = 3
    mask = sitk.GetImageFromArray(labels)
    mask.CopyInformation(image)
    sitk.WriteImage(mask, tmp_path / "mask.nii.gz")
    return folder


def test_the_command(run: Run, patient: Path, tmp_path: Path) -> None:
    page, mask = tmp_path / "case.html", tmp_path / "mask.nii.gz"
    code, out, err = run("view", patient, mask, "-o", page)
    assert (code, out) == (0, f"{page}\n")
    assert f"{page}: {page.stat().st_size / 1e6:.1f} MB. This file holds the MR images of this patient." in err
    text = page.read_text()
    assert [s["name"] for s in facts(text)["sequences"]] == ["T1c", "FLAIR"]
    # 6 * 7 * 8 - 2 * 3 * 4 = 312 voxels of 27 mm3, and 24.
    assert [c["ml"] for c in facts(text)["classes"]] == [0, 8.42, 0.65]
    assert str(tmp_path) not in text
    code, _, err = run("view", patient, mask, "-o", page)
    assert (code, err) == (2, f"Error: {page} exists. Overwrite it (--overwrite), or give another name.\n")
    assert run("view", patient, "-o", page, "--overwrite")[0] == 0
    assert facts(page.read_text())["mask"] is None


def test_what_the_command_refuses(run: Run, patient: Path, tmp_path: Path) -> None:
    assert "expected a name ending in .html" in run("view", patient, "-o", tmp_path / "x.txt")[2]
    shutil.copytree(patient, tmp_path / "both" / "P1")
    shutil.copytree(patient, tmp_path / "both" / "P2")
    code, _, err = run("view", tmp_path / "both", "-o", tmp_path / "x.html")
    assert (code, "2 patients (P1, P2). Give the folder of one." in err) == (2, True)
    mask = sitk.ReadImage(tmp_path / "mask.nii.gz")
    mask.SetOrigin((50, 0, 0))
    sitk.WriteImage(mask, tmp_path / "moved.nii.gz")
    code, _, err = run("view", patient, tmp_path / "moved.nii.gz", "-o", tmp_path / "x.html")
    assert (code, "another grid" in err) == (3, True)
    flair = next(patient.glob("*flair*"))
    code, _, err = run("view", patient, "--uncertainty", flair, "-o", tmp_path / "x.html")
    assert (code, "Expected an uncertainty, 0 (sure) to 1." in err) == (3, True)
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize("several", [False, True])
def test_by_predict(run: Run, patient: Path, toy_weights: Path, tmp_path: Path, several: bool) -> None:
    out, pages = (tmp_path / "out", tmp_path / "v") if several else (tmp_path / "s.nii.gz", tmp_path / "v.html")
    more = ("--weights", toy_weights, "--uncertainty")
    code, _, err = run("predict", patient, "-o", out, "--viewer", pages, *more)
    assert code == 0, err
    page = (pages / "P1.html" if several else pages).read_text()
    assert re.search(r"v(\.html: |: 1 pages, )\d+\.\d MB\. (It holds|They hold) the", err)
    mask, unsure = volumes(page)[2:]
    written = sitk.ReadImage(out / "P1_seg.nii.gz" if several else out)
    assert np.count_nonzero(mask.get_fdata()) == np.count_nonzero(sitk.GetArrayFromImage(written))
    assert 0 < unsure.get_fdata().max() <= 1 + 1e-6


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
class TestInABrowser:
    @pytest.fixture
    def page(self, run: Run, patient: Path, tmp_path: Path) -> Path:
        mask = sitk.ReadImage(tmp_path / "mask.nii.gz")
        unsure = sitk.Cast(mask > 2, sitk.sitkFloat32)
        sitk.WriteImage(unsure, tmp_path / "unsure.nii.gz")
        command = ("view", patient, tmp_path / "mask.nii.gz", "--uncertainty", tmp_path / "unsure.nii.gz")
        assert run(*command, "-o", tmp_path / "case.html")[0] == 0
        return tmp_path / "case.html"

    def test_with_webgl(self, page: Path, patient: Path) -> None:
        with Browser() as browser:
            browser.open(page)
            browser.wait("document.documentElement.dataset.ready === 'yes'")
            assert browser.evaluate("document.getElementById('still').hidden")
            self._looks(browser)
            self._values(browser, patient)
            self._scrolls(browser)
            assert browser.messages() == []
            self._reaches_nothing(browser)

    @staticmethod
    def _set(browser: Browser, name: str, value: object, event: str = "input") -> None:
        script = f"(() => {{ const e = document.getElementById('{name}'); e.value = {json.dumps(value)};"
        browser.evaluate(f"{script} e.dispatchEvent(new Event('{event}')); }})()")

    @staticmethod
    def _click(browser: Browser, name: str) -> None:
        browser.evaluate(f"document.getElementById('{name}').click()")

    @staticmethod
    def _box(browser: Browser) -> list[float]:
        """Return left, top, right and bottom of the canvas in the window, in pixels."""
        box = "document.getElementById('canvas').getBoundingClientRect()"
        return [browser.evaluate(f"{box}.{edge}") for edge in ("left", "top", "right", "bottom")]

    def _count(self, browser: Browser, colour: tuple[int, ...]) -> int:
        """Return how many pixels of the canvas have a colour, within 40 of 255."""
        picture = Image.open(io.BytesIO(browser.screenshot())).convert("RGB")
        pixels = np.asarray(picture.crop([round(edge) for edge in self._box(browser)])).astype(int)
        return int((np.abs(pixels - colour).max(axis=-1) < 40).sum())

    def _looks(self, browser: Browser) -> None:
        """Classes are switched on and off, the mask's opacity, grey levels, sequences, the uncertainty, 3D."""
        told = browser.evaluate("JSON.parse(document.getElementById('facts').textContent).classes")
        _, oedema_colour, enhancing_colour = (tuple(c["colour"]) for c in told)
        white = (255, 255, 255)
        self._set(browser, "mask-opacity", 1)
        oedema, enhancing = self._count(browser, oedema_colour), self._count(browser, enhancing_colour)
        assert oedema > 500
        assert enhancing > 200
        self._click(browser, "class-2")
        assert self._count(browser, enhancing_colour) < 0.05 * enhancing
        self._click(browser, "class-2")
        self._click(browser, "outline")
        assert 0 < self._count(browser, oedema_colour) < 0.9 * oedema
        self._click(browser, "outline")
        self._set(browser, "mask-opacity", 0)
        assert self._count(browser, oedema_colour) < 0.05 * oedema
        bright = self._count(browser, white)
        self._set(browser, "level", browser.evaluate("document.getElementById('level').min"))
        assert self._count(browser, white) > 2 * bright + 1000
        self._click(browser, "reset-window")
        assert self._count(browser, white) == pytest.approx(bright, abs=200)
        for name in ("sequence-1", "uncertainty-on"):
            before = browser.screenshot()
            self._click(browser, name)
            assert browser.screenshot() != before, name
        self._set(browser, "planes", "4", "change")
        black = self._count(browser, (0, 0, 0))
        self._set(browser, "cut", 0.6)
        assert self._count(browser, (0, 0, 0)) != black

    @staticmethod
    def _values(browser: Browser, patient: Path) -> None:
        """The crosshair begins in the mask; each value shown is the file's in the voxel shown."""
        cells = "[...document.querySelectorAll('#values tr')].map((r) => [...r.cells].map((c) => c.textContent))"
        rows = dict(browser.evaluate(cells))
        assert rows["mask"] == "ET enhancing"
        assert rows["uncertainty"] == "1.00"
        sides = dict(part.split() for part in rows["mm"].split(", "))
        place = [float(sides.get(plus, 0)) - float(sides.get(minus, 0)) for plus, minus in ("LR", "PA", "SI")]
        for modality, name in (("t1c", "T1c"), ("flair", "FLAIR")):
            image = sitk.ReadImage(next(patient.glob(f"*_{modality}.*")))
            value = image[image.TransformPhysicalPointToIndex(place)]
            assert float(rows[name]) == pytest.approx(value, rel=0.01)

    def _scrolls(self, browser: Browser) -> None:
        """The wheel over a plane goes to another slice."""
        self._set(browser, "planes", "0", "change")
        before = browser.evaluate("document.getElementById('slice-2').value")
        left, top, right, bottom = self._box(browser)
        for _ in range(3):
            browser.mouse("mouseWheel", (left + right) / 2, (top + bottom) / 2, deltaX=0, deltaY=100)
        browser.wait(f"document.getElementById('slice-2').value !== '{before}'", 10)

    @staticmethod
    def _reaches_nothing(browser: Browser) -> None:
        """A script of the page that wanted to send something could not; all that was loaded lies in the page."""
        attempt = "fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')"
        assert browser.evaluate(attempt) == "refused"
        assert any("Content Security Policy" in text for text in browser.messages())
        assert [url for url in browser.requests() if not url.startswith(("file:", "data:", "blob:"))] == []

    def test_without_webgl(self, page: Path) -> None:
        with Browser(webgl=False) as browser:
            browser.open(page)
            browser.wait("!document.getElementById('still').hidden")
            assert browser.evaluate("document.getElementById('viewer').hidden")
            assert "offers no WebGL 2" in browser.evaluate("document.getElementById('why').innerText")
            assert browser.evaluate("document.querySelector('#still img').naturalWidth") > 500
