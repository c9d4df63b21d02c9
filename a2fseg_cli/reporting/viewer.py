"""One HTML file in which a patient's images, mask and uncertainty are looked at: NiiVue, with no network.

NiiVue is shipped as it is published (`niivue/`: the file, and the licences of it and of what it bundles).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.imaging.formats.contract import format_for
from a2fseg_cli.imaging.geometry import Geometry, reoriented
from a2fseg_cli.modalities import heading
from a2fseg_cli.reporting.colours import class_colours, long_name
from a2fseg_cli.reporting.scene import Scene, uncertainty_colours, uncertainty_gradient
from a2fseg_cli.reporting.slices import Backdrop

FloatVolume = npt.NDArray[np.float32]
ClassMap = npt.NDArray[np.uint8]

NIIVUE_VERSION = "0.69.0"
NIIVUE_SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"

HOLDS_IMAGES = "This file holds the MR images of this patient. Handle it like the images themselves."
# Steps between black and white: a screen shows 256, and a narrow window a tenth of the range.
_GREY_STEPS = 2500
_NIFTI_SCALE_AT = 112  # byte of scl_slope in a NIfTI-1 header, scl_inter behind it
# Canonical axes grow to the head, the back and the left; those of the viewer's files to the head, the front, the right.
_TURNED_AXES = (1, 2)


@dataclass(frozen=True)
class ViewerCase:
    """What the viewer shows of a patient.

    Attributes:
        name: The case.
        scene: Images and classes, and an uncertainty where there is one.
        geometry: The grid of the scene's arrays.
        has_mask: Whether the scene's classes are a mask; else the images are shown alone.
        remarks: Sentences for the reader.
    """

    name: str
    scene: Scene
    geometry: Geometry
    has_mask: bool = True
    remarks: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse a grid of another size. Raises: ValueError."""
        if self.scene.classes.shape != self.geometry.size:
            raise ValueError(f"a scene of {self.scene.classes.shape} voxels on a grid of {self.geometry.size}")


def viewer_page(shown: ViewerCase, picture: bytes) -> str:
    """Return the page as HTML, some megabytes long: images, mask and viewer are inside.

    Args:
        shown: The patient.
        picture: A JPEG for browsers that cannot run the viewer.
    """
    scene, grid = shown.scene, reoriented(shown.geometry, (0, 1, 2), _TURNED_AXES)
    volumes = {name: _nifti(*_stored(image), grid) for name, image in scene.backdrops.items()}
    if shown.has_mask:
        volumes["mask"] = _nifti(scene.classes, 1.0, 0.0, grid)
    if scene.uncertainty is not None:
        volumes["uncertainty"] = _nifti(_as_bytes(scene.uncertainty), 1 / 255, 0.0, grid)
    niivue, script = _read("niivue", "niivue.umd.js"), _read("viewer_page", "viewer.js")
    remarks = (HOLDS_IMAGES, *shown.remarks)
    parts = {
        "policy": _policy(niivue, script),
        "title": escape(shown.name),
        "style": _read("viewer_page", "viewer.css"),
        "remarks": "".join(f'<p class="remark">{escape(text)}</p>' for text in remarks),
        "picture": base64.b64encode(picture).decode("ascii"),
        "facts": json.dumps(_facts(shown, list(volumes))).replace("<", "\\u003c"),
        "volumes": "\n".join(
            f'<script type="text/plain" id="volume-{index}">{base64.b64encode(data).decode("ascii")}</script>'
            for index, data in enumerate(volumes.values())
        ),
        "version": NIIVUE_VERSION,
        "licences": escape(_read("niivue", "LICENSES.txt")),
        "niivue": niivue,
        "script": script,
    }
    return re.sub(r"{{(\w+)}}", lambda place: parts[place[1]], _read("viewer_page", "page.html"))


def without_folders(texts: Iterable[str], paths: Iterable[Path]) -> tuple[str, ...]:
    """Return sentences in which these files stand by their names alone: a page is passed on, folders are nobody's."""
    named = sorted(((str(path), path.name) for path in paths), reverse=True)  # the longer of two that begin alike first
    told = []
    for text in texts:
        for path, name in named:
            text = text.replace(path, name)
        told.append(text)
    return tuple(told)


