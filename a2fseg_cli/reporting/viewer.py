"""One HTML file in which a patient's images, mask and uncertainty are looked at: NiiVue, with no network.

NiiVue is shipped as it is published (`niivue/`: the file, and the licences of it and of what it bundles).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from a2fseg_cli.imaging.formats.contract import format_for
from a2fseg_cli.imaging.geometry import Geometry, axes_to_canonical
from a2fseg_cli.imaging.preprocessing import Reorient, bounding_box, canonical_spacing_mm
from a2fseg_cli.modalities import best_background, heading
from a2fseg_cli.reporting.overlay import class_colours, long_name, write_preview

FloatVolume = npt.NDArray[np.float32]
ClassMap = npt.NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)

NIIVUE_VERSION = "0.69.0"
NIIVUE_SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"

_HOLDS_IMAGES = "This file holds the MR images of this patient. Handle it like the images themselves."
# What is darker than this share of the brightest tissue is taken for air. Two scans with the skull on keep all of the
# head at it; at 0.02 the noise of the air was kept as well, and with it the whole field of view.
_AIR_BELOW = 0.1
_MARGIN_MM = 5.0
# Steps between the darkest and the brightest tissue: a screen shows 256, and a narrow window a tenth of the range.
_TISSUE_STEPS = 2500
_NIFTI_SCALE_AT = 112  # byte of scl_slope in a NIfTI-1 header, scl_inter behind it


@dataclass(frozen=True)
class ViewerCase:
    """What the viewer shows of a patient.

    Attributes:
        name: The case.
        images: Voxels (D, H, W) of each sequence, all on one grid.
        geometry: That grid.
        classes: Class indices (D, H, W) on it, 0 background; None without a mask.
        class_names: The background first.
        label_values: Voxel value of each class in the mask's file.
        uncertainty: Entropy (D, H, W), 0 (sure) to 1; None without.
        guesses: Classes that the sequences at hand cannot show.
        remarks: Sentences for the reader.
    """

    name: str
    images: Mapping[str, FloatVolume]
    geometry: Geometry
    classes: ClassMap | None
    class_names: Sequence[str]
    label_values: Sequence[int]
    uncertainty: FloatVolume | None = None
    guesses: Collection[str] = ()
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class _Grid:
    """The part of a grid that is shown, on axes that grow to the patient's right, front and head, as NIfTI's."""

    reorient: Reorient
    box: tuple[slice, slice, slice]
    geometry: Geometry

    def cut(self, array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        return np.ascontiguousarray(self.reorient.apply(array)[self.box])


def viewer_page(shown: ViewerCase) -> str:
    """Return the page as HTML, some megabytes long: images, mask and viewer are inside.

    Args:
        shown: The patient.

    Raises:
        ValueError: arrays that differ in shape, or a class without a name.
    """
    grid = _shown_grid(shown)
    volumes = {name: _nifti(*_stored(grid.cut(image)), grid.geometry) for name, image in shown.images.items()}
    if shown.classes is not None:
        volumes["mask"] = _nifti(grid.cut(shown.classes), 1.0, 0.0, grid.geometry)
    if shown.uncertainty is not None:
        bytes_ = np.rint(np.clip(grid.cut(shown.uncertainty), 0, 1) * 255).astype(np.uint8)
        volumes["uncertainty"] = _nifti(bytes_, 1 / 255, 0.0, grid.geometry)
    script, style = _ours("viewer.js"), _ours("viewer.css")
    niivue = _niivue()
    parts = {
        "policy": _policy(niivue, script),
        "title": escape(shown.name),
        "style": style,
        "remarks": "".join(f'<p class="remark">{escape(text)}</p>' for text in (_HOLDS_IMAGES, *shown.remarks)),
        "picture": base64.b64encode(_picture(shown)).decode("ascii"),
        "facts": json.dumps(_facts(shown, grid, list(volumes))).replace("<", "\\u003c"),
        "volumes": "\n".join(
            f'<script type="text/plain" id="volume-{index}">{base64.b64encode(data).decode("ascii")}</script>'
            for index, data in enumerate(volumes.values())
        ),
        "version": NIIVUE_VERSION,
        "licences": escape((files("a2fseg_cli.reporting") / "niivue" / "LICENSES.txt").read_text("utf-8")),
        "niivue": niivue,
        "script": script,
    }
    return re.sub(r"{{(\w+)}}", lambda place: parts[place[1]], _ours("page.html"))


def size_sentence(page: str, path: Path) -> str:
    """Return what a user should know of a page that is written: how large it is, and what it holds."""
    return f"{path}: {len(page.encode()) / 1e6:.1f} MB. {_HOLDS_IMAGES}"


@cache
def _niivue() -> str:
    return (files("a2fseg_cli.reporting") / "niivue" / "niivue.umd.js").read_text("utf-8")


@cache
def _ours(name: str) -> str:
    return (files("a2fseg_cli.reporting") / "viewer_page" / name).read_text("utf-8")


def _policy(*scripts: str) -> str:
    """Return a content security policy: these scripts run and no others, and nothing is fetched or sent."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _shown_grid(shown: ViewerCase) -> _Grid:
    """Return the box around the head and the mask, on NIfTI's axes."""
    permutation, flips = axes_to_canonical(shown.geometry)
    # Canonical axes grow to the head, the back and the left; NIfTI's to the right, the front and the head.
    reorient = Reorient(permutation, tuple(sorted({*flips} ^ {1, 2})))
    tissue = np.zeros(shown.geometry.size, bool)
    for image in shown.images.values():
        tissue |= image > _AIR_BELOW * np.percentile(image, 99.5)
    if shown.classes is not None:
        tissue |= shown.classes > 0
    turned = _turned(shown.geometry, reorient)
    edges = zip(*bounding_box(reorient.apply(tissue)), turned.size, turned.spacing_mm, strict=True)
    box = tuple(
        slice(max(a - m, 0), min(b + m, size)) for a, b, size, m in ((*e, round(_MARGIN_MM / mm)) for *e, mm in edges)
    )
    starts = np.array([part.start for part in box][::-1]) * turned.spacing_mm[::-1]
    origin = np.asarray(turned.origin_mm) + turned.direction_matrix @ starts
    size = tuple(part.stop - part.start for part in box)
    cropped = Geometry(size, turned.spacing_mm, tuple(origin.tolist()), turned.direction)  # type: ignore[arg-type]
    return _Grid(reorient, box, cropped)  # type: ignore[arg-type]


