"""How far off scans end that are registered, and whether the check tells the good ones from the spoiled.

    python benchmarks/registration.py DATA [--parts validation train] [--patients 14] [--sequences 3] [--seed 0]
        [--masks rough|none] [--stripped] [--skip NAME ...] [--only registered|grid]

DATA holds `cases/` (a folder a patient) and `split.json` (lists of names: train, validation, test). Patients with
voxels of at most 1.25 mm are taken, validation first, then train. Each gets a skull and a scalp (every third not, or
none with --stripped), and each sequence is scanned anew: T1c as the head lies, the others with the head turned by 10
to 30 degrees and shifted by 10 to 40 mm, in slices of 4 to 6 mm along any axis of the head or in cubes of 1.2 mm, one
in four sets of slices through 90 mm of the head only, with Rician noise of 5 % of the brain's median. Brain masks are
rough (Dice about 0.94 with the truth) or none. All are registered to T1c.

Prints Markdown: a row a pair, with the mean error over the eight corners of the brain's box (the truth is the motion
that was made; sequences that are a little off each other in the data count as errors), what the check measured
(borders, overlap, share covered), and its figures for two spoiled ones: the next patient's sequence in
place of the patient's own, and a motion with 60 degrees left in. Then the medians and the worst. `--only grid` takes
the sequences as they are, on one grid: as they lie, and turned by 7 degrees and 3 mm; the error is then against what
registration finds of them unturned.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from a2fseg_cli.cases.discovery import find_cases
from a2fseg_cli.imaging.brain import brain_mask
from a2fseg_cli.imaging.reading import MedicalImage, peek_image, read_image
from a2fseg_cli.phantom.head import (
    ORIENTATIONS,
    random_motion,
    rough_mask,
    scan,
    scan_geometry,
    scan_mask,
    with_head,
)
from a2fseg_cli.raw.registration import Registration, check_motion, register
from a2fseg_cli.raw.rigid_search import mean_distance_mm, region_of

FIXED = "t1c"
OTHERS = ("flair", "t2", "t1")
LARGEST_VOXEL_MM = 1.26
NOISE = 0.05


@dataclass(frozen=True)
class Scan:
    """A scan, its rough brain mask, the motion from scanner to head, the whole brain's box, how it was taken."""

    image: MedicalImage
    brain: np.ndarray
    motion: np.ndarray
    corners_mm: np.ndarray
    words: str


