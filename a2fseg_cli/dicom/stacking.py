"""Slices in the patient to one volume: told apart where several lie at one place, sorted, and checked to be a grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.dicom.headers import Slice
from a2fseg_cli.imaging.geometry import Geometry, right_angled

# Headers round cosines to six digits and some programs to four: 1e-4 each, of a radian.
_ORIENTATION_TOLERANCE = 1e-3
# Of the step between slices. Positions are rounded to 0.01 mm at worst, 1 % of the thinnest slices; a missing slice
# moves a neighbour by half a step and more.
_EVENNESS = 0.1
# Of a pixel: how far the last slice may lie beside the place that a right-angled grid has for it.
_SHEAR = 0.5
_SAME_PLACE_MM = 0.01
# What tells images at one place apart, tried in this order, alone and then in pairs.
# Dixon has four kinds of image, double and triple echoes fewer; what has more is dynamic or diffusion.
_MOST_PARTS = 4
_PARTS = ("image type", "echo", "inversion", "b-value", "temporal position", "acquisition")


@dataclass(frozen=True)
class Stack:
    """Slices as one volume.

    Attributes:
        slices: From the first to the last of the volume where they are one, else as they were given.
        geometry: Its grid; None where they are none.
        problem: Why they are none, for the end of a sentence; None where they are.
    """

    slices: tuple[Slice, ...]
    geometry: Geometry | None = None
    problem: str | None = None


def parts_of(slices: Sequence[Slice]) -> list[tuple[str, list[Slice]]]:
    """Return slices in groups in which no two lie at one place, each with what it is; one group where nothing does it.

    Groups of unequal size are none: an acquisition that was broken off and begun again is not told apart.
    """
    if not _repeats(slices):
        return [("", list(slices))]
    for keys in itertools.chain(((key,) for key in _PARTS), itertools.combinations(_PARTS, 2)):
        groups: dict[tuple[Any, ...], list[Slice]] = {}
        for one in slices:
            groups.setdefault(tuple(one.own.get(key) for key in keys), []).append(one)
        sizes = {len(group) for group in groups.values()}
        if 1 < len(groups) <= _MOST_PARTS and len(sizes) == 1 and not any(_repeats(group) for group in groups.values()):
            named = {values: _named(keys, values, list(groups)) for values in groups}
            return sorted(((named[values], group) for values, group in groups.items()), key=lambda part: part[0])
    return [("", list(slices))]


def _repeats(slices: Sequence[Slice]) -> bool:
    places = [_place(one) for one in slices if one.position_mm is not None]
    return len(set(places)) < len(places)


def _place(one: Slice) -> tuple[Any, ...]:
    position = [round(value / _SAME_PLACE_MM) for value in one.position_mm or ()]
    return (*position, *(round(value, 2) for value in one.axes or ()))


def _named(keys: Sequence[str], values: Sequence[Any], others: Sequence[Sequence[Any]]) -> str:
    """Return what a group is, such as `echo 90 ms`; of an image's type only the words that not all groups have."""
    told = []
    for index, (key, value) in enumerate(zip(keys, values, strict=True)):
        if key == "image type":
            common = set.intersection(*(set(other[index] or ()) for other in others))
            told.append("type " + (" ".join(word for word in value or () if word not in common) or "without these"))
        elif value is None:
            told.append(f"no {key}")
        else:
            told.append(f"{key} {value * 1000:g} ms" if key in ("echo", "inversion") else f"{key} {value:g}")
    return ", ".join(told)


def stack(slices: Sequence[Slice]) -> Stack:
    """Return slices sorted along their normal, on the grid that they make, or why they make none."""
    given = tuple(slices)
    if problem := _no_volume(given):
        return Stack(given, problem=problem)
    axes = np.array([one.axes for one in given])
    positions = np.array([one.position_mm for one in given])
    lengths = np.linalg.norm(axes[0].reshape(2, 3), axis=1, keepdims=True)
    if np.abs(lengths - 1).max() > 0.01 or abs(axes[0, :3] @ axes[0, 3:]) > 0.01:
        return Stack(given, problem="the directions of its rows and columns are no unit vectors at a right angle")
    x_axis, y_axis = axes[0].reshape(2, 3) / lengths
    normal = np.cross(x_axis, y_axis)
    normal /= np.linalg.norm(normal)
    order = np.argsort(positions @ normal, kind="stable")
    ordered = tuple(given[index] for index in order)
    positions = positions[order]
    if problem := _uneven(ordered, positions, normal):
        return Stack(ordered, problem=problem)
    row_mm, column_mm = given[0].spacing_mm or (1.0, 1.0)
    step_mm = float((positions[-1] - positions[0]) @ normal) / (len(given) - 1)
    steps = np.stack([x_axis * column_mm, y_axis * row_mm, normal * step_mm], axis=1)
    try:
        spacing, direction, _ = right_angled(steps, np.array([column_mm, row_mm, step_mm]))
        x, y, z = (float(value) + 0.0 for value in positions[0])
        geometry = Geometry((len(given), *given[0].size), spacing, (x, y, z), direction)
    except ValueError as error:
        return Stack(ordered, problem=f"its spacing or directions are not usable ({error})")
    return Stack(ordered, geometry)


