"""Label maps that exist, the expert's or another tool's: read as class indices, and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.imaging.geometry import Geometry, axes_between, largest_corner_offset_mm, same_grid
from a2fseg_cli.imaging.labels import (
    ALSO_READ,
    CAVITY,
    SCHEMES,
    detect_scheme,
    has_schemes,
    parse_label_order,
    to_classes,
)
from a2fseg_cli.imaging.reading import read_label_map

ClassMap = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LabelMap:
    """A label map as read.

    Attributes:
        path: The file.
        classes: Class indices (D, H, W) on its grid.
        geometry: That grid.
        note: What was assumed of its values.
        values: Its voxel value of each class.
    """

    path: Path
    classes: ClassMap
    geometry: Geometry
    note: str | None
    values: tuple[int, ...] = ()


def read_classes(path: Path, config: ModelConfig, scheme: str = "auto", parameter: str = "labels") -> LabelMap:
    """Return the classes of a label map.

    Args:
        path: The file.
        config: Whose classes; other tasks than BraTS have their label values in the weights.
        scheme: auto (what the values and the name show), a key of SCHEMES, or an order as `NCR=2,ED=1,ET=3`.
        parameter: Where the scheme comes from, for messages.

    Raises:
        InputError: the file is not acceptable, or holds a value that is no label.
        UsageError: no such scheme or order.
    """
    order = parse_label_order(scheme, config.classes, parameter) if "=" in scheme else None
    if order is None and scheme not in ("auto", *SCHEMES):
        example = ",".join(f"{name}={index}" for index, name in enumerate(config.classes[1:], 1))
        raise UsageError(f"{parameter} {scheme}: expected auto, {', '.join(SCHEMES)}, or an order such as {example}.")
    labels, geometry = read_label_map(path)
    if order is not None or not has_schemes(config):
        order = order or config.label_values
        return LabelMap(path, to_classes(labels, order, str(path)), geometry, None, order)
    values = np.unique(labels).tolist()
    note = None
    if scheme == "auto":
        scheme = detect_scheme(values, str(path), parameter)
        if SCHEMES[scheme][-1] in values:
            note = f"labels read as {scheme} (ET is {SCHEMES[scheme][-1]})"
    elif 3 in values and ALSO_READ.get(scheme, {}).get(3) and SCHEMES[scheme][-1] not in values:
        note = f"label 3 read as core, not as enhancing tumour, of which there is none here (as {scheme} was asked for)"
    classes = to_classes(labels, SCHEMES[scheme], str(path), ALSO_READ.get(scheme))
    if (cavity := CAVITY.get(scheme)) in values:
        volume_ml = np.count_nonzero(labels == cavity) * geometry.voxel_volume_ml
        note = (
            f"{volume_ml:.1f} mL of resection cavity (label {cavity}) count as background, as in BraTS 2024's regions"
        )
    return LabelMap(path, classes, geometry, note, SCHEMES[scheme])


def check_on_grid(label_map: LabelMap, path: Path, geometry: Geometry) -> LabelMap:
    """Return a label map on the grid of another file; where only the order or the sign of axes differs, turned.

    Raises:
        InputError: its voxels lie elsewhere; both files are named.
    """
    if same_grid(label_map.geometry, geometry):
        return label_map
    if turn := axes_between(label_map.geometry, geometry):
        classes = np.ascontiguousarray(np.flip(label_map.classes.transpose(turn[0]), turn[1]))
        return replace(label_map, classes=classes, geometry=geometry)
    own_grid, other_grid = (" x ".join(map(str, g.size[::-1])) for g in (label_map.geometry, geometry))
    if own_grid == other_grid:
        own_grid = f"corners {largest_corner_offset_mm(label_map.geometry, geometry):.3g} mm away"
        other_grid = "the same place"
    raise InputError(
        f"{label_map.path}: another grid ({own_grid}) than {path} ({other_grid}). "
        "Bring the label map to that grid first."
    )