def size_sentence(page: str, path: Path) -> str:
    """Return what a user should know of a page that is written: how large it is, and what it holds."""
    return f"{path}: {len(page.encode()) / 1e6:.1f} MB. {HOLDS_IMAGES}"


@cache
def _read(folder: str, name: str) -> str:
    return (files("a2fseg_cli.reporting") / folder / name).read_text("utf-8")


def _policy(*scripts: str) -> str:
    """Return a content security policy: these scripts run and no others, and nothing is fetched or sent."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _stored(image: Backdrop) -> tuple[npt.NDArray[Any], float, float]:
    """Return an image as whole numbers, with slope and intercept: its own where they fit 16 bits, else in fine steps.

    A byte where that loses nothing: the file gets half as large.
    """
    voxels = image.voxels
    low, high = float(voxels.min()), float(voxels.max())
    whole = not np.any(voxels != np.rint(voxels))
    if whole and low >= 0 and high <= 255:
        return voxels.astype(np.uint8), 1.0, 0.0
    if whole and low >= -32768 and high <= 32767:
        return voxels.astype(np.int16), 1.0, 0.0
    black, white = image.limits
    step = max((white - black) / _GREY_STEPS, (high - low) / 32767)
    return np.rint((voxels - low) / step).astype(np.int16), step, low


def _as_bytes(share: FloatVolume) -> npt.NDArray[np.uint8]:
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def _nifti(array: npt.NDArray[Any], slope: float, intercept: float, grid: Geometry) -> bytes:
    """Return an array on canonical axes as a gzipped NIfTI file with nothing in its header but the grid."""
    path = Path("volume.nii")
    turned = np.ascontiguousarray(np.flip(array, _TURNED_AXES))
    data = bytearray(format_for(path).encode(turned, grid, None, path))
    struct.pack_into("<ff", data, _NIFTI_SCALE_AT, slope, intercept)
    return gzip.compress(bytes(data), 6, mtime=0)


def _facts(shown: ViewerCase, volumes: Sequence[str]) -> dict[str, Any]:
    """Return what the script needs beside the voxels."""
    sequences = []
    for name, image in shown.scene.backdrops.items():
        low, high = float(image.voxels.min()), float(image.voxels.max())
        black, white = image.limits
        levels = {"low": low, "high": high, "black": max(black, low), "white": white}
        sequences.append({"name": heading(name), "volume": volumes.index(name), **levels})
    return {
        "sequences": sequences,
        "classes": _classes(shown) if shown.has_mask else [],
        "mask": volumes.index("mask") if "mask" in volumes else None,
        "uncertainty": volumes.index("uncertainty") if "uncertainty" in volumes else None,
        "unsure": {"colours": uncertainty_colours()[::51].tolist(), "gradient": uncertainty_gradient()},
        "start": _start(shown.scene.classes),
    }


def _classes(shown: ViewerCase) -> list[dict[str, Any]]:
    """Return name, colour and volume of each class of the mask."""
    scene = shown.scene
    names = list(scene.class_names)[1:]
    counts = np.bincount(scene.classes.ravel(), minlength=len(scene.class_names))[1:]
    return [
        {
            "name": long_name(name),
            "colour": [round(255 * part) for part in colour],
            "ml": round(float(count) * shown.geometry.voxel_volume_ml, 2),
            "guess": name in scene.guesses,
        }
        for name, colour, count in zip(names, class_colours(names, scene.palette), counts, strict=True)
    ]


def _start(classes: ClassMap) -> list[float]:
    """Return where the crosshair begins, shares of the box to the right, front and head.

    In the axial slice with most of the tumour, in the voxel of the tumour that is nearest to the middle of it there.
    """
    if not classes.any():
        return [0.5, 0.5, 0.5]
    tumour = np.flip(classes > 0, _TURNED_AXES)
    areas = tumour.sum((1, 2))
    largest = np.flatnonzero(areas == areas.max())
    z = int(largest[len(largest) // 2])
    voxels = np.argwhere(tumour[z])
    y, x = voxels[((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1).argmin()].tolist()
    return [(index + 0.5) / size for index, size in zip((x, y, z), tumour.shape[::-1], strict=True)]
