"""From the scanner to the mask: raw sequences of a synthetic head, through `predict --raw` and `prepare`."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from a2fseg_cli.imaging.geometry import Geometry, same_grid
from a2fseg_cli.imaging.reading import MedicalImage, image_of, read_image
from a2fseg_cli.imaging.writing import write_map
from a2fseg_cli.inference import raw_cohort
from a2fseg_cli.phantom import make_phantom
from a2fseg_cli.phantom.head import random_motion, scan, scan_geometry
from a2fseg_cli.raw.prepare import finer

Run = Callable[..., tuple[int, str, str]]
SIZE = (60, 72, 60)
GRID = Geometry(SIZE, (3.0, 3.0, 3.0), (-88.5, -106.5, -88.5))
CENTRE = np.zeros(3)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other)))


def write(image: MedicalImage, path: Path) -> Path:
    write_map(image.array, None, image.geometry, path)
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stripped synthetic brain: T1c in axial slices of 5 mm, FLAIR turned by 20 degrees and 15 mm, sagittal."""
    folder = tmp_path_factory.mktemp("raw") / "P1"
    folder.mkdir()
    made = make_phantom(0, SIZE, (3.0, 3.0, 3.0))
    turned = random_motion(np.random.default_rng(3), CENTRE, 20.0, 15.0)
    scans = {
        "t1c": (scan_geometry(CENTRE, "axial", 5.0, 2.0), np.eye(4)),
        "flair": (scan_geometry(np.linalg.inv(turned)[:3, 3], "sagittal", 4.0, 2.0), turned),
    }
    for name, (grid, motion) in scans.items():
        write(scan(image_of(name, made.images[name], GRID), grid, motion), folder / f"P1_{name}.nii.gz")
    truth = image_of("truth", (made.truth > 0).astype(np.float32), GRID)
    write(scan(truth, scans["t1c"][0], np.eye(4)), folder.parent / "truth.nii.gz")
    return folder


