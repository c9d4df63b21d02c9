"""How often a wrong name is warned of, and a right one.

python benchmarks/contrast.py DATA SPLIT_FILE --parts validation test

Every image is read and its statistics are made once; a fault is then the same statistics under other names.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.case_lists import read_split
from a2fseg_cli.cases.discovery import find_cases
from a2fseg_cli.imaging.brain import brain_mask
from a2fseg_cli.imaging.contrast import judge, learned
from a2fseg_cli.imaging.contrast_statistics import NAMES, Statistics, statistics
from a2fseg_cli.imaging.geometry import axes_to_canonical
from a2fseg_cli.imaging.labels import SCHEMES, detect_scheme
from a2fseg_cli.imaging.preprocessing import Reorient, canonical_spacing_mm
from a2fseg_cli.imaging.reading import read_image, read_label_map

# What a fault is called, which file is given as what, and whether it needs enhancement to be seen.
FAULTS: tuple[tuple[str, dict[str, str], bool], ...] = (
    ("T1c and FLAIR exchanged, all four given", {"t1": "t1", "flair": "t1c", "t2": "t2", "t1c": "flair"}, False),
    ("T1c and FLAIR exchanged, only they given", {"flair": "t1c", "t1c": "flair"}, False),
    ("T1 as T1c, with T2 and FLAIR", {"t1": "t1c", "t2": "t2", "flair": "flair"}, True),
    ("T1 and T1c exchanged, all four given", {"t1c": "t1", "t1": "t1c", "t2": "t2", "flair": "flair"}, True),
    ("T1 and T1c exchanged, only they given", {"t1c": "t1", "t1": "t1c"}, True),
    ("T1 as T1c, alone", {"t1": "t1c"}, True),
    ("T2 as FLAIR, alone", {"t2": "flair"}, False),
    ("FLAIR as T2, alone", {"flair": "t2"}, False),
    ("T1 as T2, alone", {"t1": "t2"}, False),
    ("FLAIR as T1c, alone", {"flair": "t1c"}, False),
    ("T1c as FLAIR, alone", {"t1c": "flair"}, False),
    ("T2 and FLAIR exchanged, all four given", {"t1": "t1", "t1c": "t1c", "flair": "t2", "t2": "flair"}, False),
)
SUBSETS = [subset for count in range(1, 5) for subset in combinations(NAMES, count)]


@dataclass(frozen=True)
class Patient:
    """What is known of a patient: the statistics, the enhancing tumour in mL, and the seconds that they took."""

    name: str
    found: Statistics
    enhancing_ml: float
    seconds: float


def read(case: Case) -> Patient:
    """Return a patient's statistics."""
    images = {name: read_image(path) for name, path in case.images.items()}
    geometry = next(iter(images.values())).geometry
    reorient = Reorient(*axes_to_canonical(geometry))
    spacing_mm = canonical_spacing_mm(geometry, reorient)
    arrays = {name: np.ascontiguousarray(reorient.apply(image.array)) for name, image in images.items()}
    masks = {name: brain_mask(array) for name, array in arrays.items()}
    enhancing = 0.0
    if case.truth:
        labels, _ = read_label_map(case.truth)
        value = SCHEMES[detect_scheme(np.unique(labels).tolist(), str(case.truth))][3]
        enhancing = float(np.count_nonzero(labels == value) * np.prod(spacing_mm) / 1000)
    start = time.process_time()
    found = statistics(arrays, masks, spacing_mm)
    judge(found, learned())
    return Patient(case.name, found, enhancing, time.process_time() - start)


def warned(patient: Patient, given: Mapping[str, str]) -> bool:
    """Return whether a patient whose files are given as other contrasts (file to name) gets a warning."""
    ordered = dict(sorted(given.items(), key=lambda item: NAMES.index(item[1])))
    return bool(judge(patient.found.renamed(ordered), learned()))


def table(patients: Sequence[Patient]) -> str:
    """Return the rates as a Markdown table."""
    rows = ["| | warned | of |", "|---|---|---|"]
    for title, given, enhancing in FAULTS:
        able = [p for p in patients if set(given) <= set(p.found.images) and (p.enhancing_ml > 1 or not enhancing)]
        rows.append(f"| {title} | {sum(warned(p, given) for p in able)} | {len(able)} |")
    runs = [(p, s) for p in patients for s in SUBSETS if set(s) <= set(p.found.images)]
    false = [(p.name, "+".join(s)) for p, s in runs if warned(p, dict(zip(s, s, strict=True)))]
    rows.append(f"| as they are, every subset | {len(false)} | {len(runs)} |")
    rows.append(
        f"| as they are, patients with a warning in any subset | {len({n for n, _ in false})} | {len(patients)} |"
    )
    seconds = np.median([p.seconds for p in patients])
    lines = [*rows, "", *(f"{name}: {subset}" for name, subset in false), f"{seconds:.3f} s of one core a patient"]
    return "\n".join(lines)


def main() -> None:
    """Read, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("split", type=Path)
    parser.add_argument("--parts", nargs="+", default=["validation", "test"])
    options = parser.parse_args()
    names = {name for part in options.parts for name in read_split(options.split)[part]}
    print(table([read(case) for case in find_cases(options.data) if case.name in names]))


if __name__ == "__main__":
    main()
