"""A synthetic patient: four MR-like images and their exact segmentation, from a seed alone.

No scan ships with the tool, so `a2fseg demo` and the tests look at this one. Anatomy comes from signed distances
to simple bodies (ellipsoids, capsules, sheets) in mm, positive inside, bent and folded by smooth noise. Soft
steps across those distances give the share of each tissue in a voxel, hence partial volume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.writing import write_image

Field = npt.NDArray[np.floating[Any]]
Triple = tuple[float, float, float]

# Mean z-score (mean and standard deviation of the brain: 0 and 1) and spread within the label, of NCR, ED and ET.
# Source: means over 21 training patients of BraTS 2017 to 2023 with at least 5 mL of ET and 3 mL of NCR.
TUMOUR_Z: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "t1": ((-0.30, 0.47), (0.23, 0.48), (-0.01, 0.51)),
    "t1c": ((-0.39, 0.68), (-0.04, 0.47), (2.06, 1.18)),
    "t2": ((1.72, 0.82), (0.52, 0.58), (0.83, 0.63)),
    "flair": ((2.19, 0.93), (1.71, 0.78), (1.93, 0.95)),
}
# z-score of pure CSF, cortex and white matter. Start: 3-means clustering of the tissue farther than 10 mm from the
# tumour in 20 training patients (T1 -1.7, -0.5, 0.7; T1c -1.0, -0.4, 0.3; T2 1.0, 0.3, -0.5; FLAIR -1.4, 0.0, -0.1);
# then moved until the percentiles of the phantom's normal tissue, partial volume included, resembled theirs.
NORMAL_Z: dict[str, Triple] = {
    "t1": (-3.0, -0.45, 0.85),
    "t1c": (-2.0, -0.30, 0.30),
    "t2": (4.4, 0.30, -0.60),
    "flair": (-2.5, 0.30, -0.30),
}
# Mean intensity, arbitrary but of BraTS's order, and the ratio of standard deviation to mean in the same patients.
INTENSITY: dict[str, tuple[float, float]] = {
    "t1": (420.0, 0.26),
    "t1c": (520.0, 0.30),
    "t2": (330.0, 0.43),
    "flair": (300.0, 0.32),
}

LATTICE_MM = 2.0
HALF_EXTENT_MM: Triple = (78.0, 94.0, 76.0)  # (z, y, x); the brain keeps inside
BRAIN_OFFSET_MM: Triple = (-6.0, 8.5, -0.5)  # (z, y, x) from the grid's centre, the mean of the same patients


@dataclass(frozen=True)
class Phantom:
    """A synthetic patient on a grid in LPS order.

    Attributes:
        images: Modality (t1, t1c, t2, flair) to intensities (D, H, W), background exactly 0.
        truth: Class indices (D, H, W): 0 background, 1 NCR, 2 ED, 3 ET.
        spacing_mm: Voxel spacing (z, y, x).
    """

    images: dict[str, npt.NDArray[np.float32]]
    truth: npt.NDArray[np.uint8]
    spacing_mm: Triple


def make_phantom(
    seed: int = 0, size: tuple[int, int, int] = (155, 240, 240), spacing_mm: Triple = (1.0, 1.0, 1.0)
) -> Phantom:
    """Return the synthetic patient of a seed.

    Head-to-foot, the brain is about 140 mm, 175 mm long and 137 mm wide, whatever the grid: a smaller grid cuts
    it, a coarser one samples the same anatomy. Equal arguments give equal voxels.

    Args:
        seed: Which patient; it decides folds, ventricles, and the tumour's place, side and shape.
        size: Grid (D, H, W) in voxels.
        spacing_mm: Voxel spacing (z, y, x).

    Raises:
        ValueError: a size or a spacing that is not positive, or a grid that misses the brain.
    """
    if len(size) != 3 or len(spacing_mm) != 3 or min(size) < 1 or min(spacing_mm) <= 0:
        raise ValueError(f"expected a positive size and spacing (z, y, x); got {size} and {spacing_mm}")
    rng = np.random.default_rng(seed)
    lattice = _Lattice()
    anatomy = _Anatomy(lattice, rng)
    tumour = _Tumour(lattice, rng)
    box, axes_mm = _box(size, spacing_mm)
    if any(part.stop <= part.start for part in box):
        raise ValueError(f"a grid of {size} voxels of {spacing_mm} mm misses the brain")
    brain = lattice.sample(anatomy.hull, axes_mm) > 0
    if not brain.any():
        raise ValueError(f"a grid of {size} voxels of {spacing_mm} mm misses the brain")
    view = _View(lattice, axes_mm, brain)
    shares, labels = _tissues(view, anatomy, tumour)
    truth = np.zeros(size, np.uint8)
    truth[box][brain] = labels
    images: dict[str, npt.NDArray[np.float32]] = {}
    for modality in INTENSITY:
        images[modality] = np.zeros(size, np.float32)
        images[modality][box][brain] = _intensities(modality, view, shares, labels, rng)
    return Phantom(images, truth, spacing_mm)


def write_phantom(folder: str | Path, seed: int = 0) -> dict[str, Path]:
    """Write `phantom_t1.nii.gz` ... `phantom_seg.nii.gz` in BraTS's grid, int16; return name to path.

    The segmentation has the values of BraTS 2023: 1 NCR, 2 ED, 3 ET. The folder is made.

    Raises:
        ResourceError: The folder or a file cannot be written, or the disk is full.
    """
    phantom = make_phantom(seed)
    arrays: Mapping[str, npt.NDArray[np.generic]] = {**phantom.images, "seg": phantom.truth}
    paths = {}
    for name, array in arrays.items():
        paths[name] = Path(folder) / f"phantom_{name}.nii.gz"
        geometry = Geometry(phantom.truth.shape, phantom.spacing_mm, (0.0, -239.0, 0.0))
        write_image(np.rint(array).astype(np.int16), geometry, paths[name])
    return paths


class _Lattice:
    """The fixed grid of 2 mm on which noise lives, so that a patient does not depend on the output grid."""

    def __init__(self) -> None:
        self.axes_mm = [np.arange(-half, half + 1e-3, LATTICE_MM, dtype=np.float32) for half in HALF_EXTENT_MM]
        self.shape = tuple(len(axis) for axis in self.axes_mm)

    def noise(self, rng: np.random.Generator, sigma_mm: float) -> Field:
        """Return white noise smoothed by a Gaussian, mean 0 and standard deviation 1."""
        field = rng.standard_normal(self.shape, dtype=np.float32)
        field = _separable([_gaussian_matrix(n, sigma_mm / LATTICE_MM) for n in self.shape], field)
        field -= field.mean()
        return np.asarray(field / field.std(), np.float32)

    def sample(self, field: Field, axes_mm: Sequence[Field]) -> Field:
        """Return the field at the crossings of three axes (mm from the brain's centre), trilinear."""
        matrices = [_linear_matrix(own, axis) for own, axis in zip(self.axes_mm, axes_mm, strict=True)]
        return _separable(matrices, field)


class _View:
    """The brain's voxels of the output grid as flat vectors."""

    def __init__(self, lattice: _Lattice, axes_mm: Sequence[Field], brain: npt.NDArray[np.bool_]) -> None:
        self.lattice, self.axes_mm, self.brain = lattice, axes_mm, brain

    def __call__(self, field: Field) -> Field:
        return self.lattice.sample(field, self.axes_mm)[self.brain]

    def coordinates(self) -> tuple[Field, Field, Field]:
        """Return (x, y, z) in mm from the brain's centre, to the patient's left, back and head."""
        indices = np.nonzero(self.brain)
        z, y, x = (axis[index] for axis, index in zip(self.axes_mm, indices, strict=True))
        return x, y, z

    def grain(self, rng: np.random.Generator) -> Field:
        """Return the scanner's noise, unit variance, correlated between neighbours as after resampling."""
        matrices = [_gaussian_matrix(n, 0.6) for n in self.brain.shape]
        noise = _separable(matrices, rng.standard_normal(self.brain.shape, dtype=np.float32))[self.brain]
        return np.asarray(noise / noise.std(), np.float32)


class _Anatomy:
    """A healthy brain: hull, sulcal sheets and noise on the lattice, ventricles' width."""

    def __init__(self, lattice: _Lattice, rng: np.random.Generator) -> None:
        z, y, x = np.meshgrid(*lattice.axes_mm, indexing="ij", sparse=True)
        self.warp = [2.2 * lattice.noise(rng, 18.0) for _ in range(3)]
        bent = (x + self.warp[0], y + self.warp[1], z + self.warp[2])
        self.hull = _smooth_union([_cerebrum(bent), _hindbrain(bent)], 3.0) + 0.5 * lattice.noise(rng, 3.0)
        wander = [1.3 * lattice.noise(rng, 5.0) for _ in range(3)]
        self.sulci = _radial_sheets(lattice.noise(rng, 2.6), (x + wander[0], y + wander[1], z + wander[2]))
        self.sulcal_depth_mm = 22.0 + 6.0 * lattice.noise(rng, 6.0)
        self.atrophy = lattice.noise(rng, 8.0)
        self.vessels = lattice.noise(rng, 5.0)
        self.texture = [lattice.noise(rng, 3.0) for _ in INTENSITY]
        self.bias = [lattice.noise(rng, 35.0) for _ in INTENSITY]
        self.ventricle_width = float(rng.uniform(0.75, 1.15))


class _Tumour:
    """Where the tumour sits and how its borders wander, in mm."""

    def __init__(self, lattice: _Lattice, rng: np.random.Generator) -> None:
        places = ((31.0, -34.0, 24.0), (31.0, 22.0, 28.0), (29.0, 40.0, 19.0), (30.0, -8.0, 32.0))
        place = np.array(places[rng.integers(len(places))]) + rng.uniform(-3, 3, 3)
        self.side = float(rng.choice((-1.0, 1.0)))
        self.centre = (self.side * float(place[0]), float(place[1]), float(place[2]))
        self.stretch = tuple(float(value) for value in rng.uniform(0.85, 1.2, 3))
        self.core_mm = float(rng.uniform(15.0, 19.0))
        self.core_shape = 2.8 * lattice.noise(rng, 6.0) + 1.2 * lattice.noise(rng, 2.5)
        self.rim_mm = np.maximum(4.0 + 2.0 * lattice.noise(rng, 4.0), 1.3)
        self.oedema_mm = np.maximum(13.0 + 7.0 * lattice.noise(rng, 9.0) + 2.0 * lattice.noise(rng, 3.0), 1.0)
        self.lumps = [lattice.noise(rng, 2.8) for _ in INTENSITY]
        self.swelling = lattice.noise(rng, 7.0)


@dataclass(frozen=True)
class _Shares:
    """What the brain's voxels consist of, each a flat vector in 0 to 1, and the noise that colours it."""

    csf: Field
    grey: Field
    vessel: Field
    periventricular: Field
    tumour: tuple[Field, Field, Field]  # NCR, ED, ET; what they leave is normal tissue
    texture: list[Field]
    lumps: list[Field]  # coarse grain of the core
    swelling: Field  # how much water the oedema holds, about 0
    bias: list[Field]


def _tissues(view: _View, anatomy: _Anatomy, tumour: _Tumour) -> tuple[_Shares, npt.NDArray[np.uint8]]:
    """Return the shares of the tissues and the true class of each voxel of the brain."""
    x, y, z = view.coordinates()
    depth = view(anatomy.hull)
    radius = _norm([(a - c) / s for a, c, s in zip((x, y, z), tumour.centre, tumour.stretch, strict=True)])
    # Mass effect: what is seen at a place was, before the tumour grew, nearer to the tumour's centre.
    push = 6.0 * np.exp(-np.square(radius / 32.0)) / np.maximum(radius, 12.0)
    x, y, z = (
        a + view(warp) - push * (a - c) for a, warp, c in zip((x, y, z), anatomy.warp, tumour.centre, strict=True)
    )
    radius += view(tumour.core_shape)
    crowding = np.exp(-np.square(radius / 30.0))
    sheet = _sulcal_distance(view, anatomy, (x, y, z), depth)
    half_width = np.maximum(0.35 + 0.45 * view(anatomy.atrophy), 0.0) * (1 - 0.8 * crowding)
    half_width *= np.clip((z + 45) / 35, 0.25, 1.0)  # the cerebellum's folia lie closer than gyri do
    half_width += np.clip((7.0 - depth) * 0.10, 0.0, 0.6) * (1 - crowding)
    ventricles = _ventricles((x, y, z), anatomy.ventricle_width)
    csf = _step(np.maximum(half_width - sheet, ventricles), 0.35)
    grey = np.maximum(_step(2.7 + half_width - sheet, 0.6), 0.65 * _step(_deep_grey((x, y, z)), 1.0))

    core = np.minimum(tumour.core_mm - radius, depth - 2.5)
    necrosis = core - view(tumour.rim_mm)
    into_cortex = np.clip(1.3 * (6.5 + half_width - sheet), 0.0, 10.0)
    across = np.maximum(-tumour.side * x, 0.0) * 2.0
    oedema = core + view(tumour.oedema_mm) - into_cortex - across
    oedema = np.minimum(oedema, 3.0 * np.minimum(sheet - half_width, -ventricles))
    inside, dead, swollen = _step(core, 0.5), _step(necrosis, 0.5), _step(oedema, 0.8)
    labels = np.where(core > 0, np.where(necrosis > 0, 1, 3), np.where(oedema > 0, 2, 0)).astype(np.uint8)

    vessel = _step(1.0 - np.abs(view(anatomy.vessels)) * 7.0, 0.25) * _step(half_width + 0.6 - sheet, 0.3)
    surface = _step(1.6 - depth, 0.5) * _step(view(anatomy.vessels) - 0.3, 0.2)
    plexus = _capsule((np.abs(x), y, z), (18, 24, 17), (25, 31, 6), 2.2, 2.6)
    sinus = np.minimum.reduce([2.0 - np.abs(x), 3.0 - depth, y / 20, z / 5 + 3])
    return _Shares(
        csf=csf,
        grey=grey,
        vessel=np.maximum.reduce([vessel, surface, _step(plexus, 0.4), _step(sinus, 0.4)]) * (1 - inside),
        periventricular=np.exp(-np.square(np.minimum(ventricles + 1.0, 0.0) / 1.8)) * (1 - csf),
        tumour=(inside * dead, swollen * (1 - inside), inside * (1 - dead)),
        texture=[view(noise) for noise in anatomy.texture],
        lumps=[view(noise) for noise in tumour.lumps],
        swelling=0.7 * view(tumour.swelling) + 0.12 * np.clip(core + 6, -10, 6),
        bias=[view(noise) for noise in anatomy.bias],
    ), labels


def _intensities(
    modality: str, view: _View, shares: _Shares, labels: npt.NDArray[np.uint8], rng: np.random.Generator
) -> Field:
    """Return one modality's intensities of the brain's voxels, all of them at least 1."""
    number = list(INTENSITY).index(modality)
    csf, grey, white = NORMAL_Z[modality]
    value = white + (grey - white) * shares.grey
    water = -1.0 if modality.startswith("t1") else 1.0  # T1 falls where oedema holds more water, T2 rises
    value += (csf - value) * shares.csf + 0.22 * shares.texture[number]
    if modality == "flair":
        value += 0.9 * shares.periventricular
    value += {"t1": 0.2, "t1c": 3.8, "t2": -0.4, "flair": 0.2}[modality] * shares.vessel
    for name, share, (mean, spread) in zip(("NCR", "ED", "ET"), shares.tumour, TUMOUR_Z[modality], strict=True):
        pattern = water * shares.swelling if name == "ED" else shares.lumps[number]
        value += (mean + spread * pattern - value) * share
    _match_tumour(value, modality, shares, labels)
    mean, ratio = INTENSITY[modality]
    value += 0.13 * view.grain(rng)
    value = mean * (1 + ratio * value) * (1 + 0.03 * shares.bias[number])
    return np.asarray(np.maximum(value, 1.0), np.float32)


def _match_tumour(value: Field, modality: str, shares: _Shares, labels: npt.NDArray[np.uint8]) -> None:
    """Shift the tumour's classes in place until their z-scores in this brain have the means of `TUMOUR_Z`."""
    voxels = np.bincount(labels, minlength=4)
    for _ in range(3):
        means = np.bincount(labels, value, 4) / np.maximum(voxels, 1)
        centre, scale = float(value.mean()), float(value.std())
        for index, (share, (target, _spread)) in enumerate(zip(shares.tumour, TUMOUR_Z[modality], strict=True), 1):
            if voxels[index]:
                value += np.float32(centre + scale * target - means[index]) * share


def _cerebrum(p: Sequence[Field]) -> Field:
    x, y, z = np.abs(p[0]), p[1], p[2]
    taper = 1 + 0.0022 * np.maximum(-y, 0)  # the frontal lobes are narrower than the parietal ones
    upper = _ellipsoid((x * taper, y, z - 20), (67, 86, 50))
    temporal = _ellipsoid((x - 37, y + 2, z + 24), (24, 42, 25))
    return _smooth_union([upper, temporal], 3.0)


def _hindbrain(p: Sequence[Field]) -> Field:
    x, y, z = np.abs(p[0]), p[1], p[2]
    cerebellum = _ellipsoid((x - 20, y - 46, z + 40), (36, 33, 26))
    stem = _capsule((x, y, z), (0, 8, -6), (0, 26, -75), 12, 10)
    return _smooth_union([cerebellum, stem], 3.0)


def _radial_sheets(noise: Field, p: Sequence[Field]) -> Field:
    """Return the signed distance in mm to sheets that run inwards from the surface, as sulci do.

    The sheets are the noise's zero level. Read along rays from inside each hemisphere with their length squeezed,
    the noise changes slowly inwards, so that its zero level stands upright on the surface.
    """
    x, y, z = p
    foot = (np.sign(x) * (9 + 0.4 * np.maximum(np.abs(x) - 9, 0)), 0.5 * y, 0.45 * z)
    ray = [a - b for a, b in zip((x, y, z), foot, strict=True)]
    length = np.maximum(_norm(ray), 1.0)
    squeeze = (38 + 0.35 * length) / length
    places = [b + a * squeeze for a, b in zip(ray, foot, strict=True)]
    level = _gather(noise, places[::-1])
    slope = _norm([np.gradient(level, LATTICE_MM, axis=axis) for axis in range(3)])
    return np.asarray(level / np.maximum(slope, 0.08), np.float32)


def _sulcal_distance(view: _View, anatomy: _Anatomy, p: Sequence[Field], depth: Field) -> Field:
    """Return the distance in mm from the nearest CSF sheet: sulci, fissures, tentorium, the surface."""
    x, y, z = p
    cerebrum, hindbrain = _cerebrum(p), _hindbrain(p)
    reach = (1 - 0.4 * (hindbrain > cerebrum).astype(np.float32)) * view(anatomy.sulcal_depth_mm)
    inner = _ellipsoid((x, y - 4, z), (40, 40, 30))  # deep nuclei and the tracts about them have no sulci
    beyond = np.maximum(np.maximum(depth - reach, inner), 0)
    distance = _norm([view(anatomy.sulci), beyond])
    callosum = (_norm([(y + 2) / 42, (z - 8) / 24]) - 1) * 24  # outside this arch lies the great fissure
    below = np.maximum(-18 - z, 0)
    distance = np.minimum(distance, _norm([x, np.minimum(callosum, 0), below]))
    insula = [np.maximum(35 - np.abs(x), 0), np.maximum(np.abs(y + 4) - 30, 0), z + 6 - 0.25 * y]
    distance = np.minimum(distance, np.maximum(_norm(insula) - 0.5, 0))
    tentorium = np.abs(cerebrum - hindbrain) / 2 + np.maximum(14 - _norm([x, y - 12]), 0)
    distance = np.minimum(distance, tentorium)
    return np.asarray(np.minimum(distance, np.maximum(depth + 0.2, 0)), np.float32)


def _ventricles(p: Sequence[Field], width: float) -> Field:
    x, y, z = np.abs(p[0]), p[1], p[2]
    stations = [
        ((8, -32, 11), 4.0),
        ((9, -6, 21), 4.5),
        ((20, 28, 17), 7.0),
        ((31, 18, -8), 3.0),
        ((30, -6, -18), 2.0),
    ]
    parts = [_capsule((x, y, z), a, b, ra * width, rb * width) for (a, ra), (b, rb) in pairwise(stations)]
    parts.append(_capsule((x, y, z), (21, 30, 14), (22, 50, 8), 6 * width, 2.5 * width))
    parts.append(_ellipsoid((x, y - 2, z), (2.2 * width, 14, 9)))
    parts.append(_ellipsoid((x, y - 34, z + 34), (6 * width, 5, 9)))
    return np.asarray(np.maximum.reduce(parts), np.float32)


def _deep_grey(p: Sequence[Field]) -> Field:
    x, y, z = np.abs(p[0]), p[1], p[2]
    thalamus = _ellipsoid((x - 11, y - 9, z - 4), (8, 14, 10))
    caudate = _ellipsoid((x - 15, y + 24, z - 11), (5, 11, 7))
    putamen = _ellipsoid((x - 26 - 0.15 * y, y + 4, z - 2), (5.5, 17, 11))
    return np.asarray(np.maximum.reduce([thalamus, caudate, putamen]), np.float32)


def _norm(parts: Sequence[Field]) -> Field:
    total = np.square(parts[0])
    for part in parts[1:]:
        total = total + np.square(part)
    return np.asarray(np.sqrt(total), np.float32)


def _ellipsoid(p: Sequence[Field], radii: Triple) -> Field:
    """Return the signed distance to an ellipsoid's surface, to first order: value of the form over its slope."""
    form = _norm([a / r for a, r in zip(p, radii, strict=True)])
    slope = _norm([a / r**2 for a, r in zip(p, radii, strict=True)])
    return np.asarray(form * (1 - form) / np.maximum(slope, 1e-4), np.float32)


def _capsule(p: Sequence[Field], start: Triple, stop: Triple, r_start: float, r_stop: float) -> Field:
    along = [b - a for a, b in zip(start, stop, strict=True)]
    offset = [a - s for a, s in zip(p, start, strict=True)]
    share = (offset[0] * along[0] + offset[1] * along[1] + offset[2] * along[2]) / sum(a * a for a in along)
    share = np.clip(share, 0, 1)
    distance = _norm([o - share * a for o, a in zip(offset, along, strict=True)])
    return np.asarray(r_start + share * (r_stop - r_start) - distance, np.float32)


def _smooth_union(parts: Sequence[Field], radius_mm: float) -> Field:
    """Return the union's signed distance with the seam rounded: a soft maximum."""
    first, second = parts
    return np.asarray(radius_mm * np.logaddexp(first / radius_mm, second / radius_mm), np.float32)


def _step(distance: Field, width_mm: float) -> Field:
    """Return 0 outside, 1 inside, and a straight ramp of four widths between."""
    return np.asarray(np.clip(distance / (4 * width_mm) + 0.5, 0, 1), np.float32)


def _box(size: Sequence[int], spacing_mm: Triple) -> tuple[tuple[slice, ...], list[Field]]:
    """Return the part of the grid that can hold brain, and its voxels' places (mm from the brain's centre)."""
    box, axes = [], []
    for n, step, offset, half in zip(size, spacing_mm, BRAIN_OFFSET_MM, HALF_EXTENT_MM, strict=True):
        place = ((np.arange(n) - (n - 1) / 2) * step - offset).astype(np.float32)
        inside = np.flatnonzero(np.abs(place) <= half)
        part = slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)
        box.append(part)
        axes.append(place[part])
    return tuple(box), axes


