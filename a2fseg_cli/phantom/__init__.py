"""A synthetic patient: four MR-like images and their exact segmentation, from a seed alone.

No scan ships with the tool, so `a2fseg demo` and the tests look at this one. Anatomy comes from signed distances
to simple bodies (ellipsoids, capsules, sheets) in mm, positive inside, bent and folded by smooth noise. Soft
steps across those distances give the share of each tissue in a voxel, hence partial volume.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.writing import write_image
from a2fseg_cli.phantom.anatomy import Anatomy, Tumour, tissues
from a2fseg_cli.phantom.contrast import intensities
from a2fseg_cli.phantom.fields import Lattice, Triple, View, brain_box
from a2fseg_cli.phantom.measured import INTENSITY


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
    lattice = Lattice()
    anatomy = Anatomy(lattice, rng)
    tumour = Tumour(lattice, rng)
    box, axes_mm = brain_box(size, spacing_mm)
    if any(part.stop <= part.start for part in box):
        raise ValueError(f"a grid of {size} voxels of {spacing_mm} mm misses the brain")
    brain = lattice.sample(anatomy.hull, axes_mm) > 0
    if not brain.any():
        raise ValueError(f"a grid of {size} voxels of {spacing_mm} mm misses the brain")
    view = View(lattice, axes_mm, brain)
    shares, labels = tissues(view, anatomy, tumour)
    truth = np.zeros(size, np.uint8)
    truth[box][brain] = labels
    images: dict[str, npt.NDArray[np.float32]] = {}
    for modality in INTENSITY:
        images[modality] = np.zeros(size, np.float32)
        images[modality][box][brain] = intensities(modality, view, shares, labels, rng)
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
