"""Learn what T1, T1c, T2 and FLAIR look like: writes `a2fseg_cli/imaging/contrast.json`.

    python scripts/learn_contrast.py DATA SPLIT_FILE:train [--more FOLDER] -o a2fseg_cli/imaging/contrast.json

Of each patient the images as they are, and copies turned at random (a head is seldom straight in its scanner) and
brought to another voxel size, give statistics; a multinomial logistic regression with a ridge learns one classifier
of single images and one of pairs. Patients held out in eight folds then say how much better another name may
seem to fit by chance (the margin), and how strange to its own contrast an image can be. The folder of `--more` holds
patients with some of the sequences; they teach, but are not held out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.case_lists import read_split
from a2fseg_cli.cases.discovery import find_cases
from a2fseg_cli.imaging.brain import brain_mask
from a2fseg_cli.imaging.contrast import Classifier, Learned, fits
from a2fseg_cli.imaging.contrast_statistics import GRAIN, NAMES, PAIRS, Statistics, statistics
from a2fseg_cli.imaging.geometry import axes_to_canonical
from a2fseg_cli.imaging.preprocessing import Reorient, canonical_spacing_mm
from a2fseg_cli.imaging.reading import read_image

COPIES = 3
FOLDS = 8
# Of 3 and 10, the better on the held-out patients: 79 % of the T1 alone given as T1c are found, for 74 %.
RIDGE = 10.0
# Other names must fit 7 times better, whatever the held-out patients say.
FLOOR = 2.0
SUBSETS = [subset for count in range(1, 5) for subset in combinations(NAMES, count)]
Images = dict[str, npt.NDArray[np.float32]]
Masks = dict[str, npt.NDArray[np.bool_]]
Triple = tuple[float, float, float]
Vector = npt.NDArray[np.float64]


def load(case: Case) -> tuple[Images, Masks, Triple]:
    """Return a patient's images and masks on canonical axes, and the spacing."""
    read = {name: read_image(path) for name, path in case.images.items()}
    geometry = next(iter(read.values())).geometry
    reorient = Reorient(*axes_to_canonical(geometry))
    images = {name: np.ascontiguousarray(reorient.apply(image.array)) for name, image in read.items()}
    return images, {n: brain_mask(array) for n, array in images.items()}, canonical_spacing_mm(geometry, reorient)


def turned(images: Images, masks: Masks, spacing_mm: Triple, rng: np.random.Generator) -> tuple[Images, Masks, Triple]:
    """Return the patient turned, nodding by up to 20 degrees and else by up to 8, on a grid of another voxel size.

    The voxels are up to 2 mm, in one of three copies with slices up to 3 mm apart.
    """
    tilt, *others = np.deg2rad(rng.uniform((-20, -8, -8), (20, 8, 8)))
    edge = rng.uniform(max(1.0, min(spacing_mm)), 2.0)
    spacing = (rng.uniform(edge, 3.0) if rng.random() < 1 / 3 else edge, edge, edge)
    shape = next(iter(images.values())).shape
    extent = np.multiply(shape, spacing_mm)
    centre = [float(value) for value in ((extent - spacing_mm) / 2)[::-1]]
    size = [int(n) for n in np.ceil(extent / spacing)]
    turn = sitk.Euler3DTransform(centre, float(tilt), float(others[0]), float(others[1]))
    origin = [float(c - (n - 1) * mm / 2) for c, n, mm in zip(centre, size[::-1], spacing[::-1], strict=True)]

    def resampled(array: npt.NDArray[Any], method: int) -> npt.NDArray[Any]:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(spacing_mm[::-1])
        grid = (size[::-1], turn, method, origin, spacing[::-1], image.GetDirection(), 0.0)
        return sitk.GetArrayFromImage(sitk.Resample(image, *grid))

    return (
        {name: resampled(array, sitk.sitkLinear) for name, array in images.items()},
        {name: resampled(mask.astype(np.uint8), sitk.sitkNearestNeighbor) > 0 for name, mask in masks.items()},
        spacing,
    )


