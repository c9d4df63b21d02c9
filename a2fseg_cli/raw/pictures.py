"""What preparation made, as a picture for a person to judge."""

from __future__ import annotations

from a2fseg_cli.imaging.geometry import axes_to_canonical
from a2fseg_cli.imaging.preprocessing import Reorient, canonical_spacing_mm
from a2fseg_cli.raw.prepare import RawPatient
from a2fseg_cli.reporting.checkerboard import checkerboard_picture


def registration_picture(patient: RawPatient) -> bytes:
    """Return a PNG: each registered sequence in fields that take turns with the reference's, the brain outlined."""
    images = patient.images
    grid = images.images[images.reference].geometry
    turn = Reorient(*axes_to_canonical(grid))
    notes = {m: f"moved by {r.degrees:.1f} degrees and {r.mm:.1f} mm" for m, r in patient.registrations.items()}
    return checkerboard_picture(
        {m: turn.apply(image.array) for m, image in images.images.items()},
        turn.apply(patient.brain),
        images.reference,
        canonical_spacing_mm(grid, turn),
        notes,
        f"{images.name}: do the borders go on from field to field, and does the outline hold the whole brain?",
    )
