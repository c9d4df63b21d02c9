"""The picture of a patient, read back pixel by pixel, and the slices in it, found by hand."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from scipy import ndimage

from a2fseg_cli.api import ReadingOptions, find_cases
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import ResourceError
from a2fseg_cli.inference.patient import load_patient
from a2fseg_cli.modalities import picture_order
from a2fseg_cli.reporting.colours import PALETTES, Colour
from a2fseg_cli.reporting.outlines import outlines
from a2fseg_cli.reporting.preview import write_preview, write_thumbnail, write_uncertainty
from a2fseg_cli.reporting.scene import Scene
from a2fseg_cli.reporting.slices import Backdrop, Cut, grey_limits, main_cuts

NAMES = ("background", "NCR", "ED", "ET")
MEMBERS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
Pixels = npt.NDArray[np.float64]
WHITE = (1.0, 1.0, 1.0)


def pixels(path: Path) -> Pixels:
    """RGB (rows, columns, 3), 0 to 1."""
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"), np.float64) / 255


def near(picture: Pixels, colour: Colour, by: float = 0.12) -> npt.NDArray[np.bool_]:
    return np.abs(picture - colour).max(axis=-1) < by


def block_scene(shape: tuple[int, int, int] = (40, 60, 50), **more: Any) -> Scene:
    """A grey block of brain, 1 mm; in its left, front and upper part a tumour of nested blocks."""
    image = np.zeros(shape, np.float32)
    image[4:-4, 4:-4, 4:-4] = 100 + np.random.default_rng(0).normal(0, 5, image[4:-4, 4:-4, 4:-4].shape)
    classes = np.zeros(shape, np.uint8)
    classes[20:34, 8:28, 28:44] = 2
    classes[23:31, 12:24, 31:41] = 3
    classes[23:31, 15:21, 34:38] = 1
    return Scene({"t1c": Backdrop(image, (0, 200)), **more}, classes, (1, 1, 1), NAMES, MEMBERS)


def drawn(scene: Scene, tmp_path: Path) -> Pixels:
    write_preview(tmp_path / "p.png", scene, "one patient")
    return pixels(tmp_path / "p.png")


class TestSlices:
    def test_each_region_where_its_largest_part_is_largest(self) -> None:
        """The whole tumour is largest at 50, the core at 30, enhancing tumour at 10; what lies apart does not count."""
        classes = np.zeros((60, 40, 40), np.uint8)
        classes[5:56, 10:20, 10:20] = 2
        classes[50, 5:25, 5:25] = 2
        classes[5:40, 12:16, 12:16] = 1
        classes[30, 11:17, 11:17] = 1
        classes[8:13, 12:15, 12:15] = 3
        classes[10, 11:16, 11:16] = 3
        classes[2, 28:, :] = 3  # the largest area of all, in one slice far from the tumour
        cuts = main_cuts(classes, MEMBERS, (1, 1, 1))
        assert [(cut.plane, cut.position, cut.reason) for cut in cuts[:3]] == [
            (0, 50, "largest WT"),
            (0, 30, "largest TC"),
            (0, 10, "largest ET"),
        ]
        assert [cut.main for cut in cuts] == [False, False, True, False, False]
        assert [cut.plane for cut in cuts] == [0, 0, 0, 1, 2]
        assert cuts[3].position in range(10, 20)

    def test_slices_close_together_are_one_and_others_fill_up(self) -> None:
        classes = block_scene().classes
        cuts = main_cuts(classes, MEMBERS, (1, 1, 1))
        assert [cut.position for cut in cuts if cut.reason] == [27]  # all three regions are largest there
        assert len([cut for cut in cuts if cut.plane == 0]) == 1  # 14 slices of 1 mm: no second one 8 mm away
        thick = main_cuts(classes, MEMBERS, (3, 1, 1))
        assert [cut.position for cut in thick if cut.plane == 0] == [31, 27, 23]

    def test_nothing_was_found(self) -> None:
        cuts = main_cuts(np.zeros((100, 40, 60), np.uint8), MEMBERS, (1, 1, 1))
        assert [(cut.plane, cut.position) for cut in cuts] == [(0, 65), (0, 50), (0, 35), (1, 20), (2, 30)]
        assert [cut.main for cut in cuts] == [False, True, False, False, False]

    def test_display_is_radiological(self) -> None:
        volume = np.arange(24).reshape(2, 3, 4)
        np.testing.assert_array_equal(Cut(0, 1).of(volume), volume[1])  # the front on top, the left on the right
        np.testing.assert_array_equal(Cut(1, 2).of(volume), volume[::-1, 2])  # the head on top
        np.testing.assert_array_equal(Cut(2, 3).of(volume), volume[::-1, :, 3])
        assert Cut(1, 0).pixel_mm((5, 2, 1)) == (5, 1)

    def test_black_and_white(self) -> None:
        """Of 0 to 1000 the 1st percentile is 10, the 99.5th 995; black is 15 % of 985 below."""
        assert grey_limits(np.arange(1001.0)) == pytest.approx((10 - 0.15 * 985, 995))
        assert grey_limits(np.array([np.nan])) == (0, 1)
        assert grey_limits(np.full(9, 7.0)) == (6, 8)

    def test_t1c_first(self) -> None:
        assert picture_order(["t1", "t1c", "t2", "flair"]) == ["t1c", "flair", "t2", "t1"]
        assert picture_order(["dwi", "t2", "flair"]) == ["flair", "t2", "dwi"]


class TestOutlines:
    def test_a_pixel_is_a_diamond(self) -> None:
        mask = np.zeros((5, 6), np.bool_)
        mask[2, 3] = True
        (line,) = outlines(mask)
        assert {tuple(point) for point in line.tolist()} == {(3.0, 2.5), (4.0, 2.5), (3.5, 2.0), (3.5, 3.0)}
        assert outlines(mask & False) == []

    def test_only_pieces_along_some_pixels(self) -> None:
        """Of a row of three pixels the first: from above its middle round its left side to below its middle, and on."""
        mask = np.zeros((3, 5), np.bool_)
        mask[1, 1:4] = True
        own = np.zeros_like(mask)
        own[1, 1] = True
        (piece,) = outlines(mask, own)
        assert {(1.0, 1.5), (1.5, 1.0), (1.5, 2.0)} <= {tuple(point) for point in piece.tolist()}
        assert piece[:, 0].max() == 2.5  # the steps that begin there reach the next pixel's middle
        assert piece[0].tolist() != piece[-1].tolist()
        (whole,) = outlines(mask, mask)
        assert whole[0].tolist() == whole[-1].tolist()
        assert outlines(mask, np.zeros_like(mask)) == []

    def test_a_core_without_a_rim_has_no_line_of_the_rim_under_its_own(self) -> None:
        scene = block_scene()
        classes = np.where(scene.classes == 3, 1, scene.classes).astype(np.uint8)
        found = {name: len(lines) for name, _, lines in replace(scene, classes=classes).lines(Cut(0, 27))}
        assert found == {"ED": 1, "ET": 0, "NCR": 1}

    def test_a_border_of_two_classes_is_one_line_of_the_inner_one(self) -> None:
        scene = block_scene()
        found = {name: lines for name, _, lines in scene.lines(Cut(0, 27))}
        assert list(found) == ["ED", "ET", "NCR"]
        assert all(len(lines) == 1 for lines in found.values())
        # NCR fills columns 34 to 37, so its line runs from 34 to 38; that of the rim round it from 31 to 41.
        assert [(lines[0][:, 0].min(), lines[0][:, 0].max()) for lines in found.values()] == [
            (28, 44),
            (31, 41),
            (34, 38),
        ]


class TestPicture:
    @pytest.mark.parametrize("palette", PALETTES)
    def test_every_class_has_its_line_and_the_tissue_stays_as_it_is(self, tmp_path: Path, palette: str) -> None:
        scene = block_scene()
        picture = drawn(replace(scene, palette=palette), tmp_path)
        above = picture[: int(picture.shape[0] * 0.9)]
        for index in (1, 2, 3):
            assert near(above, PALETTES[palette][NAMES[index]], 0.3).sum() > 300
        coloured = np.ptp(above, axis=-1) > 0.1
        grey = (np.ptp(above, axis=-1) < 0.02) & (above[..., 0] > 0.3) & (above[..., 0] < 0.7)
        assert coloured.sum() < 0.03 * grey.sum()

    def test_left_is_on_the_right_and_front_and_head_are_up(self, tmp_path: Path) -> None:
        picture = drawn(block_scene(), tmp_path)
        # One axial slice without and with outlines, a coronal and a sagittal one: 50, 50, 50, 60 mm wide.
        edges = np.cumsum([0, 50, 50, 50, 60]) / 210 * picture.shape[1]
        height = picture.shape[0]
        for panel, right in ((1, True), (2, True), (3, False)):
            part = picture[int(0.1 * height) : int(0.9 * height), int(edges[panel]) : int(edges[panel + 1])]
            rows, columns = np.nonzero(np.ptp(part, axis=-1) > 0.3)
            assert (columns.mean() > part.shape[1] / 2) == right
            assert rows.mean() < part.shape[0] / 2
        plain = picture[int(0.1 * height) : int(0.9 * height), : int(edges[1]) - 5]
        assert np.ptp(plain, axis=-1).max() < 0.02

    def test_thick_slices_are_as_high_as_thin_ones(self, tmp_path: Path) -> None:
        fine = block_scene()
        thick = Scene(
            {"t1c": Backdrop(fine.backdrops["t1c"].voxels[::4], (0, 200))}, fine.classes[::4], (4, 1, 1), NAMES, MEMBERS
        )
        heights = []
        for scene in (fine, thick):
            coloured = np.ptp(drawn(scene, tmp_path), axis=-1) > 0.3
            coronal = coloured[:1500, int(0.6 * coloured.shape[1]) : int(0.7 * coloured.shape[1])]
            rows = np.nonzero(coronal)[0]
            heights.append(rows.max() - rows.min())
        assert heights[1] == pytest.approx(heights[0], rel=0.2)

    def test_a_row_a_sequence(self, tmp_path: Path) -> None:
        scene = block_scene()
        voxels = scene.backdrops["t1c"].voxels
        one = drawn(scene, tmp_path).shape[0]
        two = drawn(replace(scene, backdrops={**scene.backdrops, "flair": Backdrop(voxels, (0, 300))}), tmp_path)
        assert two.shape[0] - one == pytest.approx(8 * 60, abs=8)  # 60 mm, 8 pixels each at the most
        # 100 of 0 to 200 is a half, 100 of 0 to 300 a third.
        middle = two[50:, two.shape[1] // 16]
        shades = np.median(middle[: one - 150][middle[: one - 150, 0] < 0.9]), np.median(middle[one:-60])
        assert shades == pytest.approx((0.5, 0.333), abs=0.03)

    def test_the_bar_is_as_long_as_it_says(self, tmp_path: Path) -> None:
        """A panel 50 mm wide has a bar of 20 mm, at 8 pixels a mm."""
        picture = drawn(block_scene(), tmp_path)
        bars = [near(row, WHITE).sum() for row in picture[-80:-63, 7:395]]
        assert max(bars) == pytest.approx(20 * 8, abs=3)

    def test_says_when_there_is_no_tumour(self, tmp_path: Path) -> None:
        scene = block_scene()
        picture = drawn(replace(scene, classes=np.zeros_like(scene.classes)), tmp_path)
        assert np.ptp(picture, axis=-1).max() < 0.01  # grey throughout
        foot = picture[-45:]
        assert (foot[:, 700:1150] < 0.3).any()  # words in the middle of the foot
        assert not (foot[:, :600] < 0.3).any()

    def test_legend_has_volumes_and_guesses(self) -> None:
        scene = replace(block_scene(), guesses=("NCR",), spacing_mm=(2, 1, 1))
        words = [text for text, _ in scene.legend]
        # 8 x 6 x 4 voxels of 2 mm3 are 384 mm3; 8 x 12 x 10 less these are 768, 1536 mm3.
        assert words[0] == "NCR necrotic and non-enhancing core, 0.4 mL (a guess)"
        assert words[2] == "ET enhancing, 1.5 mL"

    def test_slices_are_numbered_in_the_whole_image(self) -> None:
        scene = replace(block_scene(), start=(10, 20, 30), whole=(155, 240, 240))
        assert [scene.place(Cut(plane, 0)) for plane in range(3)] == [
            "axial 11 of 155",
            "coronal 21 of 240",
            "sagittal 31 of 240",
        ]

    def test_uncertainty_is_in_colour_where_the_network_is_unsure(self, tmp_path: Path) -> None:
        scene = block_scene()
        unsure = np.zeros(scene.classes.shape, np.float32)
        unsure[:, :30] = 0.6  # the front half
        write_uncertainty(tmp_path / "u.png", replace(scene, uncertainty=unsure))
        axial = pixels(tmp_path / "u.png")[60:-60, 5:395]
        coloured = np.ptp(axial, axis=-1) > 0.3
        half = axial.shape[0] // 2
        assert coloured[: half - 20].mean() > 0.9
        assert coloured[half + 20 :].mean() == 0

    def test_thumbnail(self, tmp_path: Path) -> None:
        write_thumbnail(tmp_path / "t.png", block_scene(), width=100)
        picture = pixels(tmp_path / "t.png")
        assert picture.shape == (120, 100, 3)
        rows, columns = np.nonzero(np.ptp(picture, axis=-1) > 0.2)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((16, 56, 56, 88), abs=2)

    def test_same_input_same_bytes_and_nothing_beside(self, tmp_path: Path) -> None:
        for name in ("a.png", "b.png"):
            write_preview(tmp_path / "new" / name, block_scene(), "case")
        assert (tmp_path / "new" / "a.png").read_bytes() == (tmp_path / "new" / "b.png").read_bytes()
        assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.png", "b.png"]

    def test_awkward_input(self, tmp_path: Path) -> None:
        scene = block_scene()
        voxels = scene.backdrops["t1c"].voxels.copy()
        voxels[26:28] = np.nan
        bare = {"a $\\frac{ 患者": Backdrop(voxels, grey_limits(voxels))}
        write_preview(tmp_path / "p.png", replace(scene, backdrops=bare), "b_c$ 患者")
        many = ("background", *(f"part {number}" for number in range(1, 13)))
        parts = np.zeros(scene.classes.shape, np.uint8)
        for index in range(1, 13):
            parts[10:30, 10:50, 3 * index : 3 * index + 3] = index
        other = replace(scene, classes=parts, class_names=many, members={"all": range(1, 13)}, spacing_mm=(0.3, 5, 1))
        write_preview(tmp_path / "m.png", other)
        one = Scene(
            {"t1": Backdrop(np.ones((1, 1, 1)), (0, 2))}, np.ones((1, 1, 1), np.uint8), (1, 1, 1), NAMES, MEMBERS
        )
        write_preview(tmp_path / "one.png", one)
        assert len(list(tmp_path.iterdir())) == 3

    def test_refuses_what_does_not_fit(self, tmp_path: Path) -> None:
        scene = block_scene()
        with pytest.raises(ValueError, match="shape"):
            replace(scene, classes=scene.classes[1:])
        with pytest.raises(ValueError, match="shape"):
            replace(scene, backdrops={})
        with pytest.raises(ValueError, match="no name"):
            replace(scene, class_names=NAMES[:3])
        (tmp_path / "file").touch()
        with pytest.raises(ResourceError):
            write_preview(tmp_path / "file" / "p.png", scene)

    def test_leaves_matplotlibs_settings_and_pyplot_alone(self) -> None:
        program = """