@dataclass(frozen=True)
class Row:
    """What came of one pair."""

    name: str
    start_mm: float
    error_mm: float
    seconds: float
    own: Registration
    other: Registration
    left: Registration


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--parts", nargs="+", choices=("validation", "train"), default=("validation", "train"))
    parser.add_argument("--patients", type=int, default=14)
    parser.add_argument("--sequences", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--masks", choices=("rough", "none"), default="rough")
    parser.add_argument("--stripped", action="store_true")
    parser.add_argument("--skip", nargs="*", default=[])
    parser.add_argument("--only", choices=("registered", "grid"), default="registered")
    arguments = parser.parse_args()
    cases = list(itertools.islice(chosen(arguments.data, arguments.parts, arguments.skip), arguments.patients))
    sequences = OTHERS[: arguments.sequences]
    if arguments.only == "grid":
        print_on_one_grid(cases, sequences, arguments.seed)
    else:
        scans = (
            scanned(paths, sequences, [arguments.seed, index], not arguments.stripped and index % 3 != 2)
            for index, (_, paths) in enumerate([*cases, cases[0]])
        )
        print_registered([name for name, _ in cases], scans, sequences, arguments.masks == "rough")


def chosen(data: Path, parts: Sequence[str], skip: Sequence[str]) -> Iterator[tuple[str, dict[str, Path]]]:
    """Yield name and images of the patients of some parts with small voxels, in the split's order."""
    cases = {case.name: case.images for case in find_cases(data / "cases")}
    split = json.loads((data / "split.json").read_text())
    for name in (name for part in parts for name in split[part]):
        if name not in skip and max(peek_image(cases[name][FIXED])[0].spacing_mm) <= LARGEST_VOXEL_MM:
            yield name, cases[name]


def scanned(paths: dict[str, Path], sequences: tuple[str, ...], seed: list[int], skull: bool) -> dict[str, Scan]:
    """Return a patient's sequences as a scanner would give them."""
    rng = np.random.default_rng(seed)
    scans: dict[str, Scan] = {}
    centre: np.ndarray | None = None
    for name in (FIXED, *sequences):
        image = read_image(paths[name])
        brain = brain_mask(image.array)
        centre = region_of(image, brain).centre_mm if centre is None else centre
        head = with_head(image, brain, name) if skull else image
        motion = np.eye(4)
        if name != FIXED:
            motion = random_motion(rng, centre, rng.uniform(10, 30), rng.uniform(10, 40))
        kind = rng.choice(["axial", "axial", "sagittal", "coronal", "cubes"])
        mm = 1.2 if kind == "cubes" else float(rng.choice([4.0, 5.0, 5.0, 6.0]))
        extent = [230.0, 230.0, 190.0]
        part = kind != "cubes" and rng.random() < 0.25
        if part:
            extent[ORIENTATIONS[kind][2]] = 90.0
        middle = (np.linalg.inv(motion) @ [*centre, 1])[:3] + rng.uniform(-8, 8, 3)
        orientation = "axial" if kind == "cubes" else kind
        grid = scan_geometry(middle, orientation, mm, 1.2 if kind == "cubes" else 0.9, tuple(extent))
        noise = NOISE * float(np.median(image.array[brain]))
        taken = scan(head, grid, motion, noise, int(rng.integers(1 << 30)))
        mask = scan_mask(brain, image.geometry, grid, motion)
        rough = rough_mask(mask, grid, int(rng.integers(1 << 30)))
        if not skull:
            taken = replace(taken, array=np.where(mask, taken.array, np.float32(0)))
        scans[name] = Scan(
            taken, rough, motion, box_corners_mm(image, brain), f"{kind} {mm:g} mm{', part' if part else ''}"
        )
    return scans


def measure(name: str, own: dict[str, Scan], other: dict[str, Scan], sequence: str, masks: bool) -> Row:
    """Return what comes of one sequence and its two spoiled ones."""
    fixed, moving, strange = own[FIXED], own[sequence], other[sequence]
    brains = {"fixed_brain": fixed.brain if masks else None, "moving_brain": moving.brain if masks else None}
    truth = np.linalg.inv(moving.motion) @ fixed.motion
    corners = fixed.corners_mm
    start = time.perf_counter()
    registration = register(moving.image, fixed.image, **brains)
    seconds = time.perf_counter() - start
    left = truth @ random_motion(np.random.default_rng(1), corners.mean(axis=0), 60.0, 0.0)
    return Row(
        f"{name} | {sequence} | {fixed.words} | {moving.words}",
        mean_distance_mm(np.eye(4), truth, corners),
        mean_distance_mm(registration.matrix, truth, corners),
        seconds,
        registration,
        register(strange.image, fixed.image, **{**brains, "moving_brain": strange.brain if masks else None}),
        check_motion(left, moving.image, fixed.image, **brains),
    )


def print_registered(
    names: list[str], scans: Iterator[dict[str, Scan]], sequences: tuple[str, ...], masks: bool
) -> None:
    """Print a row a pair, and the summary."""
    print("| Patient | Sequence | T1c | Moving | Start mm | Error mm | s | Own | Other patient | 60 degrees left |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    rows = []
    following = next(scans)
    for name in names:
        own, following = following, next(scans)
        for sequence in sequences:
            row = measure(name, own, following, sequence, masks)
            rows.append(row)
            cells = f"{row.start_mm:.0f} | {row.error_mm:.2f} | {row.seconds:.1f}"
            print(f"| {row.name} | {cells} | {says(row.own)} | {says(row.other)} | {says(row.left)} |", flush=True)
    errors = [row.error_mm for row in rows]
    print(f"\n{len(rows)} pairs: median error {statistics.median(errors):.2f} mm, worst {max(errors):.2f} mm; ", end="")
    print(f"seconds, median {statistics.median(row.seconds for row in rows):.1f}")
    print(f"Refused: {sum(row.own.problem is not None for row in rows)} of {len(rows)} own, ", end="")
    print(f"{sum(row.other.problem is not None for row in rows)} of {len(rows)} of another patient, ", end="")
    print(f"{sum(row.left.problem is not None for row in rows)} of {len(rows)} with 60 degrees left in")


def print_on_one_grid(cases: list[tuple[str, dict[str, Path]]], sequences: tuple[str, ...], seed: int) -> None:
    """Print what becomes of sequences on one grid, as they lie and turned."""
    print("| Patient | Sequence | Moved as they lie, mm | Turned by 7 degrees, 3 mm: error mm | Problem |")
    print("|---|---|---|---|---|")
    moved, errors = [], []
    for index, (name, paths) in enumerate(cases):
        fixed = read_image(paths[FIXED])
        corners = box_corners_mm(fixed, brain_mask(fixed.array))
        for sequence in sequences:
            rng = np.random.default_rng([seed, index])
            image = read_image(paths[sequence])
            still = register(image, fixed)
            motion = random_motion(rng, corners.mean(axis=0), 7.0, 3.0)
            turned = register(scan(image, image.geometry, motion), fixed)
            moved.append(mean_distance_mm(still.matrix, np.eye(4), corners))
            errors.append(mean_distance_mm(turned.matrix, np.linalg.inv(motion) @ still.matrix, corners))
            print(f"| {name} | {sequence} | {moved[-1]:.2f} | {errors[-1]:.2f} | {turned.problem or '-'} |", flush=True)
    print(
        f"\n{len(moved)} pairs: moved as they lie, median {statistics.median(moved):.2f} mm, worst {max(moved):.2f}; "
    )
    print(f"turned: median error {statistics.median(errors):.2f} mm, worst {max(errors):.2f}")


def says(registration: Registration) -> str:
    """Return what the check measured."""
    quality = registration.quality
    figures = f"{quality.borders:.3f}, {quality.overlap:.2f}, {quality.covered:.2f}"
    return figures if registration.problem is None else f"{figures}, refused"


def box_corners_mm(image: MedicalImage, brain: np.ndarray) -> np.ndarray:
    """Return the corners (8, 3) of a brain's box, LPS."""
    ends = [(place.min(), place.max()) for place in np.nonzero(brain)[::-1]]
    geometry = image.geometry
    steps = geometry.direction_matrix * np.asarray(geometry.spacing_mm[::-1])
    return np.asarray(geometry.origin_mm) + np.array(list(itertools.product(*ends))) @ steps.T


if __name__ == "__main__":
    main()
