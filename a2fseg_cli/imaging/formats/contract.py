"""What a module of this folder offers, and the choice of the one that a file needs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol, cast

import numpy.typing as npt

from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.formats.header import Header
from a2fseg_cli.imaging.formats.streams import read_start
from a2fseg_cli.imaging.formats.suffixes import EXTENSIONS, SUFFIXES
from a2fseg_cli.imaging.geometry import Geometry

# NIfTI-2 has the longest header.
_START_BYTES = 540


class Format(Protocol):
    """A module of this folder; the libraries it needs are imported by the functions that use them."""

    def sniff(self, start: bytes) -> bool:
        """Tell whether a file that starts (unpacked) with these bytes is of this format."""

    def read_header(self, path: Path) -> Header:
        """Return the checked header. Raises: InputError: damaged, no image of one number a voxel, or too large."""

    def read_voxels(self, path: Path, header: Header) -> npt.NDArray[Any]:
        """Return the voxels (volumes, D, H, W), scaled. Raises: InputError: truncated or damaged."""

    def encode(self, array: npt.NDArray[Any], geometry: Geometry, reference: Path | None, path: Path) -> bytes:
        """Return the file of an array (D, H, W), gzip aside; `reference` may lend its header's grid fields.

        Raises: UsageError: the format cannot hold it.
        """


def format_for(path: Path) -> Format:
    """Return the format that a file's name says. Raises: InputError: unknown, with the known ones."""
    name = path.name.lower()
    for suffix, module in SUFFIXES.items():
        if name.endswith(suffix):
            return _load(module)
    raise InputError(f"{path}: unknown file type. Expected {', '.join(EXTENSIONS)}.")


def format_of(path: Path) -> Format:
    """Return the format that a file is, whatever its name says; where its content says nothing, that of its name.

    Raises:
        InputError: an unknown name, or a file that cannot be read.
    """
    named = format_for(path)
    start = read_start(path, _START_BYTES)
    others = (_load(module) for module in dict.fromkeys(SUFFIXES.values()))
    return named if named.sniff(start) else next((other for other in others if other.sniff(start)), named)


def _load(module: str) -> Format:
    return cast(Format, importlib.import_module(f"{__package__}.{module}"))
