"""Whether an image is what its name says: statistics by hand, what they do not depend on, real and made patients."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.discovery import find_cases
from a2fseg_cli.imaging import contrast, contrast_statistics
from a2fseg_cli.imaging.contrast import Classifier, Finding, Learned, implausible, judge
from a2fseg_cli.imaging.contrast_statistics import NAMES, PAIRS, Statistics
from a2fseg_cli.phantom import make_phantom

Array = npt.NDArray[Any]
ROOT = Path(__file__).parents[1]


def load(folder: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, though another folder has a module of its name."""
    spec = importlib.util.spec_from_file_location(f"{folder}_{name}", ROOT / folder / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def ball(edge: int = 60) -> Array:
    z, y, x = np.mgrid[:edge, :edge, :edge] - (edge - 1) / 2
    inside: Array = np.sqrt(z**2 + y**2 + x**2) < 0.45 * edge
    return inside


def given_as(names: dict[str, str], found: Statistics) -> list[tuple[str, str]]:
    """What is warned of when files are given under other names (file to name)."""
    ordered = dict(sorted(names.items(), key=lambda item: NAMES.index(item[1])))
    return [(f.name, f.looks_like) for f in judge(found.renamed(ordered), contrast.learned())]


def toy(margin: float = 2.0) -> Learned:
    """Statistics of one number (and those of the grain): t1 about 0, t1c about 3, the others far away."""
    zeros = np.zeros(-contrast_statistics.GRAIN)
    length = 1 + len(zeros)
    weights = np.zeros((4, 1 + length))
    weights[0, :2], weights[1, :2], weights[2:, 0] = (3, -2), (-3, 2), -50
    image = Classifier(np.zeros(length), np.ones(length), weights)
    pair = Classifier(np.zeros(2), np.ones(2), np.zeros((12, 3)))
    centre = np.array([[value, *zeros] for value in (0, 3, 20, 20)])
    return Learned(image, pair, centre, np.ones((4, length)), 0, 0.5, (margin,) * 4)


def only(value: float, grain: float = 0.0) -> Statistics:
    numbers = np.zeros(1 - contrast_statistics.GRAIN)
    numbers[0], numbers[contrast_statistics.GRAIN] = value, grain
    return Statistics({"t1c": numbers}, {})


def test_a_finding_says_what_to_do() -> None:
    assert Finding("flair", "t1c", 3.0).message == "flair looks like t1c: check the files."
    assert "no contrast enhancement is to be seen" in Finding("t1c", "t1", 3.0).message


def test_middle_and_spread_by_hand() -> None:
    """Of 0 to 99 the middle half is 25 to 74; 60 to 89 have the mean 74.5, 10 to 39 have 24.5."""
    assert contrast_statistics._middle_and_spread(np.arange(100.0)) == (49.5, 50.0)


def test_means_of_slices_by_hand() -> None:
    assert list(contrast_statistics._means(np.arange(10.0), (0, 0.5, 0.9, 1))) == [2.0, 6.5, 9.0]
    values = np.arange(4.0)
    assert list(contrast_statistics._means(values, (0, 0.01, 1))) == [0.0, 1.5]  # a narrow slice holds one value


def test_depth_by_hand() -> None:
    """A block of 3 x 3 x 3 voxels of 2 mm: faces are 1 mm from a rim voxel's centre, 3 mm from the middle one's.

    A hole in the middle is still as deep.
    """
    brain = np.zeros((5, 5, 5), np.bool_)
    brain[1:4, 1:4, 1:4] = True
    brain[2, 2, 2] = False
    depth = contrast_statistics._depth_mm(brain, (2.0, 2.0, 2.0))
    assert depth[2, 2, 2] == 3
    assert depth[1, 2, 2] == depth[2, 3, 2] == depth[3, 3, 3] == 1
    assert depth[0, 2, 2] == 0
    assert contrast_statistics._depth_mm(brain, (8.0, 2.0, 2.0))[2, 2, 2] == 3  # the nearest face


def test_ramp_has_its_quarters() -> None:
    """A ramp stands out from its neighbours nowhere; one bright voxel in the middle of a plain does."""
    mask = np.ones((40, 40, 40), np.bool_)
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32), mask.shape)
    assert contrast_statistics._detail(ramp, mask, (3.0, 3.0, 3.0), 5.0, 1.0) == [0.0] * 7
    waves = np.broadcast_to(np.tile([0, 6], 20).astype(np.float32), mask.shape)
    # Neighbours along x differ by 6, the other four not: each voxel is 6 * 2 / 6 = 2 above or below their mean.
    detail = contrast_statistics._detail(waves, mask, (3.0, 3.0, 3.0), 3.0, 1.0)
    np.testing.assert_allclose(detail, [4.0, -0.5, -0.5, -0.5, 0.5, 0.5, 0.5])


