"""Brain extraction: two files that are run only if they are the known ones, heads made by hand, and real persons."""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk

from a2fseg_cli.errors import WeightsError
from a2fseg_cli.imaging.components import largest_component
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.reading import MedicalImage, read_image
from a2fseg_cli.phantom import make_phantom
from a2fseg_cli.raw import deepbet, extraction
from a2fseg_cli.raw.brain_agreement import agree
from a2fseg_cli.raw.extraction import BrainMask, extract_brain

Array = npt.NDArray[Any]
RAW = Path(__file__).parents[2] / "shared" / "data" / "raw"
SPACING = (3.0, 3.0, 3.0)


def dice(a: Array, b: Array) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.fixture(scope="module")
def head() -> tuple[MedicalImage, Array]:
    """The synthetic patient's T1 in a head: 2 mm of fluid, 6 mm of bone, 6 mm of scalp; and its brain."""
    size = (64, 80, 72)
    t1 = make_phantom(size=size, spacing_mm=SPACING).images["t1"]
    image = sitk.GetImageFromArray((t1 != 0).astype(np.uint8))
    image.SetSpacing(SPACING)
    hull = sitk.BinaryFillhole(sitk.BinaryMorphologicalClosing(image, [2, 2, 2]))
    depth = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(hull, squaredDistance=False, useImageSpacing=True))
    tissue = np.median(t1[t1 != 0])
    shells = np.select([depth < 2, depth < 8, depth < 14], [0.25 * tissue, 0.06 * tissue, 1.4 * tissue], 0)
    noise = np.random.default_rng(0).normal(0, 0.02 * tissue, size)
    array = np.where(t1 != 0, t1, shells) + np.abs(noise)
    brain = sitk.GetArrayFromImage(hull).astype(bool)
    return MedicalImage(array.astype(np.float32), Geometry(size, SPACING), Path("head.nii.gz")), brain


