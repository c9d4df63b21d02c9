"""Names and colours of a segmentation's values, as other programs read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from a2fseg_cli.reporting.colours import DEFAULT_PALETTE, LONG_NAMES, Colour, class_colours, hex_colour, long_name

_ITK_SNAP_HEADING = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# Fields:
#    IDX:   Zero-based index
#    -R-:   Red color component (0..255)
#    -G-:   Green color component (0..255)
#    -B-:   Blue color component (0..255)
#    -A-:   Label transparency (0.00 .. 1.00)
#    VIS:   Label visibility (0 or 1)
#    IDX:   Label mesh visibility (0 or 1)
#  LABEL:   Label description
################################################
    0     0    0    0        0  0  0    "Clear Label"
"""


def itk_snap_labels(class_names: Sequence[str], values: Sequence[int], palette: str = DEFAULT_PALETTE) -> str:
    """Return ITK-SNAP's label description file, in the colours of the preview.

    Args:
        class_names: The background first.
        values: Voxel value of each class.
        palette: Which colours, a key of PALETTES.
    """
    rows = []
    for value, name, colour in _labels(class_names, values, palette):
        red, green, blue = (round(255 * share) for share in colour)
        printable = long_name(name).replace('"', "'")
        rows.append(f'{value:5}{red:6}{green:5}{blue:5}        1  1  1    "{printable}"\n')
    return _ITK_SNAP_HEADING + "".join(rows)


def bids_lookup_table(class_names: Sequence[str], values: Sequence[int], palette: str = DEFAULT_PALETTE) -> str:
    """Return the lookup table `dseg.tsv` (BIDS 1.11.2, Imaging derivatives, Common image-derived labels).

    Args:
        class_names: The background first.
        values: Voxel value of each class.
        palette: Which colours, a key of PALETTES.
    """
    rows = [
        f"{value}\t{LONG_NAMES.get(name.upper(), name)}\t{name}\t{hex_colour(colour)}\n"
        for value, name, colour in _labels(class_names, values, palette)
    ]
    return "index\tname\tabbreviation\tcolor\n" + "".join(rows)


def _labels(class_names: Sequence[str], values: Sequence[int], palette: str) -> Iterator[tuple[int, str, Colour]]:
    """Yield value, name and colour of each class but the background, by value."""
    yield from sorted(zip(values[1:], class_names[1:], class_colours(class_names[1:], palette), strict=True))