import sys, tempfile, matplotlib, numpy as np
from pathlib import Path
matplotlib.rcParams["font.size"] = 17.5
from a2fseg_cli.reporting.preview import write_preview
from a2fseg_cli.reporting.scene import Scene
from a2fseg_cli.reporting.slices import Backdrop
ones = np.ones((3, 4, 5), np.uint8)
scene = Scene({"t2": Backdrop(ones.astype(float), (0, 2))}, ones, (1, 1, 1), ("background", "ED"), {"WT": (1,)})
with tempfile.TemporaryDirectory() as folder:
    write_preview(Path(folder) / "p.png", scene)
assert matplotlib.rcParams["font.size"] == 17.5
assert "matplotlib.pyplot" not in sys.modules
"""
        subprocess.run([sys.executable, "-c", program], check=True)


def test_pictures_are_windowed_by_the_brain_whatever_lies_round_it(phantom: Path, tmp_path: Path) -> None:
    """A scalp ten times as bright as the brain changes neither black nor white; without pictures nothing is kept."""
    folder, mask = tmp_path / "P", tmp_path / "mask.nii.gz"
    folder.mkdir()
    source = sitk.ReadImage(str(phantom / "P1_t1c.nii.gz"))
    array = sitk.GetArrayFromImage(source).astype(np.float32)
    brain = array != array[0, 0, 0]
    scalp = ndimage.binary_dilation(brain, iterations=4) & ~brain
    for name, voxels in (("P_t1c.nii.gz", np.where(scalp, 10 * array.max(), array)), ("mask.nii.gz", brain)):
        image = sitk.GetImageFromArray(voxels.astype(np.float32))
        image.CopyInformation(source)
        sitk.WriteImage(image, str(folder / name if "t1c" in name else mask))
    (bare,), (skull,) = find_cases(phantom), find_cases(folder)
    bare = replace(bare, images={"t1c": bare.images["t1c"]})
    reading = ReadingOptions(brain_mask=mask)
    without = load_patient(bare, ModelConfig(), pictures=True).backdrops["t1c"]
    patient = load_patient(skull, ModelConfig(), reading, pictures=True)
    assert patient.backdrops["t1c"].limits == pytest.approx(without.limits, rel=0.02)
    assert patient.backdrops["t1c"].voxels.max() == pytest.approx(10 * array.max(), rel=1e-5)
    assert patient.backdrops["t1c"].voxels.shape == patient.framed(array).shape
    assert load_patient(skull, ModelConfig(), reading).backdrops == {}
