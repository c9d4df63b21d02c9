"""A cohort's index: failures first, guesses marked, links that lead somewhere; and our pages in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest

from a2fseg_cli.reporting.index_page import IndexRow, index_page

Run = Callable[..., tuple[int, str, str]]
REGIONS = ("WT", "TC")
ROWS = [
    IndexRow("B", "ok", "t1c+flair", "thick slices", {"WT": 9.0, "TC": 1.0}, (), "B.html", "thumbnails/B.png"),
    IndexRow("A&", "ok", "flair", "", {"WT": 100.0, "TC": 2.0}, ("TC",), "A&.html"),
    IndexRow("Z", "failed", "t1", "<not found>"),
]


def cells(page: str) -> list[list[str]]:
    """Text of each cell of each row of the table's body."""
    rows = page.split("<tbody>")[1].split("</tbody>")[0].split("</tr>")[:-1]
    return [[unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in row.split("</td>")[:-1]] for row in rows]


def test_failures_first_and_guesses_marked() -> None:
    page = index_page("cohort <1>", ROWS, REGIONS, "today")
    assert cells(page) == [
        ["", "Z", "failed", "T1", "", "", "<not found>"],
        ["", "A&", "ok", "FLAIR", "100.0", "2.0 ?", ""],
        ["", "B", "ok", "T1c, FLAIR", "9.0", "1.0", "thick slices"],
    ]
    assert "<h1>cohort &lt;1&gt;</h1>" in page
    assert "3 patients, 1 failed, in 1 a volume is a guess. today" in page
    assert '<a href="A%26.html">' in page
    assert page.count("<img") == 1


def test_a_thousand_patients_are_as_many_rows() -> None:
    rows = [IndexRow(f"P{number}", "ok", "t1", "", {"WT": 1.0}) for number in range(1000)]
    small, large = (len(index_page("c", rows[:count], ("WT",), "")) for count in (500, 1000))
    assert large - small < 500 * 250


def test_every_part_of_a_cohort_and_every_run_is_in_it(
    run: Run, phantom: Path, toy_weights: Path, tmp_path: Path
) -> None:
    """Two parts, then the first again, of which nothing is computed: always all that is done, with page and picture."""
    data, pages = tmp_path / "data", tmp_path / "pages"
    for name in ("P1", "P2", "P3"):
        (data / name).mkdir(parents=True)
        shutil.copy(phantom / "P1_flair.nii.gz", data / name)
    command = ("predict", data, "-o", tmp_path / "out", "--report", pages, "--weights", toy_weights)
    for part, known in ((0, {"P1", "P3"}), (1, {"P1", "P2", "P3"}), (0, {"P1", "P2", "P3"})):
        code, _, err = run(*command, "--num-parts", 2, "--part-id", part)
        assert code == 0, err
        page = (pages / "index.html").read_text()
        assert {row[1] for row in cells(page)} == known
        assert {row[2] for row in cells(page)} == {"ok"}
        assert all(row[5].endswith("?") for row in cells(page))  # TC: from FLAIR a guess
        links = re.findall(r'(?:href|src)="([^"]*)"', page)
        assert len(links) == 3 * len(known)
        assert all((pages / link).is_file() for link in links)


def test_an_index_of_others_is_not_written_over(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "index.html").write_text("<h1>My own</h1>")
    command = ("predict", phantom, "-o", tmp_path / "out", "--report", pages, "--weights", toy_weights)
    code, _, err = run(*command)
    assert code == 2
    assert "exists and is not ours" in " ".join(err.split())
    assert (pages / "index.html").read_text() == "<h1>My own</h1>"
    assert not list((tmp_path / "out").glob("*.nii.gz"))
    assert run(*command, "--overwrite")[0] == 0
    assert run(*command)[0] == 0


@pytest.fixture(scope="module")
def browser() -> str:
    """Path of a Chromium."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium on this machine")


def looked_at(browser: str, page: Path, *options: str) -> str:
    """What the browser makes of a page, as HTML."""
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'browser'}"]
    done = subprocess.run([*command, *options, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def with_probe(page: Path, script: str) -> Path:
    """A copy of a page with one more script at its end; the page's own rule would not let it run."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    copy = page.with_name(f"probe_{page.name}")
    copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    return copy


@pytest.mark.slow
def test_a_cohort_in_a_browser(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path, browser: str) -> None:
    """Sorting, moving through slices and outlines on and off, in the pages as they are written."""
    data, pages = tmp_path / "data", tmp_path / "pages"
    for name in ("P1", "P2"):
        shutil.copytree(phantom, data / name)
    for name in ("t1", "t1c", "t2"):
        (data / f"P2/P1_{name}.nii.gz").unlink()
    (data / "P3").mkdir()
    (data / "P3/P3_flair.nii.gz").write_bytes(b"no image")
    code, _, _ = run(
        "predict", data, "-o", tmp_path / "out", "--report", pages, "--agreement", "--weights", toy_weights
    )
    assert code == 1
    index = pages / "index.html"
    assert [row[1] for row in cells(index.read_text())] == ["P3", "P1", "P2"]
    for link in re.findall(r'(?:href|src)="([^"]*)"', index.read_text()):
        assert (pages / link).is_file()

    dom = looked_at(browser, index, "--dump-dom")
    assert [row[1] for row in cells(dom)] == ["P3", "P1", "P2"]
    click = "const b = document.querySelectorAll('th button')[0]; b.click(); b.click();"
    assert [row[1] for row in cells(looked_at(browser, with_probe(index, click), "--dump-dom"))] == ["P3", "P2", "P1"]

    dom = looked_at(browser, pages / "P1.html", "--dump-dom")  # with the page's own rule: our script has run
    assert '<html lang="en" class="live">' in dom
    assert dom.count("<image width") == 5
    assert dom.count('href="data:image/jpeg') == 5
    move = """
    const range = document.querySelector('input[type=range]'), first = document.querySelector('image').href.baseVal;
    range.value = 0; range.dispatchEvent(new Event('input'));
    document.title = [document.querySelector('image').href.baseVal !== first,
      document.querySelector('output').textContent, document.documentElement.scrollWidth <= innerWidth].join('|');
    """
    dom = looked_at(browser, with_probe(pages / "P1.html", move), "--dump-dom", "--window-size=500,900")
    title = re.search("<title>(.*?)</title>", dom)
    assert title
    assert re.fullmatch(r"true\|axial \d+ of 50\|true", title[1])


@pytest.mark.slow
def test_two_pages_of_paper(run: Run, phantom: Path, toy_weights: Path, tmp_path: Path, browser: str) -> None:
    page = tmp_path / "p.html"
    places = ("-o", tmp_path / "s.nii.gz", "--report", page)
    assert run("predict", phantom, *places, "--agreement", "--weights", toy_weights)[0] == 0
    looked_at(browser, page, f"--print-to-pdf={tmp_path / 'p.pdf'}", "--no-pdf-header-footer")
    assert len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "p.pdf").read_bytes())) == 2
