"""4-D files that hold all sequences of a patient as volumes: whoever has them says which volume is which."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from a2fseg_cli.cases.case import Case, printable_name, too_long
from a2fseg_cli.cases.folders import case_name, checked_folder, folders_in, images_in
from a2fseg_cli.cases.names import Kind, image_stem, modality_words, read_name
from a2fseg_cli.cases.truths import truth_files
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.imaging.marking import is_marked
from a2fseg_cli.modalities import BRATS_MODALITIES

NOT_USED = "-"


def channel_modalities(channels: Sequence[str], modalities: Sequence[str]) -> tuple[str, ...]:
    """Return the modality of each volume under its own name; `-` is a volume that is not used.

    Raises:
        UsageError: a name that is no modality, or one twice.
    """
    known = modality_words(tuple(dict.fromkeys((*modalities, *BRATS_MODALITIES)))) | {m: m for m in modalities}
    named = tuple(known.get(name.strip().lower(), NOT_USED) for name in channels)
    expected = f"Expected modalities in the order of the volumes ({', '.join(modalities)}; {NOT_USED}: not used)"
    unknown = [n for n, m in zip(channels, named, strict=True) if m == NOT_USED and n.strip() != NOT_USED]
    if unknown:
        raise UsageError(f"channels: {unknown[0]!r} is no modality. {expected}.")
    used = [modality for modality in named if modality != NOT_USED]
    if len(set(used)) < len(used) or (channels and not set(used) & set(modalities)):
        raise UsageError(f"channels {','.join(channels)}: {expected}, each once.")
    return named


def cases_of_volumes(source: Path, modalities: Sequence[str], channels: Sequence[str]) -> list[Case]:
    """Return the cases of a 4-D file, or of a folder with one such file a patient, side by side or in folders.

    Args:
        source: The file or folder.
        modalities: Those of the network.
        channels: Modality of each volume, in the file's order.

    Raises:
        InputError: no image found.
    """
    named = channel_modalities(channels, modalities)
    if os.path.isfile(source):
        if (stem := image_stem(source)) is None:
            raise InputError(f"{source}: not an image file that is known.")
        return [_case(printable_name(stem), source, None, modalities, named)]
    cases = _cases_below(checked_folder(source), source, modalities, named)
    if not cases:
        raise InputError(f"{source}: no image found, neither here nor in its folders.")
    return sorted(cases, key=lambda case: case.name)


def _cases_below(root: Path, place: Path, modalities: Sequence[str], channels: tuple[str, ...]) -> list[Case]:
    files = images_in(place)
    truths = truth_files(files)
    images = [p for p in files if p not in truths and read_name(image_stem(p) or "").kind is not Kind.ASIDE]
    cases = []
    for path in images:
        stem = image_stem(path) or ""
        alone = len(images) == 1
        name = case_name(root, place, [path]) if alone else printable_name(stem)
        mine = [t for t in truths if (alone or t.name.startswith(stem)) and not is_marked(t)]
        cases.append(_case(name, path, mine[0] if len(mine) == 1 else None, modalities, channels))
    inner = folders_in(place) if not images and not place.is_symlink() else []
    return cases + [case for folder in inner for case in _cases_below(root, folder, modalities, channels)]


def _case(name: str, path: Path, truth: Path | None, modalities: Sequence[str], channels: tuple[str, ...]) -> Case:
    images = {modality: path for modality in modalities if modality in channels}
    decided = {modality: f"volume {channels.index(modality)} (channels)" for modality in images}
    return Case(name, images, truth, too_long(name), (), decided, path.parent, channels)