def test_a_pair_on_a_line_leaves_nothing_over() -> None:
    """The same image twice correlates by 1; an image and its negative by -1."""
    mask = ball()
    array = np.random.default_rng(0).normal(100, 10, mask.shape).astype(np.float32)
    images, masks = {"t1": array, "t2": -array}, {"t1": mask, "t2": mask}
    found = contrast_statistics.statistics(images, masks, (2.0, 2.0, 2.0))
    np.testing.assert_allclose(found.pairs["t1", "t2"][0], -np.log(2), atol=1e-3)  # 1 is drawn in to log(1 + 1)
    images["t2"] = 3 * array + 7
    found = contrast_statistics.statistics(images, masks, (2.0, 2.0, 2.0))
    np.testing.assert_allclose(found.pairs["t1", "t2"][0], np.log(2), atol=1e-3)


def test_the_classifier_by_hand() -> None:
    """Log odds of -3 + 2 x and 3 - 2 x at x = 3 are 3 and -3: e^6 = 403 to 1."""
    odds = toy().image.log_probabilities(only(3).images["t1c"])
    np.testing.assert_allclose(odds[1] - odds[0], 6)
    np.testing.assert_allclose(np.exp(odds).sum(), 1)


def test_the_margin_decides() -> None:
    """A t1c of 0 is better called t1, by 3 - -3 = 6 in logarithms."""
    assert judge(only(0), toy(5.9)) == [Finding("t1c", "t1", pytest.approx(6.0))]
    assert judge(only(0), toy(6.1)) == []
    assert judge(only(3), toy()) == []


def test_what_is_like_nothing_learned_is_not_judged() -> None:
    """-2.9 is within 3 widths of t1's centre, -3.1 beyond; grain above 0.5 is noise."""
    assert judge(only(-2.9), toy())
    assert not judge(only(-3.1), toy())
    assert judge(only(0, grain=0.4), toy())
    assert not judge(only(0, grain=0.6), toy())


def test_what_came_with_the_package_fits_the_statistics() -> None:
    mask = ball()
    array = np.random.default_rng(0).normal(100, 10, mask.shape).astype(np.float32)
    found = contrast_statistics.statistics({"t1": array, "t2": array}, {"t1": mask, "t2": mask}, (2.0, 2.0, 2.0))
    model = contrast.learned()
    assert model.image.weights.shape == (4, 1 + len(found.images["t1"]))
    assert model.pair.weights.shape == (len(PAIRS), 1 + 2 * len(found.pairs["t1", "t2"]))
    assert model.centre.shape == model.width.shape == (4, len(found.images["t1"]))
    assert len(model.margin) == 4
    assert min(model.margin) >= 2


@pytest.mark.parametrize(
    ("edge", "spacing", "name"), [(60, 3.0, "t1"), (10, 2.0, "t1"), (60, 2.0, "adc")], ids=["coarse", "tiny", "other"]
)
def test_not_judged(edge: int, spacing: float, name: str) -> None:
    mask = ball(edge)
    array = np.random.default_rng(0).normal(100, 10, mask.shape).astype(np.float32)
    assert contrast_statistics.statistics({name: array}, {name: mask}, (spacing,) * 3).images == {}
    assert implausible({name: array}, {name: mask}, (spacing,) * 3) == []


def test_nothing_to_judge() -> None:
    mask = ball()
    flat = {"t1": mask.astype(np.float32)}
    assert implausible({}, {}, (1.0, 1.0, 1.0)) == []
    assert implausible(flat, {"t1": mask}, (1.0, 1.0, 1.0)) == []
    assert implausible(flat, {"t1": np.zeros_like(mask)}, (1.0, 1.0, 1.0)) == []


@settings(max_examples=10)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100))
def test_scale_and_offset_change_nothing(scale: float, shift: float) -> None:
    mask = ball(40)
    rng = np.random.default_rng(0)
    images = {name: rng.gamma(3, 10, mask.shape).astype(np.float32) for name in ("t1", "t2")}
    masks = dict.fromkeys(images, mask)
    moved = {name: (scale * array + np.float32(shift * scale)).astype(np.float32) for name, array in images.items()}
    before, after = (contrast_statistics.statistics(given, masks, (2.0, 2.0, 2.0)) for given in (images, moved))
    for name in images:
        np.testing.assert_allclose(after.images[name], before.images[name], atol=2e-3)
    np.testing.assert_allclose(after.pairs["t1", "t2"], before.pairs["t1", "t2"], atol=2e-3)


def test_what_surrounds_the_brain_and_what_else_is_given_changes_nothing() -> None:
    mask, rng = ball(40), np.random.default_rng(0)
    images = {name: rng.gamma(3, 10, mask.shape).astype(np.float32) for name in ("t1", "t2")}
    masks = dict.fromkeys(images, mask)
    alone = contrast_statistics.statistics({"t1": images["t1"]}, masks, (2.0, 2.0, 2.0))
    margin = ((4, 6), (8, 2), (2, 4))  # multiples of the coarse grid's step, 2
    wide, masks = ({n: np.pad(a, margin) for n, a in given.items()} for given in (images, masks))
    together = contrast_statistics.statistics(wide, masks, (2.0, 2.0, 2.0))
    np.testing.assert_allclose(together.images["t1"], alone.images["t1"])


