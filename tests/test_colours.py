"""Colours that everybody tells apart, and the same ones everywhere."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

from a2fseg_cli.errors import UsageError
from a2fseg_cli.reporting.colours import (
    OTHER_COLOURS,
    PALETTES,
    Colour,
    check_palette,
    class_colours,
    hex_colour,
    long_name,
)
from a2fseg_cli.reporting.label_tables import bids_lookup_table, itk_snap_labels

Values = npt.NDArray[np.float64]
# What linear RGB becomes without one kind of cones: Machado, Oliveira and Fernandes, IEEE TVCG 15 (2009), severity 1.
SIGHT = {
    "normal": np.eye(3),
    "no red cones": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green cones": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no blue cones": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
GREYS = np.repeat(np.linspace(0, 1, 41)[:, None], 3, axis=1)


def lab(colours: object, sight: str) -> Values:
    """CIELAB (D65) of sRGB colours (n, 3) as they are seen."""
    rgb = np.asarray(colours, np.float64)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ SIGHT[sight].T, 0, 1)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = seen @ to_xyz.T / (0.95047, 1, 1.08883)
    x, y, z = np.moveaxis(np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * 29**2 / (3 * 6**2) + 4 / 29), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def difference(first: Values, second: Values) -> Values:
    """CIEDE2000 (Sharma, Wu and Dalal, Color Res. Appl. 30, 2005), all weights 1."""
    (l1, a1, b1), (l2, a2, b2) = np.moveaxis(first, -1, 0), np.moveaxis(second, -1, 0)
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean**7 / (mean**7 + 25.0**7))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = (h2 - h1 + 180) % 360 - 180
    hue = h1 + turn / 2
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    t = 1 - 0.17 * np.cos(np.radians(hue - 30)) + 0.24 * np.cos(np.radians(2 * hue))
    t += 0.32 * np.cos(np.radians(3 * hue + 6)) - 0.2 * np.cos(np.radians(4 * hue - 63))
    dl = (l2 - l1) / (1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2))
    dc = (c2 - c1) / (1 + 0.045 * chroma)
    dh = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * chroma * t)
    rotation = -2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7))
    rotation *= np.sin(np.radians(60 * np.exp(-((((hue % 360) - 275) / 25) ** 2))))
    return np.sqrt(dl**2 + dc**2 + dh**2 + rotation * dc * dh)


def smallest(colours: list[Colour], sight: str) -> float:
    seen = lab(colours, sight)
    return min(float(difference(a, b)) for a, b in combinations(seen, 2))


def nearest_grey(colours: list[Colour], sight: str) -> float:
    return float(difference(lab(colours, sight)[:, None], lab(GREYS, sight)).min())


def test_the_measure_is_the_published_one() -> None:
    """Pairs 1, 17 and 25 of Sharma, Wu and Dalal's test data."""
    pairs = [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ]
    for first, second, expected in pairs:
        got = difference(np.array(first, np.float64), np.array(second, np.float64))
        assert float(got) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("sight", SIGHT)
def test_ours_are_told_apart_by_everybody(sight: str) -> None:
    """As far as the table's comment says: from each other by 28, from any grey by 17."""
    colours = class_colours(["NCR", "ED", "ET"])
    assert smallest(colours, sight) > 28
    assert nearest_grey(colours, sight) > 17
    assert smallest([*colours, *OTHER_COLOURS], sight) > 11.9


def test_the_papers_red_and_green_are_one_without_green_cones() -> None:
    colours = class_colours(["NCR", "ED", "ET"], "paper")
    assert smallest(colours, "no green cones") == pytest.approx(9.9, abs=0.1)
    assert nearest_grey(colours, "no red cones") == pytest.approx(20.2, abs=0.1)


def test_names_and_cycle() -> None:
    ours = PALETTES["ours"]
    assert class_colours(["cavity", "et"]) == [OTHER_COLOURS[0], ours["ET"]]
    assert class_colours(["WT", "TC", "ET"]) == class_colours(["ED", "NCR", "ET"])
    many = class_colours([str(number) for number in range(9)])
    assert len(set(many)) == len(OTHER_COLOURS) == 7
    assert long_name("et") == "et enhancing"
    assert long_name("cavity") == "cavity"
    assert hex_colour((1, 0.5, 0)) == "#ff8000"
    with pytest.raises(UsageError, match=r"colours pink: expected ours or paper\."):
        check_palette("pink")


@pytest.mark.parametrize(("palette", "red", "green", "blue"), [("ours", 191, 255, 26), ("paper", 41, 92, 255)])
def test_label_files_have_them(palette: str, red: int, green: int, blue: int) -> None:
    names, values = ("background", "NCR", "ED", "ET"), (0, 1, 2, 4)
    rows = [line.split() for line in itk_snap_labels(names, values, palette).splitlines() if line[0] != "#"]
    assert rows[-1][:4] == ["4", str(red), str(green), str(blue)]
    table = bids_lookup_table(names, values, palette).splitlines()
    assert table[-1] == f"4\tenhancing\tET\t#{red:02x}{green:02x}{blue:02x}"