def turned(image: MedicalImage) -> MedicalImage:
    """The same head with its axes in another order: slices run from left to right, rows from foot to head."""
    array = np.ascontiguousarray(image.array.transpose(2, 0, 1)[::-1])
    size: tuple[int, int, int] = array.shape  # type: ignore[assignment]
    # File axes x, y, z are the patient's posterior, superior and right.
    direction = (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    return MedicalImage(array, Geometry(size, SPACING, direction=direction), image.path)


@pytest.fixture(scope="module")
def found(head: tuple[MedicalImage, Array]) -> BrainMask:
    """What is taken for the head's brain."""
    return extract_brain(head[0])


def test_the_brain_of_a_head_is_found(head: tuple[MedicalImage, Array], found: BrainMask) -> None:
    image, brain = head
    assert found.mask.shape == image.array.shape
    assert found.mask.dtype == np.bool_
    assert dice(found.mask, brain) > 0.94
    assert found.volume_ml == pytest.approx(found.mask.sum() * 0.027)
    assert found.problem is None
    assert found.warnings == ()
    assert np.array_equal(found.mask, largest_component(found.mask))


def test_the_scale_and_the_order_of_axes_change_nothing(head: tuple[MedicalImage, Array], found: BrainMask) -> None:
    other = turned(MedicalImage(head[0].array * 4, head[0].geometry, head[0].path))
    assert np.array_equal(extract_brain(other).mask[::-1].transpose(1, 2, 0), found.mask)


def test_a_slab_of_a_head_says_that_it_is_one(head: tuple[MedicalImage, Array]) -> None:
    image, brain = head
    part = slice(25, 38)
    slab = MedicalImage(image.array[part].copy(), Geometry((13, 80, 72), SPACING), image.path)
    found = extract_brain(slab)
    assert dice(found.mask, brain[part]) > 0.94
    assert found.problem is None
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("the field of view ends in the brain")


def test_an_image_without_contrast_is_a_problem_in_words() -> None:
    geometry = Geometry((20, 24, 24), (2.0, 2.0, 2.0))
    dark = np.zeros(geometry.size, np.float32)
    dark[10, 10, 10] = 1
    assert extract_brain(MedicalImage(dark, geometry, Path("dark.nii.gz"))).problem == (
        "no brain was found; do its axes name the right directions?"
    )


def test_volumes_that_no_brain_has() -> None:
    geometry = Geometry((20, 20, 20), (10.0, 10.0, 10.0))  # a voxel is 1 mL
    cube = np.zeros(geometry.size, bool)
    empty = extraction.judged(cube, geometry)
    assert empty.problem is not None
    assert empty.problem.startswith("no brain was found")
    cube[5:13, 5:13, 5:13] = True  # 512 mL
    small = extraction.judged(cube, geometry)
    assert small.problem is not None
    assert small.problem.startswith("512 mL were taken for brain, less than can be")
    cube[5:13, 5:13, 5:15] = True  # 640 mL
    assert extraction.judged(cube, geometry).problem is None
    cube[2:16, 2:15, 2:15] = True  # 2366 mL
    large = extraction.judged(cube, geometry)
    assert large.problem is not None
    assert large.problem.startswith("2366 mL were taken for brain, more than can be")


def test_less_is_enough_where_the_field_of_view_ends() -> None:
    geometry = Geometry((20, 20, 20), (10.0, 10.0, 10.0))
    cube = np.zeros(geometry.size, bool)
    cube[:3, 5:13, 5:13] = True  # 192 mL, 64 of 1 cm² on the first slice
    found = extraction.judged(cube, geometry)
    assert found.problem is None
    assert found.warnings == ("the field of view ends in the brain (64 cm² of it lie on the first z face)",)


def test_beyond_its_field_of_view_a_volume_goes_on() -> None:
    line = np.array([3.0, 7.0], np.float32).reshape(2, 1, 1)
    cube = extraction._cube(line, [(-1, 3), (0, 1), (0, 1)], (4, 1, 1))
    assert cube.ravel().tolist() == [3, 3, 7, 7]
    back = np.zeros_like(line)
    extraction._put(back, np.array([1.0, 2.0, 3.0, 4.0], np.float32).reshape(4, 1, 1), [(-1, 3), (0, 1), (0, 1)])
    assert back.ravel().tolist() == [2, 3]


def test_the_same_box_back_and_forth() -> None:
    volume = np.random.default_rng(0).random((5, 6, 7), np.float32)
    box = [(1.0, 4.0), (0.0, 6.0), (2.0, 7.0)]
    back = np.zeros_like(volume)
    extraction._put(back, extraction._cube(volume, box, (6, 6, 10)), box)
    assert np.array_equal(back[1:4, :, 2:], volume[1:4, :, 2:])
    assert back.sum() == pytest.approx(volume[1:4, :, 2:].sum())


class Installed:
    """What importlib.metadata says of a package whose files lie in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def locate_file(self, name: str) -> Path:
        return self._folder / name


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that counts as the one where deepbet is installed."""
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Installed(tmp_path))
    deepbet.load_networks.cache_clear()
    return tmp_path


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    deepbet.load_networks.cache_clear()
    with pytest.raises(
        WeightsError, match=r'not installed here\. Install it with pip install "a2fseg\[raw\]", or give a'
    ):
        deepbet.load_networks()


def test_a_missing_file_is_named(installed: Path) -> None:
    with pytest.raises(WeightsError, match=r"bbox_model\.pt: a file of deepbet that cannot be read"):
        deepbet.load_networks()