def _turned(geometry: Geometry, reorient: Reorient) -> Geometry:
    """Return the grid of `reorient.apply` of an array."""
    # Column of the direction, counted x, y, z, for each array axis (z, y, x).
    columns = [2 - axis for axis in reorient.permutation]
    size = [geometry.size[axis] for axis in reorient.permutation]
    spacing = [geometry.spacing_mm[axis] for axis in reorient.permutation]
    matrix = geometry.direction_matrix[:, columns]
    origin = np.asarray(geometry.origin_mm)
    for axis in reorient.flips:
        origin = origin + matrix[:, axis] * (size[axis] - 1) * spacing[axis]
        matrix[:, axis] *= -1
    direction = tuple(matrix[:, ::-1].ravel().tolist())
    return Geometry(tuple(size), tuple(spacing), tuple(origin.tolist()), direction)  # type: ignore[arg-type]


def _stored(image: FloatVolume) -> tuple[npt.NDArray[Any], float, float]:
    """Return an image as whole numbers, with slope and intercept: its own where they fit 16 bits, else in fine steps.

    A byte where that loses nothing: the file gets half as large.
    """
    low, high = float(image.min()), float(image.max())
    whole = not np.any(image != np.rint(image))
    if whole and low >= 0 and high <= 255:
        return image.astype(np.uint8), 1.0, 0.0
    if whole and low >= -32768 and high <= 32767:
        return image.astype(np.int16), 1.0, 0.0
    dark, bright = np.percentile(image[image != image.flat[0]], (1, 99))
    step = max((float(bright) - float(dark)) / _TISSUE_STEPS, (high - low) / 32767)
    return np.rint((image - low) / step).astype(np.int16), step, low


