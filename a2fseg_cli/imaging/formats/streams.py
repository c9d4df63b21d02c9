"""Bytes of a file, plain or packed by content: a `.nii` that is gzip inside, and the reverse, are common and harmless.

Python's gzip module, and so nibabel, refuses bytes behind the stream where it is read to its end, as it has to be for
the checksum; other tools ignore them. So zlib is used as it is.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from a2fseg_cli.errors import InputError, ResourceError
from a2fseg_cli.imaging.formats.header import Header

_GZIP_MAGIC = b"\x1f\x8b"
_ZLIB_OR_GZIP = 47
# From 128 kB to 1 MB the time that unpacking takes does not depend on it.
_CHUNK_BYTES = 2**17
# How far behind the voxels the end of the stream, with its checksum, is looked for.
_REST_BYTES = 2**16


def is_gzip(path: Path) -> bool:
    """Tell whether a file's content is gzip. Raises: InputError: it cannot be read."""
    return _read(path, 0, len(_GZIP_MAGIC), packed=False) == _GZIP_MAGIC


def read_start(path: Path, count: int) -> bytes:
    """Return the first bytes of a file, unpacked, or as many as there are. Raises: InputError: unreadable, damaged."""
    return bytes(_read(path, 0, count, packed=is_gzip(path)))


def read_voxels(path: Path, header: Header) -> npt.NDArray[Any]:
    """Return the voxels of `path` (volumes, D, H, W), in the type they are stored in or scaled to float64.

    Raises:
        InputError: the file ends early or its packed data are damaged.
        ResourceError: they do not fit into memory.
    """
    # Behind a text header the voxels alone may be packed, else the whole file with the header in it.
    start, skipped = (header.offset, 0) if header.text else (0, header.offset)
    packed = header.packed if header.text else is_gzip(header.voxel_file)
    count = header.voxel_bytes
    try:
        data = _read(header.voxel_file, start, skipped + count, packed=packed, whole=True)
        if len(data) < skipped + count:
            there = f"{max(len(data) - skipped, 0)} of {count} bytes of voxels"
            raise InputError(f"{header.voxel_file}: truncated or damaged voxels, {there}. Copy it again.")
        voxels = np.frombuffer(data, header.voxel_type, offset=skipped).reshape(header.shape)
        if header.scale is None:
            return voxels
        with np.errstate(all="ignore"):
            scaled: npt.NDArray[np.float64] = voxels.astype(np.float64) * header.scale[0] + header.scale[1]
        return scaled
    except MemoryError as error:
        raise ResourceError(f"{path}: its voxels do not fit into memory.") from error


def _read(path: Path, offset: int, count: int, *, packed: bool, whole: bool = False) -> bytes | bytearray:
    """Return `count` bytes behind `offset`, or as many as there are; `whole` compares the stream's checksum."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return _unpack(file, count, whole) if packed else file.read(count)
    except (EOFError, zlib.error) as error:
        raise InputError(f"{path}: truncated or damaged gzip data. Copy or convert the file again.") from error
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}.") from error


def _unpack(file: BinaryIO, count: int, whole: bool) -> bytearray:
    """Return the first `count` bytes of one stream after the other. Raises: EOFError: truncated; zlib.error."""
    unpacked, packed = bytearray(), file.read(_CHUNK_BYTES)
    stream = zlib.decompressobj(_ZLIB_OR_GZIP)
    while len(unpacked) < count:
        if stream.eof:
            packed = stream.unused_data
            if len(packed) < len(_GZIP_MAGIC):
                packed += file.read(_CHUNK_BYTES)
            if not packed.startswith(_GZIP_MAGIC):
                break
            stream = zlib.decompressobj(_ZLIB_OR_GZIP)
        packed = packed or file.read(_CHUNK_BYTES)
        if not packed:
            raise EOFError
        unpacked += stream.decompress(packed, count - len(unpacked))
        packed = stream.unconsumed_tail
    rest = _REST_BYTES if whole else 0
    while rest > 0 and not stream.eof:
        packed = packed or file.read(_CHUNK_BYTES)
        if not packed:
            raise EOFError
        rest -= len(stream.decompress(packed, rest))
        packed = stream.unconsumed_tail
    return unpacked
