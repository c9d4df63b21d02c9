"""Pictures that show what they should, read back pixel by pixel, and sizes that can be checked by hand."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from a2fseg_cli.reporting.charts import SERIES_COLOURS, write_attention_bars, write_dice_boxes, write_learning_curves
from a2fseg_cli.reporting.progression import write_subset_progression
from a2fseg_cli.reporting.slices import Backdrop, grey_limits
from a2fseg_cli.reporting.volumes import TissueRow, largest_axial_diameters_mm, tissue_table

NAMES = ("background", "NCR", "ED", "ET")
REGIONS = {"WT": ("NCR", "ED", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",)}
HUES = ["red", "green", "blue"]
Pixels = npt.NDArray[np.float64]


def pixels(path: Path) -> Pixels:
    """RGB (rows, columns, 3), 0 to 1."""
    from matplotlib.image import imread

    return imread(path)[..., :3].astype(np.float64)


def hue_area(picture: Pixels, hue: str) -> int:
    """How many pixels are clearly redder, greener or bluer than anything else."""
    channel = HUES.index(hue)
    others = np.delete(picture, channel, axis=-1).max(axis=-1)
    return int((picture[..., channel] - others > 0.15).sum())


def block_patient(shape: tuple[int, int, int] = (40, 60, 50)) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """A grey block of brain; in its left, front and upper part a tumour of nested blocks."""
    image = np.zeros(shape, np.float32)
    image[4:-4, 4:-4, 4:-4] = 100 + np.random.default_rng(0).normal(0, 5, image[4:-4, 4:-4, 4:-4].shape)
    classes = np.zeros(shape, np.uint8)
    classes[20:34, 8:28, 28:44] = 2
    classes[23:31, 12:24, 31:41] = 3
    classes[25:29, 15:21, 34:38] = 1
    return image, classes


def test_import_does_not_load_matplotlib() -> None:
    program = (
        "import sys, a2fseg_cli.reporting.preview, a2fseg_cli.reporting.charts, a2fseg_cli.reporting.volumes;"
        "assert not {'matplotlib', 'SimpleITK', 'torch', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_subset_progression_has_one_column_each(tmp_path: Path) -> None:
    image, truth = block_patient()
    only_oedema = np.where(truth > 0, 2, 0).astype(np.uint8)
    columns = [("FLAIR", only_oedema), ("+ T1c", truth), ("+ T1", np.zeros_like(truth))]
    backdrop = Backdrop(image, grey_limits(image[image > 0]))
    write_subset_progression(tmp_path / "p.png", backdrop, columns, truth, (1, 1, 1), NAMES, "one patient", "paper")
    picture = pixels(tmp_path / "p.png")
    picture = picture[: int(picture.shape[0] * 0.85)]  # without the legend
    parts = np.array_split(picture, 4, axis=1)
    found = [[hue for hue in HUES if hue_area(part, hue) > 100] for part in parts]
    assert found == [["red"], HUES, [], HUES]
    with pytest.raises(ValueError, match="shape"):
        write_subset_progression(tmp_path / "q.png", backdrop, [("FLAIR", truth[1:])], truth, (1, 1, 1))


class TestCharts:
    @staticmethod
    def colour_boxes(path: Path, colour: str) -> tuple[int, int]:
        """Pixels of a colour, and the height in pixels of its highest column."""
        from matplotlib.colors import to_rgb

        hit = np.abs(pixels(path) - to_rgb(colour)).max(axis=-1) < 0.01
        return int(hit.sum()), int(hit.sum(axis=0).max())

    def test_attention_bars_are_as_high_as_their_weights(self, tmp_path: Path) -> None:
        write_attention_bars(tmp_path / "p.png", {"ET": {"t1c": (0.6, 0.0), "flair": (0.3, 0.0)}})
        (_, high), (_, low) = (self.colour_boxes(tmp_path / "p.png", colour) for colour in SERIES_COLOURS[:2])
        assert high / low == pytest.approx(2, rel=0.05)

    def test_attention_bars_leave_out_what_is_undefined(self, tmp_path: Path) -> None:
        write_attention_bars(
            tmp_path / "p.png", {"ET": {"t1": (0.5, 0.1), "t2": (math.nan, math.nan)}, "ED": {"t1": (0.5, math.nan)}}
        )
        assert self.colour_boxes(tmp_path / "p.png", SERIES_COLOURS[0])[0] > 1000
        # Only the legend's patch: smaller than any bar.
        assert self.colour_boxes(tmp_path / "p.png", SERIES_COLOURS[1])[0] < 1000

    def test_dice_boxes_of_all_subsets(self, tmp_path: Path) -> None:
        modalities = ("t1", "t1c", "t2", "flair")
        subsets = ["+".join(subset) for size in range(1, 5) for subset in combinations(modalities, size)]
        rng = np.random.default_rng(0)
        scores = {s: {region: rng.beta(8, 2, 9).tolist() for region in REGIONS} for s in subsets}
        scores["t1"]["ET"] = [math.nan] * 9
        write_dice_boxes(tmp_path / "p.png", scores)
        picture = pixels(tmp_path / "p.png")
        assert picture.shape[1] > 1300
        gaps = []
        for panel in range(3):
            rows = np.array_split(picture[: int(picture.shape[0] * 0.87)], 3)[panel]
            coloured = (np.ptp(rows, axis=-1) > 0.15).any(axis=0).astype(int)
            gaps.append(int((np.diff(coloured) == 1).sum()))
        assert gaps == [15, 15, 14]  # one box a subset, but none where all scores are undefined

    def test_learning_curves_from_the_text_of_a_csv(self, tmp_path: Path) -> None:
        rows: list[dict[str, float | int | str | None]] = [
            {
                "epoch": str(e),
                "step": e * 100,
                "loss": str(9 - e),
                "learning_rate": 0.01 / e,
                "WT t1": "",
                "score": None,
            }
            for e in range(1, 5)
        ]
        write_learning_curves(tmp_path / "short.png", rows)
        rows[-1] |= {"WT t1": "0.8", "WT flair": 0.9, "score": 0.85}
        write_learning_curves(tmp_path / "long.png", rows)
        short, long = (pixels(tmp_path / f"{name}.png") for name in ("short", "long"))
        inches = [picture.shape[0] / 170 for picture in (short, long)]
        assert inches == pytest.approx([0.4 + 2 * 2.0, 0.4 + 4 * 2.0], abs=0.02)  # loss, rate; then WT and score too

    def test_falling_loss_falls(self, tmp_path: Path) -> None:
        write_learning_curves(tmp_path / "p.png", [{"epoch": e, "loss": 10.0 - e} for e in range(10)])
        blue = pixels(tmp_path / "p.png")[..., 2] - pixels(tmp_path / "p.png")[..., 0] > 0.3
        rows, columns = np.nonzero(blue)
        assert np.corrcoef(rows, columns)[0, 1] > 0.98

    def test_nothing_to_draw_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no attention"):
            write_attention_bars(tmp_path / "p.png", {})
        with pytest.raises(ValueError, match="no Dice"):
            write_dice_boxes(tmp_path / "p.png", {})
        with pytest.raises(ValueError, match="no row"):
            write_learning_curves(tmp_path / "p.png", [{"epoch": 1, "loss": ""}])
        assert not list(tmp_path.iterdir())


class TestTissueTable:
    def test_by_hand(self) -> None:
        # 2 x 3 x 4 = 24 voxels of 3 x 2 x 1 = 6 mm3 are 144 mm3, 0.144 mL.
        classes = np.zeros((4, 5, 6), np.uint8)
        classes[1:3, 1:4, 1:5] = 3
        classes[0, 0, :2] = 1
        rows = tissue_table(classes, NAMES, (0, 1, 2, 4), REGIONS, (3, 2, 1))
        assert rows == [
            TissueRow(1, "NCR", 2, pytest.approx(0.012)),
            TissueRow(2, "ED", 0, 0.0),
            TissueRow(4, "ET", 24, pytest.approx(0.144)),
            TissueRow(None, "WT", 26, pytest.approx(0.156)),
            TissueRow(None, "TC", 26, pytest.approx(0.156)),
            TissueRow(None, "ET", 24, pytest.approx(0.144)),
        ]
        assert json.loads(json.dumps([vars(row) for row in rows]))[2]["label"] == 4

    def test_a_class_without_a_name_is_refused(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            tissue_table(np.full((1, 1, 1), 9, np.uint8), NAMES, (0, 1, 2, 4), REGIONS, (1, 1, 1))


class TestDiameters:
    def test_a_row_of_voxels_is_as_long_as_its_voxels(self) -> None:
        mask = np.zeros((3, 8, 9), np.bool_)
        mask[1, 4, 2:7] = True
        assert largest_axial_diameters_mm(mask, (9, 2, 3)) == pytest.approx((5 * 3, 2))

    def test_empty_and_single(self) -> None:
        mask = np.zeros((3, 4, 5), np.bool_)
        assert largest_axial_diameters_mm(mask, (1, 1, 1)) == (0, 0)
        mask[1, 1, 1] = True
        assert largest_axial_diameters_mm(mask, (1, 1, 1)) == pytest.approx((1, 1))

    def test_rectangle(self) -> None:
        # 41 x 31 voxels: from corner to corner, less what smoothing rounds off. Across, at a right angle, a chord of
        # the rectangle as steep as 41/31 spans its whole lower side of 31.
        mask = np.zeros((1, 40, 50), np.bool_)
        mask[0, 5:36, 5:46] = True
        longest, across = largest_axial_diameters_mm(mask, (1, 1, 1))
        assert math.hypot(41, 31) - 2 < longest < math.hypot(41, 31)
        assert across == pytest.approx(31 * math.hypot(41, 31) / 41, abs=1)

    @pytest.mark.parametrize("angle", [0.0, 0.3, 0.8, 1.4, 2.5])
    def test_ellipse_at_any_angle(self, angle: float) -> None:
        y, x = np.ogrid[-70:70:0.5, -70:70:0.5]
        u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        mask = ((u / 60) ** 2 + (v / 25) ** 2 <= 1)[None]
        assert largest_axial_diameters_mm(mask, (1, 0.5, 0.5)) == pytest.approx((120, 50), abs=1)

    def test_spacing_stretches(self) -> None:
        y, x = np.ogrid[-50:50, -50:50]
        disc = (x**2 + y**2 <= 40**2)[None]
        assert largest_axial_diameters_mm(disc, (1, 0.5, 1.5)) == pytest.approx((120, 40), abs=1)

    def test_slices_and_lesions_are_not_joined(self) -> None:
        mask = np.zeros((9, 30, 30), np.bool_)
        mask[0, 2:6, 2:6] = True  # 4 x 4, far from the other lesion in the same slice
        mask[0, 20:27, 20:22] = True
        mask[5:9, 10, 10] = True  # long only from slice to slice
        longest, across = largest_axial_diameters_mm(mask, (10, 1, 1))
        assert longest == pytest.approx(math.hypot(7, 1))
        assert across <= 2.1

    @settings(max_examples=60)
    @given(st.integers(0, 2**32 - 1), st.floats(0.4, 3), st.floats(0.4, 3))
    def test_longest_is_the_brute_force_one(self, seed: int, height_mm: float, width_mm: float) -> None:
        rng = np.random.default_rng(seed)
        mask = np.zeros((1, 7, 7), np.bool_)  # 8 voxels across, and the outline would be smoothed
        mask[0, 1:6, 1:6] = rng.random((5, 5)) < 0.9
        mask[0, 3] = mask[0, :, 3] = True
        parts, count = ndimage.label(mask[0], np.ones((3, 3)))
        expected = 0.0
        for part in range(1, count + 1):
            y, x = np.nonzero(parts == part)
            ends = np.concatenate(
                [np.stack((y + dy, x + dx), 1) for dy, dx in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))]
            )
            ends = ends * (height_mm, width_mm)
            expected = max(expected, float(np.linalg.norm(ends[:, None] - ends, axis=-1).max()))
        longest, across = largest_axial_diameters_mm(mask, (1, height_mm, width_mm))
        assert longest == pytest.approx(expected)
        assert 0 < across <= longest + 1e-9
