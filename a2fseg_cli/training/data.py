"""Training patients: read with the same checks as for a prediction, preprocessed once into a cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.images import load_images, read_truth
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import ResourceError, naming_out_of_memory
from a2fseg_cli.files import atomic_write, atomic_write_text, file_state, fingerprint
from a2fseg_cli.imaging.label_maps import check_on_grid
from a2fseg_cli.imaging.preprocessing import prepare

CACHE_VERSION = 4  # 3 held patients that had not been asked whether two of their images are the same
# Files of the cache that are open at a time, two a patient. A system allows a process 1,024 and a limited address
# space; to open one takes 0.1 ms, to draw a crop 50 and more.
_MOST_OPEN = 64


@dataclass(frozen=True)
class Sample:
    """One preprocessed patient.

    Attributes:
        name: The case.
        images: (M, D, H, W) float16 on the working grid, z-scored.
        classes: (D, H, W) uint8 class indices.
        present: (M,) the missing-modality mask.
        warnings: What the user should know of the images.
    """

    name: str
    images: npt.NDArray[np.float16]
    classes: npt.NDArray[np.uint8]
    present: tuple[bool, ...]
    warnings: tuple[str, ...] = ()


class CachedSample(Sample):
    """A patient whose arrays lie on the disk and are read where they are looked at: any number fits into memory.

    Args:
        name: The case.
        images_file: Its `images` as .npy.
        classes_file: Its `classes`.
        present: (M,) the missing-modality mask.
        warnings: What the user should know of the images.
    """

    def __init__(
        self, name: str, images_file: Path, classes_file: Path, present: tuple[bool, ...], warnings: tuple[str, ...]
    ) -> None:
        fields = {"name": name, "_images": images_file, "_classes": classes_file}
        self.__dict__.update(fields, present=present, warnings=warnings)

    @property
    def images(self) -> npt.NDArray[np.float16]:
        """(M, D, H, W) float16, mapped."""
        return _mapped(self.__dict__["_images"])

    @property
    def classes(self) -> npt.NDArray[np.uint8]:
        """(D, H, W) uint8, mapped."""
        return _mapped(self.__dict__["_classes"])


@lru_cache(_MOST_OPEN)
def _mapped(file: Path) -> npt.NDArray[Any]:
    """Return an array of the cache, which stays on the disk and is closed when nobody looks at it any more."""
    try:
        array: npt.NDArray[Any] = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise ResourceError(f"{file}: cannot be read any more ({error}). Start again with resume.") from error
    return array


@dataclass(frozen=True)
class TrainingPatient:
    """A patient as it was read, on the working grid.

    Attributes:
        images: (M, D, H, W) float32, z-scored, background 0.
        classes: (D, H, W) uint8 class indices.
        present: (M,) the missing-modality mask.
        warnings: What the user should know of the images.
    """

    images: npt.NDArray[np.float32]
    classes: npt.NDArray[np.uint8]
    present: tuple[bool, ...]
    warnings: tuple[str, ...]


def load_samples(
    cases: Sequence[Case], config: ModelConfig, cache: Path, progress: Callable[[str, int, int], None]
) -> list[Sample]:
    """Return the patients from the cache; those that are missing or stale there are preprocessed first.

    Args:
        cases: Patients with a truth.
        config: Modalities, label values and working spacing.
        cache: Folder, made if needed.
        progress: Told (case name, number done, number of all).

    Raises:
        InputError: as `read_training_patient`.
        ResourceError: a patient does not fit into memory, or the cache onto the disk.
    """
    samples = []
    for index, case in enumerate(cases):
        samples.append(_load(case, config, cache))
        progress(case.name, index + 1, len(cases))
    return samples


def _fingerprint(case: Case, config: ModelConfig) -> str:
    """Return what the cached arrays depend on: the files, the settings and the version of this code."""
    states = {modality: case.state(modality) for modality in case.images}
    states |= {"truth": file_state(case.truth)} if case.truth is not None else {}
    meaning = (case.channels, dict(case.truth_labels or {}))
    return fingerprint(states, meaning, CACHE_VERSION, config.modalities, config.label_values, config.spacing_mm)


def _files(case: Case, config: ModelConfig, cache: Path) -> tuple[Path, Path, Path]:
    """Return where the warnings, the classes and the images of a patient are kept."""
    stem = f"{case.name}-{_fingerprint(case, config)}"
    return cache / f"{stem}.warnings.json", cache / f"{stem}.classes.npy", cache / f"{stem}.images.npy"


def is_cached(case: Case, config: ModelConfig, cache: Path) -> bool:
    """Return whether a patient's arrays are in the cache, of the same files and settings."""
    return _files(case, config, cache)[-1].is_file()  # written last


def fill_cache(case: Case, config: ModelConfig, cache: Path) -> None:
    """Preprocess a patient into the cache if it is not there. Raises: as `load_samples`."""
    if is_cached(case, config, cache):
        return
    warnings_file, classes_file, images_file = _files(case, config, cache)
    patient = read_training_patient(case, config)
    atomic_write_text(warnings_file, json.dumps(patient.warnings))
    for path, array in ((classes_file, patient.classes), (images_file, patient.images.astype(np.float16))):
        with atomic_write(path) as file:
            np.save(file, array)


def _load(case: Case, config: ModelConfig, cache: Path) -> Sample:
    fill_cache(case, config, cache)
    warnings_file, classes_file, images_file = _files(case, config, cache)
    present = tuple(m in case.images for m in config.modalities)
    warnings = tuple(json.loads(warnings_file.read_text("utf-8")))
    return CachedSample(case.name, images_file, classes_file, present, warnings)


def read_training_patient(case: Case, config: ModelConfig) -> TrainingPatient:
    """Return a patient's images and class map on the working grid, checked as for a prediction.

    Raises:
        InputError: no truth, an unreadable image, differing grids, the same image twice, unknown labels.
        ResourceError: the images do not fit into memory.
    """
    with naming_out_of_memory(f"{case.name} could not be read and prepared"):
        read = load_images(case, config.modalities)
        truth = check_on_grid(read_truth(case, config), read.reference_path, read.geometry)
        prepared = prepare(read.images, config.modalities, config.spacing_mm, masks=read.masks)
        classes = prepared.route.classes_to_network(truth.classes, len(config.classes))
    return TrainingPatient(prepared.images, classes, prepared.present, read.warnings)