def _nifti(array: npt.NDArray[Any], slope: float, intercept: float, geometry: Geometry) -> bytes:
    """Return a gzipped NIfTI file with nothing in its header but the grid."""
    path = Path("volume.nii")
    data = bytearray(format_for(path).encode(array, geometry, None, path))
    struct.pack_into("<ff", data, _NIFTI_SCALE_AT, slope, intercept)
    return gzip.compress(bytes(data), 6, mtime=0)


def _picture(shown: ViewerCase) -> bytes:
    """Return the preview, a PNG, for browsers that cannot run the viewer."""
    reorient = Reorient(*axes_to_canonical(shown.geometry))
    name = best_background(shown.images)
    classes = np.zeros(shown.geometry.size, np.uint8) if shown.classes is None else shown.classes
    file = io.BytesIO()
    write_preview(
        file,
        reorient.apply(shown.images[name]),
        reorient.apply(classes),
        canonical_spacing_mm(shown.geometry, reorient),
        shown.class_names,
        title=shown.name,
        background_name=heading(name),
        guesses=shown.guesses,
    )
    return file.getvalue()


def _facts(shown: ViewerCase, grid: _Grid, volumes: Sequence[str]) -> dict[str, Any]:
    """Return what the script needs beside the voxels."""
    background = best_background(shown.images)
    sequences = [
        {"name": heading(name), "volume": volumes.index(name), **_window(image)} for name, image in shown.images.items()
    ]
    return {
        "sequences": sequences,
        "first": list(shown.images).index(background),
        "classes": [] if shown.classes is None else _classes(shown),
        "mask": volumes.index("mask") if "mask" in volumes else None,
        "uncertainty": volumes.index("uncertainty") if "uncertainty" in volumes else None,
        "start": _start(shown, grid),
    }


def _window(image: FloatVolume) -> dict[str, float]:
    """Return black and white at first, the 1st and 99.7th percentile of the tissue, and the whole range."""
    tissue = image[image > _AIR_BELOW * np.percentile(image, 99.5)]
    dark, bright = (float(v) for v in np.percentile(tissue if tissue.size else image, (1, 99.7)))
    low, high = float(image.min()), float(image.max())
    black = max(low, dark - 0.15 * (bright - dark))
    return {"low": low, "high": high, "black": black, "white": bright if bright > black else black + 1}


def _classes(shown: ViewerCase) -> list[dict[str, Any]]:
    assert shown.classes is not None
    counts = np.bincount(shown.classes.ravel(), minlength=len(shown.class_names))
    return [
        {
            "name": long_name(name),
            "label": int(shown.label_values[index]),
            "colour": [round(255 * part) for part in colour],
            "ml": round(float(counts[index]) * shown.geometry.voxel_volume_ml, 2),
            "guess": name in shown.guesses,
        }
        for index, (name, colour) in enumerate(
            zip(shown.class_names[1:], class_colours(shown.class_names[1:]), strict=True), start=1
        )
    ]


def _start(shown: ViewerCase, grid: _Grid) -> list[float]:
    """Return where the crosshair begins, a share of the box along x, y, z: where most of the tumour is in each plane."""
    classes = None if shown.classes is None else grid.cut(shown.classes) > 0
    if classes is None or not classes.any():
        return [0.5, 0.5, 0.5]
    place = []
    for axis in (2, 1, 0):
        areas = classes.sum(tuple(other for other in range(3) if other != axis))
        place.append((float(areas.argmax()) + 0.5) / classes.shape[axis])
    return place
