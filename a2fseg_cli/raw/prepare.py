"""One patient's raw images: the brain found in each, all registered to one, on one grid.

The result of the network is wanted on the reference's own grid. Where its slices are thick, the others would lose what
they show in between: they are put on a grid that splits each slice into an odd number of thinner ones, so that the
middle one of them lies where the slice was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.checks import Mask, in_order, remarks
from a2fseg_cli.cases.images import CaseImages, ReadingOptions, mask_remarks, read_images, read_mask
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.imaging.brain import brain_mask
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.one_grid import check_distinct
from a2fseg_cli.imaging.reading import MedicalImage
from a2fseg_cli.imaging.rigid_grid import divided, resample_rigidly
from a2fseg_cli.imaging.skull import skull_on
from a2fseg_cli.raw.brain_agreement import agree
from a2fseg_cli.raw.extraction import extract_brain, judged
from a2fseg_cli.raw.registration import Registration, covered, register, resample_onto

# The sequences by how well they serve as the reference: the mask is read on T1c or FLAIR.
REFERENCES = ("t1c", "flair", "t2", "t1")
# Slices thicker than 2 mm, at which the bundled network works, are split until they are as thin as 1.5 mm.
_THICK_MM = 2.0
_THICKEST_MM = 1.5


@dataclass(frozen=True)
class RawPatient:
    """What became of a patient's raw images.

    Attributes:
        images: Registered, on one grid, with the skull still on; `masks` say where the brain is.
        brain: The brain on that grid (D, H, W), one for all.
        registrations: How each sequence but the reference was moved.
        dropped: The sequences that could not be registered, with why.
    """

    images: CaseImages
    brain: Mask
    registrations: Mapping[str, Registration]
    dropped: Mapping[str, str]


def prepare_raw(case: Case, modalities: Sequence[str], options: ReadingOptions, threads: int = 1) -> RawPatient:
    """Return a patient's images registered to the reference, with the brain found.

    Args:
        case: The patient; every image on its own grid, with or without the skull.
        modalities: What the network takes.
        options: `reference` (default: T1c, else FLAIR, T2, T1), `brain_mask` (on the grid of one of the images) and
            `drop_unregistered` are followed.
        threads: How many images are worked on at a time.

    Raises:
        InputError: as `load_images`; no brain is seen in the reference; a sequence cannot be registered.
        UsageError: as `load_images`.
    """
    images = read_images(case, modalities, threads)
    check_distinct(images)
    reference = _reference(images, options.reference)
    brains, told = _brains(images, options, threads)
    registrations = _registrations(images, reference, brains, threads)
    dropped = {m: motion.problem for m, motion in registrations.items() if motion.problem}
    for m, problem in dropped.items():
        if not options.drop_unregistered:
            raise InputError(
                f"{images[m].path}: {m} could not be registered to {reference} ({problem}). Leave it out, or go "
                "on without such sequences (drop_unregistered)."
            )
        told.append(f"{m} is left out, since it could not be registered to {reference} ({problem})")
    registrations = {m: motion for m, motion in registrations.items() if m not in dropped}
    kept = {m: image for m, image in images.items() if m not in dropped}
    grid, blocks = finer(images[reference].geometry)
    placed = _placed(kept, brains, registrations, grid, threads)
    on_grid = {m: one.image for m, one in placed.items()}
    if options.brain_mask is not None:
        brain = _given_on_grid(options.brain_mask, {m: placed[m] for m in (reference, *placed)}, brains)
    else:
        agreed = agree({m: one.brain for m, one in placed.items() if one.brain is not None})
        brain = agreed.mask
        told += agreed.warnings
    masks = {m: brain & one.shown for m, one in placed.items()}
    told += remarks(on_grid, masks, threads)
    warnings = [*case.warnings, *(text for image in kept.values() for text in image.warnings)]
    warnings += [f"{case.name}: {text}" for text in told]
    output = images[reference].geometry
    result = CaseImages(case.name, on_grid, masks, reference, in_order(warnings), output, blocks)
    return RawPatient(result, brain, registrations, dropped)


def _registrations(
    images: Mapping[str, MedicalImage], reference: str, brains: Mapping[str, Mask], threads: int
) -> dict[str, Registration]:
    """Return how each sequence but the reference lies to it."""
    fixed, fixed_brain = images[reference], brains.get(reference)
    moving = [m for m in images if m != reference]

    def motion(m: str) -> Registration:
        return register(images[m], fixed, moving_brain=brains.get(m), fixed_brain=fixed_brain)

    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(moving, pool.map(motion, moving), strict=True))


@dataclass(frozen=True)
class _Placed:
    """A sequence on the grid of all: its image, its own brain mask (0 to 1, NaN where it shows nothing), its field."""

    image: MedicalImage
    brain: npt.NDArray[np.float32] | None
    shown: Mask


def _placed(
    images: Mapping[str, MedicalImage],
    brains: Mapping[str, Mask],
    registrations: Mapping[str, Registration],
    grid: Geometry,
    threads: int,
) -> dict[str, _Placed]:
    """Return each sequence on one grid, interpolated once."""

    def place(m: str) -> _Placed:
        own, motion = images[m].geometry, registrations[m].matrix if m in registrations else np.eye(4)
        image, shown = resample_onto(images[m], motion, grid), covered(images[m], motion, grid)
        share = resample_rigidly(brains[m].astype(np.float32), own, grid, motion) if m in brains else None
        if share is not None:
            share[~shown] = np.nan
        return _Placed(image, share, shown)

    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(images, pool.map(place, images), strict=True))


def _given_on_grid(path: str | PathLike[str], placed: Mapping[str, _Placed], brains: Mapping[str, Mask]) -> Mask:
    """Return the mask that was given on the grid of all: as it is where it lies on that of the first, the reference.

    Images of one grid may have moved: the mask on the grid of T1 and T1c is turned with T1 only if T1c is not there.

    Raises:
        InputError: it lies on the grid of a sequence that is left out.
    """
    own = next((one.brain for one in placed.values() if one.brain is not None), None)
    if own is None:
        raise InputError(
            f"{path}: this mask lies on the grid of {', '.join(brains)}, which could not be registered. Give one on "
            f"the grid of {next(iter(placed))}."
        )
    return own > 0.5


def finer(geometry: Geometry) -> tuple[Geometry, tuple[int, int, int]]:
    """Return a grid of the same extent without thick slices, and how many of its voxels (z, y, x) make one of the grid.

    The numbers are odd: the middle voxel of each block has the centre of the voxel it came from.
    """
    counts = [spacing / _THICKEST_MM if spacing > _THICK_MM else 1.0 for spacing in geometry.spacing_mm]
    z, y, x = (2 * math.ceil((count - 1) / 2) + 1 for count in counts)
    return divided(geometry, (z, y, x)), (z, y, x)


def _reference(images: Mapping[str, MedicalImage], wanted: str | None) -> str:
    """Return the sequence on whose grid the result lies. Raises: UsageError for one that is not there."""
    if wanted is None:
        return next((m for m in REFERENCES if m in images), next(iter(images)))
    if wanted not in images:
        raise UsageError(f"reference {wanted}: not among the images given ({', '.join(images)}).")
    return wanted


def _brains(
    images: Mapping[str, MedicalImage], options: ReadingOptions, threads: int
) -> tuple[dict[str, Mask], list[str]]:
    """Return where each image has brain, on its own grid, and what to say of it; not of one where none is seen.

    Raises:
        InputError: no image shows a brain, or the mask given lies on no image's grid.
    """
    if options.brain_mask is not None:
        given = _given_brain(Path(options.brain_mask), images)
        first = next(iter(given))
        return given, mask_remarks(Path(options.brain_mask), given[first], images[first].geometry)
    brains: dict[str, Mask] = {}
    told: list[str] = []
    for m, image in images.items():
        look = skull_on(image.array, image.geometry.spacing_mm)
        stripped = look.judged and not look.likely
        if stripped:
            extracted = judged(brain_mask(image.array), image.geometry)
        else:
            extracted = extract_brain(image, threads=threads)
        told += [f"{m}: {warning}" for warning in extracted.warnings]
        if extracted.problem is None:
            brains[m] = extracted.mask
        else:
            told.append(f"{m}: {extracted.problem}")
    if not brains:
        raise InputError(
            f"No brain is seen. {'; '.join(told)}. Are these images of a head? Or give a mask (brain_mask)."
        )
    return brains, told


def _given_brain(path: Path, images: Mapping[str, MedicalImage]) -> dict[str, Mask]:
    """Return a mask that lies on the grid of some of the images, for these. Raises: InputError for one on no grid."""
    reasons = []
    brains = {}
    for m, image in images.items():
        try:
            brains[m] = read_mask(path, image)
        except InputError as error:
            reasons.append(error)
    if not brains:
        raise reasons[0]
    return brains
