"""How often a sequence that lies elsewhere than the others is warned of, and one that does not.

    python benchmarks/alignment.py DATA [--part train|held-out|all] [--seeds 3] [--spacing 1.5] [--flair-only] [--times]

DATA holds `cases/` (a folder a patient) and `split.json` (lists of names: train, validation, test). Each sequence in
turn is turned about the middle of its grid, round a random axis and in a random direction that the patient and the
seed decide, its brain mask with it. "Common mask": what is then outside another sequence's mask is cut off, so that
only the inside of the brain tells. With `--spacing` the images are brought to that many mm first. Prints Markdown: a
row a turn, how often a warning names the sequence, and the estimates' median; then what is said of the patients as
they are.
With `--times` nothing is turned: the table is the seconds that the checks take, the median of five, of processor and
wall.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from a2fseg_cli.cases.discovery import find_cases
from a2fseg_cli.imaging.alignment import Misalignment, coverage_gaps, misalignments
from a2fseg_cli.imaging.reading import read_image

PAIR = ("t1c", "flair")
MARGIN_MM = 20.0  # a turn by 10 degrees and 15 mm seldom leaves it


@dataclass(frozen=True)
class Turn:
    """What is done to one sequence."""

    moving: str
    degrees: float
    mm: float
    common_mask: bool = False

    def __str__(self) -> str:
        masked = ", common mask" if self.common_mask else ""
        return f"{self.moving} by {self.degrees:g} degrees and {self.mm:g} mm{masked}"


TURNS = (
    Turn("flair", 1, 1),
    Turn("flair", 3, 3),
    Turn("flair", 3, 3, common_mask=True),
    Turn("flair", 10, 15),
    Turn("flair", 10, 15, common_mask=True),
    Turn("t1", 3, 3),
    Turn("t1c", 3, 3),
    Turn("t2", 3, 3),
)


@dataclass(frozen=True)
class Patient:
    """Images and brain masks (D, H, W) by sequence, on one grid of `spacing_mm` (z, y, x)."""

    images: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    spacing_mm: tuple[float, float, float]

    def only(self, names: tuple[str, ...]) -> Patient:
        """Return the patient with some of the sequences."""
        return Patient({n: self.images[n] for n in names}, {n: self.masks[n] for n in names}, self.spacing_mm)

    def check(self) -> list[Misalignment]:
        """Return what lies elsewhere."""
        return misalignments(self.images, self.masks, self.spacing_mm)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--part", choices=("train", "held-out", "all"), default="train")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--spacing", type=float)
    parser.add_argument("--flair-only", action="store_true", help="only FLAIR by 3 degrees and 3 mm")
    parser.add_argument("--times", action="store_true")
    arguments = parser.parse_args()
    split = json.loads((arguments.data / "split.json").read_text())
    parts = {"train": ("train",), "held-out": ("validation", "test"), "all": tuple(split)}[arguments.part]
    wanted = {name for part in parts for name in split[part]}
    cases = {case.name: case.images for case in find_cases(arguments.data / "cases") if case.name in wanted}
    if arguments.times:
        print_times(cases)
    else:
        turns = TURNS[1:2] if arguments.flair_only else TURNS
        print_rates(cases, turns, arguments.seeds, arguments.spacing)


def print_rates(
    cases: Mapping[str, dict[str, Path]], turns: Sequence[Turn], seeds: int, spacing_mm: float | None
) -> None:
    """Print how many patients are warned of, turned and as they are."""
    found: dict[tuple[Turn, bool], list[list[Misalignment]]] = {}
    as_they_are: list[str] = []
    alone = 0
    for index, (name, paths) in enumerate(cases.items()):
        patient = load(paths, spacing_mm)
        findings = [*patient.check(), *coverage_gaps(patient.masks, patient.spacing_mm)]
        as_they_are += [f"{name}: {finding.message}" for finding in findings]
        alone += bool(patient.only(PAIR).check())
        for seed in range(seeds):
            random = np.random.default_rng([index, seed])
            for turn in turns:
                turned = turn_one(patient, turn, random)
                found.setdefault((turn, False), []).append(turned.check())
                if turn.moving in PAIR:
                    found.setdefault((turn, True), []).append(turned.only(PAIR).check())
    print(f"{len(cases)} patients, {seeds} seeds, at {spacing_mm or 'their own'} mm\n")
    print("| Turned | Sequences given | Warned | Degrees, median | mm, median |\n|---|---|---|---|---|")
    for (turn, pair), results in sorted(found.items(), key=lambda item: item[0][1]):
        warnings = [[m for m in result if turn.moving in (m.moving, m.against)] for result in results]
        named = [warning for of_one in warnings for warning in of_one]
        medians = [f"{statistics.median(v):.1f}" for v in ([m.degrees for m in named], [m.mm for m in named]) if v]
        warned = sum(map(bool, warnings))
        given = "+".join(PAIR) if pair else "all four"
        print(f"| {turn} | {given} | {warned} of {len(results)} | {' | '.join(medians or ['-', '-'])} |")
    print(f"\nAs they are, warned with {'+'.join(PAIR)} alone: {alone} of {len(cases)}; with all four:")
    print("\n".join(f"- {line}" for line in as_they_are) or "- none")


def print_times(cases: Mapping[str, dict[str, Path]]) -> None:
    """Print how long the checks take."""
    print(
        "| Patient | Grid | Alignment: processor s | wall s | Gaps: processor s | wall s |\n|---|---|---|---|---|---|"
    )
    for name, paths in cases.items():
        patient = load(paths, None, whole_grid=True)
        cells = []
        for work in (patient.check, lambda p=patient: coverage_gaps(p.masks, p.spacing_mm)):
            runs = []
            for _ in range(5):
                processor, wall = time.process_time(), time.perf_counter()
                work()
                runs.append((time.process_time() - processor, time.perf_counter() - wall))
            cells += [f"{statistics.median(values):.3f}" for values in zip(*runs, strict=True)]
        grid = " x ".join(map(str, next(iter(patient.images.values())).shape[::-1]))
        print(f"| {name} | {grid} | {' | '.join(cells)} |")


def load(paths: Mapping[str, Path], spacing_mm: float | None, whole_grid: bool = False) -> Patient:
    """Return a patient, at another spacing if one is given, on the brain's box and a margin (to turn fewer voxels).

    A voxel that differs from the first one of the file is brain.
    """
    images, masks = {}, {}
    for name, path in paths.items():
        source = read_image(path)
        image = as_itk(source.array, source.geometry.spacing_mm)
        if spacing_mm:
            size = [round(n * s / spacing_mm) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
            grid = (size, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), [spacing_mm] * 3, image.GetDirection())
            mask = as_itk((source.array != source.array[0, 0, 0]).astype(np.float32), source.geometry.spacing_mm)
            masks[name] = sitk.GetArrayFromImage(sitk.Resample(mask, *grid)) > 0.5
            images[name] = np.where(masks[name], sitk.GetArrayFromImage(sitk.Resample(image, *grid)), 0)
        else:
            images[name], masks[name] = source.array, source.array != source.array[0, 0, 0]
        z, y, x = (spacing_mm,) * 3 if spacing_mm else source.geometry.spacing_mm
    box = [slice(None)] * 3
    if not whole_grid:
        places = np.nonzero(np.logical_or.reduce(list(masks.values())))
        margins = (int(MARGIN_MM / s) for s in (z, y, x))
        box = [slice(max(0, p.min() - m), p.max() + 1 + m) for p, m in zip(places, margins, strict=True)]
    cut = [{n: np.ascontiguousarray(a[tuple(box)]) for n, a in part.items()} for part in (images, masks)]
    return Patient(*cut, (z, y, x))


def turn_one(patient: Patient, turn: Turn, random: np.random.Generator) -> Patient:
    """Return the patient with one sequence turned."""
    image = as_itk(patient.images[turn.moving], patient.spacing_mm)
    mask = as_itk(patient.masks[turn.moving].astype(np.uint8), patient.spacing_mm)
    axis, direction = (vector / np.linalg.norm(vector) for vector in random.normal(size=(2, 3)))
    motion = sitk.VersorRigid3DTransform()
    motion.SetCenter(image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()]))
    motion.SetRotation(axis.tolist(), float(np.deg2rad(turn.degrees)))
    motion.SetTranslation((direction * turn.mm).tolist())
    turned = sitk.GetArrayFromImage(sitk.Resample(image, motion, sitk.sitkLinear, 0.0))
    inside = sitk.GetArrayFromImage(sitk.Resample(mask, motion, sitk.sitkNearestNeighbor, 0.0)).astype(bool)
    if turn.common_mask:
        inside &= patient.masks["t1" if turn.moving == "t1c" else "t1c"]
    images = {**patient.images, turn.moving: np.where(inside, turned, np.float32(0))}
    return Patient(images, {**patient.masks, turn.moving: inside}, patient.spacing_mm)


def as_itk(array: np.ndarray, spacing_mm: tuple[float, float, float]) -> sitk.Image:
    """Return an array (D, H, W) as an image of that spacing (z, y, x)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing([float(s) for s in spacing_mm[::-1]])
    return image


if __name__ == "__main__":
    main()
