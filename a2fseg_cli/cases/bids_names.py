"""The name that a patient has in a BIDS derivative, whatever it is called in the data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"(?:sub-)?(?P<subject>.*?)(?:_ses-(?P<session>[0-9A-Za-z+]+))?")
_NOT_OF_A_LABEL = re.compile(r"[^0-9A-Za-z+]+")


@dataclass(frozen=True)
class BidsName:
    """A subject, and a session where there is one.

    Attributes:
        subject: Its label, without `sub-`.
        session: Its label, without `ses-`; empty without sessions.
    """

    subject: str
    session: str = ""

    def __str__(self) -> str:
        """Return what the names of its files begin with: `sub-01_ses-1`."""
        return "_".join(self._parts)

    @property
    def folder(self) -> Path:
        """Where its anatomical images lie in a data set: `sub-01/ses-1/anat`."""
        return Path(*self._parts, "anat")

    @property
    def _parts(self) -> list[str]:
        return [f"sub-{self.subject}", *([f"ses-{self.session}"] if self.session else [])]


def bids_name(case: str) -> BidsName | None:
    """Return the subject and session of a case; None where its name has no letter or digit of ASCII.

    `sub-01_ses-1` stays what it is. Of any other name the letters and digits are the subject's label, since a label
    may hold nothing else but a plus sign: `Brats18_2013_2_1` is `sub-Brats18201321`.
    (BIDS 1.11.2, Common principles, Filenames; a label is `[0-9a-zA-Z+]+` in its schema.)
    """
    match = _NAME.fullmatch(case)
    subject = _NOT_OF_A_LABEL.sub("", match["subject"] if match else case)
    return BidsName(subject, (match["session"] if match else None) or "") if subject else None
