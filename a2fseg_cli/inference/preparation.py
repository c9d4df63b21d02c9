"""One patient's raw images prepared into a folder: by this process, or by a worker of a scheduler."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.images import ReadingOptions
from a2fseg_cli.errors import A2FSegError, naming_out_of_memory
from a2fseg_cli.inference.status import FAILED, OK, Status
from a2fseg_cli.modalities import BRATS_MODALITIES
from a2fseg_cli.raw.outputs import remove_prepared, write_prepared
from a2fseg_cli.raw.prepare import prepare_raw


@dataclass(frozen=True)
class Preparation:
    """What became of a patient.

    Attributes:
        status: A row of the table.
        files: What was written.
        warnings: What a user should know of it.
        error: Why it could not be prepared.
    """

    status: Status
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    error: A2FSegError | None = field(default=None, repr=False)


def prepared_into(folder: Path, case: Case, options: ReadingOptions, threads: int, settings: str) -> Preparation:
    """Return what became of one patient, its files written.

    Args:
        folder: The patient's own.
        case: Its files.
        options: `reference`, `brain_mask` and `drop_unregistered` are followed.
        threads: How many images are worked on at a time.
        settings: Fingerprint of all that the result depends on.
    """
    started = time.perf_counter()

    def status(kind: str, names: Sequence[str], reason: str = "", warnings: Sequence[str] = ()) -> Status:
        seconds = round(time.perf_counter() - started, 2)
        told = "; ".join(text.removeprefix(f"{case.name}: ") for text in warnings)
        return Status(case.name, "+".join(names), kind, reason, seconds, warnings=told, settings=settings)

    try:
        with naming_out_of_memory(f"{case.name} could not be read and prepared"):
            patient = prepare_raw(case, BRATS_MODALITIES, options, threads)
        files = write_prepared(patient, folder)
    except A2FSegError as error:
        with suppress(A2FSegError):  # what was made of other images would be taken for this patient's
            remove_prepared(folder, case.name)
        return Preparation(status(FAILED, list(case.images), " ".join(str(error).split())), error=error)
    images = patient.images
    return Preparation(
        status(OK, list(images.images), "; ".join(case.warnings), images.warnings), tuple(files), images.warnings
    )
