"""What preparation made, as files: registered images without the skull, the brain's mask, the transforms, a picture."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from a2fseg_cli.errors import ResourceError, UsageError
from a2fseg_cli.files import atomic_write_bytes, remove_abandoned
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.imaging.writing import write_image, write_label_map, write_map
from a2fseg_cli.modalities import BRATS_MODALITIES
from a2fseg_cli.raw.pictures import registration_picture
from a2fseg_cli.raw.prepare import RawPatient
from a2fseg_cli.raw.registration import write_transform

# Rounded to whole numbers, intensities of this size and more lose less than what noise makes of them.
_LEAST_RANGE = 200.0


def prepared_files(folder: Path, name: str, modalities: Iterable[str], reference: str) -> dict[str, Path]:
    """Return where a patient's files go, by what they hold.

    Args:
        folder: The patient's own.
        name: The case.
        modalities: Its sequences.
        reference: The one that was not moved.
    """
    modalities = list(modalities)
    files = {"registration": folder / f"{name}_registration.png"}
    files |= {m: folder / f"{name}_{m}.nii.gz" for m in modalities}
    files |= {f"{m}_to_{reference}": folder / f"{name}_{m}_to_{reference}.tfm" for m in modalities if m != reference}
    return files | {"brain_mask": folder / f"{name}_brain_mask.nii.gz"}


def possible_files(folder: Path, name: str) -> list[Path]:
    """Return every file that `write_prepared` may make of a patient, whichever sequences there are; the picture first.

    The picture is written first and removed last: a folder without it holds files of others.
    """
    files = [prepared_files(folder, name, BRATS_MODALITIES, m).values() for m in BRATS_MODALITIES]
    return list(dict.fromkeys(path for paths in files for path in paths))


def refuse_others(folder: Path, name: str) -> None:
    """Refuse a folder with files under these names that `write_prepared` did not make. Raises: UsageError."""
    picture, *files = possible_files(folder, name)
    others = [] if picture.exists() else [path for path in files if path.exists()]
    if others:
        raise UsageError(
            f"{others[0]} exists, and preparation did not make it. Give another folder, or overwrite it (overwrite)."
        )


def refuse_among_scans(folder: Path, scans: Sequence[Path | None]) -> None:
    """Refuse a folder among the patients' scans: the next run would take what is written there for scans.

    Args:
        folder: Where the patients' folders go.
        scans: The folder of each patient; None of one whose images were given one by one.

    Raises:
        UsageError: it lies in one of them, or beside them in the folder of all.
    """
    places = [os.path.realpath(place) for place in scans if place is not None]
    if len(places) > 1:
        places.append(os.path.commonpath(places))
    own = os.path.realpath(folder)
    for place in places:
        if os.path.commonpath([place, own]) == place and place != os.sep:
            raise UsageError(f"{folder} lies in {place}: it would be taken for scans. Give another folder.")


def remove_prepared(folder: Path, name: str) -> None:
    """Remove what `write_prepared` made of a patient before, of whichever sequences. Raises: ResourceError."""
    remove_abandoned(folder)
    for path in reversed(possible_files(folder, name)):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ResourceError(f"{path}: cannot be removed ({error.strerror}). Choose another folder.") from error


def write_prepared(patient: RawPatient, folder: Path) -> list[Path]:
    """Write what preparation made of a patient; return the files.

    The images are 0 outside the brain, on the grid of the reference, whose thick slices are split; `predict` takes the
    folder as it is. A transform maps points of the reference to points of the sequence, as ITK and 3D Slicer have it.
    What was made there before of other sequences is removed: it would be taken for this patient's.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    images = patient.images
    files = prepared_files(folder, images.name, images.images, images.reference)
    remove_prepared(folder, images.name)
    atomic_write_bytes(files["registration"], registration_picture(patient))
    for m, image in images.images.items():
        _write_image(np.where(images.masks[m], image.array, np.float32(0)), image.geometry, files[m])
    for m, registration in patient.registrations.items():
        write_transform(registration.matrix, files[f"{m}_to_{images.reference}"])
    grid = images.images[images.reference].geometry
    write_label_map(patient.brain.astype(np.uint8), None, grid, files["brain_mask"])
    return list(files.values())


def _write_image(array: npt.NDArray[np.float32], geometry: Geometry, path: Path) -> None:
    """Write an image, as whole numbers where that loses nothing: it is then a quarter of the size."""
    low, high = float(array.min()), float(array.max())
    if high - low >= _LEAST_RANGE and low >= -32768 and high <= 32767:
        write_image(np.rint(array).astype(np.int16), geometry, path)
    else:
        write_map(array, None, geometry, path)
