"""The segmentation as a file: a label map, or a DICOM object of the series it was made on."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from a2fseg_cli import __version__
from a2fseg_cli.core.config import subset_name
from a2fseg_cli.dicom.segmentation import check_source, write_segmentation
from a2fseg_cli.errors import UsageError
from a2fseg_cli.imaging.labels import to_labels
from a2fseg_cli.imaging.writing import write_label_map
from a2fseg_cli.inference.options import OutputOptions
from a2fseg_cli.inference.patient import Patient
from a2fseg_cli.inference.places import PatientFiles
from a2fseg_cli.inference.predictor import Segmenter
from a2fseg_cli.reporting.label_tables import segments


def check_segmentation_file(patient: Patient, files: PatientFiles) -> None:
    """Return if the segmentation of a patient can be written under its name; before the network runs.

    Raises:
        UsageError: a DICOM object of an image that is no DICOM series, or highdicom is not installed.
        InputError: a series to which a segmentation cannot refer.
    """
    if not files.is_dicom:
        return
    if patient.series is None:
        raise UsageError(
            f"{files.segmentation}: a DICOM segmentation refers to a DICOM series, and {patient.reference} is none. "
            "Choose a name that ends in .nii.gz."
        )
    check_source(patient.geometry, patient.series.files, [one.frame for one in patient.series.slices])


def write_segmentation_file(
    patient: Patient,
    classes: npt.NDArray[np.uint8],
    segmenter: Segmenter,
    options: OutputOptions,
    files: PatientFiles,
    guesses: Collection[str],
) -> None:
    """Write the segmentation, whole or not at all.

    Args:
        patient: Whose it is.
        classes: Class indices (D, H, W) on the file's grid.
        segmenter: The network that made it.
        options: Label values and colours.
        files: Where to.
        guesses: Classes that the sequences at hand cannot show.

    Raises:
        UsageError, InputError: as `check_segmentation_file`.
        ResourceError: the disk is full or the folder cannot be written.
    """
    config, weights = segmenter.config, segmenter.weights
    values = options.label_values(config)
    named = segments(config.classes, values, options.colours)
    if not files.is_dicom:
        labels = to_labels(classes, values)
        write_label_map(labels, patient.reference, patient.geometry, files.segmentation, named)
        return
    assert patient.series is not None  # `check_segmentation_file`
    write_segmentation(
        classes,
        named,
        patient.geometry,
        patient.series.files,
        files.segmentation,
        version=__version__,
        weights_name=str(weights.card.get("name") or weights.path.stem),
        weights_sha256=weights.sha256,
        modalities=subset_name(patient.files, config.modalities).split("+"),
        guesses=guesses,
        source_frames=[one.frame for one in patient.series.slices],
    )
