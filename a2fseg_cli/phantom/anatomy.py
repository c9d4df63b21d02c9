"""A healthy brain, a tumour in it, and what each voxel then consists of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from a2fseg_cli.phantom import bodies
from a2fseg_cli.phantom.fields import LATTICE_MM, Field, Lattice, View, gather, norm, step
from a2fseg_cli.phantom.measured import INTENSITY


class Anatomy:
    """A healthy brain: hull, sulcal sheets and noise on the lattice, ventricles' width."""

    def __init__(self, lattice: Lattice, rng: np.random.Generator) -> None:
        z, y, x = np.meshgrid(*lattice.axes_mm, indexing="ij", sparse=True)
        self.warp = [2.2 * lattice.noise(rng, 18.0) for _ in range(3)]
        bent = (x + self.warp[0], y + self.warp[1], z + self.warp[2])
        self.hull = bodies.smooth_union([bodies.cerebrum(bent), bodies.hindbrain(bent)], 3.0)
        self.hull = self.hull + 0.5 * lattice.noise(rng, 3.0)
        wander = [1.3 * lattice.noise(rng, 5.0) for _ in range(3)]
        self.sulci = _radial_sheets(lattice.noise(rng, 2.6), (x + wander[0], y + wander[1], z + wander[2]))
        self.sulcal_depth_mm = 22.0 + 6.0 * lattice.noise(rng, 6.0)
        self.atrophy = lattice.noise(rng, 8.0)
        self.vessels = lattice.noise(rng, 5.0)
        self.texture = [lattice.noise(rng, 3.0) for _ in INTENSITY]
        self.bias = [lattice.noise(rng, 35.0) for _ in INTENSITY]
        self.ventricle_width = float(rng.uniform(0.75, 1.15))


class Tumour:
    """Where the tumour sits and how its borders wander, in mm."""

    def __init__(self, lattice: Lattice, rng: np.random.Generator) -> None:
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
class Shares:
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


def tissues(view: View, anatomy: Anatomy, tumour: Tumour) -> tuple[Shares, npt.NDArray[np.uint8]]:
    """Return the shares of the tissues and the true class of each voxel of the brain."""
    x, y, z = view.coordinates()
    depth = view(anatomy.hull)
    radius = norm([(a - c) / s for a, c, s in zip((x, y, z), tumour.centre, tumour.stretch, strict=True)])
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
    ventricles = bodies.ventricles((x, y, z), anatomy.ventricle_width)
    csf = step(np.maximum(half_width - sheet, ventricles), 0.35)
    grey = np.maximum(step(2.7 + half_width - sheet, 0.6), 0.65 * step(bodies.deep_grey((x, y, z)), 1.0))

    core = np.minimum(tumour.core_mm - radius, depth - 2.5)
    necrosis = core - view(tumour.rim_mm)
    into_cortex = np.clip(1.3 * (6.5 + half_width - sheet), 0.0, 10.0)
    across = np.maximum(-tumour.side * x, 0.0) * 2.0
    oedema = core + view(tumour.oedema_mm) - into_cortex - across
    oedema = np.minimum(oedema, 3.0 * np.minimum(sheet - half_width, -ventricles))
    inside, dead, swollen = step(core, 0.5), step(necrosis, 0.5), step(oedema, 0.8)
    labels = np.where(core > 0, np.where(necrosis > 0, 1, 3), np.where(oedema > 0, 2, 0)).astype(np.uint8)

    vessel = step(1.0 - np.abs(view(anatomy.vessels)) * 7.0, 0.25) * step(half_width + 0.6 - sheet, 0.3)
    surface = step(1.6 - depth, 0.5) * step(view(anatomy.vessels) - 0.3, 0.2)
    plexus = bodies.capsule((np.abs(x), y, z), (18, 24, 17), (25, 31, 6), 2.2, 2.6)
    sinus = np.minimum.reduce([2.0 - np.abs(x), 3.0 - depth, y / 20, z / 5 + 3])
    return Shares(
        csf=csf,
        grey=grey,
        vessel=np.maximum.reduce([vessel, surface, step(plexus, 0.4), step(sinus, 0.4)]) * (1 - inside),
        periventricular=np.exp(-np.square(np.minimum(ventricles + 1.0, 0.0) / 1.8)) * (1 - csf),
        tumour=(inside * dead, swollen * (1 - inside), inside * (1 - dead)),
        texture=[view(noise) for noise in anatomy.texture],
        lumps=[view(noise) for noise in tumour.lumps],
        swelling=0.7 * view(tumour.swelling) + 0.12 * np.clip(core + 6, -10, 6),
        bias=[view(noise) for noise in anatomy.bias],
    ), labels


def _radial_sheets(noise: Field, p: Sequence[Field]) -> Field:
    """Return the signed distance in mm to sheets that run inwards from the surface, as sulci do.

    The sheets are the noise's zero level. Read along rays from inside each hemisphere with their length squeezed,
    the noise changes slowly inwards, so that its zero level stands upright on the surface.
    """
    x, y, z = p
    foot = (np.sign(x) * (9 + 0.4 * np.maximum(np.abs(x) - 9, 0)), 0.5 * y, 0.45 * z)
    ray = [a - b for a, b in zip((x, y, z), foot, strict=True)]
    length = np.maximum(norm(ray), 1.0)
    squeeze = (38 + 0.35 * length) / length
    places = [b + a * squeeze for a, b in zip(ray, foot, strict=True)]
    level = gather(noise, places[::-1])
    slope = norm([np.gradient(level, LATTICE_MM, axis=axis) for axis in range(3)])
    return np.asarray(level / np.maximum(slope, 0.08), np.float32)


def _sulcal_distance(view: View, anatomy: Anatomy, p: Sequence[Field], depth: Field) -> Field:
    """Return the distance in mm from the nearest CSF sheet: sulci, fissures, tentorium, the surface."""
    x, y, z = p
    cerebrum, hindbrain = bodies.cerebrum(p), bodies.hindbrain(p)
    reach = (1 - 0.4 * (hindbrain > cerebrum).astype(np.float32)) * view(anatomy.sulcal_depth_mm)
    inner = bodies.ellipsoid((x, y - 4, z), (40, 40, 30))  # deep nuclei and the tracts about them have no sulci
    beyond = np.maximum(np.maximum(depth - reach, inner), 0)
    distance = norm([view(anatomy.sulci), beyond])
    callosum = (norm([(y + 2) / 42, (z - 8) / 24]) - 1) * 24  # outside this arch lies the great fissure
    below = np.maximum(-18 - z, 0)
    distance = np.minimum(distance, norm([x, np.minimum(callosum, 0), below]))
    insula = [np.maximum(35 - np.abs(x), 0), np.maximum(np.abs(y + 4) - 30, 0), z + 6 - 0.25 * y]
    distance = np.minimum(distance, np.maximum(norm(insula) - 0.5, 0))
    tentorium = np.abs(cerebrum - hindbrain) / 2 + np.maximum(14 - norm([x, y - 12]), 0)
    distance = np.minimum(distance, tentorium)
    return np.asarray(np.minimum(distance, np.maximum(depth + 0.2, 0)), np.float32)
