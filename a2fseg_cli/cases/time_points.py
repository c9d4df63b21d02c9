"""Whose examination a case is, and which one: from the columns of a table, or from the name that the data give it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from a2fseg_cli.cases.case import Case

_DATE = re.compile(r"(\d{4})[-_]?(\d\d)[-_]?(\d\d)")
# Words for a time, with or without a number, as `folders` knows them for folders.
_TIME = r"(?:week|visit|timepoint|tp|month|day|baseline|follow-?up|fu)(?:[-_ ]?\d[^_]*)?"
_NAMES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?P<subject>.+?)_(?P<session>ses-[0-9A-Za-z+]+)",  # BIDS: sub-01_ses-1
        r"(?P<subject>BraTS-[A-Za-z]+-\d{5})-(?P<session>\d{3})",  # BraTS 2023 on: patient and examination
        rf"(?P<subject>.+?)_(?P<session>{_TIME})",  # PATIENT/week-012
        rf"(?P<subject>.+?)_(?P<session>{_DATE.pattern})",  # PATIENT/2019-01-31
    )
)
_COUNTED = re.compile(r"(?:ses-)?(day|week|month)[-_ ]?(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class TimePoint:
    """Whose examination, and which.

    Attributes:
        subject: The person.
        session: The examination; empty where nothing tells several apart.
        day: When it was, if that is known.
    """

    subject: str
    session: str = ""
    day: date | None = None

    @property
    def order(self) -> tuple[object, ...]:
        """What examinations of one person are sorted by: their dates, then their names, in which numbers count."""
        parts = re.split(r"(\d+)", self.session)  # text and numbers take turns
        return (self.day or date.max, *(int(part) if index % 2 else part for index, part in enumerate(parts)))


def time_point(case: Case) -> TimePoint:
    """Return whose examination a case is.

    What a table says counts; else the name: `sub-01_ses-1`, `Patient-001_week-012`, `P1_2019-01-31` and
    `BraTS-GLI-00002-000` have a person and an examination, any other name is a person's with one examination.
    """
    if case.subject:
        return TimePoint(case.subject, case.session, parsed_date(case.date) or parsed_date(case.session))
    for pattern in _NAMES:
        if match := pattern.fullmatch(case.name):
            return TimePoint(match["subject"], match["session"], parsed_date(match["session"].removeprefix("ses-")))
    return TimePoint(case.name)


def parsed_date(text: str) -> date | None:
    """Return the date of `2019-01-31` or `20190131`; None for anything else."""
    match = _DATE.fullmatch(text)
    try:
        return date(*(int(part) for part in match.groups())) if match else None
    except ValueError:
        return None


def several_time_points(cases: Iterable[Case]) -> dict[str, list[tuple[TimePoint, Case]]]:
    """Return the examinations of each person who has two or more, in the order of time; cases with a problem are none.

    Returns:
        Subject to its examinations.
    """
    subjects: dict[str, list[tuple[TimePoint, Case]]] = {}
    for case in cases:
        if not case.problem:
            point = time_point(case)
            subjects.setdefault(point.subject, []).append((point, case))
    return {
        subject: sorted(points, key=lambda pair: pair[0].order)
        for subject, points in sorted(subjects.items())
        if len(points) > 1
    }


def places_in_time(points: Sequence[TimePoint]) -> tuple[list[float], str]:
    """Return where examinations of one person lie on an axis of time, and the unit of the numbers in their names.

    Days after the first one where all have dates; the numbers in names such as `week-012` where all count the same;
    else one after the other. The first and the last have no unit to tell.
    """
    days = [point.day.toordinal() for point in points if point.day]
    if len(days) == len(points):
        return [float(day - days[0]) for day in days], ""
    counted = [_COUNTED.fullmatch(point.session) for point in points]
    units = {match[1].lower() for match in counted if match}
    if all(counted) and len(units) == 1:
        return [float(match[2]) for match in counted if match], units.pop()
    return [float(index) for index in range(len(points))], ""
