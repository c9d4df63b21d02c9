"""The training recipe: a frozen dataclass that travels with checkpoints and weights. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

_SHARE: tuple[str, Callable[[Any], bool]] = ("0 to 1", lambda value: 0 <= value <= 1)
_COUNT: tuple[str, Callable[[Any], bool]] = ("1 or more", lambda value: value >= 1)
_MOST_SHARE = 1e9  # of `draw`: two of 1e308 have no sum
# What each field may be, in words and as a test that a NaN fails.
_ALLOWED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "optimizer": ("adam, adamw or muon", lambda value: value in ("adam", "adamw", "muon")),
    "learning_rate": ("more than 0 and less than 10", lambda value: 0 < value < 10),
    "weight_decay": ("0 or more and less than 1", lambda value: 0 <= value < 1),
    "epochs": _COUNT,
    "iterations_per_epoch": _COUNT,
    "batch_size": _COUNT,
    "random_subsets": ("0 or more", lambda value: value >= 0),
    "foreground_share": _SHARE,
    "foreground_weight": ("a finite number above 0", lambda value: 0 < value < math.inf),
    "dice_over": ("classes or regions", lambda value: value in ("classes", "regions")),
    "mix_share": _SHARE,
    "scanner_share": _SHARE,
    "gradient_clip": ("more than 0", lambda value: value > 0),
    "ema_decay": ("0 or more and less than 1", lambda value: 0 <= value < 1),
    "seed": ("0 or more", lambda value: value >= 0),
    "time_budget_s": ("0 s (none) or more", lambda value: 0 <= value < math.inf),
}


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. The defaults are the paper's; what it leaves open says so.

    The size of the crops is the network's `ModelConfig.patch_size`, less where a brain is smaller.

    Attributes:
        optimizer: adam (paper), adamw or muon.
        learning_rate: Start value, multiplied by (1 - progress)^0.9 (paper: 0.01). Progress is of steps; the paper's
            is of epochs.
        weight_decay: Of adamw and muon.
        epochs: Paper: 400.
        iterations_per_epoch: Not in the paper; 250 is nnU-Net's convention.
        batch_size: Crops a step (not in the paper); gradients are summed crop by crop.
        random_subsets: Random subsets a step (not in the paper), beside the full set. All share one encode.
        foreground_share: Share of crops centred on a voxel of a random foreground class (not in the paper).
        foreground_weight: Of a tumour voxel in the cross-entropy, against 1 of the background (paper: 1).
        dice_over: What the Dice loss is the mean of: classes (paper), or the task's regions, as it is scored.
        draw: How often patients who have different sequences are drawn: `case`, each patient as often as any other;
            `kind`, each combination of sequences as often as any other; or shares of the steps by combination, such
            as `t1+t1c+t2+flair=2,flair=1` (not in the paper).
        augment: Flips, small rotations and scalings, intensity, noise (not in the paper).
        mix_share: Share of crops that get another patient's tumour, turned and scaled a little, pasted in as
            `mix_tumours` does; with `augment` or without (not in the paper).
        scanner_share: Share of crops whose sequences look as if from other scanners, each in its own way: thick
            slices, contrast, bias field, noise, as `as_another_scanner` does; with `augment` or without (not in the
            paper).
        gradient_clip: Largest gradient norm (not in the paper; the authors' code has 12).
        ema_decay: Of the running mean of the weights that is validated and exported; 0 switches it off (not in the
            paper).
        seed: Every random choice follows from it and the step's number.
        time_budget_s: Progress is then the share of this time that is used, not of the steps; 0: by steps. It holds
            training and validation, not the preprocessing of the patients.
    """

    optimizer: str = "adam"
    learning_rate: float = 0.01
    weight_decay: float = 0.01
    epochs: int = 400
    iterations_per_epoch: int = 250
    batch_size: int = 1
    random_subsets: int = 2
    foreground_share: float = 0.6
    foreground_weight: float = 1.0
    dice_over: str = "classes"
    draw: str = "case"
    augment: bool = True
    mix_share: float = 0.0
    scanner_share: float = 0.0
    gradient_clip: float = 12.0
    ema_decay: float = 0.998
    seed: int = 0
    time_budget_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained. Raises: ValueError, which names the field."""
        for name, (expected, allows) in _ALLOWED.items():
            if not allows(value := getattr(self, name)):
                raise ValueError(f"{name} {value}: expected {expected}")
        self.draw_shares()

    @property
    def steps(self) -> int:
        """Steps in all, when no time budget ends the training."""
        return self.epochs * self.iterations_per_epoch

    def draw_shares(self) -> dict[str, float] | None:
        """Return the shares of the steps by combination of sequences that `draw` gives; None for `case` and `kind`.

        Raises:
            ValueError: `draw` is neither a word it knows nor a list of shares above 0.
        """
        if self.draw in ("case", "kind"):
            return None
        try:
            pairs = [(kind.strip(), float(share)) for kind, share in (item.split("=") for item in self.draw.split(","))]
        except ValueError as error:
            raise ValueError(f"draw {self.draw}: expected case, kind, or shares such as t1+flair=2,flair=1") from error
        if len(dict(pairs)) < len(pairs) or any(not 0 < share <= _MOST_SHARE for _, share in pairs):
            raise ValueError(
                f"draw {self.draw}: expected each combination of sequences once, with a share above 0, at most "
                f"{_MOST_SHARE:g}"
            )
        return dict(pairs)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values for JSON."""
        return asdict(self)


# What differs from the paper's recipe in the presets made for a CPU.
RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},
    "small": {"optimizer": "adamw", "learning_rate": 0.002},
    "tiny": {"optimizer": "muon", "learning_rate": 0.02, "iterations_per_epoch": 150, "foreground_share": 0.3},
}
# What differs from A2FSeg's recipe in those of the other networks at the preset `paper`, from their code: learning rate
# and steps (U-HVED's config.ini: 60,000 steps; RFNet's job.sh; mmFormer's train.py; RobustSeg's main.py). An
# epoch of mmFormer's is every patient once; here it has the default's steps. Of MFI nothing is known; it has RFNet's.
RECIPES_OF_PAPERS: dict[str, dict[str, Any]] = {
    "hemis": {"learning_rate": 1e-3, "epochs": 240},
    "uhved": {"learning_rate": 1e-3, "epochs": 240},
    "robustseg": {"learning_rate": 1e-4, "epochs": 300, "iterations_per_epoch": 300},
    "rfnet": {"learning_rate": 2e-4, "epochs": 300, "iterations_per_epoch": 150, "batch_size": 2},
    "mmformer": {"learning_rate": 2e-4, "epochs": 1000},
    "mfi": {"learning_rate": 2e-4, "epochs": 300, "iterations_per_epoch": 150, "batch_size": 2},
}
