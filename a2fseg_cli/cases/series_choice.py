"""One DICOM study to a case: which of its series is taken as which sequence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from a2fseg_cli.cases.case import Case, too_long
from a2fseg_cli.cases.names import Kind, modality_of, modality_words
from a2fseg_cli.cases.series_rules import Recognised, recognise
from a2fseg_cli.dicom.reading import grid_text
from a2fseg_cli.dicom.series import Series
from a2fseg_cli.errors import InputError, UsageError
from a2fseg_cli.modalities import BRATS_MODALITIES

NOT_USED = "-"
_CHOSEN = "chosen"
PREFERENCES = ("thinnest",)
# Thicknesses that differ by less are one: 1 mm and 0.9766 mm.
_SAME_THICKNESS = 0.05
SHORTEST_UID = 8  # characters of an end of a UID that may choose: more than a number of a series has


@dataclass(frozen=True)
class SeriesChoice:
    """Which series of a study are meant, where the headers leave it open.

    Attributes:
        series: Modality of a series by its number, its key (`5b`), its UID or the end of it; `-` leaves it aside.
        study: UID of the study, or the end of it, or its date.
        prefer: thinnest takes the series with the thinnest slices of several, and says so; None refuses.
        ignore_unknown: Leave aside series that look like a sequence and cannot be told, instead of failing.
    """

    series: Mapping[str, str] = field(default_factory=dict)
    study: str | None = None
    prefer: str | None = None
    ignore_unknown: bool = False

    def __post_init__(self) -> None:
        """Refuse an unknown word. Raises: UsageError."""
        if self.prefer is not None and self.prefer not in PREFERENCES:
            raise UsageError(f"prefer {self.prefer}: expected {' or '.join(PREFERENCES)}.")


def with_modalities(choice: SeriesChoice, modalities: Sequence[str]) -> SeriesChoice:
    """Return a choice with the network's own names of the modalities. Raises: UsageError for an unknown one."""
    known = modality_words(modalities) | {name: name for name in (*modalities, NOT_USED)}
    if unknown := [name for name in choice.series.values() if name.lower() not in known]:
        raise UsageError(
            f"series {unknown[0]}: expected one of {', '.join(modalities)}, or {NOT_USED} to leave it out."
        )
    return replace(choice, series={key: known[name.lower()] for key, name in choice.series.items()})


@dataclass(frozen=True)
class Study:
    """One examination.

    Attributes:
        uid: StudyInstanceUID.
        date: `20260301`; empty where the headers do not say.
        patient: Tells patients apart, and says nothing else of them.
        series: Its series, by number.
        folder: Where all of it lies.
        damaged: Files in that place that are DICOM and cannot be read, of whichever study.
    """

    uid: str
    date: str
    patient: str = field(repr=False)
    series: tuple[Series, ...] = field(repr=False)
    folder: Path
    damaged: int = 0

    @property
    def label(self) -> str:
        """How messages name it: date, and the end of its UID."""
        return f"study of {self.date or 'no date'} (UID ...{self.uid[-8:]})"


def case_of_study(
    study: Study, name: str, modalities: Sequence[str] = BRATS_MODALITIES, choice: SeriesChoice | None = None
) -> Case:
    """Return a study as a case, with a problem where it cannot be told which series is which.

    Args:
        study: The study.
        name: Of the case; not the patient's.
        modalities: Those of the network.
        choice: Which series.
    """
    choice = choice or SeriesChoice()
    readings = _contrast_by_the_others(recognise(study.series))
    readings = [_as_chosen(one, study, choice) for one in readings]
    case = _Case(modalities, choice, readings)
    problems = [text for text in (too_long(name), *case.problems(study)) if text]
    warnings = case.warnings
    if study.damaged:
        warnings.append(f"{name}: {study.damaged} DICOM files are damaged and are not read")
    return Case(
        name,
        {modality: one.series.folder for modality, one in case.taken.items()},
        problem="\n".join(problems) or None,
        warnings=tuple(warnings),
        decided={modality: one.reason for modality, one in case.taken.items()},
        folder=study.folder,
        series={modality: one.series for modality, one in case.taken.items()},
        aside=tuple((one.series, case.why_aside(one)) for one in readings if one not in case.taken.values()),
    )


