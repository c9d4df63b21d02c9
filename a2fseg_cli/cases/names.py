"""What a file's name says: which sequence it is, that it is none, or that it looks like one and cannot be told.

A name is cut into words, and the words stand in any order and place: `MRHR_T1_AX_POST_GAD_SE_13.nii.gz` is a T1 with
contrast. Words before the sequence that say nothing known are the patient's name, in which nothing counts:
`Brats18_T1_study_t2.nii.gz` is a T2.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from a2fseg_cli.cases import words
from a2fseg_cli.imaging.formats.suffixes import EXTENSIONS
from a2fseg_cli.modalities import BRATS_MODALITIES, BY_NAME, MODALITIES

_LINKED = words.DESCRIPTIONS | words.AGENTS | words.POST | words.PRE | words.NEGATIONS | words.T1_PULSES
_SEQUENCE_LIKE = frozenset(words.SEQUENCES) | words.T1_PULSES
_NOT_AN_IMAGE = (words.DERIVED | words.OTHERS) - frozenset(words.SEQUENCES)
_PAIRS = {
    ("dark", "fluid"): "darkfluid", ("da", "fl"): "dafl", ("mp", "rage"): "mprage", ("t2", "star"): "t2star",
    ("t2", "f"): "t2f", ("3", "plane"): "survey", ("t2", "map"): "t2map", ("t1", "map"): "t1map",
}  # fmt: skip
_PARTS = re.compile("|".join(sorted(words.PARTS, key=lambda word: (-len(word), word))))
_WHOLE = re.compile(f"(?:{_PARTS.pattern}){{2,}}")
_BIDS_SUFFIXES = frozenset(suffix for modality in MODALITIES for suffix in modality.bids_suffixes)
_BIDS_REMARKS = ("acq", "desc", "rec")


class Kind(Enum):
    """What a file is taken for."""

    IMAGE = "one of the sequences"
    ASIDE = "a mask, a map or another kind of image"
    UNCLEAR = "looks like a sequence, and cannot be told which"
    UNREAD = "says nothing"


@dataclass(frozen=True)
class Reading:
    """What a name says.

    Attributes:
        kind: What the file is taken for.
        sequence: `t1`, `t1c`, `t2`, `flair`, or a name of a network's own; of an unclear one `t1` where only the
            contrast cannot be told, `t2` where it may be one, else None.
        patient: The words before, which name the patient.
        words: The words that decided.
        reason: Why it cannot be told.
        remark: What a user should look at.
        contrast: Whether the words say that a contrast agent was given; None where they say nothing.
    """

    kind: Kind
    sequence: str | None = None
    patient: tuple[str, ...] = ()
    words: str = ""
    reason: str = ""
    remark: str = ""
    contrast: bool | None = None


def image_stem(path: Path) -> str | None:
    """Return the file's name without its image extension, None for any other file."""
    name = path.name.lower()
    for extension in EXTENSIONS:
        if name.endswith(extension) and not name.startswith("."):
            return path.name[: -len(extension)]
    return None


def tokens_of(text: str) -> tuple[str, ...]:
    """Return the words of a name, lower case, joined words taken apart where they hold a sequence."""
    plainly = (letter for letter in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(letter))
    spelled = "".join(plainly).replace("t2*", "t2star").replace("w/o", "without").replace("w/", "with ")
    # Contrast is written + as well: T1+, T1+C, T1 +Gd.
    spelled = re.sub(r"\+(?:c|gd|gad|km|ce)?(?![a-z0-9])", " contrast ", spelled)
    plain = [token for token in re.split(r"[^a-z0-9]+", spelled) if token]
    parted = [part for token in plain for part in _parts(token)]
    joined: list[str] = []
    for token in parted:
        if joined and (pair := _PAIRS.get((joined[-1], token))):
            joined[-1] = pair
        else:
            joined.append(token)
    return tuple(joined)


def _parts(token: str) -> Sequence[str]:
    if token in ("t1c", "ct1"):
        return ("t1", "contrast")
    if token in words.SEQUENCES or token in words.AGENTS or not _WHOLE.fullmatch(token):
        return (token,)
    parts = _PARTS.findall(token)
    return parts if _SEQUENCE_LIKE & set(parts) and "".join(parts) == token else (token,)


def aliases(modality: str) -> tuple[str, ...]:
    """Return the words that name a modality, its own name first."""
    others = BY_NAME[modality].aliases if modality in BY_NAME else ()
    return tuple(dict.fromkeys((_own_word(modality), *others)))


def modality_words(modalities: Sequence[str]) -> dict[str, str]:
    """Return the modality of every word that names one; a modality's own name before another one's alias."""
    table = {alias: modality for modality in reversed(modalities) for alias in aliases(modality)}
    return table | {aliases(modality)[0]: modality for modality in modalities}


