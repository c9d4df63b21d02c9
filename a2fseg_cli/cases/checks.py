"""What a person would see at a glance: the skull is on, a sequence lies elsewhere, is cut, or is another one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from a2fseg_cli.errors import InputError
from a2fseg_cli.imaging.alignment import coverage_gaps, misalignments
from a2fseg_cli.imaging.brain import brain_mask
from a2fseg_cli.imaging.contrast import Finding, implausible
from a2fseg_cli.imaging.geometry import axes_to_canonical
from a2fseg_cli.imaging.preprocessing import Reorient, canonical_spacing_mm
from a2fseg_cli.imaging.reading import THICK_SLICES, MedicalImage
from a2fseg_cli.imaging.skull import skull_on

Mask = npt.NDArray[np.bool_]


def brain_masks(images: Mapping[str, MedicalImage], threads: int = 1) -> dict[str, Mask]:
    """Return where each image, skull-stripped, has brain, (D, H, W) as the images."""
    with ThreadPoolExecutor(threads) as pool:
        arrays = (image.array for image in images.values())
        return dict(zip(images, pool.map(brain_mask, arrays), strict=True))


def refuse_skulls(images: Mapping[str, MedicalImage], threads: int = 1) -> None:
    """Refuse images of a whole head: what the network marks there means nothing.

    Raises:
        InputError: the skull is on; the message says what was seen and what to do.
    """
    with ThreadPoolExecutor(threads) as pool:
        looks = pool.map(lambda image: skull_on(image.array, image.geometry.spacing_mm), images.values())
        for image, seen in zip(images.values(), looks, strict=True):
            if seen.likely:
                raise InputError(
                    f"{image.path}: the skull is still on ({seen.words}). The network knows brains only: have it "
                    "stripped (raw), give a mask of the brain (brain_mask), or go on with the skull (allow_skull)."
                )


def in_order(warnings: Iterable[str]) -> tuple[str, ...]:
    """Return warnings, each once, those of thick slices last and, where they are equal, as one for all images."""
    told = list(dict.fromkeys(warnings))
    thick = [text for text in told if THICK_SLICES in text]
    endings = {text[text.index(THICK_SLICES) :] for text in thick}
    if len(thick) > 1 and len(endings) == 1:
        thick_once = [f"{len(thick)} images: {endings.pop()}"]
    else:
        thick_once = thick
    return (*(text for text in told if text not in thick), *thick_once)


def remarks(images: Mapping[str, MedicalImage], masks: Mapping[str, Mask], threads: int = 1) -> list[str]:
    """Return what is odd about the sequences together, in plain words, a line each.

    Args:
        images: By modality, all on one grid.
        masks: Where each has brain, as the images.
        threads: How many sequences are worked on at a time.
    """
    geometry = next(iter(images.values())).geometry
    reorient = Reorient(*axes_to_canonical(geometry))
    spacing_mm = canonical_spacing_mm(geometry, reorient)
    arrays = {m: reorient.apply(image.array) for m, image in images.items()}
    inside = {m: reorient.apply(mask) for m, mask in masks.items()}
    odd = [finding.message for finding in misalignments(arrays, inside, spacing_mm, threads)]
    odd += [finding.message for finding in coverage_gaps(inside, spacing_mm)]
    return odd + _contrasts(implausible(arrays, inside, spacing_mm))


def _contrasts(findings: Sequence[Finding]) -> list[str]:
    """Return a line for each image that looks like another sequence; two that look exchanged have one together."""
    looks = {finding.name: finding.looks_like for finding in findings}
    lines = []
    for finding in findings:
        if looks.get(finding.looks_like) != finding.name:
            lines.append(finding.message)
        elif finding.name < finding.looks_like:
            lines.append(f"{finding.name} looks like {finding.looks_like}, and the reverse: are the files exchanged?")
    return lines
