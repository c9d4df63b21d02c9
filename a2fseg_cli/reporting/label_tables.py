"""Names and colours of a segmentation's values, as other programs read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from a2fseg_cli.imaging.segments import Segment
from a2fseg_cli.reporting.overlay import LONG_NAMES, class_colours, long_name

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


def itk_snap_labels(class_names: Sequence[str], values: Sequence[int]) -> str:
    """Return ITK-SNAP's label description file, in the colours of the preview.

    Args:
        class_names: The background first.
        values: Voxel value of each class.
    """
    rows = [
        f'{value:5}{red:6}{green:5}{blue:5}        1  1  1    "{printable}"\n'
        for value, name, (red, green, blue) in _labels(class_names, values)
        for printable in (long_name(name).replace('"', "'"),)
    ]
    return _ITK_SNAP_HEADING + "".join(rows)


def bids_lookup_table(class_names: Sequence[str], values: Sequence[int]) -> str:
    """Return the lookup table `dseg.tsv` (BIDS 1.11.2, Imaging derivatives, Common image-derived labels).

    Args:
        class_names: The background first.
        values: Voxel value of each class.
    """
    rows = [
        f"{value}\t{LONG_NAMES.get(name.upper(), name)}\t{name}\t#{red:02x}{green:02x}{blue:02x}\n"
        for value, name, (red, green, blue) in _labels(class_names, values)
    ]
    return "index\tname\tabbreviation\tcolor\n" + "".join(rows)


def segments(class_names: Sequence[str], values: Sequence[int]) -> tuple[Segment, ...]:
    """Return each class but the background, in the order of the classes, with the name and colour of the preview.

    Args:
        class_names: The background first.
        values: Voxel value of each class.
    """
    rows = {name: Segment(value, name, long_name(name), colour) for value, name, colour in _labels(class_names, values)}
    return tuple(rows[name] for name in class_names[1:])


def _labels(class_names: Sequence[str], values: Sequence[int]) -> Iterator[tuple[int, str, tuple[int, int, int]]]:
    """Yield value, name and colour (0 to 255) of each class but the background, by value."""
    for value, name, (r, g, b) in sorted(zip(values[1:], class_names[1:], class_colours(class_names[1:]), strict=True)):
        yield value, name, (round(255 * r), round(255 * g), round(255 * b))
