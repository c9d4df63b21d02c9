"""From class maps to scores: the truth of a patient, read and checked, and what is compared with it.

Nothing is compared on the whole grid: a tumour fills a small part of it. Class maps come with the box of the
file's grid that they fill; outside it there is background.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.evaluation.metrics import Reference, Scores, score
from a2fseg_cli.imaging.geometry import Geometry, largest_corner_offset_mm, same_grid
from a2fseg_cli.imaging.labels import SCHEMES, detect_scheme, region_mask, to_classes
from a2fseg_cli.imaging.reading import read_label_map
from a2fseg_cli.imaging.restoring import Box, BoxedClasses, boxed

ClassMap = npt.NDArray[np.uint8]
BRATS_CLASSES = ModelConfig().classes


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
    if config.classes != BRATS_CLASSES:
        values = config.label_values
    elif scheme != "auto":
        values = SCHEMES[scheme]
    else:
        found = np.unique(labels).tolist()
        scheme = detect_scheme(found, str(path))
        values = SCHEMES[scheme]
        if values[-1] in found:
            note = f"labels read as {scheme} (ET is {values[-1]})"
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


class Scorer:
    """The truth of one patient, prepared once for any number of predictions.

    Args:
        truth: The expert's label map.
        config: Its classes and regions.
        reach: A box of the file's grid that holds every prediction to come.
        metrics: Keys of METRICS.
        policy: Key of POLICIES.
    """

    def __init__(self, truth: LabelMap, config: ModelConfig, reach: Box, metrics: Iterable[str], policy: str) -> None:
        self._metrics, self._policy = tuple(metrics), policy
        self._members = {region: config.region_classes(region) for region, _ in config.regions}
        true = boxed(truth.classes)
        self._frame = true.box.union(reach)
        self._true = true.placed(self._frame)
        self._spacing_mm = truth.geometry.spacing_mm

    @cached_property
    def _references(self) -> Mapping[str, Reference]:
        masks = {region: region_mask(self._true, members) for region, members in self._members.items()}
        return {region: Reference(mask, self._spacing_mm) for region, mask in masks.items()}

    def score(self, prediction: BoxedClasses) -> dict[str, Scores]:
        """Return the scores of every region."""
        classes = prediction.placed(self._frame)
        return {
            region: score(reference, region_mask(classes, self._members[region]), self._metrics, self._policy)
            for region, reference in self._references.items()
        }
