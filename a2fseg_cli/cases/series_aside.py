"""DICOM series that are no image to segment, and why: the table `ASIDE`, one row a reason.

The words are those of the protocols of Siemens, GE and Philips and of the public glioma collections.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from a2fseg_cli.cases.names import tokens_of
from a2fseg_cli.dicom.series import Series

# Of 82 patients the brain is at least 120 mm across in every direction; what shows less than half of it is a
# localiser, or a look at the pituitary gland or the inner ear. Slices of 5 mm with gaps of 2.5 mm: 8 are 60 mm.
_LEAST_EXTENT_MM = 60.0
_FEWEST_SLICES = 8
TOO_SMALL = f"less than {_LEAST_EXTENT_MM:g} mm of the head"
# T2* echoes after 15 ms and more; T1-weighted gradient echoes within 10 ms.
_T2_STAR_ECHO_S = 0.015
# A STIR inverts after 0.15 to 0.25 s, T1-weighted sequences after 0.4 s and more.
_STIR_S = (0.1, 0.3)
# Proton density: a short echo, and a repetition that leaves no T1 weight (T1 repeats within 1.2 s).
_PD_ECHO_S, _PD_REPETITION_S = 0.05, 1.5

Test = Callable[[Series], bool]


def _types(*words: str) -> Test:
    return lambda series: bool(set(words) & set(series.fields.get("ImageType", ())))


def _field(key: str, *words: str) -> Test:
    return lambda series: str(series.fields.get(key, "")).upper() in words


def _words(*words: str) -> Test:
    return lambda series: bool(set(words) & set(description_tokens(series)))


def _pulse(pattern: str) -> Test:
    return lambda series: bool(re.match(pattern, str(series.fields.get("SequenceName", "")).lower()))


def _value(series: Series, key: str) -> float:
    return float(series.fields.get(key) or 0)


def _pulses(series: Series) -> set[str]:
    return set(series.fields.get("ScanningSequence", ()))


def _is_diffusion(series: Series) -> bool:
    return _value(series, "DiffusionBValue") > 0  # Philips writes 0 into every series


def _is_t2_star(series: Series) -> bool:
    return _pulses(series) == {"GR"} and _value(series, "EchoTime") >= _T2_STAR_ECHO_S


def _is_stir(series: Series) -> bool:
    long_repetition = _value(series, "RepetitionTime") > _PD_REPETITION_S
    return long_repetition and _STIR_S[0] <= _value(series, "InversionTime") <= _STIR_S[1]


def _is_proton_density(series: Series) -> bool:
    if "SE" not in _pulses(series) or "IR" in _pulses(series) or _value(series, "InversionTime"):
        return False
    return 0 < _value(series, "EchoTime") < _PD_ECHO_S and _value(series, "RepetitionTime") > _PD_REPETITION_S


def _is_small(series: Series) -> bool:
    if len(series.slices) < _FEWEST_SLICES:
        return True
    grid = series.geometry
    return grid is not None and min(n * mm for n, mm in zip(grid.size, grid.spacing_mm, strict=True)) < _LEAST_EXTENT_MM


def _is_elsewhere(series: Series) -> bool:
    parts = {"spine", "cspine", "tspine", "lspine", "neck", "cervical", "thoracic", "lumbar", "hws", "bws", "lws",
             "orbit", "orbits", "orbita", "iac", "sella", "pituitary", "hypophyse", "hypophysis", "tmj"}  # fmt: skip
    tokens = set(description_tokens(series))
    body = str(series.fields.get("BodyPartExamined", "")).lower()
    named = parts & tokens or body in {"cspine", "tspine", "lspine", "spine", "neck"}
    return bool(named) and not tokens & {"brain", "head", "neuro", "cranium", "kopf", "schaedel"}


# Why a series is left aside, and by what. The first row that holds is said.
ASIDE: tuple[tuple[str, tuple[Test, ...]], ...] = (
    ("no image (a report, a mask or settings of a display)", (lambda series: not series.slices,)),
    ("not MR", (lambda series: series.fields.get("Modality") != "MR",)),
    (
        "a screenshot or a scanned page",
        (
            lambda series: str(series.fields.get("SOPClassUID", "")).startswith("1.2.840.10008.5.1.4.1.1.7"),
            lambda series: series.slices[0].position_mm is None,
            _words("screen", "screenshot", "screensave", "capture", "report"),
        ),
    ),
    (
        "a localiser",
        (
            _types("LOCALIZER"),
            _words("loc", "localizer", "localiser", "localisation", "scout", "survey", "aahead", "aahscout", "aascout",
                   "planeloc", "calibration"),
        ),
    ),
    ("a mosaic (diffusion or functional images)", (_types("MOSAIC"),)),
    (
        "diffusion",
        (
            _is_diffusion,
            _types("DIFFUSION", "ADC", "FA", "TRACEW", "TENSOR"),
            _field("AcquisitionContrast", "DIFFUSION"),
            _words("dwi", "dti", "diff", "diffusion", "adc", "eadc", "trace", "tracew", "fa", "colfa", "b0", "b1000",
                   "noddi", "hardi"),
        ),
    ),
    (
        "perfusion or dynamic images",
        (
            _types("PERFUSION", "CBF", "CBV", "MTT", "TTP", "ASL"),
            _field("AcquisitionContrast", "PERFUSION"),
            _pulse(r"\*?(pcasl|asl|twist)"),
            _words("perf", "perfusion", "pwi", "dsc", "dce", "asl", "pcasl", "cbf", "cbv", "rcbf", "rcbv", "mtt", "ttp",
                   "tmax", "pbp", "ktrans", "twist", "tricks", "dynamic", "dyn", "dynamisch"),
        ),
    ),
    ("functional images", (_words("bold", "fmri", "rest", "task"),)),
    ("echo-planar images", (lambda series: "EP" in _pulses(series), _pulse(r"\*?ep"))),
    (
        "phase or complex images",
        (
            _types("P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"),
            _field("ComplexImageComponent", "PHASE", "REAL", "IMAGINARY", "MIXED"),
        ),
    ),
    (
        "susceptibility images (SWI, T2*)",
        (
            _types("SWI", "QSM"),
            _pulse(r"\*?swi"),
            _words("swi", "swan", "eswan", "qsm", "venobold", "t2star", "t2starw", "heme", "hemo", "haemo", "minip"),
            _is_t2_star,
        ),
    ),
    ("angiography", (_words("tof", "mra", "mrv", "angio", "venogram"), _pulse(r"\*?fl3d1r_t"))),
    ("spectroscopy", (_words("mrs", "csi", "svs", "spectro", "spectroscopy"),)),
    ("a subtraction", (_types("SUB", "SUBTRACTION", "SUBTRACT"), _words("sub", "subtraction", "subtracted", "subtr"))),
    (
        "a projection",
        (
            _types("MIP", "MNIP", "MIN IP", "PROJECTION IMAGE", "MAX_IP", "MIN_IP", "MEAN_IP"),
            _words("mip", "projection"),
        ),
    ),
    (
        "a reformat of another series",
        (_types("MPR", "CSA MPR", "REFORMATTED", "RESAMPLED"), _field("VolumetricProperties", "SAMPLED")),
    ),
    ("a map", (_types("T1 MAP", "T2 MAP", "MAP"), _words("map", "maps", "t1map", "t2map", "mapit"))),
    ("computed from other images", (_types("SECONDARY"), _words("fusion", "fused"))),
    ("another kind of inversion recovery", (_is_stir, _words("stir", "dir", "psir", "fgatir", "mp2rage", "unit1"))),
    ("proton density", (_is_proton_density,)),
    ("another kind of image", (_words("ciss", "fiesta", "trufi", "ciss3d", "mtc", "megre", "mese", "fieldmap"),)),
    ("another part of the body", (_is_elsewhere,)),
    (TOO_SMALL, (_is_small,)),
)  # fmt: skip


def description_tokens(series: Series) -> tuple[str, ...]:
    """Return the words of a series' description."""
    return tokens_of(spelled(str(series.fields.get("SeriesDescription", "") or series.description)))


def spelled(text: str) -> str:
    """Return a description with what only descriptions have written as names have it: `sT1W`, `T1W/TSE`, `C-`."""
    text = re.sub(r"(?<![a-z0-9])[sder](?=t[12]w|flair|dwi|adc|3d_)", "", text, flags=re.IGNORECASE)  # Philips
    text = re.sub(r"(t[12]w)/", r"\1 ", text, flags=re.IGNORECASE)
    minus = r"(?<![a-z0-9])(c|gd|gad|km)-(?![a-z0-9])|(?<=\s)-\s?(c|gd|gad|km)(?![a-z0-9])"
    text = re.sub(minus, " pregad ", text, flags=re.IGNORECASE)
    return re.sub(r"(?<![a-z0-9])(w/?o|without|ohne|sans|sin|senza)\s*$", " pregad ", text, flags=re.IGNORECASE)
