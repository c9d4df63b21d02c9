"""15 subsets of one patient: 15 runs of our own `predict` path against one `evaluate --all-subsets` path.

    python benchmarks/all_subsets.py PATIENT_FOLDER [--weights FILE] [--repeats 3]

Both start from the files and end with 15 class maps on the files' grid. The single runs read, prepare and encode
what they need each time; the shared run does it once. Where the folder holds the truth, the Dice and HD95 of all
subsets are timed as well, as `evaluate` computes them. Prints a Markdown table: median of the repeats, seconds.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from a2fseg_cli.core.memory import keep_pages

keep_pages()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from a2fseg_cli.cases.case import Case  # noqa: E402
from a2fseg_cli.cases.discovery import find_cases  # noqa: E402
from a2fseg_cli.core.config import all_subsets  # noqa: E402
from a2fseg_cli.evaluation.metrics import DEFAULT_METRICS, DEFAULT_POLICY  # noqa: E402
from a2fseg_cli.evaluation.scoring import Scorer  # noqa: E402
from a2fseg_cli.imaging.label_maps import read_classes  # noqa: E402
from a2fseg_cli.imaging.restoring import Box, brain_box, classes_to_file  # noqa: E402
from a2fseg_cli.inference.patient import Patient, load_patient  # noqa: E402
from a2fseg_cli.inference.predictor import Prediction, Segmenter  # noqa: E402
from a2fseg_cli.weights.cache import resolve_weights  # noqa: E402

Maps = dict[str, np.ndarray]


def whole(patient: Patient, found: Prediction) -> np.ndarray:
    """Return the class map on the file's grid."""
    return classes_to_file(patient.prepared.route, found.probabilities).placed(Box((0, 0, 0), patient.geometry.size))


def separate(segmenter: Segmenter, folder: Path, subsets: Sequence[Sequence[str]]) -> tuple[float, float, Maps]:
    """Return seconds in the network, seconds in all, and the class map of each subset, one run a subset."""
    files = find_cases(folder, segmenter.config.modalities)[0].images
    began, network, maps = time.perf_counter(), 0.0, {}
    for names in subsets:
        patient = load_patient(Case(folder.name, {m: files[m] for m in names}), segmenter.config)
        started = time.perf_counter()
        found = segmenter.segment(patient.prepared.images, patient.prepared.present)
        network += time.perf_counter() - started
        maps["+".join(names)] = whole(patient, found)
    return network, time.perf_counter() - began, maps


def shared(segmenter: Segmenter, folder: Path, subsets: Sequence[Sequence[str]]) -> tuple[float, float, Maps]:
    """Return the same from one pass of the encoders."""
    files = find_cases(folder, segmenter.config.modalities)[0].images
    began, network, maps = time.perf_counter(), 0.0, {}
    patient = load_patient(Case(folder.name, files), segmenter.config)
    started = time.perf_counter()
    masks = [segmenter.config.presence(names) for names in subsets]
    for names, found in zip(subsets, segmenter.segment_subsets(patient.prepared.images, masks), strict=True):
        network += time.perf_counter() - started
        maps["+".join(names)] = whole(patient, found)
        started = time.perf_counter()
    return network, time.perf_counter() - began, maps


def scoring(segmenter: Segmenter, folder: Path, subsets: Sequence[Sequence[str]]) -> float | None:
    """Return the seconds that the scores of all subsets take, one thread a subset; None without a truth."""
    config = segmenter.config
    case = find_cases(folder, config.modalities)[0]
    if case.truth is None:
        return None
    patient = load_patient(case, config)
    true, route = read_classes(case.truth, config), patient.prepared.route
    found = list(segmenter.segment_subsets(patient.prepared.images, [config.presence(names) for names in subsets]))
    began = time.perf_counter()
    scorer = Scorer(true, config, brain_box(route), DEFAULT_METRICS, DEFAULT_POLICY)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for scores in threads.map(lambda result: scorer.score(classes_to_file(route, result.probabilities)), found):
            assert all(score.values.keys() == {"dice", "hd95_mm"} for score in scores.values())
    return time.perf_counter() - began


def measure(segmenter: Segmenter, folder: Path, repeats: int) -> str:
    """Return the table. Raises: AssertionError when a map differs between the two by more than Dice 0.99."""
    subsets = all_subsets(segmenter.config.modalities)
    runs = [(separate(segmenter, folder, subsets), shared(segmenter, folder, subsets)) for _ in range(repeats)]
    for (*_, alone), (*_, together) in runs:
        for name, one in alone.items():
            both = 2 * np.count_nonzero((one == together[name]) & (one > 0))
            voxels = np.count_nonzero(one) + np.count_nonzero(together[name])
            assert both >= 0.99 * voxels, f"{name}: the maps differ"
    rows = ["| | 15 runs, s | one run, s | ratio |", "|---|---|---|---|"]
    for index, what in enumerate(("network", "from files to class maps")):
        slow, fast = (statistics.median(run[side][index] for run in runs) for side in (0, 1))
        rows.append(f"| {what} | {slow:.1f} | {fast:.2f} | {slow / fast:.1f} |")
    if all(seconds := [scoring(segmenter, folder, subsets) for _ in range(repeats)]):
        rows.append(f"| Dice and HD95 of all subsets | | {statistics.median(seconds):.2f} | |")
    where = f"{segmenter.compute.device}, {segmenter.compute.precision}, {torch.get_num_threads()} threads"
    widths = ", ".join(map(str, segmenter.config.features_per_stage))
    return "\n".join([*rows, "", f"{widths}; {where}; torch {torch.__version__}; {platform.machine()}; n = {repeats}"])


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(measure(Segmenter(resolve_weights(options.weights)), options.folder, options.repeats))


if __name__ == "__main__":
    main()
