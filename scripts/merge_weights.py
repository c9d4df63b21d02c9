"""One weights file from several stages of a training: their mean.

    python scripts/merge_weights.py STAGE.safetensors ... -o MERGED.safetensors
    python scripts/merge_weights.py STAGE.safetensors ... -o MERGED.safetensors --biases-on DATA ... FILE:NAME

With --biases-on the head's biases are chosen too. The cross-entropy makes a network shy of classes that are rare or
hard to see; a larger bias of a class in the head calls more voxels by its name. The biases are moved one class at a
time, in steps of 0.4 up to 1.2 either way, to the best mean Dice of all regions and all subsets of the modalities
over the patients, on the working grid. On few patients this fits who among them has which class.

The card of the last stage goes with the file, with what was done; its scores do not, since they are of other weights:
`a2fseg evaluate --write-card` measures those of the mean.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from a2fseg_cli.cases.case_lists import split_part
from a2fseg_cli.core.config import ModelConfig, all_subsets
from a2fseg_cli.core.networks import parameter_shapes
from a2fseg_cli.errors import A2FSegError, InputError, UsageError
from a2fseg_cli.inference.predictor import Segmenter
from a2fseg_cli.training.data import read_training_patient
from a2fseg_cli.training.patients import training_cases
from a2fseg_cli.weights.file_format import load_weights, save_weights

STEP, MOST = 0.4, 1.2
# What a card says of the very weights of its file, which the mean is not.
_MEASURED = ("scores", "validation", "absent_below_ml")
# Class scores (classes, voxels) where a shift can change the winner, the true classes there, and all true counts.
Scores = tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8], npt.NDArray[np.int64]]


def mean_of(files: Sequence[Path]) -> tuple[dict[str, torch.Tensor], ModelConfig, dict[str, object]]:
    """Return the mean of the tensors, the configuration that all share, and the card of the last with the sources.

    Raises:
        UsageError: they are not of one network.
        WeightsError: one of them is not acceptable.
    """
    loaded = [load_weights(path, parameter_shapes) for path in files]
    config = loaded[-1][0].config
    if other := [path for path, (weights, _) in zip(files, loaded, strict=True) if weights.config != config]:
        raise UsageError(f"{other[0]}: not of the same network as {files[-1]}. Give stages of one training.")
    tensors = {name: torch.stack([state[name].float() for _, state in loaded]).mean(dim=0) for name in loaded[-1][1]}
    card = {name: value for name, value in loaded[-1][0].card.items() if name not in _MEASURED}
    return tensors, config, card | {"mean_of": [weights.sha256 for weights, _ in loaded]}


def scores_of(segmenter: Segmenter, data: Sequence[Path], names: Sequence[str]) -> Iterator[Scores]:
    """Yield the scores of each subset of each patient."""
    config = segmenter.config
    cases = {case.name: case for case in training_cases(data, config.modalities)}
    if missing := [name for name in names if name not in cases]:
        places = ", ".join(map(str, data))
        raise InputError(f"{missing[0]}: named in the split but not found in {places} ({len(missing)} such cases).")
    for name in names:
        patient = read_training_patient(cases[name], config)
        classes = patient.classes.ravel()
        here = [m for m, flag in zip(config.modalities, patient.present, strict=True) if flag]
        for result in segmenter.segment_subsets(
            patient.images, [config.presence(subset) for subset in all_subsets(here)]
        ):
            scores = np.log(np.maximum(result.probabilities, 1e-9)).reshape(len(config.classes), -1)
            near = scores[0] < scores[1:].max(axis=0) + MOST
            yield scores[:, near].astype(np.float32), classes[near], np.bincount(classes, minlength=len(scores))


def mean_dice(patients: Sequence[Scores], shift: npt.NDArray[np.float32], config: ModelConfig) -> float:
    """Return the mean Dice of all regions and scores; a region that is empty in both is 1."""
    count = len(config.classes)
    members = np.array([[i in config.region_classes(r) for i in range(count)] for r, _ in config.regions], float)
    dice = []
    for scores, classes, counts in patients:
        winner = (scores + shift[:, None]).argmax(axis=0)
        confusion = np.bincount(winner * count + classes, minlength=count**2).reshape(count, count)
        overlap = np.einsum("rc,ck,rk->r", members, confusion, members)
        sizes = members @ confusion.sum(axis=1) + members @ counts
        dice.append(np.where(sizes > 0, 2 * overlap / np.maximum(sizes, 1), 1.0).mean())
    return float(np.mean(dice))


def best_shift(patients: Sequence[Scores], config: ModelConfig) -> tuple[npt.NDArray[np.float32], float, float]:
    """Return the shift of each class's bias, background 0, and the mean Dice before and after."""
    shift = np.zeros(len(config.classes), np.float32)
    before = best = mean_dice(patients, shift, config)
    improved = True
    while improved:
        improved = False
        for index in range(1, len(shift)):
            for value in sorted(np.arange(-MOST, MOST + STEP / 2, STEP), key=abs):
                trial = shift.copy()
                trial[index] = value
                if (dice := mean_dice(patients, trial, config)) > best + 1e-4:
                    shift, best, improved = trial, dice, True
    return shift, before, best


def merge(files: Sequence[Path], output: Path) -> None:
    """Write the mean of the stages."""
    save_weights(output, *mean_of(files))


def merge_with_biases(data: Sequence[Path], names: Sequence[str], files: Sequence[Path], output: Path) -> str:
    """Write the mean with the biases that the patients prefer; return what was chosen, in one line."""
    tensors, config, card = mean_of(files)
    if "head.bias" not in tensors:
        raise UsageError(f"{files[-1]}: {config.architecture} has no biases of a head that could be moved.")
    save_weights(output, tensors, config, card)
    shift, before, after = best_shift(list(scores_of(Segmenter(output), data, names)), config)
    of_blocks = config.sub_voxels**3  # as many biases a class
    tensors["head.bias"] = tensors["head.bias"] + torch.from_numpy(shift).repeat_interleave(of_blocks)
    moved = {name: round(float(value), 1) for name, value in zip(config.classes, shift, strict=True)}
    chosen = {"head_bias_moved_by": moved, "mean_dice_on_validation": [round(before, 4), round(after, 4)]}
    save_weights(output, tensors, config, card | {"merged": chosen})
    return json.dumps(chosen)


def main() -> None:
    """Read the options and merge; say what was chosen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--biases-on", nargs="+", metavar="DATA ... FILE:NAME", help="the patients to choose biases on")
    options = parser.parse_args()
    try:
        if options.biases_on is None:
            merge(options.weights, options.output)
            return
        *data, split = options.biases_on
        if not data:
            raise UsageError("biases_on: expected folders with patients, then FILE:NAME of a split.")
        print(merge_with_biases([Path(d) for d in data], split_part(split)[1], options.weights, options.output))
    except A2FSegError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
