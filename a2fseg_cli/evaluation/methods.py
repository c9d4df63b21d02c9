"""The methods that are compared: networks and folders of masks, each under a name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from a2fseg_cli.errors import UsageError

Given = str | Path | Sequence[str | Path] | Mapping[str, str | Path]

# A name heads a column and is a folder of the results, beside files such as comparison.md.
_NAME = re.compile(r"[A-Za-z0-9](?!.*\.(md|tex|csv|json|png)$)[A-Za-z0-9 _.+-]{0,39}", re.IGNORECASE)


@dataclass(frozen=True)
class Method:
    """What makes masks of patients.

    Attributes:
        name: Heads its column.
        weights: Of a network, a file or a name in the manifest; None where the masks are files.
        folder: Of the masks; None of a network.
    """

    name: str
    weights: str | Path | None = None
    folder: Path | None = None


def methods_of(weights: Given | None, predictions: Given | None, of_subsets: bool = False) -> list[Method]:
    """Return the methods to compare; none where one network or one folder without a name is to be scored.

    Args:
        weights: Names or files; `NAME=FILE`, or a mapping, says what a network is called.
        predictions: Folders, likewise.
        of_subsets: Whether subsets were asked for: then one folder may hold one sub-folder a subset.

    Raises:
        UsageError: two methods of one name, a name that cannot be a folder, or one without a name beside others whose
            classes it would set.
    """
    networks, folders = _named(weights), _named(predictions)
    named = any(name for name, _ in (*networks, *folders))
    folder_of_subsets = of_subsets and folders and not networks
    if len(networks) <= 1 and len(folders) <= 1 and not named and not folder_of_subsets:
        return []
    methods = [Method(name or Path(place).stem, weights=place) for name, place in networks]
    methods += [Method(name or Path(place).resolve().name, folder=Path(place)) for name, place in folders]
    names: dict[str, str] = {}
    for method in methods:
        if not _NAME.fullmatch(method.name):
            raise UsageError(
                f"a method named {method.name!r}: expected up to 40 letters, digits, spaces and _ . + -, such as "
                "nnunet=FOLDER, that does not end like the file of a table."
            )
        if method.name.lower() in names:  # some disks do not tell capitals in names of folders
            raise UsageError(f"two methods are named {method.name}. Give them names, such as first=..., second=...")
        names[method.name.lower()] = method.name
    return methods


def single(given: Given | None) -> str | Path | None:
    """Return the one that was given where nothing is compared."""
    named = _named(given)
    return named[0][1] if named else None


def _named(given: Given | None) -> list[tuple[str, str | Path]]:
    """Return name, empty where none was given, and place of each."""
    if given is None:
        return []
    if isinstance(given, Mapping):
        return list(given.items())
    several = [given] if isinstance(given, str | Path) else given
    return [_name_and_place(one) for one in several]


def _name_and_place(one: str | Path) -> tuple[str, str | Path]:
    name, equals, place = str(one).partition("=")
    if isinstance(one, Path) or not equals or "/" in name or os.sep in name or os.path.exists(one):
        return "", one
    if not place:
        raise UsageError(f"{one}: expected NAME=FILE or NAME=FOLDER.")
    return name.strip(), place