def noise(kind: str, rng: np.random.Generator) -> tuple[Array, Array]:
    mask = ball(80)
    if kind == "box":
        mask = np.zeros((80, 80, 80), np.bool_)
        mask[10:70, 10:70, 10:70] = True
        return np.where(mask, rng.uniform(1, 2, mask.shape), 0).astype(np.float32), mask
    radius = np.linalg.norm(np.mgrid[:80, :80, :80] - 39.5, axis=0) / 36
    slope = {"ball": 0, "darker outwards": -60, "brighter outwards": 60}[kind]
    return np.where(mask, 100 + slope * radius + rng.normal(0, 5, mask.shape), 0).astype(np.float32), mask


@pytest.mark.parametrize("kind", ["box", "ball", "darker outwards", "brighter outwards"])
def test_noise_is_not_judged(kind: str) -> None:
    rng = np.random.default_rng(1)
    made = {name: noise(kind, rng) for name in NAMES}
    images, masks = ({name: parts[i] for name, parts in made.items()} for i in (0, 1))
    found = contrast_statistics.statistics(images, masks, (2.0, 2.0, 2.0))
    for count in range(1, 5):
        for names in itertools.combinations(NAMES, count):
            assert given_as(dict(zip(names, names, strict=True)), found) == []


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_the_phantom_is_what_it_says(seed: int) -> None:
    made = make_phantom(seed, (78, 120, 120), (2.0, 2.0, 2.0))
    found = contrast_statistics.statistics(made.images, {n: a > 0 for n, a in made.images.items()}, made.spacing_mm)
    for count in range(1, 5):
        for names in itertools.combinations(NAMES, count):
            assert given_as(dict(zip(names, names, strict=True)), found) == []


def test_learning_tells_two_clouds_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clouds 4 deviations apart, two away from them along the other axis: the regression knows all four."""
    module = load("scripts", "learn_contrast", monkeypatch)
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [4, 0], [0, 9], [4, 9]])
    classes = np.repeat(np.arange(4), 200)
    fitted = module.regression(centres[classes] + rng.normal(0, 1, (800, 2)), classes, 4)
    np.testing.assert_array_equal(fitted.log_probabilities(centres.astype(float)).argmax(axis=1), np.arange(4))
    halfway = np.exp(fitted.log_probabilities(np.array([2.0, 0.0])))
    np.testing.assert_allclose(halfway[:2], 0.5, atol=0.15)


def test_what_is_written_is_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("scripts", "learn_contrast", monkeypatch)
    model = contrast.learned()
    again = Learned.from_json(module.as_json(model, "a test"))
    np.testing.assert_array_equal(again.image.weights, model.image.weights)
    np.testing.assert_array_equal(again.pair.mean, model.pair.mean)
    assert (again.margin, again.most_strange, again.grainiest) == (model.margin, model.most_strange, model.grainiest)


def real(cases_dir: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Statistics:
    case: Case = next(case for case in find_cases(cases_dir / name))
    found: Statistics = load("benchmarks", "contrast", monkeypatch).read(case).found
    return found


@pytest.mark.parametrize("name", ["BraTS-SSA-00010-000", "BraTS20_Training_001"])
def test_a_real_patient(cases_dir: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = real(cases_dir, name, monkeypatch)
    assert given_as({n: n for n in NAMES}, found) == []
    exchanged = given_as({"t1": "t1", "flair": "t1c", "t2": "t2", "t1c": "flair"}, found)
    assert exchanged == [("t1c", "flair"), ("flair", "t1c")]
    assert given_as({"t1": "t1c", "t2": "t2", "flair": "flair"}, found) == [("t1c", "t1")]


@pytest.mark.slow
def test_the_figures(cases_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the validation and test patients, whom nothing was learned from: 17, 17, 10 of 14 and 1 when written."""
    module = load("benchmarks", "contrast", monkeypatch)
    split = module.read_split(cases_dir.parent / "split.json")
    names = {*split["validation"], *split["test"]}
    patients = [module.read(case) for case in find_cases(cases_dir) if case.name in names]
    assert len(patients) == 18
    rows = dict(line.strip("| ").split(" | ", 1) for line in module.table(patients).splitlines() if line[:2] == "| ")
    count = {title: int(numbers.split(" | ")[0]) for title, numbers in rows.items() if numbers[0].isdigit()}
    assert count["T1c and FLAIR exchanged, all four given"] >= 17
    assert count["T1c and FLAIR exchanged, only they given"] >= 17
    assert count["T1 as T1c, with T2 and FLAIR"] >= 10
    assert count["as they are, patients with a warning in any subset"] <= 1
