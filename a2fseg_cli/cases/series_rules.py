"""Which sequence a DICOM series is, or why it is left aside.

What is no image to segment goes first, by the table `ASIDE` (`series_aside`). Then the description decides as a file's
name does, a contrast agent makes a T1 a T1c, and the times are held against both (`sidecar`). What only the
examination as a whole shows comes last: an agent in every header says nothing, and a T1 after the injection has
contrast.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from a2fseg_cli.cases.names import Kind
from a2fseg_cli.cases.series_aside import ASIDE, TOO_SMALL, description_tokens, spelled
from a2fseg_cli.cases.sidecar import names_agent, read_fields
from a2fseg_cli.dicom.series import Series

# Perfusion by an agent, as opposed to labelled blood (ASL).
_INJECTED = frozenset(("perf", "perfusion", "pwi", "dsc", "dce"))


@dataclass(frozen=True)
class Recognised:
    """What a series is taken for.

    Attributes:
        series: The series.
        kind: One of the sequences, left aside, unclear, or that nothing is said.
        sequence: Which; of an unclear one `t1` where only the contrast cannot be told, of one left aside which it is a
            small part of.
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
            sequence = _sequence_of(series, protocols, with_agent) if reason == TOO_SMALL else None
            return Recognised(series, Kind.ASIDE, sequence, said)
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


def _sequence_of(series: Series, protocols: set[str], with_agent: bool) -> str | None:
    """Return which sequence a series is that shows too little, as one does of which half was exported."""
    reading = read_fields(_fields_to_read(series, protocols, with_agent))
    return reading.sequence if reading.kind is Kind.IMAGE else None


def _fields_to_read(series: Series, protocols: set[str], with_agent: bool) -> Mapping[str, Any]:
    fields = {key: value for key, value in series.fields.items() if with_agent or not key.startswith("ContrastBolus")}
    if fields.get("ProtocolName") in protocols:
        del fields["ProtocolName"]
    clock, injected = series.fields.get("Clock"), series.fields.get("InjectionClock")
    if clock is not None and injected is not None and clock < injected:  # entered before it was given
        fields = {key: value for key, value in fields.items() if not key.startswith("ContrastBolus")}
    words: dict[str, Any] = {
        key: spelled(fields[key]) for key in ("SeriesDescription", "ProtocolName") if key in fields
    }
    return {**fields, **words}


def _after_injection(readings: Sequence[Recognised], named: Mapping[int, bool]) -> list[Recognised]:
    """Return the readings with each T1 that says nothing of contrast held against what was acquired before it.

    After a series that has contrast it is a T1c; after a perfusion, for which an agent is given as a rule, it may be.
    """
    given = _first(one for one in readings if one.contrast or one.sequence == "t1c" or named.get(id(one.series)))
    perfused = _first(one for one in readings if _is_injected_perfusion(one.series))
    told = []
    for one in readings:
        clock = one.series.fields.get("Clock")
        if one.kind is Kind.IMAGE and one.sequence == "t1" and one.contrast is None and clock is not None:
            if given is not None and clock > given.fields["Clock"]:
                remark = f"taken as t1c, since it was acquired after {given.label}, which has contrast"
                reason = f"{one.reason}, after series {given.key}, which has contrast"
                one = replace(one, sequence="t1c", reason=reason, remark=remark)
            elif perfused is not None and clock > perfused.fields["Clock"]:
                reason = f"may be t1 or t1c: it says nothing of contrast, and comes after {perfused.label}"
                one = replace(one, kind=Kind.UNCLEAR, reason=reason, remark="")
        told.append(one)
    return told


def _is_injected_perfusion(series: Series) -> bool:
    tokens = set(description_tokens(series))
    return bool(_INJECTED & tokens) and not tokens & {"asl", "pcasl", "pasl", "nc", "non"}


def _first(readings: Iterable[Recognised]) -> Series | None:
    """Return the series that was acquired first of those that say when, None where none does."""
    timed = [one.series for one in readings if one.series.fields.get("Clock") is not None]
    return min(timed, key=lambda series: float(series.fields["Clock"]), default=None)


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
