"""Label maps that exist, the expert's or another tool's: read as class indices, and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.imaging.geometry import Geometry, largest_corner_offset_mm, same_grid
from a2fseg_cli.imaging.labels import SCHEMES, detect_scheme, has_schemes, scheme_values, to_classes
from a2fseg_cli.imaging.reading import read_label_map

ClassMap = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LabelMap:
    """A label map as read: class indices (D, H, W) on the file's grid, and what was assumed of its values."""

    path: Path
    classes: ClassMap
    geometry: Geometry
    note: str | None


def read_classes(path: Path, config: ModelConfig, scheme: str = "auto", option: str = "--labels") -> LabelMap:
    """Return the classes of a label map.

    Args:
        path: The file.
        config: Whose classes; other tasks than BraTS have their label values in the weights.
        scheme: auto (what the values show), or a key of SCHEMES.
        option: The option that names the scheme, for messages.

    Raises:
        InputError: the file is not acceptable, or holds a value that is no label.
        UsageError: no such scheme.
    """
    if scheme not in ("auto", *SCHEMES):
        raise UsageError(f"{option} {scheme}: expected auto, {' or '.join(SCHEMES)}.")
    labels, geometry = read_label_map(path)
    note = None
    if scheme == "auto" and has_schemes(config):
        found = np.unique(labels).tolist()
        scheme = detect_scheme(found, str(path))
        if SCHEMES[scheme][-1] in found:
            note = f"labels read as {scheme} (ET is {SCHEMES[scheme][-1]})"
    values = scheme_values(config, scheme)
    return LabelMap(path, to_classes(labels, values, str(path)), geometry, note)


def check_on_grid(label_map: LabelMap, path: Path, geometry: Geometry) -> None:
    """Accept a label map on the grid of another file. Raises: InputError naming both."""
    if same_grid(label_map.geometry, geometry):
        return
    found, expected = (" x ".join(map(str, g.size[::-1])) for g in (label_map.geometry, geometry))
    if found == expected:
        found = f"corners {largest_corner_offset_mm(label_map.geometry, geometry):.3g} mm away"
        expected = "the same place"
    raise InputError(
        f"{label_map.path}: another grid ({found}) than {path} ({expected}). Bring the label map to that grid first."
    )
