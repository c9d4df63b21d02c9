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
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import UsageError, WeightsError, some
from a2fseg_cli.files import atomic_write, finite_or_null
from a2fseg_cli.weights.header import (
    FORMAT,
    FORMAT_VERSION,
    LENGTH_BYTES,
    MAX_HEADER_BYTES,
    Shapes,
    damaged,
    quote,
    read_header,
)
from a2fseg_cli.weights.strict_json import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

    import torch


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
        header = read_header(path, file)
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
        header = read_header(path, file)
        _check_shapes(path, header.shapes, _expected_shapes(path, header.config, expected))
        file.seek(0)
        data = file.read(header.file_bytes)
    if len(data) != header.file_bytes or not data.startswith(header.raw):
        raise damaged(path, "it changed while it was read")
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        stored = load(data)
    except SafetensorError as error:
        raise damaged(path, str(error)) from error
    del data
    tensors = {}
    for name in sorted(stored):
        tensors[name] = stored.pop(name).to(torch.float32)
        if not torch.isfinite(tensors[name]).all():
            raise damaged(path, f"{name!r} holds NaN or infinite values")
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


def _expected_shapes(path: Path, config: ModelConfig, expected: Shapes | Callable[[ModelConfig], Shapes]) -> Shapes:
    if not callable(expected):
        return expected
    try:
        return expected(config)
    except UsageError as error:  # an architecture that this version does not know, or a network it cannot be
        raise WeightsError(f"{path}: {printable(str(error))} Upgrade a2fseg, or take other weights.") from error


def _check_shapes(path: Path, shapes: Shapes, expected: Shapes) -> None:
    problems = (
        ("lacks", sorted(set(expected) - set(shapes))),
        ("has the unknown tensors", sorted(set(shapes) - set(expected))),
        (
            "has other shapes for",
            sorted(name for name in shapes if tuple(expected.get(name, shapes[name])) != shapes[name]),
        ),
    )
    for problem, names in problems:
        if names:
            raise WeightsError(
                f"{path}: not the network that its configuration describes: it {problem} {_few(names)}. "
                "Nothing was loaded; train or download the weights again."
            )


def _with_sorted_header(data: bytes) -> bytes:
    """Return a safetensors file with the header's keys sorted; the library keeps metadata in random order."""
    body_start = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    text = json.dumps(json.loads(data[LENGTH_BYTES:body_start]), sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors start at a multiple of 8 bytes
    if len(text) > MAX_HEADER_BYTES:
        raise ValueError(f"the card is too large: a header of {len(text)} bytes, the limit is {MAX_HEADER_BYTES}")
    return len(text).to_bytes(LENGTH_BYTES, "little") + text + data[body_start:]


def _few(names: Iterable[str]) -> str:
    return some([quote(name) for name in names], 3)
