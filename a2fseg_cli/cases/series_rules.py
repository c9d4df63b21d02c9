"""Which sequence a DICOM series is, or why it is left aside.

What is no image to segment goes first, by `ASIDE`, one row a reason. Then the description decides as a file's name
does, a contrast agent makes a T1 a T1c, and the times are held against both (`sidecar`). What only the examination as
a whole shows comes last: an agent in every header says nothing, and a T1 after the injection has contrast.

The words are those of the protocols of Siemens, GE and Philips and of the public glioma collections.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from a2fseg_cli.cases.names import Kind, tokens_of
from a2fseg_cli.cases.sidecar import names_agent, read_fields
from a2fseg_cli.dicom.series import Series

# Of 82 patients the brain is at least 120 mm across in every direction; what shows less than half of it is a
# localiser, or a look at the pituitary gland or the inner ear. Slices of 5 mm with gaps of 2.5 mm: 8 are 60 mm.
_LEAST_EXTENT_MM = 60.0
_FEWEST_SLICES = 8
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
    if "GR" in _pulses(series) or _value(series, "InversionTime"):
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
    return (bool(parts & tokens) and "brain" not in tokens) or body in {"cspine", "tspine", "lspine", "spine", "neck"}


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
                   "planeloc", "calibration", "asset", "plan"),
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
    ("a projection", (_types("MIP", "MNIP", "MIN IP", "PROJECTION IMAGE"), _words("mip", "projection"))),
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
    (f"less than {_LEAST_EXTENT_MM:g} mm of the head", (_is_small,)),
)  # fmt: skip


@dataclass(frozen=True)
class Recognised:
    """What a series is taken for.

    Attributes:
        series: The series.
        kind: One of the sequences, left aside, unclear, or that nothing is said.
        sequence: Which; of an unclear one `t1` where only the contrast cannot be told.
        reason: What decided, or why it is left aside or cannot be told.
        remark: What a user should look at.
        contrast: Whether words or tags say that an agent was given; None where they say nothing.
    """

    series: Series
    kind: Kind
    sequence: str | None
    reason: str
    remark: str = ""
    contrast: bool | None = None


def recognise(series: Sequence[Series]) -> list[Recognised]:
    """Return what each series of one examination is, in their order."""
    protocols = _shared_protocols(series)
    named = {id(one): names_agent(one.fields) for one in series}
    readings = [_recognised(one, protocols, named[id(one)]) for one in series]
    scanned = [one for one in readings if one.series.fields.get("Modality") == "MR" and one.series.slices]
    others = [one for one in scanned if one.sequence not in ("t1", "t1c")]
    if others and all(named[id(one.series)] for one in scanned):  # set for the whole examination: it says nothing
        readings = [_recognised(one, protocols, False) for one in series]
        return _without_tags(_after_injection(readings, {}))
    return _after_injection(readings, named)


def description_tokens(series: Series) -> tuple[str, ...]:
    """Return the words of a series' description."""
    return tokens_of(_spelled(str(series.fields.get("SeriesDescription", "") or series.description)))


def _spelled(text: str) -> str:
    """Return a description with what only descriptions have written as names have it: `sT1W`, `T1W/TSE`, `C-`."""
    text = re.sub(r"(?<![a-z0-9])[sder](?=t[12]w|flair|dwi|adc|3d_)", "", text, flags=re.IGNORECASE)  # Philips
    text = re.sub(r"(t[12]w)/", r"\1 ", text, flags=re.IGNORECASE)
    minus = r"(?<![a-z0-9])(c|gd|gad|km)-(?![a-z0-9])|(?<=\s)-\s?(c|gd|gad|km)(?![a-z0-9])"
    text = re.sub(minus, " pregad ", text, flags=re.IGNORECASE)
    return re.sub(r"(?<![a-z0-9])(w/?o|without|ohne|sans|sin|senza)\s*$", " pregad ", text, flags=re.IGNORECASE)


def _shared_protocols(series: Sequence[Series]) -> set[str]:
    """Return the ProtocolNames that several differently described series have: GE's is the examination's."""
    described: dict[str, set[str]] = {}
    for one in series:
        described.setdefault(str(one.fields.get("ProtocolName", "")), set()).add(one.description)
    return {name for name, descriptions in described.items() if len(descriptions) > 1}


def _recognised(series: Series, protocols: set[str], with_agent: bool) -> Recognised:
    for reason, tests in ASIDE:
        if any(test(series) for test in tests):
            said = f"{series.fields.get('Modality', 'of no kind')}, not MR" if reason == "not MR" else reason
            return Recognised(series, Kind.ASIDE, None, said)
    fields = _fields_to_read(series, protocols, with_agent)
    reading = read_fields(fields)
    if reading.kind is Kind.UNREAD and re.match(r"\*?tfl3d", str(series.fields.get("SequenceName", "")).lower()):
        reading = read_fields({**fields, "SeriesDescription": "mprage"})  # Siemens' name of its pulses
    reason = reading.reason or reading.words
    if reading.kind is Kind.ASIDE:
        reason = "another kind of image by its description"
    elif reading.kind is Kind.UNREAD:
        reason = "nothing in its header says which sequence it is"
    return Recognised(series, reading.kind, reading.sequence, reason, reading.remark, reading.contrast)


def _fields_to_read(series: Series, protocols: set[str], with_agent: bool) -> Mapping[str, Any]:
    fields = {key: value for key, value in series.fields.items() if with_agent or not key.startswith("ContrastBolus")}
    if fields.get("ProtocolName") in protocols:
        del fields["ProtocolName"]
    clock, injected = series.fields.get("Clock"), series.fields.get("InjectionClock")
    if clock is not None and injected is not None and clock < injected:  # entered before it was given
        fields = {key: value for key, value in fields.items() if not key.startswith("ContrastBolus")}
    words: dict[str, Any] = {
        key: _spelled(fields[key]) for key in ("SeriesDescription", "ProtocolName") if key in fields
    }
    return {**fields, **words}


def _after_injection(readings: Sequence[Recognised], named: Mapping[int, bool]) -> list[Recognised]:
    """Return the readings with each T1 that says nothing of contrast, and comes after one that has it, as t1c."""
    given = [one for one in readings if one.contrast or one.sequence == "t1c" or named.get(id(one.series))]
    given = [one for one in given if one.series.fields.get("Clock") is not None]
    if not given:
        return list(readings)
    first = min(given, key=lambda one: float(one.series.fields["Clock"]))
    told = []
    for one in readings:
        clock = one.series.fields.get("Clock")
        silent = one.kind is Kind.IMAGE and one.sequence == "t1" and one.contrast is None
        if silent and clock is not None and clock > first.series.fields["Clock"]:
            remark = f"taken as t1c, since it was acquired after {first.series.label}, which has contrast"
            reason = f"{one.reason}, after series {first.series.key}, which has contrast"
            one = replace(one, sequence="t1c", reason=reason, remark=remark)
        told.append(one)
    return told


def _without_tags(readings: Sequence[Recognised]) -> list[Recognised]:
    """Return the readings of an examination whose headers all name an agent: a silent T1 needs another one's words."""
    has_words = any(one.sequence == "t1c" for one in readings)
    told = []
    for one in readings:
        if one.kind is Kind.IMAGE and one.sequence == "t1" and one.contrast is None:
            if has_words:
                remark = "taken as t1: every series names a contrast agent, and another one's description tells of it"
                one = replace(one, remark=remark)
            else:
                reason = "may be t1 or t1c: every series of the examination names a contrast agent, no description does"
                one = replace(one, kind=Kind.UNCLEAR, reason=reason, remark="")
        told.append(one)
    return told
