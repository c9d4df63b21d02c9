"""The MR sequences that the tool knows by name: one row each, from which flags, headings and file names follow.

The order is the one of the BraTS challenges and of the networks' inputs. Networks of other tasks bring names of their
own (`ModelConfig.modalities`), which have no row here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Modality:
    """One sequence.

    Attributes:
        name: As in file names, tables and configurations, e.g. `t1c`.
        heading: As the paper writes it, e.g. `T1c`.
        flags: Other names of the command line's option.
        aliases: Other names in file names, lower case; two tokens count as one: `T1_Gd` is `t1gd`.
        bids_suffixes: How a BIDS file name ends, lower case.
        contrast_of: The sequence that becomes this one by a contrast agent; its words with one for the agent name it.
        picture_rank: A picture shows the segmentation on the image with the lowest, the first of several. The whole
            tumour is seen best on FLAIR, then on T2.
    """

    name: str
    heading: str
    flags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    bids_suffixes: tuple[str, ...] = ()
    contrast_of: str = ""
    picture_rank: float = math.inf


MODALITIES = (
    Modality("t1", "T1", ("t1n",), ("t1n", "t1w", "t1pre"), ("t1w", "t1"), picture_rank=4),
    Modality(
        "t1c",
        "T1c",
        ("t1ce", "t1gd"),
        ("t1ce", "t1gd", "t1wce", "t1wgd", "t1post", "t1contrast", "ct1", "cet1", "cet1w", "gdt1", "gdt1w"),
        contrast_of="t1",
        picture_rank=3,
    ),
    Modality("t2", "T2", ("t2w",), ("t2w",), ("t2w",), picture_rank=2),
    Modality("flair", "FLAIR", ("t2f", "fla"), ("fla", "t2f", "t2flair"), ("flair",), picture_rank=1),
)
BY_NAME = {modality.name: modality for modality in MODALITIES}
BRATS_MODALITIES = tuple(BY_NAME)


def heading(name: str) -> str:
    """Return a modality's name as the paper writes it; one without a row as it is."""
    return BY_NAME[name].heading if name in BY_NAME else name


def best_background(names: Iterable[str]) -> str:
    """Return the one of these modalities, at least one, that a picture shows the segmentation on."""
    return min(names, key=lambda name: BY_NAME[name].picture_rank if name in BY_NAME else math.inf)


def picture_order(names: Iterable[str]) -> list[str]:
    """Return modalities in the order in which a picture shows them: T1c, on which alone enhancement is seen, first."""
    ranks = {name: BY_NAME[name].picture_rank if name in BY_NAME else math.inf for name in names}
    return sorted(ranks, key=lambda name: (name != "t1c", ranks[name]))
