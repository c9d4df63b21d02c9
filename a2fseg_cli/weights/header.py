"""The header of a weights file, checked in full before a byte of the tensors is read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2fseg_cli.core.config import ModelConfig, of_today
from a2fseg_cli.errors import WeightsError
from a2fseg_cli.weights.strict_json import parse_object, printable

if TYPE_CHECKING:
    from io import BufferedReader

FORMAT = "a2fseg"
# 2 since configurations name the architecture, and say patch_size where 1 said window: a tool that knows only 1 then
# asks to be upgraded. Both are read.
FORMAT_VERSION = 2
MAX_HEADER_BYTES = 2**20
MAX_FILE_BYTES = 4 * 2**30
LENGTH_BYTES = 8

ITEM_BYTES = {"F16": 2, "BF16": 2, "F32": 4}
_MAX_DIMENSIONS = 8

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Header:
    """What the header says: its bytes, the file's size, the tensors' shapes, the network, the card."""

    raw: bytes  # with the 8 bytes of its length
    file_bytes: int
    shapes: Shapes
    config: ModelConfig
    card: dict[str, Any]


def read_header(path: Path, file: BufferedReader) -> Header:
    """Return the header of an open file, with everything checked that it can tell alone. Raises: WeightsError."""
    file_bytes = os.fstat(file.fileno()).st_size
    start = file.read(512)
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if len(start) <= LENGTH_BYTES or start[LENGTH_BYTES : LENGTH_BYTES + 1] != b"{":
        raise _not_weights(path, _looks_like(start))
    if length > MAX_HEADER_BYTES:
        raise damaged(path, f"its header claims {length} bytes, the limit is {MAX_HEADER_BYTES}")
    if file_bytes > MAX_FILE_BYTES:
        raise WeightsError(f"{path}: {file_bytes} bytes; weights files of this tool stay below {MAX_FILE_BYTES}.")
    header_end = LENGTH_BYTES + length
    if header_end > file_bytes:
        raise damaged(path, f"truncated: the header alone should take {header_end} bytes, the file has {file_bytes}")
    raw = (start + file.read(max(0, header_end - len(start))))[:header_end]

    entries = _parse_object(path, raw[LENGTH_BYTES:], "header")
    metadata = entries.pop("__metadata__", {})
    _check_format(path, metadata)
    shapes = _check_layout(path, entries, file_bytes - header_end)
    config = _parse_config(path, metadata)
    card = _parse_object(path, metadata.get("card", ""), "card")
    _check_card(path, card, config)
    return Header(raw, file_bytes, shapes, config, card)


def _check_format(path: Path, metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise damaged(path, "its metadata are not a table of texts")
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: a safetensors file of another program (format {quote(metadata.get('format'))}, expected "
            f"{FORMAT!r}). Give a file that `a2fseg train` or `a2fseg download-weights` made."
        )
    version = metadata.get("format_version", "")
    if not (version.isascii() and version.isdigit() and len(version) < 10) or int(version) < 1:
        raise damaged(path, f"its format_version is {quote(version)}")
    if int(version) > FORMAT_VERSION:
        raise WeightsError(
            f"{path}: format version {version}, this a2fseg reads up to {FORMAT_VERSION}. Upgrade a2fseg."
        )


def _check_layout(path: Path, entries: Mapping[str, Any], body_bytes: int) -> Shapes:
    """Check that the tensors fill the rest of the file exactly, and return their shapes."""
    shapes: dict[str, tuple[int, ...]] = {}
    spans = []
    for name, entry in entries.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise damaged(path, f"the entry of {quote(name)} is not one of a tensor")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
            raise WeightsError(f"{path}: {quote(name)} is stored as {quote(dtype)}; expected F16, BF16 or F32.")
        if not _are_counts(shape) or len(shape) > _MAX_DIMENSIONS or not _are_counts(offsets) or len(offsets) != 2:
            raise damaged(path, f"shape or offsets of {quote(name)} are not valid")
        if offsets[1] - offsets[0] != math.prod(shape) * ITEM_BYTES[dtype]:
            raise damaged(path, f"the size of {quote(name)} does not follow from its shape")
        shapes[name] = tuple(shape)
        spans.append((offsets[0], offsets[1], name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise damaged(path, f"{quote(name)} overlaps another tensor or leaves a gap")
        position = end
    if position > body_bytes:
        raise damaged(path, f"truncated: {position} bytes of tensors are announced, {body_bytes} are there")
    if position < body_bytes:
        raise damaged(path, f"{body_bytes - position} bytes follow the last tensor")
    return shapes


def _parse_config(path: Path, metadata: Mapping[str, str]) -> ModelConfig:
    text = metadata.get("config", "")
    raw = _parse_object(path, text, "configuration")
    try:
        config = ModelConfig.from_json(text)
    except (ValueError, OverflowError) as error:
        raise WeightsError(f"{path}: its configuration is not one of a network: {printable(str(error))}.") from error
    # What the constructor has to convert ("abc" to three names, 3.7 to 3) was not written by this tool.
    if of_today(json.loads(config.to_json())) != of_today(raw):
        raise WeightsError(f"{path}: its configuration is not one of a network: a field has the wrong type.")
    return config


def _check_card(path: Path, card: Mapping[str, Any], config: ModelConfig) -> None:
    """Refuse a card whose scores or patients could not be shown; what else it tells has no form."""
    scores, patients = card.get("scores", {}), card.get("data", {})
    subsets = scores.get("subsets", {}) if isinstance(scores, dict) else None
    if not isinstance(subsets, dict) or not all(
        isinstance(row, dict) and all(isinstance(row.get(region), int | float | None) for region, _ in config.regions)
        for row in subsets.values()
    ):
        raise damaged(path, "the scores in its card are not one number a subset and region")
    if not isinstance(patients, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in patients.values()
    ):
        raise damaged(path, "the data in its card are not lists of patients")


def _parse_object(path: Path, text: str | bytes, part: str) -> dict[str, Any]:
    try:
        return parse_object(text)
    except ValueError as error:
        raise damaged(path, f"its {part} cannot be read: {printable(str(error), 120)}") from error


def _looks_like(start: bytes) -> str:
    text = start.lstrip().lower()
    if not start:
        return "an empty file"
    if start.startswith(b"PK"):
        return "a PyTorch checkpoint (zip with a pickle)" if b"data.pkl" in start else "a zip archive"
    if start[0] == 0x80 and start[1:2] <= b"\x05":
        return "a pickle (PyTorch checkpoint), which could run code"
    if start[257:262] == b"ustar":
        return "a tar archive"
    if start.startswith(b"\x1f\x8b"):
        return "a gzip file"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, perhaps the answer of a proxy or a login"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer instead of the file itself (`git lfs pull` fetches it)"
    return "something else"


def _not_weights(path: Path, looks_like: str) -> WeightsError:
    return WeightsError(
        f"{path}: not a weights file of this tool; it looks like {looks_like}. It is not opened. "
        "Give a .safetensors file that `a2fseg train` or `a2fseg download-weights` made."
    )


def damaged(path: Path, reason: str) -> WeightsError:
    """Return the error of a weights file that is not as it was written."""
    return WeightsError(f"{path}: damaged weights file: {reason}. Download or copy it again.")


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def quote(value: object) -> str:
    """Return a value of the file fit for a message."""
    return printable(repr(value), 60)
