"""One patient, or one examination of a patient, as it was found: which files are which, and what decided that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from a2fseg_cli.files import file_state

if TYPE_CHECKING:
    from a2fseg_cli.dicom.series import Series

LONGEST_NAME = 200  # bytes: with `_attention_flair.nii.gz` behind it still the name of a file (255)


@dataclass(frozen=True)
class Case:
    """One patient (or one session): image files by modality, in the order of the modalities asked for.

    Attributes:
        name: unique within what was found; text that can be printed, and fit for a file name.
        images: file of each modality; all the same file where `channels` says what its volumes are.
        truth: the expert's label map, if there is exactly one; a case with a problem may have one, too.
        problem: why this case cannot be used, in one line; its `images` are then incomplete.
        warnings: what a user should look at.
        decided: what decided each modality, and `seg` where the truth lies elsewhere, in a few words.
        folder: where the images lie; None for images given one by one.
        channels: modality of each volume of a 4-D file, in its order, those included that the network does not know.
        truth_labels: voxel value of each class of the truth as its data set's own list says; None without one.
        series: DICOM series of each modality that is none of files; its `images` entry is then the series' folder.
        aside: DICOM series that are not used, each with why.
        subject: the person, where a table says it; else the name tells (`time_points`).
        session: which examination of the person, likewise.
        date: when that was, likewise, as `2019-01-31`.
    """

    name: str
    images: Mapping[str, Path]
    truth: Path | None = None
    problem: str | None = None
    warnings: tuple[str, ...] = ()
    decided: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    channels: tuple[str, ...] = ()
    truth_labels: Mapping[str, int] | None = None
    subject: str = ""
    session: str = ""
    date: str = ""
    series: Mapping[str, Series] = field(default_factory=dict)
    aside: tuple[tuple[Series, str], ...] = ()

    @property
    def files(self) -> list[Path]:
        """Every image file that is read, those of DICOM series included."""
        return [
            path
            for modality, place in self.images.items()
            for path in (self.series[modality].files if modality in self.series else (place,))
        ]

    def state(self, modality: str) -> object:
        """Return what the image of a modality has become, plain values by which a changed one is told."""
        return self.series[modality].state if modality in self.series else file_state(self.images[modality])


def printable_name(name: str) -> str:
    """Return a file's or folder's name as text: bytes that are not UTF-8, and control characters, become `%FC`."""
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in name)


def _escaped(letter: str) -> str:
    is_byte = "\udc80" <= letter <= "\udcff"  # how Python gives a byte of a name that is not UTF-8
    data = letter.encode("utf-8", "surrogateescape" if is_byte else "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in data)


def too_long(name: str) -> str | None:
    """Return why a case cannot have this name, which is longer than a file's name may be; None where it can."""
    size = len(name.encode("utf-8", "surrogatepass"))
    if size <= LONGEST_NAME:
        return None
    return f"{name[:40]}...: a name of {size} bytes. Expected at most {LONGEST_NAME}, since files get it; rename it."
