"""Files to series: each a stack of slices with what its headers say, whether or not it is a volume.

A series is named by its number and description. Nothing of a patient's identity is kept but a hash that tells patients
apart, and no message shows it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from a2fseg_cli.dicom.headers import FileHeader, Slice, read_file, without_remarks
from a2fseg_cli.dicom.places import files_below
from a2fseg_cli.dicom.stacking import Stack, parts_of, stack, without_copies
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.files import file_state, fingerprint
from a2fseg_cli.imaging.geometry import Geometry
from a2fseg_cli.weights.strict_json import printable


@dataclass(frozen=True)
class Series:
    """One series, or one part of a series that holds several images of each place.

    Attributes:
        uid: SeriesInstanceUID.
        number: SeriesNumber; several series of a study can have the same.
        key: What it is chosen by: its number, with a letter where several have it (`5b`).
        part: Which part of the series it is, such as `echo 90 ms`; empty for a whole one.
        study: StudyInstanceUID.
        date: StudyDate, `20260301`.
        patient: Tells patients apart, and says nothing else of them.
        frame_of_reference: FrameOfReferenceUID: series with the same one lie in one space.
        fields: What the headers say, as dcm2niix names it, times in seconds.
        slices: From the first to the last of the volume where it is one.
        geometry: Its grid, LPS; None where it is no volume.
        problem: Why it is none, in words; None where it is.
        copies: How many files were copies of others.
    """

    uid: str
    number: int | None
    key: str
    part: str
    study: str
    date: str
    patient: str = field(repr=False)
    frame_of_reference: str
    fields: Mapping[str, Any] = field(repr=False)
    slices: tuple[Slice, ...] = field(repr=False)
    geometry: Geometry | None
    problem: str | None
    copies: int = 0

    @property
    def description(self) -> str:
        """SeriesDescription, or else ProtocolName or SequenceName, fit for a message."""
        said = (str(self.fields.get(key, "")) for key in ("SeriesDescription", "ProtocolName", "SequenceName"))
        return printable(next((text for text in said if text), ""), 60)

    @property
    def label(self) -> str:
        """How messages name it: `series 5 (t1_mprage, echo 90 ms)`."""
        said = ", ".join(text for text in (self.description, self.part) if text)
        return f"series {self.key}" + (f" ({said})" if said else "")

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files in the order of its slices, each once."""
        return tuple(dict.fromkeys(one.path for one in self.slices))

    @property
    def folder(self) -> Path:
        """The folder in which all its files lie."""
        return Path(os.path.commonpath([path.parent for path in self.files])) if self.slices else Path()

    @property
    def is_volume(self) -> bool:
        """Whether it can be read."""
        return self.problem is None

    @property
    def state(self) -> str:
        """What its files have become, by which a changed series is told, wherever it lies."""
        return fingerprint([(one.uid, one.frame) for one in self.slices], [file_state(path) for path in self.files])


@dataclass(frozen=True)
class Headers:
    """What a place holds.

    Attributes:
        series: By study, number and part.
        others: How many files are no DICOM, or say only where files lie.
        damaged: Files that are DICOM and cannot be read.
    """

    series: tuple[Series, ...]
    others: int
    damaged: tuple[Path, ...]


def read_headers(place: Path) -> Headers:
    """Return the series of a folder and all below it, or of one file; no pixel is read.

    Raises:
        InputError: no such place.
        UsageError: pydicom is not installed.
    """
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        raise UsageError("DICOM is read with pydicom, which is not installed: pip install 'a2fseg[dicom]'.") from error
    if not os.path.exists(place):
        raise InputError(f"{place}: no such file or folder.")
    files: dict[tuple[str, str, str], list[FileHeader]] = {}
    known: dict[str, FileHeader] = {}
    others, damaged = 0, []
    with without_remarks():
        for path in files_below(place):
            try:
                header = read_file(path, known)
            except (ValueError, OSError):
                damaged.append(path)
                continue
            if header is None:
                others += 1
            else:
                files.setdefault((header.patient, header.study, header.series), []).append(header)
    series = [one for headers in files.values() for one in _series_of(headers)]
    return Headers(tuple(_with_keys(series)), others, tuple(damaged))


def _series_of(headers: Sequence[FileHeader]) -> list[Series]:
    """Return the files of one SeriesInstanceUID as one series, or as the parts that it holds."""
    first = headers[0]
    fields_of = {one.path: header.fields for header in headers for one in header.slices}
    slices, copies = without_copies([one for header in headers for one in header.slices])
    parts = parts_of(slices) if slices else [("", [])]
    made = []
    for part, group in parts:
        fields = dict(fields_of[group[0].path] if group else first.fields)
        if group:
            fields |= _own_fields(group[0])
        stacked = _checked(stack(group), fields)
        made.append(
            Series(
                first.series, first.number, "", part, first.study, first.date, first.patient, first.frame_of_reference,
                fields, stacked.slices, stacked.geometry, stacked.problem, copies,
            )
        )  # fmt: skip
    return made


def _own_fields(one: Slice) -> dict[str, Any]:
    """Return what a frame says for itself, under the names of a file's fields."""
    names = {"echo": "EchoTime", "inversion": "InversionTime", "b-value": "DiffusionBValue"}
    fields = {name: one.own[key] for key, name in names.items() if key in one.own}
    return fields | ({"ImageType": list(one.own["image type"])} if "image type" in one.own else {})


def _checked(stacked: Stack, fields: Mapping[str, Any]) -> Stack:
    """Return a stack with the problem that its pixels have as far as the header shows: colour, tiles."""
    if stacked.slices and (fields["SamplesPerPixel"] != 1 or fields["PhotometricInterpretation"] != "MONOCHROME2"):
        kind = fields["PhotometricInterpretation"] or f"{fields['SamplesPerPixel']} values a pixel"
        return replace(stacked, geometry=None, problem=f"its pixels are {kind}. Expected grey values (MONOCHROME2)")
    if "MOSAIC" in fields.get("ImageType", ()):
        return replace(stacked, geometry=None, problem="its images are mosaics, all slices as tiles of one picture")
    return stacked


def _with_keys(series: Iterable[Series]) -> list[Series]:
    """Return series by study, number and part, each with what it is chosen by."""
    ordered = sorted(
        series, key=lambda one: (one.date, one.study, one.number is None, one.number or 0, one.fields.get("Clock") or 0,
                                 one.uid, one.part)
    )  # fmt: skip
    counts = Counter((one.study, one.number) for one in ordered)
    seen: Counter[tuple[str, int | None]] = Counter()
    keyed = []
    for one in ordered:
        same = (one.study, one.number)
        seen[same] += 1
        number = "?" if one.number is None else str(one.number)
        keyed.append(replace(one, key=number + (_letters(seen[same]) if counts[same] > 1 else "")))
    return keyed


def _letters(count: int) -> str:
    """Return a, b, ..., z, aa, ab, ... for 1, 2, ..."""
    letters = ""
    while count:
        count, rest = divmod(count - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return letters
