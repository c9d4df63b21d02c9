"""Small parts of a segmentation removed and its holes filled, on the file's grid, where the user asks for it.

And regions so small in all that these weights rather invent than find them, as their card says.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import UsageError
from a2fseg_cli.imaging.components import connected_components
from a2fseg_cli.imaging.labels import region_mask
from a2fseg_cli.imaging.preprocessing import bounding_box
from a2fseg_cli.imaging.restoring import BoxedClasses, classes_to_file
from a2fseg_cli.inference.options import Removal
from a2fseg_cli.inference.patient import Patient
from a2fseg_cli.inference.predictor import Prediction, Segmenter
from a2fseg_cli.reporting.colours import LONG_NAMES
from a2fseg_cli.weights.card import absent_below_ml

Classes = npt.NDArray[np.uint8]


def least_volumes(config: ModelConfig, remove_small: Mapping[str, float]) -> dict[str, float]:
    """Return the volume in mm3 under which parts of a region are removed, by the names that the network gives regions.

    Args:
        config: The network's regions.
        remove_small: Region, in any case, to volume.

    Raises:
        UsageError: a region that the network does not have, a size that is none, or no class that could take its place.
    """
    names = {name.lower(): name for name, _ in config.regions}
    volumes = {}
    for region, mm3 in remove_small.items():
        if region.lower() not in names:
            raise UsageError(f"remove_small {region}: the network knows {', '.join(names.values())}.")
        if not (math.isfinite(mm3) and mm3 > 0):
            raise UsageError(f"remove_small {region}={mm3:g}: expected a volume in mm3, more than 0.")
        name = names[region.lower()]
        successor(config, name)
        volumes[name] = mm3
    return volumes


def successor(config: ModelConfig, region: str) -> int:
    """Return the class that takes the place of a part of a region: what the region round it has beside the region.

    Of BraTS: ET becomes necrotic and non-enhancing core, TC oedema, WT background.

    Raises:
        UsageError: the region round it has several such classes.
    """
    sets = {name: set(config.region_classes(name)) for name, _ in config.regions}
    around = [members for members in sets.values() if members > sets[region]]
    if not around:
        return 0
    left = min(around, key=len) - sets[region]
    if len(left) > 1:
        names = ", ".join(config.classes[index] for index in sorted(left))
        raise UsageError(f"remove_small {region}: its parts could become {names}; nothing says which.")
    return left.pop()


def cleaned_classes(
    patient: Patient, subset: Collection[str], prediction: Prediction, segmenter: Segmenter, options: Removal
) -> tuple[BoxedClasses, list[str]]:
    """Return what is written, scored and drawn of a subset, on the file's grid, and what was changed, in words.

    The most probable class of each voxel, without what the options remove and what the weights' card says of tiny
    regions, but with `keep_tiny`.
    """
    mask = classes_to_file(patient.prepared.route, prediction.probabilities)
    tiny = {} if options.keep_tiny else absent_below_ml(segmenter.weights.card, segmenter.config, subset)
    how = patient.geometry.spacing_mm, options.remove_small, options.fill_holes, tiny
    classes, changes = cleaned(mask.classes, segmenter.config, *how)
    return replace(mask, classes=classes), changes


def cleaned(
    classes: Classes,
    config: ModelConfig,
    spacing_mm: tuple[float, float, float],
    remove_small: Mapping[str, float] | None = None,
    fill_holes: bool = False,
    absent_ml: Mapping[str, float] | None = None,
) -> tuple[Classes, list[str]]:
    """Return the class map (D, H, W) without small parts and holes, and what was done, a sentence each.

    First regions that are too small in all get the class of `successor`, then parts under the volume. A part is
    connected by faces, edges or corners (26 neighbours), as lesions are counted. The outermost region comes first, so
    that nothing is said of what lies in a removed part. Then holes are filled, see `_fill`.

    Args:
        classes: Class indices (D, H, W); it stays as it is.
        config: Names of classes and regions.
        spacing_mm: Voxel spacing (z, y, x).
        remove_small: Region to the volume in mm3 under which its parts are removed.
        fill_holes: Whether holes are filled.
        absent_ml: Region to the volume below which it counts as absent, see `weights.card.absent_below_ml`.

    Raises:
        UsageError: see `least_volumes`.
    """
    least_mm3 = least_volumes(config, remove_small or {})
    if not classes.any() or not (least_mm3 or fill_holes or absent_ml):
        return classes, []
    start, stop = bounding_box(classes != 0)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    result, sentences = classes.copy(), []
    part, voxel_mm3 = result[box], math.prod(spacing_mm)
    for region, _ in config.regions:
        if absent_ml and region in absent_ml:
            sentences += _take_as_absent(part, config, region, absent_ml[region], voxel_mm3)
    for region, _ in config.regions:
        if region in least_mm3:
            sentences += _remove(part, config, region, least_mm3[region], voxel_mm3)
    if fill_holes:
        sentences += _fill(part, config, voxel_mm3)
    return result, sentences


def _take_as_absent(classes: Classes, config: ModelConfig, region: str, ml: float, voxel_mm3: float) -> list[str]:
    """Give a region that is smaller in all, in place, the class that takes its place, where there is one; say so."""
    mask = region_mask(classes, config.region_classes(region))
    volume_ml = float(mask.sum()) * voxel_mm3 / 1000
    if not 0 < volume_ml < ml:
        return []
    try:
        target = successor(config, region)
    except UsageError:  # a card from outside; nobody who runs it could mend that
        return []
    classes[mask] = target
    became = f"taken as {_words(config.classes[target])}" if target else "removed"
    return [f"{_words(region)} of {volume_ml:.4g} mL was {became}: below {ml:g} mL these weights rather invent it"]


def _remove(classes: Classes, config: ModelConfig, region: str, mm3: float, voxel_mm3: float) -> list[str]:
    """Give the small parts of a region, in place, the class that takes theirs; say so."""
    parts = connected_components(region_mask(classes, config.region_classes(region)))
    sizes = np.bincount(parts.ravel())
    small = sizes * voxel_mm3 < mm3
    small[0] = False
    if not small.any():
        return []
    target = successor(config, region)
    classes[small[parts]] = target
    count, volume = int(small.sum()), float(sizes[small].sum() * voxel_mm3)
    became = f"became {_words(config.classes[target])}" if target else "were removed"
    became = became.replace("were", "was") if count == 1 else became
    noun = f"part{'s' * (count != 1)} of {_words(region)}"
    return [f"{count} {noun} under {mm3:g} mm3 (together {volume:.0f} mm3) {became}"]


def _fill(classes: Classes, config: ModelConfig, voxel_mm3: float) -> list[str]:
    """Fill, in place, background that a region encloses on all sides; say so.

    A hole in the core becomes necrotic and non-enhancing core, any other hole in the tumour oedema: the class of the
    region that its inner regions leave. A hole in the enhancing rim is one of the core too, since the rim belongs to
    it. Only background is filled: oedema in the core stays. Water gets out through faces, not through corners (6
    neighbours), as in scipy's and ITK's filling of holes.
    """
    sets = {name: set(config.region_classes(name)) for name, _ in config.regions}
    sentences = []
    for region in sorted(sets, key=lambda name: len(sets[name])):
        inner = set().union(*(members for members in sets.values() if members < sets[region]))
        outer = any(members > sets[region] for members in sets.values())
        left = sets[region] - inner
        if len(left) != 1 or (outer and not inner):
            continue
        hole = _enclosed(region_mask(classes, sorted(sets[region]))) & (classes == 0)
        if hole.any():
            target = left.pop()
            classes[hole] = target
            volume = float(hole.sum() * voxel_mm3)
            sentences.append(f"holes of {volume:.0f} mm3 in {_words(region)} became {_words(config.classes[target])}")
    return sentences


def _enclosed(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return where a mask (D, H, W) has holes."""
    outside = connected_components(~np.pad(mask, 1), by_faces=True)
    holes: npt.NDArray[np.bool_] = ((outside != 0) & (outside != outside[0, 0, 0]))[1:-1, 1:-1, 1:-1]
    return holes


def _words(name: str) -> str:
    long = LONG_NAMES.get(name.upper())
    return f"{name} ({long})" if long else name