def versions(case: Case) -> list[Statistics]:
    """Return the statistics of the patient as it is and of the turned copies, always the same for a name."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    rng = np.random.default_rng(list(case.name.encode()))
    as_it_is = load(case)
    return [statistics(*as_it_is), *(statistics(*turned(*as_it_is, rng)) for _ in range(COPIES))]


def regression(values: Vector, classes: npt.NDArray[np.intp], count: int, ridge: float = RIDGE) -> Classifier:
    """Return the multinomial logistic regression of statistics (N, F) with classes (N,), each class as heavy.

    Newton's steps with the fixed bound of the Hessian (Boehning 1992, Ann. Inst. Stat. Math. 44), which never
    overshoot, and Nesterov's momentum.
    """
    mean, spread = values.mean(axis=0), values.std(axis=0)
    spread = np.where(spread > 0, spread, 1)
    rows = np.c_[np.ones(len(values)), np.clip((values - mean) / spread, -4, 4)]
    weight = (len(rows) / count / np.bincount(classes, minlength=count))[classes] / (1 + COPIES)
    penalty = np.full(rows.shape[1], ridge)
    penalty[0] = 1e-3
    inverse = np.linalg.inv(0.5 * (rows * weight[:, None]).T @ rows + np.diag(penalty))
    truth = np.eye(count)[classes]
    weights = np.zeros((count, rows.shape[1]))
    ahead, before = weights, weights
    for step in range(300):
        logits = rows @ ahead.T
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        gap = (truth - odds / odds.sum(axis=1, keepdims=True)) * weight[:, None]
        before, weights = weights, ahead + (gap.T @ rows - penalty * ahead) @ inverse
        ahead = weights + step / (step + 3) * (weights - before)
    return Classifier(mean, spread, weights)


def learn(patients: Sequence[Sequence[Statistics]]) -> Learned:
    """Return what the patients teach; nothing is warned of yet, for the margin is infinite."""
    found = [(v, NAMES.index(n)) for patient in patients for each in patient for n, v in each.images.items()]
    values, classes = np.array([v for v, _ in found]), np.array([c for _, c in found])
    pairs = [
        (np.concatenate([each.pairs[a, b], each.pairs[b, a]]), PAIRS.index((a, b)))
        for patient in patients
        for each in patient
        for a, b in each.pairs
    ]
    image = regression(values, classes, len(NAMES))
    pair = regression(np.array([v for v, _ in pairs]), np.array([c for _, c in pairs]), len(PAIRS))
    own = [values[classes == index] for index in range(len(NAMES))]
    centre, width = np.array([v.mean(axis=0) for v in own]), np.array([v.std(axis=0) for v in own])
    grainiest = float(values[:, GRAIN].max())
    return Learned(image, pair, centre, np.maximum(width, 0.02), 0, grainiest, (np.inf,) * len(NAMES))


def excess(found: Statistics, model: Learned) -> float:
    """Return how much better the best other names fit than those that the images have."""
    fit = fits(found, model)
    named = fit.pop(tuple(found.images))
    return max(fit.values()) - named


def held_out(patients: Mapping[str, Sequence[Statistics]], more: Sequence[Sequence[Statistics]]) -> dict[str, Learned]:
    """Return for each patient what the others teach, in folds."""
    names = np.random.default_rng(0).permutation(sorted(patients)).tolist()
    models: dict[str, Learned] = {}
    for fold in range(FOLDS):
        held = names[fold::FOLDS]
        models |= dict.fromkeys(held, learn([*(patients[n] for n in names if n not in held), *more]))
    return models


def limits(patients: Mapping[str, Sequence[Statistics]], models: Mapping[str, Learned]) -> tuple[int, list[float]]:
    """Return the most strange statistics and the margin by the number of images, from patients held out.

    Other names may fit as much better as they do in all patients, copies and subsets of so many images, except the
    most striking 2 % of patients (a T1c without any enhancement is among them), and at least FLOOR. An image may
    have as many strange statistics as 99 % have.
    """
    most = {name: [-np.inf] * len(NAMES) for name in patients}
    strange = []
    for patient, each in ((name, found) for name, versions in patients.items() for found in versions):
        model = models[patient]
        for name, values in each.images.items():
            index = NAMES.index(name)
            strange.append(np.count_nonzero(np.abs(values - model.centre[index]) > 3 * model.width[index]))
        for subset in (s for s in SUBSETS if set(s) <= set(each.images)):
            got = excess(each.renamed({name: name for name in subset}), model)
            most[patient][len(subset) - 1] = max(most[patient][len(subset) - 1], got)
    largest = np.sort(np.array(list(most.values())), axis=0)[::-1]
    print("largest by number of images:", np.round(largest[:5].T, 1).tolist())
    margin = np.maximum(largest[len(patients) * 2 // 100], FLOOR)
    return int(np.quantile(strange, 0.99)), margin.tolist()


def as_json(model: Learned, source: str) -> str:
    """Return the text of `contrast.json`: four digits are enough for a score to be right to 0.01."""

    def short(values: Vector) -> Any:
        return [short(row) for row in values] if values.ndim > 1 else [float(f"{value:.4g}") for value in values]

    parts = {
        kind: {part: short(getattr(getattr(model, kind), part)) for part in ("mean", "spread", "weights")}
        for kind in ("image", "pair")
    }
    margin = [round(value, 2) for value in model.margin]
    rest = {"centre": short(model.centre), "width": short(model.width)}
    return (
        json.dumps(
            {
                "source": source,
                "margin": margin,
                "most_strange": model.most_strange,
                "grainiest": round(model.grainiest, 3),
            }
            | parts
            | rest
        )
        + "\n"
    )


def main() -> None:
    """Learn, hold out, write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("split", help="FILE:LIST, such as split.json:train")
    parser.add_argument("--more", type=Path, help="a folder with patients who have some of the sequences")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    file, _, part = options.split.rpartition(":")
    names = read_split(Path(file))[part]
    cases = [case for case in find_cases(options.data) if case.name in names]
    others = find_cases(options.more) if options.more else []
    with ProcessPoolExecutor(options.workers) as pool:
        found = list(pool.map(versions, [*cases, *others]))
    patients = dict(zip((case.name for case in cases), found, strict=False))
    more = found[len(cases) :]
    most_strange, margin = limits(patients, held_out(patients, more))
    model = replace(learn([*patients.values(), *more]), most_strange=most_strange, margin=tuple(margin))
    source = f"{len(cases)} patients and {len(others)} with some of the sequences, each with {COPIES} turned copies"
    options.output.write_text(as_json(model, source), encoding="utf-8")
    print(f"margin {np.round(margin, 2)}, most strange {most_strange}, written to {options.output}")


if __name__ == "__main__":
    main()