def _no_volume(slices: Sequence[Slice]) -> str | None:
    """Return why slices are no volume as far as it shows in each of them."""
    if not slices:
        return "it holds no image"
    if any(one.position_mm is None or one.axes is None for one in slices):
        return "it does not say where its images lie in the patient, as screenshots do not"
    if any(one.spacing_mm is None or min(one.spacing_mm) <= 0 for one in slices):
        return "it does not say how large its pixels are"
    if len(slices) == 1:
        return "one slice only. Expected a volume; of a file that is one slice give the folder of its series"
    if len(sizes := {one.size for one in slices}) > 1:
        text = " and ".join(f"{columns} x {rows}" for rows, columns in sorted(sizes))
        return f"its images differ in size ({text}). Export it again, each series by itself"
    spacings = np.array([one.spacing_mm for one in slices])
    if np.ptp(spacings, axis=0).max() > 1e-3 * spacings.min():
        return "the pixels of its images differ in size. Export it again, each series by itself"
    axes = np.array([one.axes for one in slices])
    if count := _orientations(axes):
        return f"its images have {count} orientations. Expected one, as of a volume; a localiser has three"
    return None


def _orientations(axes: npt.NDArray[np.float64]) -> int:
    """Return how many orientations there are, 0 for one."""
    seen: list[npt.NDArray[np.float64]] = []
    for one in axes:
        if not any(np.abs(one - other).max() <= _ORIENTATION_TOLERANCE for other in seen):
            seen.append(one)
    return len(seen) if len(seen) > 1 else 0


def _uneven(slices: Sequence[Slice], positions: npt.NDArray[np.float64], normal: npt.NDArray[np.float64]) -> str | None:
    """Return why sorted slices do not lie one behind the other in even steps."""
    depths = (positions - positions[0]) @ normal
    gaps = np.diff(depths)
    if gaps.min() <= _SAME_PLACE_MM:
        count = int(np.count_nonzero(gaps <= _SAME_PLACE_MM))
        times, left = divmod(len(slices), len(slices) - count)
        if times > _MOST_PARTS and not left:
            return f"it holds {times} images of each place, as dynamic and diffusion series do. Expected one volume"
        return (
            f"{count} of its {len(slices)} images lie where another does, and neither echo, time nor acquisition tells "
            "complete volumes apart. Export one volume alone"
        )
    beside = (positions - positions[0]) - np.outer(depths, normal)
    pixel_mm = min(slices[0].spacing_mm or (1.0,))
    if (largest := float(np.linalg.norm(beside, axis=1).max())) > _SHEAR * pixel_mm:
        last = float(np.linalg.norm(beside[-1]))
        straight = np.outer(depths / depths[-1], beside[-1])
        if last > 0.9 * largest and np.linalg.norm(beside - straight, axis=1).max() < _SHEAR * pixel_mm:
            degrees = math.degrees(math.atan2(last, float(depths[-1])))
            return (
                f"its slices are sheared by {degrees:.1f} degrees (a sloped gantry). Expected them one right behind "
                "the other; export a reformat at right angles"
            )
        return f"its slices do not lie on one line, up to {largest:.1f} mm beside it. Export one volume alone"
    step = float(np.median(gaps))
    even = np.linspace(0.0, float(depths[-1]), len(slices))
    if float(np.abs(depths - even).max()) <= _EVENNESS * step:
        return None
    wide = np.flatnonzero(np.rint(gaps / step) > 1)
    whole = np.abs(gaps / step - np.rint(gaps / step)) <= 2 * _EVENNESS
    if wide.size and whole.all():
        missing = int(np.sum(np.rint(gaps[wide] / step) - 1))
        place = f"behind image {slices[wide[0]].instance}"
        text = "1 slice is missing" if missing == 1 else f"{missing} slices are missing"
        return f"{text} ({place}: {gaps[wide[0]]:.4g} mm instead of {step:.4g} mm). Copy or export the series again"
    return f"its slices are {gaps.min():.4g} to {gaps.max():.4g} mm apart. Expected even steps; export one volume alone"


def without_copies(slices: Sequence[Slice]) -> tuple[list[Slice], int]:
    """Return slices without those that are copies of another, and how many were.

    One image has one SOPInstanceUID; some programs give the same one to all images, which then lie elsewhere.
    """
    kept: dict[tuple[Any, ...], Slice] = {}
    for one in slices:
        kept.setdefault((one.uid or str(one.path), one.frame, one.position_mm, one.axes), one)
    return list(kept.values()), len(slices) - len(kept)
