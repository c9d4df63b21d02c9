"""What a run writes beside the segmentation, and in which values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import UsageError
from a2fseg_cli.imaging.labels import SCHEMES, has_schemes, scheme_values
from a2fseg_cli.reporting.colours import DEFAULT_PALETTE, check_palette

DEFAULT_SCHEME = "brats2023"


class Removal(Protocol):
    """What is removed from a mask before anything else is done with it; the attributes are those of `OutputOptions`."""

    @property
    def remove_small(self) -> Mapping[str, float]:
        """Region to the volume in mm3 under which its connected parts are removed."""

    @property
    def fill_holes(self) -> bool:
        """Whether holes are filled then."""

    @property
    def keep_tiny(self) -> bool:
        """Whether regions stay that the weights' card takes as absent, so small are they."""


@dataclass(frozen=True)
class OutputOptions:
    """What to write. All of it changes the output.

    Attributes:
        labels: Label scheme of the segmentation, a key of SCHEMES; None takes `brats2023`, or the values in the
            weights where their task is another.
        regions: Also write one mask a region.
        probabilities: Also write one probability map a region.
        uncertainty: Also write the entropy of the classes, 0 (sure) to 1 (every class as likely).
        attention: Also write the mean attention weight of each modality.
        agreement: Also compare with the result of every smaller subset of the modalities.
        colours: Of the classes in pictures, pages and label files, a key of PALETTES.
        remove_small: Region to the volume in mm3 under which its connected parts are removed: ET becomes necrotic and
            non-enhancing core, TC oedema, WT background. Before anything is written or counted.
        fill_holes: Then also fill holes: in the core with necrotic and non-enhancing core, else with oedema.
        keep_tiny: Keep also regions that are so small in all that the weights' card says they are rather invented.
    """

    labels: str | None = None
    regions: bool = False
    probabilities: bool = False
    uncertainty: bool = False
    attention: bool = False
    agreement: bool = False
    colours: str = DEFAULT_PALETTE
    remove_small: Mapping[str, float] = field(default_factory=dict)
    fill_holes: bool = False
    keep_tiny: bool = False

    def __post_init__(self) -> None:
        """Refuse an unknown scheme, and unknown colours. Raises: UsageError."""
        check_palette(self.colours)
        if self.labels is not None and self.labels not in SCHEMES:
            raise UsageError(f"labels {self.labels}: expected {' or '.join(SCHEMES)}.")

    def label_values(self, config: ModelConfig) -> tuple[int, ...]:
        """Return the voxel value written for each class. Raises: UsageError for a scheme of another task."""
        if self.labels is not None and not has_schemes(config):
            values = ", ".join(map(str, config.label_values))
            raise UsageError(f"labels {self.labels}: the weights are of another task, whose labels are {values}.")
        return scheme_values(config, self.labels or DEFAULT_SCHEME)
