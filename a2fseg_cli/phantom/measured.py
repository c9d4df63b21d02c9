"""How bright each tissue is in each modality, as measured on patients of BraTS."""

from __future__ import annotations

from a2fseg_cli.phantom.fields import Triple

# Mean z-score (mean and standard deviation of the brain: 0 and 1) and spread within the label, of NCR, ED and ET.
# Source: means over 21 training patients of BraTS 2017 to 2023 with at least 5 mL of ET and 3 mL of NCR.
TUMOUR_Z: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "t1": ((-0.30, 0.47), (0.23, 0.48), (-0.01, 0.51)),
    "t1c": ((-0.39, 0.68), (-0.04, 0.47), (2.06, 1.18)),
    "t2": ((1.72, 0.82), (0.52, 0.58), (0.83, 0.63)),
    "flair": ((2.19, 0.93), (1.71, 0.78), (1.93, 0.95)),
}
# z-score of pure CSF, cortex and white matter. Start: 3-means clustering of the tissue farther than 10 mm from the
# tumour in 20 training patients (T1 -1.7, -0.5, 0.7; T1c -1.0, -0.4, 0.3; T2 1.0, 0.3, -0.5; FLAIR -1.4, 0.0, -0.1);
# then moved until the percentiles of the phantom's normal tissue, partial volume included, resembled theirs.
NORMAL_Z: dict[str, Triple] = {
    "t1": (-3.0, -0.45, 0.85),
    "t1c": (-2.0, -0.30, 0.30),
    "t2": (4.4, 0.30, -0.60),
    "flair": (-2.5, 0.30, -0.30),
}
# Mean intensity, arbitrary but of BraTS's order, and the ratio of standard deviation to mean in the same patients.
INTENSITY: dict[str, tuple[float, float]] = {
    "t1": (420.0, 0.26),
    "t1c": (520.0, 0.30),
    "t2": (330.0, 0.43),
    "flair": (300.0, 0.32),
}
