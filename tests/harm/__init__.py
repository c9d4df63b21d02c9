"""Bad input for the command, kind by kind, and damaged files for the readers; `harm_inputs.py` tries all of it."""

from __future__ import annotations

from harm.downloads import download_kinds
from harm.folders import folder_kinds
from harm.images import grid_kinds, image_kinds
from harm.kinds import Kind
from harm.options import option_kinds
from harm.outputs import output_kinds
from harm.trainings import training_kinds
from harm.truths import truth_kinds
from harm.weights import weights_kinds

KINDS: tuple[Kind, ...] = (
    *image_kinds(),
    *grid_kinds(),
    *folder_kinds(),
    *truth_kinds(),
    *weights_kinds(),
    *download_kinds(),
    *output_kinds(),
    *option_kinds(),
    *training_kinds(),
)
