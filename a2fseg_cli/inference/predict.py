"""`predict` as one call: patients in, segmentations out, one or many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.images import ReadingOptions
from a2fseg_cli.errors import UsageError
from a2fseg_cli.inference.cohort import Cohort, Outcome
from a2fseg_cli.inference.cohort_of_workers import CohortOfWorkers
from a2fseg_cli.inference.elsewhere import Elsewhere
from a2fseg_cli.inference.layouts import PLAIN, layout_named
from a2fseg_cli.inference.longitudinal import check_time_points, write_longitudinal
from a2fseg_cli.inference.options import OutputOptions
from a2fseg_cli.inference.places import Places, is_image_name
from a2fseg_cli.inference.predictor import Segmenter
from a2fseg_cli.inference.status import FAILED

EXISTING = ("refuse", "skip", "overwrite")


@dataclass(frozen=True)
class Run:
    """What came of a run.

    Attributes:
        outcomes: One a patient, in the order in which they were done.
        places: Where the files are.
        share: Which patients these were, in words, where a batch system or an option shared them out.
        longitudinal: The files on persons with several examinations, the table first.
        notes: What a user should know of the run as a whole.
    """

    outcomes: tuple[Outcome, ...]
    places: Places
    share: str = ""
    longitudinal: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> list[Outcome]:
        """Those that could not be segmented."""
        return [outcome for outcome in self.outcomes if outcome.status.status == FAILED]

    @property
    def empty(self) -> list[str]:
        """Names of the patients in whom no tumour was found."""
        done = [outcome.status for outcome in self.outcomes if outcome.status.status != FAILED]
        return [status.case for status in done if not any((status.volumes_ml or {}).values())]


def run_cases(
    cases: Sequence[Case],
    segmenter: Segmenter,
    output: Path,
    *,
    reading: ReadingOptions | None = None,
    options: OutputOptions | None = None,
    preview: Path | None = None,
    report: Path | None = None,
    viewer: Path | None = None,
    stats: Path | None = None,
    existing: str = "refuse",
    with_stats: bool = False,
    share: tuple[int, int, str] = (1, 0, ""),
    single: bool | None = None,
    inputs: Sequence[Path] = (),
    layout: str = "plain",
    label_file: bool = False,
    keep_prepared: Path | None = None,
    longitudinal: Path | None = None,
    progress: Callable[[Outcome], None] | None = None,
) -> Run:
    """Segment patients into files.

    One patient whose `output` is the name of an image gets that file; every other run has a folder, with a status
    table beside the segmentations.

    Args:
        cases: The patients, or this process's share of them.
        segmenter: The loaded network.
        output: A file for one patient, or a folder.
        reading: What is made of images that do not fit together.
        options: What to write beside the segmentations.
        preview: A PNG for one patient, or a folder.
        report: An HTML page for one patient, or a folder.
        viewer: An HTML page with the images inside for one patient, or a folder.
        stats: A file that ends in .json or .csv.
        existing: refuse, skip or overwrite: see `Cohort`.
        with_stats: The results have their `stats`, even if no file of them is written.
        share: Number of parts, which of them this is, and that in words.
        single: Whether `output` names one file; None asks its extension.
        inputs: Files that were read to find the patients.
        layout: plain, or bids: the folder is a BIDS derivative.
        label_file: Also write names and colours of the labels for ITK-SNAP.
        keep_prepared: Folder for what raw images became, a folder for each patient in it.
        longitudinal: A folder for the table, plots and pages of persons with two or more examinations.
        progress: Told what became of each patient.

    Raises:
        UsageError: options that contradict each other, or results that are in the way.
        A2FSegError: why the one patient could not be segmented, where its file was named.
    """
    parts, part, words = share
    naming = layout_named(layout)
    if naming is not PLAIN and (single or is_image_name(output)):
        raise UsageError(f"output {output}: layout {layout} writes a data set; give a folder.")
    single = (len(cases) == 1 and is_image_name(output)) if single is None else single
    if not single and is_image_name(output):
        raise UsageError(f"output {output}: {len(cases)} patients; give a folder.")
    if single and (parts > 1 or len(cases) != 1):
        raise UsageError(f"output {output}: {len(cases)} patients{' of a share' * (parts > 1)}; give a folder.")
    if reading and reading.brain_mask and len(cases) > 1:
        raise UsageError(f"One mask of the brain (brain_mask) is for one patient; there are {len(cases)}.")
    if existing not in EXISTING:
        raise UsageError(f"existing {existing}: expected {', '.join(EXISTING)}.")
    if single and existing == "skip":
        raise UsageError("Skipping what exists is for a cohort, whose status table says what is finished.")
    options = options or OutputOptions()
    if options.agreement and not single and report is None and (stats is None or stats.suffix != ".json"):
        raise UsageError("agreement of a cohort goes to report (a folder) or stats (a .json file): give one.")
    if longitudinal is not None:
        if single or parts > 1:
            raise UsageError("longitudinal needs all examinations in one run, and a folder as output.")
        check_time_points(longitudinal, cases)
    ending = f"-{part}-of-{parts}" if parts > 1 else ""
    places = Places(output, single, preview, report, stats, ending, naming, label_file, viewer)
    how = (segmenter, reading or ReadingOptions(), options, places, existing, with_stats, inputs, keep_prepared)
    cohort = CohortOfWorkers(*how) if isinstance(segmenter.compute, Elsewhere) else Cohort(*how)
    outcomes = cohort.run(cases, progress or (lambda _: None))
    if single and outcomes[0].error is not None:
        raise outcomes[0].error
    files: Sequence[Path] = ()
    notes: Sequence[str] = ()
    if longitudinal is not None:
        statuses = {outcome.status.case: outcome.status for outcome in outcomes}
        masks = {case.name: places.segmentation(case) for case in cases}
        files, notes = write_longitudinal(longitudinal, cases, statuses, masks, segmenter.config, options)
    return Run(tuple(outcomes), places, words, tuple(files), tuple(notes))
