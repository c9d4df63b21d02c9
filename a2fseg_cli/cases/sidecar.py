"""What dcm2niix wrote beside an image: its JSON knows the series and its times, and counts more than the file's name.

Times are in seconds there (BIDS). A description decides as a name does; a contrast agent makes a T1 a T1c; the times
decide where nothing else does, and are held against what was decided.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from a2fseg_cli.cases.names import Kind, Reading, image_stem, read_name, read_words, tokens_of
from a2fseg_cli.modalities import BRATS_MODALITIES
from a2fseg_cli.weights.strict_json import parse_object, printable

_MOST_BYTES = 1_000_000  # one of a multi-band series with all its slice times has 20 kB
_DESCRIPTIONS = ("SeriesDescription", "ProtocolName")
# What a technologist enters where none was given begins with one of these: `None given`, `no contrast`, `nativ`.
_NO_AGENT = frozenset(("no", "non", "none", "not", "n", "na", "nil", "null", "nein", "unknown", "false", "without",
                       "wo", "ohne", "kein", "keine", "keines", "sans", "sin", "senza", "pre", "plain", "nativ",
                       "native", "unenhanced"))  # fmt: skip
# Words of DICOM's Image Type that leave no image to segment: parameter maps, phases, projections, subtractions.
_OTHER_TYPES = frozenset(
    ("ADC", "FA", "TRACEW", "DIFFUSION", "PERFUSION", "PHASE", "P", "PHASE MAP", "SUB", "SUBTRACTION", "MIP", "MNIP",
     "PROJECTION IMAGE", "MIN IP", "CBF", "CBV", "MTT", "TTP", "LOCALIZER", "T2 MAP", "T1 MAP", "MOSAIC")
)  # fmt: skip
# Whose times tell them apart; a contrast agent does not change them.
_TIMES_OF = {"t1": "t1", "t1c": "t1", "t2": "t2", "flair": "flair"}


def identify(path: Path, modalities: Sequence[str] = BRATS_MODALITIES) -> Reading:
    """Return what an image is, by the JSON beside it and by its name; `words` say what decided."""
    by_name = read_name(image_stem(path) or "", modalities)
    fields = _fields(path) if by_name.kind is not Kind.ASIDE else {}
    if not fields:
        return replace(by_name, words=f"name: {by_name.words}")
    if _OTHER_TYPES & _image_type(fields):
        return Reading(Kind.ASIDE)
    told = _by_description(fields)
    if told.kind is Kind.ASIDE:
        return told
    if told.kind is Kind.IMAGE and by_name.kind is Kind.IMAGE and by_name.sequence not in BRATS_MODALITIES:
        return replace(by_name, words=f"name: {by_name.words}")  # a network's own modality, which no protocol names
    reading = _joined(by_name, told)
    reading = _with_agent(reading, fields)
    return replace(_against_times(reading, fields), patient=by_name.patient)


def read_fields(fields: Mapping[str, Any]) -> Reading:
    """Return what the fields of an image say without its name, as those of a DICOM series; times in seconds."""
    if _OTHER_TYPES & _image_type(fields):
        return Reading(Kind.ASIDE)
    told = _by_description(fields)
    return told if told.kind is Kind.ASIDE else _against_times(_with_agent(told, fields), fields)


def names_agent(fields: Mapping[str, Any]) -> bool:
    """Whether the fields name a contrast agent, as opposed to "NONE" and the like."""
    return _with_agent(Reading(Kind.IMAGE, "t1"), fields).sequence == "t1c"


def _fields(path: Path) -> Mapping[str, Any]:
    """Return the JSON object beside an image, empty where there is none that can be read."""
    sidecar = path.with_name(f"{image_stem(path)}.json")
    try:
        if not sidecar.is_file() or sidecar.stat().st_size > _MOST_BYTES:
            return {}
        return parse_object(sidecar.read_bytes())
    except (OSError, ValueError):
        return {}


def _image_type(fields: Mapping[str, Any]) -> set[str]:
    value = fields.get("ImageType")
    return {str(word).upper().strip() for word in value} if isinstance(value, list) else set()


def _by_description(fields: Mapping[str, Any]) -> Reading:
    """Return what the descriptions say; the first that decides counts."""
    best = Reading(Kind.UNREAD)
    for field in _DESCRIPTIONS:
        text = fields.get(field)
        if not isinstance(text, str) or not text.strip():
            continue
        reading = read_words(tokens_of(text))
        reading = replace(reading, words=f'{field}: "{printable(text.strip(), 60)}"', patient=())
        if reading.kind in (Kind.IMAGE, Kind.ASIDE):
            return reading
        best = reading if best.kind is Kind.UNREAD else best
    return best


def _joined(by_name: Reading, told: Reading) -> Reading:
    """Return what description and name say together: the description counts, the name fills what it leaves open."""
    if told.kind is Kind.UNREAD:
        return replace(by_name, words=f"name: {by_name.words}")
    if told.kind is Kind.UNCLEAR and by_name.kind is Kind.IMAGE:
        undecided = told.sequence == "t1" and by_name.sequence in ("t1", "t1c") and by_name.contrast is not None
        return replace(by_name, words=f"name: {by_name.words}") if undecided else told
    if told.sequence == "t1" and told.contrast is None and by_name.sequence in ("t1", "t1c"):
        if by_name.contrast is not None or by_name.kind is Kind.UNCLEAR:
            return replace(by_name, words=f"{told.words}, name: {by_name.words}")
        return replace(told, remark=told.remark if by_name.remark else "")
    if by_name.kind is Kind.IMAGE and by_name.sequence != told.sequence and told.kind is Kind.IMAGE:
        remark = f"taken as {told.sequence} by its {told.words}, though its name says {by_name.sequence}"
        return replace(told, remark=remark)
    return told


def _with_agent(reading: Reading, fields: Mapping[str, Any]) -> Reading:
    """Return a T1 as t1c where the JSON names an agent; where the words deny one, it cannot be told."""
    named = {key: str(fields.get(key, "")).strip() for key in ("ContrastBolusAgent", "ContrastBolusIngredient")}
    agents = {key: text for key, text in named.items() if _is_agent(text)}
    if not agents or reading.sequence != "t1":
        return reading
    said = ", ".join(f'{key}: "{printable(text, 40)}"' for key, text in agents.items())
    if reading.contrast is False:
        reason = f"may be t1 or t1c: {reading.words} says without contrast, {said}"
        return replace(reading, kind=Kind.UNCLEAR, reason=reason)
    return replace(
        reading, kind=Kind.IMAGE, sequence="t1c", words=f"{reading.words}, {said}", reason="", remark="", contrast=True
    )


def _is_agent(text: str) -> bool:
    """Whether a text names an agent that was given; `-`, `n/a`, `Gadovist 0 ml` do not."""
    first = re.search(r"[^\W\d_]+", text.lower())
    none_of_it = re.search(r"(?<![\d.,])0+([.,]0+)?\s*(ml|cc)\b", text.lower())
    return first is not None and not none_of_it and first.group() not in _NO_AGENT


def sequence_by_times(fields: Mapping[str, Any]) -> str | None:
    """Return `t1`, `t2` or `flair` as the times of a spin echo say, "other" for echo-planar images, None if neither.

    The bounds lie in the gaps between the usual protocols of 1.5 and 3 T: FLAIR inverts after 1.6 to 2.9 s, a T1
    ("T1 FLAIR") after 0.7 to 1.2 s, a STIR after 0.15 to 0.25 s; a T1 spin echo has an echo of 7 to 25 ms and repeats
    within 1.2 s (0.4 to 0.9), a T2 echoes after 70 ms and more, and repeats after 2 s and more. Gradient echoes decide
    nothing: time of flight and susceptibility images have the times of a T1.
    """
    repetition, echo, inversion = (_seconds(fields, key) for key in ("RepetitionTime", "EchoTime", "InversionTime"))
    kinds = fields.get("ScanningSequence")
    kinds = "\\".join(map(str, kinds)) if isinstance(kinds, list) else str(kinds or "")
    if "EP" in kinds.upper():
        return "other"
    if inversion is not None and inversion >= 1.5 and (echo or 0) >= 0.07:
        return "flair"
    if "GR" in kinds.upper() or echo is None or repetition is None:
        return None
    if echo <= 0.03 and (repetition <= 1.2 or 0.3 <= (inversion or 0) <= 1.3):
        return "t1"
    inverted = inversion is not None or "IR" in kinds.upper()  # a FLAIR whose inversion time was taken out
    return "t2" if echo >= 0.07 and repetition >= 2 and not inverted else None


def _against_times(reading: Reading, fields: Mapping[str, Any]) -> Reading:
    """Return what was decided unless the times say another sequence; they decide where nothing else does."""
    times = sequence_by_times(fields)
    if times is None:
        return reading
    if times == "other":
        return reading if reading.kind is Kind.IMAGE else Reading(Kind.ASIDE)
    said = " ".join(
        f"{short} {seconds:g} s"
        for short, key in (("TR", "RepetitionTime"), ("TE", "EchoTime"), ("TI", "InversionTime"))
        if (seconds := _seconds(fields, key)) is not None
    )
    if reading.kind is Kind.IMAGE and reading.sequence in _TIMES_OF:
        if times == _TIMES_OF[reading.sequence]:
            return reading
        reason = f"{reading.words} says {reading.sequence}, its times ({said}) are those of a {times}"
        return replace(reading, kind=Kind.UNCLEAR, reason=reason)
    if reading.kind is Kind.IMAGE or (times == "t1" and reading.sequence is not None):
        return reading
    if times == "t1" and reading.contrast:
        return replace(reading, kind=Kind.IMAGE, sequence="t1c", words=f"{reading.words}, times: {said}", reason="")
    remark = f"taken as {times} by its times ({said})"
    read = Reading(Kind.IMAGE, times, words=f"times: {said}", remark=remark)
    return _with_agent(read, fields) if times == "t1" else read


def _seconds(fields: Mapping[str, Any], key: str) -> float | None:
    value = fields.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None
