"""The one table of colours and long names: of classes and regions, in pictures, pages, charts and label files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from a2fseg_cli.errors import UsageError

Colour = tuple[float, float, float]  # red, green, blue, 0 to 1

# A region takes the colour of the class that makes its outer border: WT that of oedema, TC that of the core.
#
# `ours` is what came out of a search over 4096 colours of sRGB (orange, blue and yellow-green ones at least 48 light
# in CIELAB) for the largest smallest difference, then rounded. Smallest CIEDE2000 between two of the three, with
# normal sight and with no red, no green and no blue cones (Machado et al., IEEE TVCG 2009, severity 1): 50, 40, 28
# and 30; to any grey: 28, 24, 26 and 17. The paper's three: 47, 32, 10 (red and green) and 24; to grey 29, 20, 24, 20.
PALETTES: dict[str, Mapping[str, Colour]] = {
    "ours": {
        "NCR": (0.80, 0.32, 0.04),
        "ED": (0.20, 0.50, 1.00),
        "ET": (0.75, 1.00, 0.10),
        "TC": (0.80, 0.32, 0.04),
        "WT": (0.20, 0.50, 1.00),
    },
    # Figure 2 of the paper: oedema red, enhancing blue, necrotic and non-enhancing core green.
    "paper": {
        "NCR": (0.10, 0.75, 0.20),
        "ED": (0.90, 0.12, 0.12),
        "ET": (0.16, 0.36, 1.00),
        "TC": (0.10, 0.75, 0.20),
        "WT": (0.90, 0.12, 0.12),
    },
}
DEFAULT_PALETTE = "ours"
# For other classes, each the one farthest from ours, from grey and from those before it: 18 for the first, 12 or more
# for all seven (CIEDE2000, the smallest of the four kinds of sight).
OTHER_COLOURS: tuple[Colour, ...] = (
    (0.00, 0.80, 1.00),
    (0.80, 0.70, 0.50),
    (0.50, 0.30, 0.60),
    (0.90, 0.60, 0.00),
    (0.70, 0.50, 0.70),
    (1.00, 0.90, 0.70),
    (0.60, 0.40, 0.30),
)
LONG_NAMES = {
    "ED": "oedema",
    "ET": "enhancing",
    "NCR": "necrotic and non-enhancing core",
    "TC": "tumour core",
    "WT": "whole tumour",
}


def check_palette(palette: str) -> None:
    """Return if there are such colours. Raises: UsageError."""
    if palette not in PALETTES:
        raise UsageError(f"colours {palette}: expected {' or '.join(PALETTES)}.")


def class_colours(names: Sequence[str], palette: str = DEFAULT_PALETTE) -> list[Colour]:
    """Return a colour for each name of a class or a region: the palette's where it has one, else from a cycle.

    Args:
        names: Without the background.
        palette: ours, or paper.
    """
    known = PALETTES[palette]
    others = [name for name in names if name.upper() not in known]
    return [known.get(name.upper()) or OTHER_COLOURS[others.index(name) % len(OTHER_COLOURS)] for name in names]


def hex_colour(colour: Colour) -> str:
    """Return a colour as HTML and BIDS write it, `#rrggbb`."""
    return "#" + "".join(f"{round(255 * share):02x}" for share in colour)


def long_name(name: str) -> str:
    """Return a class's or a region's name with what it stands for, where that is known: `ED oedema`."""
    return f"{name} {LONG_NAMES[name.upper()]}" if name.upper() in LONG_NAMES else name