class _Case:
    """The series of a study while it is decided which are taken."""

    def __init__(self, modalities: Sequence[str], choice: SeriesChoice, readings: Sequence[Recognised]) -> None:
        self.readings = readings
        self.modalities = modalities
        self.choice = choice
        self.taken: dict[str, Recognised] = {}
        self.clashes: dict[str, list[Recognised]] = {}
        self.broken: dict[str, list[Recognised]] = {}
        self.warnings: list[str] = []
        self._modality = {id(one): modality_of(one.sequence, modalities) for one in readings if one.kind is Kind.IMAGE}
        for modality in modalities:
            self._take(modality, [one for one in readings if self._modality.get(id(one)) == modality])

    def _take(self, modality: str, candidates: list[Recognised]) -> None:
        """Take one of the series of a modality: the one chosen, or the one that is a volume."""
        chosen = [one for one in candidates if one.reason == _CHOSEN]
        candidates = chosen or candidates
        volumes = [one for one in candidates if one.series.is_volume]
        broken = [one for one in candidates if not one.series.is_volume]
        if not volumes:
            self.broken |= {modality: broken} if broken else {}
            return
        self.warnings += [
            f"{one.series.label}: not taken as {modality}: {one.series.problem}" for one in broken if len(volumes) == 1
        ]
        if len(volumes) > 1 and self.choice.prefer is None:
            self.clashes[modality] = candidates
            return
        best = min(volumes, key=_thinnest)
        self.taken[modality] = best
        if len(volumes) > 1:
            others = ", ".join(one.series.label for one in volumes if one is not best)
            grid = grid_text(best.series)
            self.warnings.append(f"{modality}: {best.series.label} ({grid}) taken as the thinnest, not {others}")
        if best.remark:
            self.warnings.append(f"{best.series.label}: {best.remark}")

    def problems(self, study: Study) -> list[str]:
        """Return why the study cannot be used as it is."""
        told = [
            f"{study.label}: {len(several)} series may be {modality}. Choose one by its number (series), "
            f"or have the thinnest taken (prefer).\n{_table(several)}"
            for modality, several in self.clashes.items()
        ]
        told += [
            f"{one.series.label}: {one.series.problem}. "
            f"To go on without {modality}, leave it aside by its number (series)."
            for modality, several in self.broken.items()
            for one in several
        ]
        self.warnings += [
            f"{one.series.label}: left aside: {one.reason}" for one in self.readings if one.kind is Kind.UNREAD
        ]
        self.warnings += [
            f"{one.series.label}: left aside: {one.reason}. Is it whole? No other series is a {one.sequence}"
            for one in self.readings
            if one.kind is Kind.ASIDE and one.sequence and self._is_open(one.sequence)
        ]
        unclear = [one for one in self.readings if one.kind is Kind.UNCLEAR and self._may_be_missing(one)]
        if unclear and not self.choice.ignore_unknown:
            told.append(
                f"{study.label}: it cannot be told which sequence these series are. Say it by their number (series), "
                f"or leave them aside (ignore_unknown).\n{_table(unclear)}"
            )
        else:
            self.warnings += [f"{one.series.label}: left aside: {one.reason}" for one in unclear]
        if not self.taken and not told:
            told.append(
                f"{study.label}: none of its {len(self.readings)} series is one of the sequences. "
                f"Say which is which by their number (series).\n{_table(self.readings)}"
            )
        return told

    def _is_open(self, sequence: str) -> bool:
        """Whether no series is, or may be, this sequence."""
        modality = modality_of(sequence, self.modalities)
        return modality in self.modalities and modality not in {*self.taken, *self.clashes, *self.broken}

    def _may_be_missing(self, one: Recognised) -> bool:
        """Whether an unclear series may be a modality that is not there otherwise."""
        possible = {"t1": {"t1", "t1c"}, "t2": {"t2"}}.get(one.sequence or "", set(BRATS_MODALITIES))
        said = {name for name in possible if re.search(rf"\b{name}\b", one.reason)} or possible
        return bool(said - self.taken.keys() - self.clashes.keys())

    def why_aside(self, one: Recognised) -> str:
        """Return why a series is not used."""
        modality = self._modality.get(id(one))
        if one.kind is not Kind.IMAGE:
            return f"left aside: {one.reason}"
        if not one.series.is_volume:
            return f"left aside: {one.series.problem}"
        if modality in self.clashes:
            return f"one of several that may be {modality}: {one.reason}"
        return f"left aside: another series is taken as {modality}" if modality in self.taken else one.reason


def _as_chosen(one: Recognised, study: Study, choice: SeriesChoice) -> Recognised:
    modality = next((name for key, name in choice.series.items() if is_meant(one.series, key)), None)
    if modality is None:
        return one
    if modality == NOT_USED:
        return replace(one, kind=Kind.ASIDE, sequence=None, reason="as chosen", remark="")
    same = [
        other for other in study.series if any(is_meant(other, k) for k, m in choice.series.items() if m == modality)
    ]
    if len({other.key for other in same}) > 1:
        rows = "\n".join(f"  {other.label}: {grid_text(other)}" for other in same)
        raise InputError(f"{study.label}: {len(same)} series are chosen as {modality}. Say which.\n{rows}")
    return Recognised(one.series, Kind.IMAGE, modality, _CHOSEN)


def is_meant(series: Series, key: str) -> bool:
    """Whether a number, a key such as `5b`, or a UID or its end names a series."""
    text = str(key).strip()
    if text in (series.key, series.uid) or (series.number is not None and text == str(series.number)):
        return True
    return len(text) >= SHORTEST_UID and series.uid.endswith(text)


def _contrast_by_the_others(readings: Sequence[Recognised]) -> list[Recognised]:
    """Return the readings with the one T1 of doubtful contrast taken for what the others leave: t1c, or t1."""
    doubtful = [one for one in readings if one.kind is Kind.UNCLEAR and one.sequence == "t1"]
    sure = {name: [r for r in readings if r.kind is Kind.IMAGE and r.sequence == name] for name in ("t1", "t1c")}
    if len(doubtful) != 1 or bool(sure["t1"]) == bool(sure["t1c"]):
        return list(readings)
    sequence, other = ("t1c", sure["t1"][0]) if sure["t1"] else ("t1", sure["t1c"][0])
    remark = f"taken as {sequence}, since {other.series.label} is {other.sequence}"
    taken = replace(doubtful[0], kind=Kind.IMAGE, sequence=sequence, remark=remark)
    return [taken if one is doubtful[0] else one for one in readings]


def _thinnest(one: Recognised) -> tuple[float, float, float, int]:
    """Order: thin slices, small pixels, many slices, the last one (a repeated scan has its reason)."""
    grid = one.series.geometry
    assert grid is not None
    thickness = round(grid.spacing_mm[0] / _SAME_THICKNESS) * _SAME_THICKNESS
    return thickness, round(grid.spacing_mm[1], 2), -grid.size[0] * grid.spacing_mm[0], -(one.series.number or 0)


def _table(readings: Iterable[Recognised]) -> str:
    """Return series one a line: number, description, grid, why."""
    return "\n".join(f"  {one.series.label}: {grid_text(one.series)}; {one.reason}" for one in readings)
