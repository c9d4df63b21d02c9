"""Numbers that the paper printed, as data: Wang and Hong, A2FSeg, MICCAI 2023, BraTS2020, Dice in %.

They are means over the authors' test patients with the authors' split; a comparison with other patients is
one of tables, not of methods.
"""

from __future__ import annotations

from typing import Final

MODALITIES: Final = ("t1", "t1c", "t2", "flair")
METHODS: Final = ("HeMIS", "U-HVED", "mmFormer", "MFI", "A2FSeg")
REGIONS: Final = ("WT", "TC", "ET")

_Row = tuple[float, float, float, float, float]

# Table 1. One line a region (WT, TC, ET), one column a method in the order of METHODS.
_TABLE_1: dict[str, tuple[_Row, _Row, _Row]] = {
    "flair": (
        (87.76, 86.49, 90.08, 90.6, 91.48),
        (66.56, 64.42, 71.13, 75.59, 76.21),
        (44.95, 43.32, 48.25, 51.96, 53.8),
    ),
    "t2": (
        (85.53, 85.14, 87.0, 88.38, 88.82),
        (65.55, 64.87, 72.85, 75.38, 76.4),
        (43.77, 43.31, 50.18, 52.72, 54.46),
    ),
    "t2+flair": (
        (90.51, 89.87, 91.19, 91.65, 91.95),
        (70.82, 70.55, 75.18, 77.42, 77.83),
        (48.32, 47.86, 52.51, 54.77, 56.1),
    ),
    "t1c": (
        (72.83, 74.31, 80.0, 80.16, 83.11),
        (83.59, 83.96, 85.29, 85.35, 86.95),
        (75.54, 77.34, 76.17, 76.91, 78.01),
    ),
    "t1c+flair": (
        (91.29, 90.45, 91.51, 92.36, 92.42),
        (86.27, 85.78, 87.05, 88.67, 87.96),
        (76.3, 76.29, 76.99, 77.26, 78.07),
    ),
    "t1c+t2": (
        (86.32, 86.82, 88.79, 89.53, 89.9),
        (85.61, 85.11, 87.41, 87.83, 87.75),
        (75.57, 75.68, 77.46, 76.56, 77.85),
    ),
    "t1c+t2+flair": (
        (91.82, 91.46, 91.93, 92.38, 92.72),
        (86.63, 86.06, 87.87, 88.56, 87.96),
        (76.25, 75.47, 76.15, 76.69, 76.96),
    ),
    "t1": (
        (75.02, 76.64, 81.2, 79.91, 83.67),
        (61.18, 62.78, 71.36, 72.36, 75.52),
        (37.55, 39.46, 46.65, 50.4, 52.58),
    ),
    "t1+flair": (
        (90.29, 88.81, 91.29, 91.45, 91.89),
        (71.95, 70.18, 76.01, 78.22, 78.07),
        (48.16, 46.53, 51.2, 55.05, 54.0),
    ),
    "t1+t2": (
        (86.66, 87.13, 88.22, 88.03, 89.4),
        (67.67, 70.21, 75.0, 75.85, 77.39),
        (44.86, 46.95, 51.37, 54.39, 54.58),
    ),
    "t1+t2+flair": (
        (90.85, 90.34, 91.61, 91.67, 92.23),
        (72.75, 73.22, 77.05, 78.3, 78.64),
        (48.48, 49.45, 52.51, 55.44, 55.34),
    ),
    "t1+t1c": (
        (77.42, 79.4, 82.53, 82.5, 84.81),
        (84.76, 84.94, 86.03, 86.52, 87.4),
        (75.43, 76.56, 76.84, 76.76, 77.8),
    ),
    "t1+t1c+flair": (
        (91.65, 90.97, 91.95, 92.24, 92.29),
        (86.79, 86.61, 87.44, 88.84, 87.75),
        (76.44, 75.79, 76.91, 77.06, 76.75),
    ),
    "t1+t1c+t2": (
        (86.75, 87.72, 89.19, 88.81, 89.49),
        (86.11, 85.36, 87.3, 87.22, 87.16),
        (75.16, 75.62, 76.37, 76.52, 77.69),
    ),
    "t1+t1c+t2+flair": (
        (92.0, 91.62, 92.26, 92.33, 92.71),
        (87.67, 86.46, 88.13, 88.6, 87.74),
        (75.39, 75.66, 76.08, 76.66, 76.7),
    ),
}

# Last row of Table 1 as printed: the plain means of the 15 rows above it.
_TABLE_1_MEANS: tuple[_Row, _Row, _Row] = (
    (86.45, 86.48, 88.58, 88.80, 89.79),
    (77.59, 77.37, 81.01, 82.31, 82.72),
    (61.48, 61.69, 64.38, 65.94, 66.71),
)

# Dice in % by method, subset (`t1c+flair`) and region, subsets in the order of the literature.
TABLE_1: Final[dict[str, dict[str, dict[str, float]]]] = {
    method: {
        subset: {region: row[column] for region, row in zip(REGIONS, rows, strict=True)}
        for subset, rows in _TABLE_1.items()
    }
    for column, method in enumerate(METHODS)
}

# Dice in % by method and region.
TABLE_1_MEANS: Final[dict[str, dict[str, float]]] = {
    method: {region: row[column] for region, row in zip(REGIONS, _TABLE_1_MEANS, strict=True)}
    for column, method in enumerate(METHODS)
}
