"""From class maps to scores: the truth of a patient, and what is compared with it.

Nothing is compared on the whole grid: a tumour fills a small part of it. Class maps come with the box of the
file's grid that they fill; outside it there is background.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np

from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.evaluation.metrics import NSD_TOLERANCE_MM, Scores, TruthMask, score
from a2fseg_cli.imaging.label_maps import LabelMap
from a2fseg_cli.imaging.labels import region_mask
from a2fseg_cli.imaging.restoring import Box, BoxedClasses, boxed


class Scorer:
    """The truth of one patient, prepared once for any number of predictions.

    Args:
        truth: The expert's label map.
        config: Its classes and regions.
        reach: A box of the file's grid that holds every prediction to come.
        metrics: Keys of METRICS.
        policy: Key of POLICIES.
        nsd_tolerance_mm: Distance up to which surfaces agree, for `nsd`.
    """

    def __init__(
        self,
        truth: LabelMap,
        config: ModelConfig,
        reach: Box,
        metrics: Iterable[str],
        policy: str,
        nsd_tolerance_mm: float = NSD_TOLERANCE_MM,
    ) -> None:
        self._arguments = (tuple(metrics), policy, nsd_tolerance_mm)
        self._classes = len(config.classes)
        self._members = {region: config.region_classes(region) for region, _ in config.regions}
        true = boxed(truth.classes)
        self._frame = true.box.union(reach)
        self._true = true.placed(self._frame)
        self._spacing_mm = truth.geometry.spacing_mm

    @cached_property
    def _references(self) -> Mapping[str, TruthMask]:
        masks = {region: region_mask(self._true, members) for region, members in self._members.items()}
        return {region: TruthMask(mask, self._spacing_mm) for region, mask in masks.items()}

    def score(self, prediction: BoxedClasses) -> dict[str, Scores]:
        """Return the scores of every region."""
        classes = prediction.placed(self._frame)
        return {
            region: score(reference, region_mask(classes, self._members[region]), *self._arguments)
            for region, reference in self._references.items()
        }

    def confusion(self, prediction: BoxedClasses) -> tuple[tuple[int, ...], ...]:
        """Return the voxels by true class (rows) and predicted class, where truth or prediction is not background."""
        pairs = self._true.astype(np.intp) * self._classes + prediction.placed(self._frame)
        counts = np.bincount(pairs.ravel(), minlength=self._classes**2)
        counts[0] = 0  # how much background there is depends on the box alone
        return tuple(tuple(row) for row in counts.reshape(self._classes, -1).tolist())
