"""Whole-tumour Dice of raw heads: every sequence turned and on its own grid, beside the same slices left in place.

    python benchmarks/raw.py DATA [--part validation|train] [--patients 10] [--sequences 4] [--seed 0]

DATA holds `cases/` (a folder a patient) and `split.json` (lists of names). Patients with voxels of at most 1.25 mm are
taken, in the order of the split. Each gets a skull and a scalp; T1c is scanned as the head lies, in axial slices of
5 mm, the others with the head turned by 10 to 30 degrees and shifted by 10 to 40 mm, in axial, coronal or sagittal
slices of 5 mm, with Rician noise of 3 % of the brain's median. `turned` goes through the whole of `predict --raw`:
brain extraction, registration, network, back to T1c's slices. `in place` has the same slices of each sequence with
the head left where it is, and the expert's brain and positions instead of extraction and registration: what is lost
there is the slices' doing. Prints Markdown: a row a patient, then the means.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import a2fseg_cli.raw.prepare as preparation
from a2fseg_cli import api
from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.discovery import find_cases
from a2fseg_cli.cases.images import ReadingOptions, read_truth
from a2fseg_cli.imaging.brain import brain_mask
from a2fseg_cli.imaging.reading import MedicalImage, peek_image, read_image
from a2fseg_cli.inference.exports import class_map
from a2fseg_cli.inference.patient import prepared_patient, segment_patient
from a2fseg_cli.inference.predictor import Segmenter
from a2fseg_cli.phantom.head import ORIENTATIONS, random_motion, scan, scan_geometry, scan_mask, with_head
from a2fseg_cli.raw.registration import Registration, check_motion

SEQUENCES = ("t1c", "flair", "t2", "t1")
LARGEST_VOXEL_MM = 1.26
NOISE = 0.03
SLICE_MM = 5.0


@dataclass(frozen=True)
class Scans:
    """A patient's scans, their brains and where the head lay in each, the truth on T1c's slices."""

    images: dict[str, MedicalImage]
    brains: dict[str, np.ndarray]
    motions: dict[str, np.ndarray]
    tumour: np.ndarray


def scans_of(case: Case, count: int, rng: np.random.Generator, network: Segmenter) -> Scans:
    """Return the scans of a patient's head."""
    read = {m: read_image(case.images[m]) for m in SEQUENCES[:count] if m in case.images}
    brain = np.logical_or.reduce([brain_mask(image.array) for image in read.values()])
    grid = next(iter(read.values())).geometry
    inside = np.argwhere(brain)
    middle = (inside.min(0) + inside.max(0))[::-1] / 2
    centre = np.asarray(grid.origin_mm) + grid.direction_matrix @ (middle * np.asarray(grid.spacing_mm[::-1]))
    images, brains, motions = {}, {}, {}
    for number, (m, image) in enumerate(read.items()):
        head = with_head(image, brain, m)
        motion = random_motion(rng, centre, rng.uniform(10, 30), rng.uniform(10, 40)) if m != "t1c" else np.eye(4)
        where = (np.linalg.inv(motion) @ [*centre, 1.0])[:3]
        orientation = "axial" if m == "t1c" else list(ORIENTATIONS)[number % 3]
        slices = scan_geometry(where, orientation, SLICE_MM, 1.0)
        noise = NOISE * float(np.median(image.array[brain]))
        images[m] = scan(head, slices, motion, noise, seed=number)
        brains[m], motions[m] = scan_mask(brain, grid, slices, motion), motion
    truth = read_truth(case, network.config)
    tumour = scan_mask(truth.classes > 0, truth.geometry, images["t1c"].geometry, np.eye(4))
    return Scans(images, brains, motions, tumour)


def dice(scans: Scans, network: Segmenter, given: bool) -> tuple[float, float, Mapping[str, Registration]]:
    """Return Dice of the whole tumour on T1c's slices, seconds, and how the sequences were registered.

    With `given`, the true brains and motions take the place of what is found.
    """
    case = Case("patient", {m: Path(m) for m in scans.images})
    originals = preparation.read_images, preparation._brains, preparation._registrations
    preparation.read_images = lambda *_: scans.images  # type: ignore[assignment]
    if given:
        fixed = scans.images["t1c"], scans.brains["t1c"]
        motions = {
            m: check_motion(np.linalg.inv(scans.motions[m]), scans.images[m], fixed[0], moving_brain=scans.brains[m])
            for m in scans.images
            if m != "t1c"
        }
        preparation._brains = lambda *_: (scans.brains, [])  # type: ignore[assignment]
        preparation._registrations = lambda *_: motions  # type: ignore[assignment]
    began = time.perf_counter()
    try:
        options = ReadingOptions(raw=True, drop_unregistered=True)
        raw = preparation.prepare_raw(case, network.config.modalities, options, torch.get_num_threads())
    finally:
        preparation.read_images, preparation._brains, preparation._registrations = originals
    patient = prepared_patient(raw.images, network.config)
    found = class_map(patient, segment_patient(patient, network).prediction) > 0
    seconds = time.perf_counter() - began
    both = np.count_nonzero(found) + np.count_nonzero(scans.tumour)
    return 2 * np.count_nonzero(found & scans.tumour) / both, seconds, raw.registrations


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--part", default="validation")
    parser.add_argument("--patients", type=int, default=10)
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    names = json.loads((given.data / "split.json").read_text())[given.part]
    cases = {case.name: case for case in find_cases(given.data / "cases")}
    fine = [n for n in names if max(peek_image(next(iter(cases[n].images.values())))[0].spacing_mm) <= LARGEST_VOXEL_MM]
    network = api.load_network()
    rng = np.random.default_rng(given.seed)
    print("| patient | sequences kept | WT turned | WT in place | difference | seconds |\n|---|---|--:|--:|--:|--:|")
    rows = []
    for name in fine[: given.patients]:
        scans = scans_of(cases[name], given.sequences, rng, network)
        turned, seconds, kept = dice(scans, network, given=False)
        still, _, _ = dice(scans, network, given=True)
        rows.append((turned, still))
        told = f"{turned:.3f} | {still:.3f} | {turned - still:+.3f} | {seconds:.0f}"
        print(f"| {name} | {len(kept) + 1} of {len(scans.images)} | {told} |", flush=True)
    turned, still = (statistics.mean(column) for column in zip(*rows, strict=True))
    print(f"| mean of {len(rows)} | | {turned:.3f} | {still:.3f} | {turned - still:+.3f} | |")


if __name__ == "__main__":
    main()