@pytest.mark.parametrize(
    ("spacing_mm", "blocks"),
    [
        ((5.0, 1.0, 1.0), (5, 1, 1)),
        ((2.0, 2.0, 2.0), (1, 1, 1)),
        ((1.2, 0.5, 3.0), (1, 1, 3)),
        ((2.2, 1, 1), (3, 1, 1)),
    ],
)
def test_thick_slices_are_split(spacing_mm: tuple[float, float, float], blocks: tuple[int, int, int]) -> None:
    """The middle voxel of a block has the centre of the voxel that it came from, also on oblique axes."""
    turn = random_motion(np.random.default_rng(0), CENTRE, 25.0, 0.0)[:3, :3]
    grid = Geometry((4, 6, 8), spacing_mm, (1.0, 2.0, 3.0), tuple(turn.ravel().tolist()))
    fine, found = finer(grid)
    assert found == blocks
    assert max(fine.spacing_mm) <= 2.0
    middle = np.array([count // 2 for count in blocks])
    step = np.array(fine.spacing_mm)[::-1] * middle[::-1]
    first = np.array(fine.origin_mm) + fine.direction_matrix @ step
    size = tuple(n // count for n, count in zip(fine.size, blocks, strict=True))
    spacing = tuple(mm * count for mm, count in zip(fine.spacing_mm, blocks, strict=True))
    assert same_grid(Geometry(size, spacing, tuple(first.tolist()), fine.direction), grid)  # type: ignore[arg-type]


def test_prepare_then_predict(study: Path, run: Run, tmp_path: Path, toy_weights: Path) -> None:
    """Sequences end on one grid, in one place, without what lies outside the brain."""
    out = tmp_path / "prepared"
    code, shown, _ = run("prepare", study, "-o", out)
    assert code == 0
    assert "1 ok" in shown
    folder = out / "P1"
    assert sorted(path.name for path in folder.iterdir()) == [
        "P1_brain_mask.nii.gz",
        "P1_flair.nii.gz",
        "P1_flair_to_t1c.tfm",
        "P1_registration.png",
        "P1_t1c.nii.gz",
    ]
    flair, t1c = read_image(folder / "P1_flair.nii.gz"), read_image(folder / "P1_t1c.nii.gz")
    assert same_grid(flair.geometry, t1c.geometry)
    assert t1c.geometry.spacing_mm == pytest.approx((1.0, 2.0, 2.0), abs=1e-5)
    made = make_phantom(0, SIZE, (3.0, 3.0, 3.0))
    here = scan(image_of("flair", made.images["flair"], GRID), flair.geometry, np.eye(4))
    inside = (flair.array > 0) & (here.array > 0)
    assert overlap(flair.array > 0, here.array > 0) > 0.93
    assert np.corrcoef(flair.array[inside], here.array[inside])[0, 1] > 0.9
    motion = sitk.ReadTransform(str(folder / "P1_flair_to_t1c.tfm"))
    turned = random_motion(np.random.default_rng(3), CENTRE, 20.0, 15.0)
    for point in ((0.0, 0.0, 0.0), (60.0, 0.0, 0.0), (0.0, 80.0, 40.0)):  # from T1c's space to the scanner's of FLAIR
        there = np.linalg.inv(turned) @ [*point, 1.0]
        assert np.linalg.norm(np.array(motion.TransformPoint(point)) - there[:3]) < 1.5
    with (out / "status.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["case"], row["modalities"], row["status"]) == ("P1", "t1c+flair", "ok")
    assert run("prepare", study, "-o", out)[0] == 0  # finished before
    code, shown, _ = run("predict", out, "-o", tmp_path / "masks", "--weights", toy_weights)
    assert code == 0
    assert (tmp_path / "masks" / "P1_seg.nii.gz").exists()


def test_the_mask_lies_on_the_reference(study: Path, run: Run, tmp_path: Path, toy_weights: Path) -> None:
    """On T1c's own slices without being asked, on FLAIR's if asked; maps as well, and pictures can be drawn."""
    for reference, extra in (("t1c", []), ("flair", ["--reference", "flair"])):
        out = tmp_path / reference / "seg.nii.gz"
        more = ["--probabilities", "--preview", out.with_name("p.png"), "--report", out.with_name("p.html")]
        code, _, said = run("predict", study, "--raw", "-o", out, "--weights", toy_weights, *extra, *more)
        assert code == 0, said
        image = nib.load(study / f"P1_{reference}.nii.gz")  # type: ignore[attr-defined]
        for name in ("seg.nii.gz", "seg_prob_WT.nii.gz"):
            mask = nib.load(out.with_name(name))  # type: ignore[attr-defined]
            assert mask.shape == image.shape
            np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
        assert out.with_name("p.png").stat().st_size > 20_000
        assert "How the sequences were registered" in out.with_name("p.html").read_text()


def test_the_bundled_weights_find_the_tumour_on_the_slices(study: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "seg.nii.gz"
    code, _, said = run("predict", study, "--raw", "-o", out, "--no-tta")
    assert code == 0, said
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(out))) > 0
    truth = read_image(study.parent / "truth.nii.gz").array > 0.5
    assert overlap(mask, truth) > 0.8


def test_maps_on_thick_slices_stay_within_0_and_1(study: Path, run: Run, tmp_path: Path) -> None:
    """The bundled network's maps, at 2 mm, become slices of 5 mm, by a filter that overshoots."""
    code, _, said = run("predict", study, "--raw", "-o", tmp_path / "seg.nii.gz", "--probabilities", "--uncertainty")
    assert code == 0, said
    for path in tmp_path.glob("seg_*.nii.gz"):
        values = read_image(path).array
        assert values.min() == 0, path
        assert 0.5 < values.max() <= 1, path


@pytest.mark.slow
def test_another_person_is_refused_or_left_out(study: Path, run: Run, tmp_path: Path, toy_weights: Path) -> None:
    folder = tmp_path / "P2"
    folder.mkdir()
    (folder / "P2_t1c.nii.gz").write_bytes((study / "P1_t1c.nii.gz").read_bytes())
    noise = np.random.default_rng(0).normal(100, 30, (40, 48, 40)).astype(np.float32)
    z, y, x = np.ogrid[-1:1:40j, -1:1:48j, -1:1:40j]
    noise[z**2 + y**2 + x**2 > 0.7] = 0
    write(image_of("flair", noise, Geometry((40, 48, 40), (4.0, 4.0, 4.0))), folder / "P2_flair.nii.gz")
    command = ("predict", folder, "--raw", "-o", tmp_path / "seg.nii.gz", "--weights", toy_weights)
    code, _, said = run(*command)
    assert code == 3
    assert "flair could not be registered to t1c" in said
    assert "--drop-unregistered" in said
    code, shown, said = run(*command, "--drop-unregistered")
    assert code == 0
    assert "flair is left out" in said
    assert "(t1c)" in shown


def test_a_brain_mask_takes_the_place_of_extraction(
    study: Path, run: Run, tmp_path: Path, toy_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from a2fseg_cli.raw import prepare

    def never(*_: object, **__: object) -> None:
        raise AssertionError("brain extraction was called")

    monkeypatch.setattr(prepare, "extract_brain", never)
    image = read_image(study / "P1_t1c.nii.gz")
    box = np.zeros(image.array.shape, np.float32)
    box[12:28, 30:90, 30:90] = 1
    mask = write(image_of("mask", box, image.geometry), tmp_path / "mask.nii.gz")
    kept = tmp_path / "kept"
    command = ("predict", study, "--raw", "--brain-mask", mask, "--weights", toy_weights, "--keep-prepared", kept)
    code, _, said = run(*command, "-o", tmp_path / "seg.nii.gz")
    assert code == 0, said
    used = read_image(kept / "P1" / "P1_brain_mask.nii.gz").array > 0
    assert np.array_equal(used[2::5], box > 0)
    box[:, 31:] = 0  # 16 x 1 x 60 voxels of 0.02 mL
    write(image_of("mask", box, image.geometry), mask)
    alone = ("predict", "--raw", "--t1c", study / "P1_t1c.nii.gz", "--brain-mask", mask, "--weights", toy_weights)
    code, _, said = run(*alone, "-o", tmp_path / "c.nii.gz")
    assert code == 0, said
    assert "19 mL are no whole brain" in said
    elsewhere = write(image_of("mask", np.ones((5, 5, 5)) * [[[0, 1, 1, 1, 0]]], GRID_5), tmp_path / "elsewhere.nii.gz")
    code, _, said = run("predict", study, "--raw", "--brain-mask", elsewhere, "-o", tmp_path / "b.nii.gz")
    assert code == 3
    assert "elsewhere.nii.gz" in said


GRID_5 = Geometry((5, 5, 5), (30.0, 30.0, 30.0))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--drop-unregistered"], "--drop-unregistered needs --raw"),
        (["--keep-prepared", "x"], "--keep-prepared needs --raw"),
        (["--raw", "--on-mismatch", "resample"], "exclude each other"),
        (["--raw", "--allow-skull"], "exclude each other"),
        (["--series", "3=t1c"], "nothing to choose (--series)"),
        (["--prefer", "thinnest"], "nothing to choose (--prefer)"),
        (["--series", "3"], "expected NUMBER=SEQUENCE"),
        (["--raw", "--reference", "t2"], "reference t2"),
    ],
)
def test_options_that_contradict_each_other(
    options: list[str], said: str, study: Path, run: Run, tmp_path: Path, toy_weights: Path
) -> None:
    code, _, errors = run("predict", study, "-o", tmp_path / "seg.nii.gz", "--weights", toy_weights, *options)
    assert code == 2
    assert said in errors


def test_results_are_not_written_over_inputs(study: Path, run: Run, tmp_path: Path) -> None:
    code, _, said = run("prepare", study, "-o", study.parent, "--overwrite")
    assert code == 2
    assert "holds the patient's input" in said
    assert len(list(study.iterdir())) == 2
    (tmp_path / "P1").mkdir()
    code, _, said = run("prepare", study, "-o", tmp_path)
    assert code == 2
    assert "exists" in said


def test_prepared_files_are_not_written_over_inputs_or_files_of_others(
    study: Path, run: Run, tmp_path: Path, toy_weights: Path
) -> None:
    """`--keep-prepared` beside the patient's folder: its files would have the names of the scans."""
    scans = {path: path.read_bytes() for path in study.iterdir()}
    command = ("predict", "--raw", "--weights", toy_weights, "-o", tmp_path / "seg.nii.gz", "--keep-prepared")
    code, _, said = run(*command, study.parent, "--t1c", study / "P1_t1c.nii.gz", "--case", "P1", "--overwrite")
    assert code == 2
    assert "never written over" in said
    t1c = ("--t1c", study / "P1_t1c.nii.gz", "--case", "P9")
    (tmp_path / "P9").mkdir()
    (tmp_path / "P9" / "P9_t2.nii.gz").write_bytes(b"a scan of somebody")
    code, _, said = run(*command, tmp_path, *t1c)
    assert code == 2
    assert "P9_t2.nii.gz exists" in said
    for among in (study, study / "kept", study.parent):  # the last one holds P1
        code, _, said = run(*command, among, study)
        assert code == 2
        assert "taken for scans" in said or among == study.parent
    assert run("prepare", study, "-o", study / "kept")[0] == 2
    assert {path: path.read_bytes() for path in study.iterdir()} == scans


def test_what_was_prepared_before_of_other_sequences_is_gone(
    study: Path, run: Run, tmp_path: Path, toy_weights: Path
) -> None:
    """Else the next run would take the FLAIR of the first for one of the second; so too after a failure."""
    command = ("predict", "--raw", "--weights", toy_weights, "--keep-prepared", tmp_path)
    assert run(*command, "-o", tmp_path / "a.nii.gz", study)[0] == 0
    assert (tmp_path / "P1" / "P1_flair_to_t1c.tfm").exists()
    assert run(*command, "-o", tmp_path / "b.nii.gz", "--t1c", study / "P1_t1c.nii.gz", "--case", "P1")[0] == 0
    left = ["P1_brain_mask.nii.gz", "P1_registration.png", "P1_t1c.nii.gz"]
    assert sorted(path.name for path in (tmp_path / "P1").iterdir()) == left
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"no image")
    assert run("prepare", "--t1c", bad, "--case", "P1", "-o", tmp_path, "--overwrite")[0] == 3
    assert not list((tmp_path / "P1").iterdir())


def test_after_a_kill_in_the_middle_of_a_patient_the_same_command_goes_on(
    study: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in the patient's folder is half of this run's own; a folder of others is still refused."""
    out = tmp_path / "prepared"

    def killed(folder: Path, *_: object) -> None:
        folder.mkdir()
        (folder / "P1_t2.nii.gz").touch()
        for place in (folder, folder.parent):
            (place / ".half.part").touch()
            os.utime(place / ".half.part", (0, 0))  # what a writer leaves that is killed is removed when it is old
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(raw_cohort, "prepared_into", killed)
        with pytest.raises(KeyboardInterrupt):
            raw_cohort.prepare(study, output=out)
    assert run("prepare", study, "-o", out, "--drop-unregistered")[0] == 2  # begun with other settings
    code, _, said = run("prepare", study, "-o", out)
    assert code == 0, said
    (row,) = csv.DictReader((out / "status.csv").read_text().splitlines())
    assert (row["status"], (out / "P1" / "P1_t2.nii.gz").exists()) == ("ok", False)
    assert not list(out.rglob("*.part"))


@pytest.mark.slow
def test_what_is_missing_is_prepared_again(study: Path, run: Run, tmp_path: Path, toy_weights: Path) -> None:
    """A finished patient without one of its images would be taken for one without the sequence."""
    out = tmp_path / "prepared"
    assert run("prepare", study, "-o", out)[0] == 0
    (out / "P1" / "P1_flair.nii.gz").unlink()
    assert run("prepare", study, "-o", out, "--skip-existing")[0] == 0
    assert (out / "P1" / "P1_flair.nii.gz").exists()
    command = ("predict", study, "--raw", "--weights", toy_weights, "-o", tmp_path / "masks")
    assert run(*command)[0] == 0
    assert run(*command, "--keep-prepared", tmp_path / "kept")[0] == 0  # asked for after the mask was made
    assert (tmp_path / "kept" / "P1" / "P1_flair.nii.gz").exists()


@pytest.mark.parametrize(
    ("shape", "said"), [("cube", "are as dark as the darkest voxel"), ("ball", "440 mL were taken for brain, less")]
)
def test_what_is_no_head(shape: str, said: str, run: Run, tmp_path: Path) -> None:
    """Noise in air: a cube, for which deepbet has a brain of 1096 mL; a ball, which looks like a stripped brain."""
    z, y, x = np.ogrid[-29.5:30, -49.5:50, -49.5:50]
    cube, ball = (abs(z) < 10) & (abs(y) < 20) & (abs(x) < 20), z**2 + y**2 + x**2 < 23.57**2  # voxels of 2 mm
    inside = {"cube": cube, "ball": ball}[shape]
    noise = np.random.default_rng(1).normal(100, 20, inside.shape).astype(np.float32)
    grid = Geometry((60, 100, 100), (2.0, 2.0, 2.0))
    image = write(image_of("t1c", noise * inside, grid), tmp_path / "thing.nii.gz")
    code, _, told = run("prepare", "--t1c", image, "-o", tmp_path / "out")
    assert code == 3
    assert said in told


def test_a_mask_on_the_grid_of_a_sequence_that_moved(study: Path, run: Run, tmp_path: Path, toy_weights: Path) -> None:
    """T1 and T1c lie on one grid, T1 turned by 7 degrees: a mask on that grid is T1c's, the reference's."""
    grid = read_image(study / "P1_t1c.nii.gz").geometry
    t1 = image_of("t1", make_phantom(0, SIZE, (3.0, 3.0, 3.0)).images["t1"], GRID)
    moved = scan(t1, grid, random_motion(np.random.default_rng(5), CENTRE, 7.0, 4.0))
    box = np.zeros(grid.size, np.float32)
    box[12:28, 30:90, 30:90] = 1
    mask = write(image_of("mask", box, grid), tmp_path / "mask.nii.gz")
    images = ("--t1", write(moved, tmp_path / "P3_t1.nii.gz"), "--t1c", study / "P1_t1c.nii.gz", "--case", "P3")
    code, _, said = run("prepare", *images, "--brain-mask", mask, "-o", tmp_path / "kept")
    assert code == 0, said
    used = read_image(tmp_path / "kept" / "P3" / "P3_brain_mask.nii.gz").array > 0
    assert np.array_equal(used[2::5], box > 0)


def test_a_mask_on_the_grid_of_a_sequence_that_is_left_out(study: Path, run: Run, tmp_path: Path) -> None:
    grid = Geometry((40, 48, 40), (4.0, 4.0, 4.0))
    noise = np.random.default_rng(0).normal(100, 30, grid.size).astype(np.float32)
    z, y, x = np.ogrid[-1:1:40j, -1:1:48j, -1:1:40j]
    ball = z**2 + y**2 + x**2 < 0.7
    flair = write(image_of("flair", noise * ball, grid), tmp_path / "flair.nii.gz")
    mask = write(image_of("mask", ball.astype(np.float32), grid), tmp_path / "mask.nii.gz")
    images = ("--t1c", study / "P1_t1c.nii.gz", "--flair", flair, "--brain-mask", mask)
    code, _, said = run("prepare", *images, "-o", tmp_path / "out", "--drop-unregistered")
    assert code == 3
    assert "lies on the grid of flair, which could not be registered" in said


def test_one_bad_patient_does_not_stop_the_others(study: Path, run: Run, tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    for name in ("P1", "P2"):
        (cohort / name).mkdir(parents=True)
    (cohort / "P1" / "P1_t1c.nii.gz").write_bytes((study / "P1_t1c.nii.gz").read_bytes())
    (cohort / "P2" / "P2_t1c.nii.gz").write_bytes(b"no image")
    code, shown, _ = run("prepare", cohort, "-o", tmp_path / "out", "--json")
    assert code == 1
    told = json.loads(shown)
    assert {row["case"]: row["status"] for row in told["patients"]} == {"P1": "ok", "P2": "failed"}
    assert not (tmp_path / "out" / "P2").exists()
