"""What a network is: its modalities, classes, widths and working grid. Travels inside the weights file.

Free of torch, so that `--help` and the file checks can use it.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from a2fseg_cli.files import parse_json
from a2fseg_cli.modalities import BRATS_MODALITIES

# Modalities and regions stand in file names, subset names (t1c+flair) and parameter names (a dot would nest).
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# What can be taken out of A2FSeg, as its paper's Table 2 does: all but the average fusion (the head on F_avg predicts);
# the average out of equation (1), so that W_m = sigmoid(f_m(F_m)); the heads on single F_m and their losses.
ABLATIONS = ("average-only", "no-context", "no-modality-heads")


@dataclass(frozen=True)
class ModelConfig:
    """Configuration of a network.

    Attributes:
        modalities: Names, in the order of the network's inputs.
        classes: Names of the output classes in the order of the logits; the first is the background.
        label_values: Voxel value of each class in the label maps the network was trained on, same order.
        regions: Named unions of classes as they are scored, e.g. ("TC", ("NCR", "ET")).
        features_per_stage: Channels of each resolution level; the first is C, the width of F_m.
        attention_kernel_size: Edge of the kernel of f_m in equation (1), voxels, odd; only a2fseg has it.
        spacing_mm: Working voxel spacing (z, y, x).
        patch_size: Edges (D, H, W) of the crops it is trained on, in voxels of the working spacing. Inference plans a
            window of its own over the whole brain; the nearer the crops come to it, the better it works.
        architecture: Which network it is, a row of `core/networks.py`.
        ablation: Parts left out, of `ABLATIONS`; only a2fseg has them.
        sub_voxels: Edge of the blocks of voxels that the network takes as one; 1 is none, and only a2fseg has more.
            Spacing, crops and windows stay those of the voxels.
    """

    modalities: tuple[str, ...] = BRATS_MODALITIES
    classes: tuple[str, ...] = ("background", "NCR", "ED", "ET")
    label_values: tuple[int, ...] = (0, 1, 2, 3)
    regions: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("WT", ("NCR", "ED", "ET")),
        ("TC", ("NCR", "ET")),
        ("ET", ("ET",)),
    )
    features_per_stage: tuple[int, ...] = (32, 64, 128, 256, 320, 320)
    attention_kernel_size: int = 3
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    patch_size: tuple[int, int, int] = (128, 128, 128)
    architecture: str = "a2fseg"
    ablation: tuple[str, ...] = ()
    sub_voxels: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be a network. Raises: ValueError."""
        if not self.modalities or len(set(self.modalities)) != len(self.modalities):
            raise ValueError(f"modalities must be distinct names, at least one; got {self.modalities}")
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes must be distinct names, background and at least one; got {self.classes}")
        for name in (*self.modalities, *(region for region, _ in self.regions)):
            if not _NAME.fullmatch(name):
                raise ValueError(f"names of modalities and regions are letters, digits, - and _; got {name!r}")
        if len(self.label_values) != len(self.classes) or len(set(self.label_values)) != len(self.classes):
            raise ValueError(f"one distinct label value per class; got {self.label_values} for {self.classes}")
        if self.label_values[0] != 0 or any(not 0 <= value <= 255 for value in self.label_values):
            raise ValueError(f"label values are 0 (the background) to 255; got {self.label_values}")
        if len(dict(self.regions)) != len(self.regions):
            raise ValueError(f"a region is named twice: {[name for name, _ in self.regions]}")
        for name, members in self.regions:
            if not members or not set(members) <= set(self.classes[1:]):
                raise ValueError(f"region {name} must consist of {self.classes[1:]}; got {members}")
        if len(self.features_per_stage) < 2 or any(not 1 <= width <= 4096 for width in self.features_per_stage):
            raise ValueError(f"features_per_stage needs two or more widths of 1 to 4096; got {self.features_per_stage}")
        if len(self.features_per_stage) > 8 or len(self.modalities) > 32 or len(self.classes) > 256:
            raise ValueError("at most 8 stages, 32 modalities and 256 classes")
        if self.attention_kernel_size not in (1, 3, 5, 7):
            raise ValueError(f"attention_kernel_size must be 1, 3, 5 or 7; got {self.attention_kernel_size}")
        if len(self.spacing_mm) != 3 or any(not 0.1 <= mm <= 20 for mm in self.spacing_mm):
            raise ValueError(f"spacing_mm needs three values of 0.1 to 20; got {self.spacing_mm}")
        if not _NAME.fullmatch(self.architecture):
            raise ValueError(f"architecture must be a name of letters, digits, - and _; got {self.architecture!r}")
        self._check_ablation()
        if self.sub_voxels not in (1, 2, 3, 4) or (self.sub_voxels > 1 and self.architecture != "a2fseg"):
            raise ValueError(f"sub_voxels must be 1 to 4, and 1 for any network but a2fseg; got {self.sub_voxels}")
        least, step = self.smallest_edge, self.edge_step
        if len(self.patch_size) != 3 or any(edge < least or edge % step for edge in self.patch_size):
            raise ValueError(f"patch_size: edges must be multiples of {step}, at least {least}; got {self.patch_size}")

    def _check_ablation(self) -> None:
        if not set(self.ablation) <= set(ABLATIONS) or len(set(self.ablation)) != len(self.ablation):
            raise ValueError(f"ablation: expected some of {', '.join(ABLATIONS)}, each once; got {self.ablation}")
        if {"average-only", "no-context"} <= set(self.ablation):
            raise ValueError("ablation: average-only leaves nothing for no-context to change; give one of them")
        if self.ablation and self.architecture != "a2fseg":
            raise ValueError(f"ablation: parts of a2fseg, and the network is {self.architecture}")

    @property
    def stride(self) -> int:
        """Voxels at full resolution per voxel of the deepest stage."""
        return int(self.sub_voxels * 2 ** (len(self.features_per_stage) - 1))

    @property
    def smallest_edge(self) -> int:
        """Least edge of a window: instance norm needs more than one voxel at the deepest stage."""
        return 2 * self.stride

    @property
    def edge_step(self) -> int:
        """What the edges of windows and crops are multiples of: 8 (blocks), or the stride where that is less.

        The U-Nets take any edge, but a CPU prepares its convolutions anew for every shape; multiples of 8 are few
        shapes, and add 15 % of voxels to a brain at 2 mm where multiples of 16 add 43 %.
        """
        return min(8 * self.sub_voxels, self.stride)

    def region_classes(self, region: str) -> tuple[int, ...]:
        """Return the indices of the classes that make up a region. Raises: KeyError."""
        return tuple(self.classes.index(name) for name in dict(self.regions)[region])

    def presence(self, names: Iterable[str]) -> tuple[bool, ...]:
        """Return the missing-modality mask, in the model's order. Raises: ValueError for an unknown name."""
        wanted = set(names)
        if not wanted or not wanted <= set(self.modalities):
            raise ValueError(f"expected a non-empty subset of {self.modalities}; got {sorted(wanted)}")
        return tuple(name in wanted for name in self.modalities)

    def to_json(self) -> str:
        """Return the configuration as JSON, without what an earlier version lacks and this network does not use."""
        values = asdict(self)
        if not self.ablation:
            del values["ablation"]
        if self.sub_voxels == 1:
            del values["sub_voxels"]
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Return the configuration of a JSON text. Raises: ValueError when it is not one."""
        raw: Any = parse_json(text)
        names = {field.name for field in fields(cls)}
        raw = of_today(raw)
        if not isinstance(raw, dict) or set(raw) != names:
            raise ValueError(f"expected exactly the fields {sorted(names)}")
        try:
            return cls(
                modalities=tuple(str(name) for name in raw["modalities"]),
                classes=tuple(str(name) for name in raw["classes"]),
                label_values=tuple(int(value) for value in raw["label_values"]),
                regions=tuple((str(name), tuple(map(str, members))) for name, members in raw["regions"]),
                features_per_stage=tuple(int(width) for width in raw["features_per_stage"]),
                attention_kernel_size=int(raw["attention_kernel_size"]),
                spacing_mm=_three(raw["spacing_mm"], float),
                patch_size=_three(raw["patch_size"], int),
                architecture=str(raw["architecture"]),
                ablation=tuple(str(name) for name in raw["ablation"]),
                sub_voxels=int(raw["sub_voxels"]),
            )
        except (TypeError, KeyError, IndexError, OverflowError) as error:
            raise ValueError(f"not a model configuration: {error}") from error


def of_today(raw: Any) -> Any:
    """Return a configuration's fields as they are now.

    Until weights of format 2, `patch_size` was called `window`, and every network was an a2fseg. `ablation` and
    `sub_voxels` are left out where they are none.
    """
    if not isinstance(raw, dict):
        return raw
    if "window" in raw and "patch_size" not in raw:
        raw = {"patch_size" if name == "window" else name: value for name, value in raw.items()}
    return {"architecture": "a2fseg", "ablation": [], "sub_voxels": 1} | raw


def _three(values: Sequence[Any], kind: type) -> Any:
    if len(values) != 3:
        raise ValueError(f"expected three values, got {len(values)}")
    return tuple(kind(value) for value in values)


# Widths, working spacing and crop of the presets. `paper` is nnU-Net's full size at 1 mm; the others are ours, chosen
# so that they train (tiny) or fine-tune (small) on a CPU. The crop of `tiny` holds a whole brain, as the one window of
# inference does: on smaller crops instance norm would learn other statistics. Truth taken to 2 mm and back keeps a
# Dice of 98, 98 and 93 % (WT, TC, ET; at 1.5 mm 99, 99 and 96 %), far above what two cores can train.
PRESETS: dict[str, ModelConfig] = {
    "paper": ModelConfig(),
    "small": ModelConfig(features_per_stage=(16, 32, 64, 128, 160), patch_size=(96, 96, 96)),
    "tiny": ModelConfig(features_per_stage=(8, 16, 32, 64, 96), spacing_mm=(2.0, 2.0, 2.0), patch_size=(80, 96, 80)),
}


def all_subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Return every non-empty subset in the literature's row order: binary counting, last modality fastest.

    For (t1, t1c, t2, flair): flair; t2; t2+flair; t1c; ... ; all four (Table 1 of the paper).
    """
    masks = itertools.product((False, True), repeat=len(modalities))
    return [tuple(itertools.compress(modalities, mask)) for mask in masks if any(mask)]


def subset_name(names: Iterable[str], modalities: Sequence[str]) -> str:
    """Return `t1c+flair` for {"flair", "t1c"}: the names in the model's order."""
    wanted = set(names)
    return "+".join(name for name in modalities if name in wanted)
