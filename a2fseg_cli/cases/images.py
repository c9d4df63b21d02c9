"""A patient's images, read and checked in one place: the same for segmenting, scoring and training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.checks import Mask, brain_masks, in_order, refuse_skulls, remarks
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.dicom.reading import read_series
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.imaging.geometry import Geometry, largest_corner_offset_mm, same_grid
from a2fseg_cli.imaging.label_maps import LabelMap, check_on_grid, read_classes
from a2fseg_cli.imaging.one_grid import check_distinct, check_same_grid, resample_to
from a2fseg_cli.imaging.reading import MedicalImage, read_channels, read_image, read_label_map

MISMATCH = ("error", "resample")
# The brains of 100 patients have 790 to 2000 mL.
_SMALLEST_BRAIN_ML = 500.0


@dataclass(frozen=True)
class ReadingOptions:
    """What is made of images that do not fit together. All of it changes the result.

    Attributes:
        on_mismatch: error, or resample: put every image on the reference's grid.
        reference: Modality whose grid the output has; None takes the first given.
        brain_mask: A label map whose voxels other than 0 are brain; None finds the brain in each image.
        allow_skull: Go on where the skull is still on.
        raw: The images are as the scanner exported them: register them to the reference and find the brain first.
        drop_unregistered: Go on without a sequence that could not be registered.
    """

    on_mismatch: str = "error"
    reference: str | None = None
    brain_mask: str | PathLike[str] | None = None
    allow_skull: bool = False
    raw: bool = False
    drop_unregistered: bool = False

    def __post_init__(self) -> None:
        """Refuse an unknown word. Raises: UsageError."""
        if self.on_mismatch not in MISMATCH:
            raise UsageError(f"on_mismatch {self.on_mismatch}: expected {' or '.join(MISMATCH)}.")


@dataclass(frozen=True)
class CaseImages:
    """A patient's images on one grid, checked.

    Attributes:
        name: The case.
        images: By modality, in the order given.
        masks: Where each has brain, (D, H, W).
        reference: The modality on whose grid the output lies.
        warnings: What a user should know of them, each once.
        geometry: The grid of the output, which covers what the images' grid does.
        blocks: How many voxels (z, y, x) of the images make one of the output; 1 but for raw images in thick slices.
    """

    name: str
    images: Mapping[str, MedicalImage]
    masks: Mapping[str, Mask]
    reference: str
    warnings: tuple[str, ...]
    geometry: Geometry
    blocks: tuple[int, int, int] = (1, 1, 1)

    @property
    def reference_path(self) -> Path:
        """The file on whose grid the output lies."""
        return self.images[self.reference].path


def load_images(
    case: Case, modalities: Sequence[str], options: ReadingOptions | None = None, threads: int = 1
) -> CaseImages:
    """Return a patient's images, read and checked. Only the files of the case are opened.

    Args:
        case: The patient.
        modalities: What the network takes.
        options: Reference, and what to do with differing grids.
        threads: How many files are read at a time.

    Raises:
        InputError: the case's own problem, an image that is not acceptable, differing grids, the same content twice.
        UsageError: a modality that the network does not know, or a reference that was not given.
        ResourceError: the images do not fit into memory.
    """
    images = read_images(case, modalities, threads)
    return fitted(case.name, images, modalities, options, case.warnings, threads)


def read_images(case: Case, modalities: Sequence[str], threads: int = 1) -> dict[str, MedicalImage]:
    """Return a patient's images as they lie in the files, each on its own grid.

    Args:
        case: The patient.
        modalities: What the network takes.
        threads: How many files are read at a time.

    Raises:
        InputError: the case's own problem, or an image that is not acceptable.
        UsageError: a modality that the network does not know.
        ResourceError: the images do not fit into memory.
    """
    if case.problem:
        raise InputError(case.problem)
    check_names(case.name, case.images, modalities)
    if case.channels:
        names = [name if name in case.images else "-" for name in case.channels]
        return read_channels(next(iter(case.images.values())), names)
    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(case.images, pool.map(lambda name: _read(case, name), case.images), strict=True))


def _read(case: Case, modality: str) -> MedicalImage:
    """Return one image of a case, whether it is a file or a DICOM series."""
    return read_series(case.series[modality]) if modality in case.series else read_image(case.images[modality])


def read_truth(case: Case, config: ModelConfig, labels: str = "auto") -> LabelMap:
    """Return the expert's label map of a patient.

    Args:
        case: The patient.
        config: Whose classes.
        labels: auto (what the data set's list or the values show), a scheme, or an order such as `NCR=2,ED=1,ET=3`.

    Raises:
        InputError: the patient was not understood, has no truth, or one that is not acceptable.
        UsageError: no such scheme or order.
    """
    if case.problem:
        raise InputError(case.problem)
    if case.truth is None:
        raise InputError(f"{case.name}: no truth beside the images (a file that ends in seg, e.g. _seg.nii.gz).")
    if labels == "auto" and case.truth_labels:
        labels = ",".join(f"{name}={value}" for name, value in case.truth_labels.items())
    return read_classes(case.truth, config, labels)


def fitted(
    name: str,
    images: Mapping[str, MedicalImage],
    modalities: Sequence[str],
    options: ReadingOptions | None = None,
    warnings: Sequence[str] = (),
    threads: int = 1,
) -> CaseImages:
    """Return images that are in memory as those of one patient, on one grid, checked.

    Args:
        name: The case.
        images: By modality.
        modalities: What the network takes.
        options: Reference, and what to do with differing grids.
        warnings: What finding the files gave rise to; the images' own are added.
        threads: How many images are worked on at a time.

    Raises:
        InputError: as `load_images`, or the skull is on.
        UsageError: as `load_images`.
    """
    options = options or ReadingOptions()
    check_names(name, images, modalities)
    reference = options.reference or next(iter(images))
    if reference not in images:
        raise UsageError(f"reference {reference}: not among the images given ({', '.join(images)}).")
    grid = images[reference].geometry
    told = [*warnings, *(warning for image in images.values() for warning in image.warnings)]
    if options.on_mismatch == "resample":
        moved = {m: image for m, image in images.items() if not same_grid(image.geometry, grid)}
        told += [
            f"{image.path}: resampled to the grid of {images[reference].path} (corners up to "
            f"{largest_corner_offset_mm(image.geometry, grid):.4g} mm apart)"
            for image in moved.values()
        ]
        images = {m: resample_to(image, grid) if m in moved else image for m, image in images.items()}
    else:
        first = {reference: images[reference], **images}
        check_same_grid({m: (image.path, image.geometry) for m, image in first.items()})
    check_distinct(images)
    if options.brain_mask is not None:
        mask = read_mask(Path(options.brain_mask), images[reference])
        masks = dict.fromkeys(images, mask)
        told += mask_remarks(Path(options.brain_mask), mask, grid)
    else:
        if not options.allow_skull:
            refuse_skulls(images, threads)
        masks = brain_masks(images, threads)
    told += [f"{name}: {remark}" for remark in remarks(images, masks, threads)]
    return CaseImages(name, images, masks, reference, in_order(told), grid)


def read_mask(path: Path, image: MedicalImage) -> Mask:
    """Return where a label map on an image's grid is not 0. Raises: InputError."""
    labels, geometry = read_label_map(path)
    mask = check_on_grid(LabelMap(path, (labels != 0).astype(np.uint8), geometry, None), image.path, image.geometry)
    if not mask.classes.any():
        raise InputError(f"{path}: an empty mask of the brain. Is it the right file?")
    return mask.classes.astype(bool)


def mask_remarks(path: Path, mask: Mask, grid: Geometry) -> list[str]:
    """Return what is odd about the size of a brain's mask that was given."""
    ml = float(mask.sum()) * grid.voxel_volume_ml
    return [f"{path}: {ml:.0f} mL are no whole brain; what lies outside is not looked at"] * (ml < _SMALLEST_BRAIN_ML)


def check_names(name: str, images: Mapping[str, object], modalities: Sequence[str]) -> None:
    """Accept images by modality that the network takes. Raises: UsageError."""
    unknown = [m for m in images if m not in modalities]
    if unknown or not images:
        raise UsageError(
            f"{name}: found {', '.join(unknown) or 'no modality'}; the weights take {', '.join(modalities)}."
        )