def test_another_file_is_never_run(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was run"))
    for name in deepbet.FILES:
        (installed / name).parent.mkdir(parents=True, exist_ok=True)
        (installed / name).write_bytes(b"a program")
    digest = hashlib.sha256(b"a program").hexdigest()[:12]
    with pytest.raises(
        WeightsError, match=rf"bbox_model\.pt: not the file of deepbet 1\.0\.2, and not run: SHA-256 {digest}"
    ):
        deepbet.load_networks()


def test_the_packages_own_code_is_not_imported() -> None:

    deepbet.load_networks()
    assert not {"deepbet", "customtkinter"} & set(sys.modules)


def shares(*boxes: slice) -> list[Array]:
    """Volumes of 4 x 10 x 10 voxels, 1 in the columns of a box."""
    volumes = []
    for box in boxes:
        volume = np.zeros((4, 10, 10), np.float32)
        volume[:, :, box] = 1
        volumes.append(volume)
    return volumes


def columns(mask: Array) -> list[int]:
    assert (mask == mask[0, 0]).all()
    return np.flatnonzero(mask[0, 0]).tolist()


def test_the_t1_weighted_ones_decide() -> None:
    t1c, t2 = shares(slice(2, 8), slice(1, 9))
    agreed = agree({"t2": t2, "t1c": t1c})
    assert columns(agreed.mask) == [2, 3, 4, 5, 6, 7]
    assert agreed.dice == {"t1c": 1.0, "t2": pytest.approx(2 * 6 / (6 + 8))}


def test_flair_decides_where_t1c_and_t1_part() -> None:
    t1c, t1, flair, t2 = shares(slice(2, 8), slice(2, 9), slice(2, 9), slice(2, 8))
    assert columns(agree({"t1c": t1c, "t1": t1, "flair": flair, "t2": t2}).mask) == [2, 3, 4, 5, 6, 7, 8]
    t1c, flair, t2 = shares(slice(2, 8), slice(2, 9), slice(2, 9))
    assert columns(agree({"t1c": t1c, "flair": flair, "t2": t2}).mask) == [2, 3, 4, 5, 6, 7]


def test_who_shows_nothing_has_no_vote() -> None:
    t1c, flair = shares(slice(0, 5), slice(0, 8))
    t1c[:, :, 5:] = np.nan
    agreed = agree({"t1c": t1c, "flair": flair})
    assert columns(agreed.mask) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert agreed.dice == {"t1c": 1.0, "flair": 1.0}


def test_the_one_that_all_contradict_is_left_out() -> None:
    t1c, flair, t2 = shares(slice(0, 3), slice(2, 9), slice(2, 9))
    agreed = agree({"t1c": t1c, "flair": flair, "t2": t2})
    assert columns(agreed.mask) == [2, 3, 4, 5, 6, 7, 8]
    assert agreed.left_out == ("t1c",)
    assert agreed.warnings == ("t1c: its brain mask contradicts the others (Dice 0.20), not used",)


def test_two_that_contradict_each_other_are_said() -> None:
    t1c, flair = shares(slice(0, 5), slice(4, 9))
    agreed = agree({"t1c": t1c, "flair": flair})
    assert columns(agreed.mask) == [0, 1, 2, 3, 4]
    assert agreed.warnings == ("the brain masks contradict each other (Dice of t1c and flair 0.20): look at them",)


def test_agreement_of_nothing() -> None:
    with pytest.raises(ValueError, match="at least one volume"):
        agree({})


PERSON = {
    "t1c": ("MRHR_T1_AX_POST_GAD_SE_13_se2d1r", "t1c", 0.96),
    "t1": ("T1_AX_SE_10_se2d1", "t1", 0.96),
    "flair": ("MRHR_FLAIR_AX_SE_IR_5_tir2d1_21", "fla", 0.93),
    "t2": ("MRHR_T2_AX_SE_2_tse2d1_11", "t2", 0.93),
}


@pytest.fixture(scope="module")
def person() -> Path:
    folder = RAW / "TCGA-FG-6692"
    if not folder.is_dir():
        pytest.skip("the raw persons (../shared/data/raw) are not on this machine")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("modality", PERSON)
def test_a_raw_person_against_hd_bet(person: Path, modality: str) -> None:
    name, reference, least = PERSON[modality]
    found = extract_brain(read_image(person / f"{name}.nii.gz"))
    expected = read_image(person / "reference" / f"hdbet_mask_{reference}.nii.gz").array > 0
    assert found.problem is None
    assert dice(found.mask, expected) > least


@pytest.mark.slow
def test_a_slab_of_a_raw_person(person: Path) -> None:
    """27 mm of T1c. Stretched to a cube, as deepbet takes it, it has Dice 0.88."""
    image = read_image(person / f"{PERSON['t1c'][0]}.nii.gz")
    expected = read_image(person / "reference" / "hdbet_mask_t1c.nii.gz").array[10:15] > 0
    geometry = Geometry((5, *image.array.shape[1:]), image.geometry.spacing_mm, direction=image.geometry.direction)
    found = extract_brain(MedicalImage(image.array[10:15].copy(), geometry, image.path))
    assert dice(found.mask, expected) > 0.96
    assert found.warnings


@pytest.mark.slow
@pytest.mark.parametrize("sequence", ["T1W", "T2W", "FLAIR"])
def test_the_other_raw_person_has_as_much_brain_as_the_reference(sequence: str) -> None:
    folder = RAW / "open_ms_01"
    if not folder.is_dir():
        pytest.skip("the raw persons (../shared/data/raw) are not on this machine")
    found = extract_brain(read_image(folder / f"study1_{sequence}.nii.gz"))
    assert found.problem is None
    assert found.volume_ml == pytest.approx(1308, rel=0.08)  # the mask that comes with the images
