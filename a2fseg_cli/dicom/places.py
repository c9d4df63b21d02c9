"""Where DICOM files lie: in a folder and all below it, or in a zip, of which a copy lives as long as it is needed."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath

from a2fseg_cli.errors import InputError, ResourceError
from a2fseg_cli.imaging.formats.suffixes import EXTENSIONS

# A brain examination has up to 5,000 images of half a megabyte, 2.5 GB; with the raw series of a perfusion twice that.
MOST_BYTES = 16 * 2**30
MOST_FILES = 100_000
# Of a file that is looked at: DICOM has "DICM" behind 128 bytes that mean nothing.
_START_BYTES = 140
_CHUNK = 2**20


@contextmanager
def opened(place: Path) -> Iterator[Path]:
    """Yield the folder of a place: of a folder itself, of a zip one with its DICOM files, gone after the block.

    The copy lies in the system's folder for temporary files, readable by the user alone (mode 0700), in a folder with
    the zip's name, which is the case's. Files of other kinds, such as the viewer of a CD, are not unpacked.

    Raises:
        InputError: a zip that is damaged or encrypted, leads out of its folder, or holds more than an examination.
        ResourceError: no room for the copy.
    """
    if not is_zip(place):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="a2fseg-") as temporary:  # mkdtemp: mode 0700
        folder = Path(temporary) / (place.stem or "zip")
        folder.mkdir(mode=0o700)
        _unpack(place, folder)
        yield folder


@contextmanager
def opened_places(
    source: Path | None, images: Mapping[str, Path] | None
) -> Iterator[tuple[Path | None, dict[str, Path] | None]]:
    """Yield a source and images by modality, each zip among them as `opened` gives it. Raises: as `opened`."""
    with ExitStack() as stack:
        place = None if source is None else stack.enter_context(opened(source))
        given = {m: stack.enter_context(opened(path)) for m, path in images.items()} if images else None
        yield place, given


def is_zip(place: Path) -> bool:
    """Whether a place is a zip file, by its name."""
    return place.suffix.lower() == ".zip" and os.path.isfile(place)


def holds_dicom(place: Path) -> bool:
    """Whether the first files below a folder, at most 200, hold a DICOM one; a zip and a DICOM file do by themselves.

    A folder of NIfTI files with thousands of patients is not walked through for it.
    """
    if is_zip(place):
        return True
    if os.path.isfile(place):
        return _is_dicom_file(place)
    return any(_is_dicom_file(path) for _, path in zip(range(200), files_below(place), strict=False))


def holds_images(place: Path) -> bool:
    """Whether the first files below a folder, at most 2,000, hold an image of another format, such as NIfTI."""
    return any(path.name.lower().endswith(EXTENSIONS) for _, path in zip(range(2000), files_below(place), strict=False))


def files_below(place: Path) -> Iterator[Path]:
    """Yield a file, or the files of a folder and all below it, in the order of their names; hidden ones left out."""
    if os.path.isfile(place):
        yield place
        return
    visited: set[str] = set()
    for folder, folders, files in os.walk(place, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # a link to a folder above
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(files) if not name.startswith("."))


def looks_like_dicom(start: bytes) -> bool:
    """Whether a file begins as DICOM does: with its mark, or, as old exports do, with the first tags at once."""
    if start[128:132] == b"DICM":
        return True
    # Group 0008, an element up to 0018: little endian, whether or not the type stands behind it.
    return len(start) > 16 and start[:2] == b"\x08\x00" and start[3] == 0 and start[2] in (0x00, 0x05, 0x08, 0x16, 0x18)


def _is_dicom_file(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return looks_like_dicom(file.read(_START_BYTES))
    except OSError:
        return False


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = [entry for entry in packed.infolist() if not entry.is_dir()]
            _check_entries(archive, entries, folder)
            for entry in entries:
                _unpack_file(packed, entry, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeError) as error:
        raise InputError(f"{archive}: a damaged zip, or of a kind that cannot be read. Copy it again.") from error
    except RuntimeError as error:  # what zipfile raises for a password
        raise InputError(f"{archive}: an encrypted zip. Unpack it, and give the folder.") from error
    except OSError as error:
        raise ResourceError(f"{archive}: cannot be unpacked ({error.strerror or error}).") from error


def _check_entries(archive: Path, entries: list[zipfile.ZipInfo], folder: Path) -> None:
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in entry.filename:
            raise InputError(f"{archive}: a name in it leads out of its folder. It is not unpacked.")
    needed = sum(entry.file_size for entry in entries)
    if len(entries) > MOST_FILES or needed > MOST_BYTES:
        raise InputError(
            f"{archive}: {len(entries)} files of {needed / 2**30:.1f} GiB, more than an examination has "
            f"({MOST_FILES} files, {MOST_BYTES / 2**30:g} GiB). Unpack what is needed, and give the folder."
        )
    if needed > (free := shutil.disk_usage(folder).free):
        raise ResourceError(
            f"{archive}: unpacked {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free for temporary files."
        )


def _unpack_file(packed: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    """Write one file of a zip if it is DICOM; it gets the time it has there, so that its state is always the same."""
    with packed.open(entry) as source:
        start = source.read(_START_BYTES)
        if not looks_like_dicom(start):
            return
        target = folder.joinpath(*PurePosixPath(entry.filename.replace("\\", "/")).parts)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with target.open("wb") as file:
            file.write(start)
            left = entry.file_size - len(start)
            while left > 0 and (chunk := source.read(min(_CHUNK, left))):
                file.write(chunk)
                left -= len(chunk)
    with suppress(ValueError, OverflowError, OSError):
        moment = time.mktime((*entry.date_time, 0, 0, -1))
        os.utime(target, (moment, moment))