def modality_of(sequence: str | None, modalities: Sequence[str]) -> str | None:
    """Return the network's modality that a sequence is, None for one that it does not know.

    A network may call a sequence by another of its names: with `t1` and `t1ce`, `t1c` is its `t1ce`.
    """
    if sequence is None or sequence in modalities:
        return sequence
    names = aliases(sequence) if sequence in BY_NAME else ()
    return next((modality for modality in modalities if _own_word(modality) in names), None)


def read_name(stem: str, modalities: Sequence[str] = BRATS_MODALITIES) -> Reading:
    """Return what a file's name, without its extension, says."""
    if words.OWN in re.split(r"[^a-z0-9]+", stem.lower()):
        return Reading(Kind.ASIDE)
    return _read_bids(stem) or _read_own_name(stem, modalities) or read_words(tokens_of(stem))


def read_series_folder(name: str) -> Reading | None:
    """Return what a folder's name says where it is a series and no patient, such as `T1`, `5_Ax_T2_FLAIR`; else None.

    Scanners and converters export one folder a series, with files whose names may say nothing.
    """
    reading = read_words(tokens_of(name))
    is_series = reading.kind in (Kind.IMAGE, Kind.UNCLEAR) and "".join((*reading.patient, "0")).isdigit()
    return reading if is_series else None


def read_words(tokens: Sequence[str]) -> Reading:
    """Return what the words of a name or of a description say."""
    tokens, brought_to = _without_targets(tokens)
    places = [index for index, token in enumerate(tokens) if token in words.SEQUENCES]
    by_pulse = not places
    places = places or [index for index, token in enumerate(tokens) if token in words.T1_PULSES]
    if not places:
        if (_NOT_AN_IMAGE | words.SCANNERS) & set(tokens):
            return Reading(Kind.ASIDE)
        if brought_to:
            return Reading(Kind.UNCLEAR, reason=f"only says that something was brought to {brought_to}")
        return Reading(Kind.UNREAD)
    start = last = places[-1]
    while start and (tokens[start - 1] in _LINKED or tokens[start - 1] in words.SEQUENCES):
        start -= 1
    before, chain, behind = tokens[:start], tokens[start : last + 1], tokens[last + 1 :]
    if (_NOT_AN_IMAGE | {"sub"}) & set(behind) or (_NOT_AN_IMAGE | words.TEMPLATES) & set(before[-1:]):
        return Reading(Kind.ASIDE)
    named = {words.SEQUENCES.get(token, "t1") for token in chain if token in _SEQUENCE_LIKE}
    named -= {"t1"} if not any(words.SEQUENCES.get(token) == "t1" for token in chain) and len(named) > 1 else set()
    earlier = {words.SEQUENCES[tokens[index]] for index in places if index < start and not by_pulse}
    if earlier - named and not all(token in _LINKED or token.isdigit() for token in behind):
        named |= earlier  # neither stands at the end, where the sequence's name belongs
    if named == {"t2", "flair"}:
        named = {"flair"}
    said = " ".join(token for token in (*chain, *behind) if token in _LINKED or token in words.SEQUENCES)
    reading = Reading(Kind.IMAGE, None, tuple(before), said.upper())
    if len(named) > 1:  # a T1 FLAIR is one of the two, which its times may tell; then the words say if it has contrast
        contrast = _with_contrast(reading, before, chain, behind, by_pulse).contrast if "t1" in named else None
        return replace(reading, kind=Kind.UNCLEAR, reason=f"may be {' or '.join(sorted(named))}", contrast=contrast)
    reading = replace(reading, sequence=named.pop())
    if reading.sequence == "t2":
        return _checked_t2(reading, {*chain, *behind})
    return _with_contrast(reading, before, chain, behind, by_pulse) if reading.sequence == "t1" else reading


def _without_targets(tokens: Sequence[str]) -> tuple[list[str], str]:
    """Return the words without those behind `to`, `in` or `on`, and the sequence that stood there, if any."""
    kept: list[str] = []
    brought_to, skip = "", 0
    for index, token in enumerate(tokens):
        if skip:
            skip -= 1
        elif token in words.TARGETS and kept and index + 1 < len(tokens):
            following = tokens[index + 1 : index + 3]
            skip = 1 + (following[-1] in ("brain", "space", "template", "atlas", "contrast"))
            brought_to = following[0].upper() if following[0] in _SEQUENCE_LIKE else brought_to
        else:
            kept.append(token)
    return kept, brought_to


def _checked_t2(reading: Reading, around: Collection[str]) -> Reading:
    """A gradient echo is a T2*; with an inversion it is a FLAIR or a STIR; PD and T2 come in one file."""
    around = set(around)
    if around & {"gre", "gr", "ffe", "fl2d", "fl3d"}:
        return Reading(Kind.ASIDE)
    if around & {"tirm", "tir", "ir"}:
        return replace(reading, kind=Kind.UNCLEAR, reason="may be flair or a STIR")
    if around & {"pd", "dual", "dualecho"}:
        return replace(reading, kind=Kind.UNCLEAR, reason="may be t2 or proton density")
    return reading