def _separable(matrices: Sequence[Field], field: Field) -> Field:
    """Return the field (d, h, w) with one matrix applied along each axis; small products beat any filter here."""
    field = np.tensordot(matrices[0], field, 1)
    field = np.matmul(matrices[1], field)
    return np.asarray(field @ matrices[2].T, np.float32)


def _gaussian_matrix(n: int, sigma: float) -> Field:
    lag = np.arange(n)[:, None] - np.arange(n)
    weights = np.exp(-0.5 * np.square(lag / sigma))
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def _linear_matrix(known: Field, wanted: Field) -> Field:
    place = np.clip((wanted - known[0]) / LATTICE_MM, 0, len(known) - 1)
    return np.asarray(np.maximum(1 - np.abs(place[:, None] - np.arange(len(known))), 0), np.float32)


def _gather(field: Field, places_mm: Sequence[Field]) -> Field:
    """Return the lattice field at scattered places (z, y, x) in mm, trilinear."""
    low, high, rest = [], [], []
    for place, n, half in zip(places_mm, field.shape, HALF_EXTENT_MM, strict=True):
        index = np.clip((place + half) / LATTICE_MM, 0, n - 1.001)
        low.append(index.astype(np.intp))
        high.append(low[-1] + 1)
        rest.append((index - low[-1]).astype(np.float32))
    total = np.zeros(np.broadcast_shapes(*(index.shape for index in low)), np.float32)
    for corner in np.ndindex(2, 2, 2):
        weight = np.float32(1)
        for axis, upper in enumerate(corner):
            weight = weight * (rest[axis] if upper else 1 - rest[axis])
        total += weight * field[tuple((high if upper else low)[axis] for axis, upper in enumerate(corner))]
    return total
