"""Texts of options taken apart: lists with commas, and images by NAME=FILE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from a2fseg_cli.errors import UsageError


def listed(text: str | None) -> tuple[str, ...]:
    """Return the words of a text with commas."""
    return tuple(part.strip() for part in text.split(",")) if text else ()


def given_images(flags: Mapping[str, Path | None], named: Sequence[str], order: Sequence[str]) -> dict[str, Path]:
    """Return the images given by flag, the first of the command line first.

    Args:
        flags: File by modality.
        named: NAME=FILE of other modalities.
        order: Names of the parameters, in the order of the command line; `image` is that of `named`.

    Raises:
        UsageError: a modality is given twice, or a pair is none.
    """
    given: dict[str, Path] = {}
    for option in order:
        pairs = _named_images(named) if option == "image" else [(option, path)] if (path := flags.get(option)) else []
        for name, path in pairs:
            if name in given:
                raise UsageError(f"two images for {name}: {given[name]} and {path}. Keep one.")
            given[name] = path
    return given


def _named_images(pairs: Sequence[str]) -> list[tuple[str, Path]]:
    images = []
    for pair in pairs:
        name, separator, path = pair.partition("=")
        if not separator or not name or not path:
            raise UsageError(f"--image {pair}: expected NAME=FILE.")
        images.append((name.lower(), Path(path)))
    return images