def _with_contrast(
    reading: Reading, before: Sequence[str], chain: Sequence[str], behind: Sequence[str], by_pulse: bool
) -> Reading:
    """Return a T1 as t1, t1c or unclear, by the words around it."""
    first = next(index for index, token in enumerate(chain) if token in _SEQUENCE_LIKE)
    around = tuple(token for token in (*chain, *behind) if token != "iv")
    first -= "iv" in chain[:first]
    given = denied = doubtful = False
    for index, token in enumerate(around):
        negated = bool(words.NEGATIONS & set(around[max(0, index - 1) : index]))
        of_a_treatment = bool(words.TREATMENTS & set(around[index + 1 : index + 2]))
        if of_a_treatment and token in words.POST | words.PRE:
            continue
        if token in words.PRE or (token in words.AGENTS and negated):
            denied = True
        elif token in words.AGENTS and (token != "c" or index == first + 1):
            given = True
        elif token in words.POST and not negated:
            given, doubtful = given or index > first, doubtful or index < first
    if given and denied:
        return replace(
            reading, kind=Kind.UNCLEAR, sequence=None, reason="may be t1 or t1c: it says with and without contrast"
        )
    if given or denied:
        return replace(reading, sequence="t1c" if given else "t1", contrast=given)
    if doubtful:
        return replace(
            reading, kind=Kind.UNCLEAR, reason='may be t1 or t1c: "post" may mean a contrast agent or a time'
        )
    named_before = [token for token in before[-2:] if token in words.AGENTS | words.POST and token not in ("c", "ce")]
    if named_before:
        return replace(reading, remark=f"taken as t1 without contrast, though {named_before[-1].upper()} stands before")
    return replace(reading, remark="taken as t1 without contrast: nothing says whether it has it" if by_pulse else "")


def _read_own_name(stem: str, modalities: Sequence[str]) -> Reading | None:
    """Return what the name of a network's own modality says, such as `adc`, None where there is none."""
    plain = [token for token in re.split(r"[^a-z0-9]+", stem.lower()) if token]
    for width in (3, 2, 1):
        for start in range(len(plain) - width, -1, -1):
            word = "".join(plain[start : start + width])
            own = next((m for m in modalities if m not in BY_NAME and _own_word(m) == word), None)
            if own is None:
                continue
            others = _NOT_AN_IMAGE - {_own_word(m) for m in modalities}
            if others & {*plain[start + width :], *plain[max(0, start - 1) : start]}:
                return Reading(Kind.ASIDE)
            return Reading(Kind.IMAGE, own, tuple(plain[:start]), word.upper())
    return None


def _own_word(modality: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", modality.lower())


def bids_entities(stem: str) -> dict[str, str]:
    """Return the entities of a BIDS name, lower case: {"sub": "01", "run": "2"} of `sub-01_run-2_T1w`."""
    return dict(entity.split("-", 1) for entity in stem.lower().split("_") if "-" in entity)


def bids_patient(stem: str) -> str:
    """Return the patient and session of a BIDS name as they are written there, "" for any other name."""
    return "_".join(part for part in stem.split("_") if part.lower().partition("-")[0] in ("sub", "ses"))


def is_bids(stem: str) -> bool:
    """Whether a name has the form `sub-01_ses-1_ce-GD_run-1_T1w`."""
    return stem.lower().split("_")[-1] in _BIDS_SUFFIXES and bool(bids_entities(stem).keys() & {"sub", "ce"})


def _read_bids(stem: str) -> Reading | None:
    """Return what a BIDS name says, None for any other: the suffix is the sequence, the agent stands behind `ce-`."""
    if not is_bids(stem):
        return None
    values, suffix = bids_entities(stem), stem.lower().split("_")[-1]
    if values.get("part", "mag") != "mag" or _NOT_AN_IMAGE & set(values.get("desc", "").split("-")):
        return Reading(Kind.ASIDE)
    sequence = words.SEQUENCES[suffix]
    patient = tuple(re.findall(r"[a-z0-9]+", bids_patient(stem).lower()))
    reading = Reading(Kind.IMAGE, sequence, patient, suffix.upper())
    if sequence != "t1":
        return reading
    if "ce" in values and values["ce"] not in ("none", "no", "pre"):
        return replace(reading, sequence="t1c", words=f"CE-{values['ce'].upper()} {suffix.upper()}", contrast=True)
    said = " ".join(values[key] for key in _BIDS_REMARKS if key in values)
    told = read_words((*tokens_of("t1 " + said),))
    if told.kind is Kind.UNCLEAR or told.sequence not in ("t1", "t1c"):
        return replace(reading, kind=Kind.UNCLEAR, reason=told.reason or "may be t1 or t1c")
    if "post" in tokens_of(said) and told.sequence == "t1c":
        return replace(reading, kind=Kind.UNCLEAR, reason='may be t1 or t1c: "post" without ce-')
    return replace(
        reading, sequence=told.sequence, contrast=told.contrast, words=f"{suffix.upper()} {said.upper()}".strip()
    )
