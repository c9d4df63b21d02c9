"""The viewer's page of a patient whom the network segmented."""

from __future__ import annotations

from a2fseg_cli.imaging.geometry import cropped, reoriented
from a2fseg_cli.inference.patient import Patient
from a2fseg_cli.reporting.scene import Scene
from a2fseg_cli.reporting.viewer import ViewerCase, viewer_page, without_folders


def patient_viewer(patient: Patient, scene: Scene, remarks: tuple[str, ...], picture: bytes) -> str:
    """Return the page as HTML.

    Args:
        patient: Read with its pictures.
        scene: What pictures of it are drawn from.
        remarks: Sentences for the reader.
        picture: The preview, a JPEG.
    """
    reorient = patient.prepared.route.reorient
    grid = cropped(reoriented(patient.geometry, reorient.permutation, reorient.flips), patient.frame)
    return viewer_page(
        ViewerCase(patient.name, scene, grid, remarks=without_folders(remarks, patient.files.values())), picture
    )
