"""What `predict` prints: a line a patient as it is done, then a patient's volumes, or what became of a cohort."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from a2fseg_cli.cli.console import MOST_LISTED, Bar, print_json, print_table, say
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.weights.card import guess_sentence

if TYPE_CHECKING:
    from a2fseg_cli.inference.cohort import Outcome
    from a2fseg_cli.inference.exports import PatientResult
    from a2fseg_cli.inference.predict import Run
    from a2fseg_cli.inference.predictor import Segmenter
    from a2fseg_cli.inference.status import Status

GUESS = "guess"


def device_line(network: Segmenter) -> str:
    """Return where and with which weights the network runs, and why there."""
    compute = network.compute
    return f"{compute.name} ({compute.reason}), {compute.precision}; {network.weights.path.stem}"


class PatientLines:
    """Says what became of each patient: with a bar on a terminal, and when quiet only what went wrong or is doubtful.

    Args:
        bar: Counts the patients.
        quiet: Only failures and warnings.
        verbose: Also windows and timings.
    """

    def __init__(self, bar: Bar, quiet: bool, verbose: bool) -> None:
        self._bar, self._quiet, self._verbose = bar, quiet, verbose
        self._said: set[str] = set()  # what absent modalities cost is said once for each set of them
        self._single = False

    def started(self, count: int, share: str, single: bool) -> None:
        """Say how many patients there are, and of which share of the cohort."""
        self._single = single
        if share:
            say(share)
        if not single:
            self._bar.start(count)

    def __call__(self, outcome: Outcome) -> None:
        """Say what became of a patient."""
        status, result = outcome.status, outcome.result
        if self._single:
            if result is not None:
                self._tell_one(result)
            return
        told = [*result.warnings] if result else []
        notes = (
            (guess_sentence(result.guesses, result.modalities), "" if self._quiet else result.note) if result else ()
        )
        for text in notes:
            if text and text not in self._said:
                self._said.add(text)
                told.append(text)
        line = f"{status.case} {status.modalities} {status.status}"
        line += (f": {status.reason}" if status.reason and not result else "") + f" ({status.seconds:.1f} s)"
        more = [*told, *([_timings(result)] if self._verbose and result else [])]
        line += "".join(f"\n    {text}" for text in more)
        self._bar.advance(line)
        if self._quiet and (outcome.error or told):
            say(line)

    def _tell_one(self, result: PatientResult) -> None:
        for warning in result.warnings:
            say(f"Warning: {warning}")
        if result.note:
            say(f"Note: {result.note}", self._quiet)
        if self._verbose:
            plan = result.plan
            say(f"{len(plan.starts)} window(s) of {plan.window} over {plan.shape} voxels")
            say(_timings(result))


def _timings(result: PatientResult) -> str:
    return ", ".join(f"{step} {value:.2f} s" for step, value in result.seconds.items())


def show_run(run: Run, json_: bool) -> None:
    """Print what came of a run: one patient's volumes, or a line a patient."""
    if run.places.single and run.outcomes[0].result is not None:
        _show_result(run.outcomes[0].result, json_)
    else:
        _show_cohort(run, json_)
    for note in run.notes:
        say(f"Warning: {note}")
    if run.places.viewer is not None:
        say(_viewers_line(run.places.viewer))
    if run.longitudinal and not json_:
        persons = sum(path.suffix == ".html" for path in run.longitudinal)
        print(f"Over time, {persons} person{'s' * (persons != 1)}: {run.longitudinal[0]}")


def _viewers_line(place: Path) -> str:
    """Return how large the pages with images inside are, and what that means."""
    pages = [place] if place.is_file() else list(place.glob("*.html"))
    size = f"{sum(page.stat().st_size for page in pages) / 1e6:.1f} MB"
    if place.is_file():
        return f"{place}: {size}. It holds the MR images of the patient. Handle it like the images themselves."
    return f"{place}: {len(pages)} pages, {size}. They hold the patients' MR images. Handle them like these."


def _show_result(result: PatientResult, json_: bool) -> None:
    """Print a patient's volumes, and how far fewer modalities agree, if that was asked for."""
    from a2fseg_cli.inference.agreement import agreement_rows

    if json_:
        print_json(result.stats)
        return
    guesses = [GUESS] if result.guesses else []
    print_table(
        ("label", "name", "voxels", "mL", *([""] * len(guesses))),
        [
            (
                "" if row.label is None else row.label,
                row.name,
                row.voxels,
                f"{row.volume_ml:.2f}",
                *(GUESS if row.guess else "" for _ in guesses),
            )
            for row in result.rows
        ],
        title=f"{result.segmentation} ({result.modalities})",
    )
    if sentence := guess_sentence(result.guesses, result.modalities):
        print(sentence)
    if result.agreement:
        regions = list(result.volumes_ml)
        print_table(
            ("from only", *(f"{region} Dice %" for region in regions)),
            agreement_rows(result.agreement, regions),
            title="Agreement of fewer modalities with this, before anything is removed or filled (no truth involved)",
        )


def _show_cohort(run: Run, json_: bool) -> None:
    """Print one line a patient, of many only those that failed, and how many were done, skipped and failed."""
    statuses: Sequence[Status] = [outcome.status for outcome in run.outcomes]
    folder = run.places.output
    counts = {kind: sum(status.status == kind for status in statuses) for kind in ("ok", "skipped", "failed")}
    if json_:
        print_json({"folder": str(folder), "share": run.share, **counts, "patients": [vars(s) for s in statuses]})
        return
    regions = [region for region, _ in ModelConfig().regions]
    names = next((list(status.volumes_ml) for status in statuses if status.volumes_ml), regions)
    title = ", ".join(f"{count} {kind}" for kind, count in counts.items()) + f" in {folder}"
    listed = statuses if len(statuses) <= MOST_LISTED else [s for s in statuses if s.status == "failed"][:MOST_LISTED]
    print_table(
        ("case", "modalities", "status", *(f"{name} mL" for name in names), "s"),
        [
            (
                s.case,
                s.modalities,
                s.status,
                *(_volume(s, name) for name in names),
                s.seconds,
            )
            for s in sorted(listed, key=lambda status: status.case)
        ],
        title=f"{title}: {run.share}" if run.share else title,
    )
    if len(listed) < len(statuses):
        print(f"{len(statuses) - len(listed)} more: see {run.places.table}.")
    if any(status.guesses for status in statuses):
        print("?: a guess; the sequences at hand cannot show this region (column `guesses` of status.csv).")


def _volume(status: Status, region: str) -> str:
    if not status.volumes_ml:
        return ""
    return f"{status.volumes_ml[region]:.1f}{' ?' if region in status.guesses.split('+') else ''}"
