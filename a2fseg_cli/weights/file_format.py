"""The weights file: one safetensors file that holds tensors, the network's configuration and a card, never code.

Layout (safetensors): 8 bytes, the length of the header as a little-endian integer; the header, JSON; the tensors'
bytes, without gaps. The header's metadata are `format` ("a2fseg"), `format_version`, `config` (`ModelConfig` as
JSON) and `card` (JSON: what the weights were trained on, how they score, their licence).

A file from elsewhere is not trusted: the header is checked in full, against the network it claims to be, before a
byte of the tensors is read, and nothing in a file is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from a2fseg_cli.core.config import ModelConfig, of_today
from a2fseg_cli.errors import UsageError, WeightsError
from a2fseg_cli.files import atomic_write, finite_or_null
from a2fseg_cli.weights.strict_json import parse_object, printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

    import torch

FORMAT = "a2fseg"
# 2 since configurations name the architecture, and say patch_size where 1 said window: a tool that knows only 1 then
# asks to be upgraded. Both are read.
FORMAT_VERSION = 2
MAX_HEADER_BYTES = 2**20
MAX_FILE_BYTES = 4 * 2**30

ITEM_BYTES = {"F16": 2, "BF16": 2, "F32": 4}
_MAX_DIMENSIONS = 8
_LENGTH_BYTES = 8

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class WeightsFile:
    """What a weights file says about itself.

    Attributes:
        path: Where the file lies.
        config: The network the tensors belong to.
        card: Name, training data, hours, recipe, scores per subset, licence and whatever else `train` noted.
        sha256: Of the whole file, hexadecimal.
    """

    path: Path
    config: ModelConfig
    card: Mapping[str, Any]
    sha256: str


@dataclass(frozen=True)
class _Header:
    raw: bytes  # with the 8 bytes of its length
    file_bytes: int
    shapes: Shapes
    config: ModelConfig
    card: dict[str, Any]


def save_weights(
    path: Path,
    state_dict: Mapping[str, torch.Tensor],
    config: ModelConfig,
    card: Mapping[str, Any],
    dtype: Literal["float16", "float32"] = "float16",
) -> WeightsFile:
    """Write weights as one file, atomically, and return its description.

    The same tensors, configuration and card give the same bytes. Scores in the card that are not finite are
    stored as null.

    Args:
        path: Where to write; the folder is made, an existing file is replaced.
        state_dict: Tensors under the model's names, floating point.
        config: The network they belong to.
        card: Anything that JSON can hold.
        dtype: Storage type; float16 halves the file, at a relative rounding error of at most 2**-11.

    Raises:
        WeightsError: A tensor holds values that are not finite in `dtype`.
        ResourceError: The folder cannot be written or the disk is full.
    """
    import torch
    from safetensors.torch import save

    stored = {}
    for name, tensor in state_dict.items():
        if not tensor.is_floating_point():
            raise TypeError(f"{name} is {tensor.dtype}; a weights file holds floating-point tensors only")
        stored[name] = tensor.detach().to("cpu", getattr(torch, dtype), copy=True).contiguous()
        if not torch.isfinite(stored[name]).all():
            raise WeightsError(f"{path}: not written. {name} has values that are not finite as {dtype}.")
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(json.loads(config.to_json()), sort_keys=True),
        "card": json.dumps(finite_or_null(card), sort_keys=True),
    }
    data = _with_sorted_header(save(stored, metadata=metadata))
    with atomic_write(path) as file:
        file.write(data)
    return WeightsFile(path, config, finite_or_null(card), hashlib.sha256(data).hexdigest())


def inspect_weights(path: Path) -> WeightsFile:
    """Return what a weights file says about itself, without torch and without loading its tensors.

    Raises:
        WeightsError: The file is missing, damaged or not a weights file of this tool.
    """
    with _opened(path) as file:
        header = _read_header(path, file)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return WeightsFile(path, header.config, header.card, sha256)


def load_weights(
    path: Path, expected: Shapes | Callable[[ModelConfig], Shapes]
) -> tuple[WeightsFile, dict[str, torch.Tensor]]:
    """Return the description and the tensors (float32, on the CPU) of a weights file.

    Strict: names and shapes are exactly those expected, else nothing is loaded.

    Args:
        path: The weights file.
        expected: Shape of every tensor under the model's state_dict names, or what computes them from the
            configuration in the file. That configuration comes from outside: build on the meta device.

    Raises:
        WeightsError: The file is missing, damaged, not a weights file of this tool, or of another network.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    with _opened(path) as file:
        header = _read_header(path, file)
        _check_shapes(path, header.shapes, _expected_shapes(path, header.config, expected))
        file.seek(0)
        data = file.read(header.file_bytes)
    if len(data) != header.file_bytes or not data.startswith(header.raw):
        raise _damaged(path, "it changed while it was read")
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        stored = load(data)
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error
    del data
    tensors = {}
    for name in sorted(stored):
        tensors[name] = stored.pop(name).to(torch.float32)
        if not torch.isfinite(tensors[name]).all():
            raise _damaged(path, f"{name!r} holds NaN or infinite values")
    return WeightsFile(path, header.config, header.card, sha256), tensors


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal, reading it in pieces. Raises: WeightsError."""
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file; a pipe or a device would block or never end, so it is refused first."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        advice = "`a2fseg download-weights` can list what exists."
        raise WeightsError(f"{path}: no such weights file. {advice}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise WeightsError(f"{printable(str(path))}: cannot be read ({error}).") from error
    if stat.S_ISDIR(mode):
        raise WeightsError(f"{path}: is a folder. Expected one weights file.")
    if not stat.S_ISREG(mode):
        raise WeightsError(f"{path}: is not a regular file. Expected one weights file.")
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}).") from error


def _read_header(path: Path, file: BufferedReader) -> _Header:
    """Read the header alone and check everything that it can tell."""
    file_bytes = os.fstat(file.fileno()).st_size
    start = file.read(512)
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if len(start) <= _LENGTH_BYTES or start[_LENGTH_BYTES : _LENGTH_BYTES + 1] != b"{":
        raise _not_weights(path, _looks_like(start))
    if length > MAX_HEADER_BYTES:
        raise _damaged(path, f"its header claims {length} bytes, the limit is {MAX_HEADER_BYTES}")
    if file_bytes > MAX_FILE_BYTES:
        raise WeightsError(f"{path}: {file_bytes} bytes; weights files of this tool stay below {MAX_FILE_BYTES}.")
    header_end = _LENGTH_BYTES + length
    if header_end > file_bytes:
        raise _damaged(path, f"truncated: the header alone should take {header_end} bytes, the file has {file_bytes}")
    raw = (start + file.read(max(0, header_end - len(start))))[:header_end]

    entries = _parse_object(path, raw[_LENGTH_BYTES:], "header")
    metadata = entries.pop("__metadata__", {})
    _check_format(path, metadata)
    shapes = _check_layout(path, entries, file_bytes - header_end)
    config = _parse_config(path, metadata)
    card = _parse_object(path, metadata.get("card", ""), "card")
    _check_card(path, card, config)
    return _Header(raw, file_bytes, shapes, config, card)


def _check_format(path: Path, metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(path, "its metadata are not a table of texts")
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: a safetensors file of another program (format {_quote(metadata.get('format'))}, expected "
            f"{FORMAT!r}). Give a file that `a2fseg train` or `a2fseg download-weights` made."
        )
    version = metadata.get("format_version", "")
    if not (version.isascii() and version.isdigit() and len(version) < 10) or int(version) < 1:
        raise _damaged(path, f"its format_version is {_quote(version)}")
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
            raise _damaged(path, f"the entry of {_quote(name)} is not one of a tensor")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
            raise WeightsError(f"{path}: {_quote(name)} is stored as {_quote(dtype)}; expected F16, BF16 or F32.")
        if not _are_counts(shape) or len(shape) > _MAX_DIMENSIONS or not _are_counts(offsets) or len(offsets) != 2:
            raise _damaged(path, f"shape or offsets of {_quote(name)} are not valid")
        if offsets[1] - offsets[0] != math.prod(shape) * ITEM_BYTES[dtype]:
            raise _damaged(path, f"the size of {_quote(name)} does not follow from its shape")
        shapes[name] = tuple(shape)
        spans.append((offsets[0], offsets[1], name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise _damaged(path, f"{_quote(name)} overlaps another tensor or leaves a gap")
        position = end
    if position > body_bytes:
        raise _damaged(path, f"truncated: {position} bytes of tensors are announced, {body_bytes} are there")
    if position < body_bytes:
        raise _damaged(path, f"{body_bytes - position} bytes follow the last tensor")
    return shapes


def _expected_shapes(path: Path, config: ModelConfig, expected: Shapes | Callable[[ModelConfig], Shapes]) -> Shapes:
    if not callable(expected):
        return expected
    try:
        return expected(config)
    except UsageError as error:  # an architecture that this version does not know, or a network it cannot be
        raise WeightsError(f"{path}: {printable(str(error))} Upgrade a2fseg, or take other weights.") from error


def _check_shapes(path: Path, found: Shapes, expected: Shapes) -> None:
    problems = (
        ("lacks", sorted(set(expected) - set(found))),
        ("has the unknown tensors", sorted(set(found) - set(expected))),
        (
            "has other shapes for",
            sorted(name for name in found if tuple(expected.get(name, found[name])) != found[name]),
        ),
    )
    for problem, names in problems:
        if names:
            raise WeightsError(
                f"{path}: not the network that its configuration describes: it {problem} {_few(names)}. "
                "Nothing was loaded; train or download the weights again."
            )


def _parse_config(path: Path, metadata: Mapping[str, str]) -> ModelConfig:
    text = metadata.get("config", "")
    raw = _parse_object(path, text, "configuration")
    try:
        config = ModelConfig.from_json(text)
    except (ValueError, OverflowError) as error:
        raise WeightsError(f"{path}: its configuration is not one of a network: {printable(str(error))}.") from error
    # What the constructor has to convert ("abc" to three names, 3.7 to 3) was not written by this tool.
    if json.loads(config.to_json()) != of_today(raw):
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
        raise _damaged(path, "the scores in its card are not one number a subset and region")
    if not isinstance(patients, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in patients.values()
    ):
        raise _damaged(path, "the data in its card are not lists of patients")


def _parse_object(path: Path, text: str | bytes, what: str) -> dict[str, Any]:
    try:
        return parse_object(text)
    except ValueError as error:
        raise _damaged(path, f"its {what} cannot be read: {printable(str(error), 120)}") from error


def _with_sorted_header(data: bytes) -> bytes:
    """Return a safetensors file with the header's keys sorted; the library keeps metadata in random order."""
    body_start = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    text = json.dumps(json.loads(data[_LENGTH_BYTES:body_start]), sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors start at a multiple of 8 bytes
    if len(text) > MAX_HEADER_BYTES:
        raise ValueError(f"the card is too large: a header of {len(text)} bytes, the limit is {MAX_HEADER_BYTES}")
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + data[body_start:]


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


def _damaged(path: Path, reason: str) -> WeightsError:
    return WeightsError(f"{path}: damaged weights file: {reason}. Download or copy it again.")


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _quote(value: object) -> str:
    return printable(repr(value), 60)


def _few(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(_quote(name) for name in names[:3]) + more
