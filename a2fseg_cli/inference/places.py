"""Where the files of a run go: one patient's, named by the user, or a cohort's, in a folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from a2fseg_cli.cases.case import Case
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.errors import UsageError
from a2fseg_cli.files import check_place
from a2fseg_cli.imaging.formats.suffixes import DICOM, WRITABLE
from a2fseg_cli.imaging.writing import check_output_name
from a2fseg_cli.inference.layouts import PLAIN, Layout, stem_of
from a2fseg_cli.inference.options import OutputOptions
from a2fseg_cli.reporting.label_tables import itk_snap_labels
from a2fseg_cli.weights.file_format import WeightsFile

THUMBNAILS = "thumbnails"  # folder of the small pictures, beside a cohort's pages


@dataclass(frozen=True)
class PatientFiles:
    """Where one patient's files go.

    Attributes:
        segmentation: The label map; the maps' names follow from it.
        preview: The picture, a PNG.
        report: The page, HTML.
        viewer: The page with the images inside, HTML.
        thumbnail: The small picture for a cohort's index, a PNG.
        layout: How what lies beside the segmentation is named.
    """

    segmentation: Path
    preview: Path | None = None
    report: Path | None = None
    thumbnail: Path | None = None
    layout: Layout = PLAIN
    viewer: Path | None = None

    @property
    def pictures(self) -> list[Path]:
        """Those of preview, thumbnail, viewer and page that are written, the page last."""
        return [path for path in (self.preview, self.thumbnail, self.viewer, self.report) if path]

    @property
    def is_dicom(self) -> bool:
        """Whether the segmentation is a DICOM object."""
        return self.segmentation.name.lower().endswith(DICOM)

    @property
    def sidecar(self) -> Path | None:
        """The JSON that says what the segmentation is, where the layout has one."""
        return self.layout.sidecar(self.segmentation)

    def images(self, config: ModelConfig, names: Mapping[str, Path], options: OutputOptions) -> list[Path]:
        """Return every image file that a run will write of a case, the segmentation first.

        Args:
            config: The network's regions and modalities.
            names: The case's images by modality.
            options: What is written.

        Raises:
            UsageError: no image extension.
        """
        check_output_name(self.segmentation, DICOM)
        kinds = [
            (kind, region)
            for kind, on in (("region", options.regions), ("prob", options.probabilities))
            if on
            for region, _ in config.regions
        ]
        kinds += [("uncertainty", "")] if options.uncertainty else []
        kinds += [("attention", m) for m in config.modalities if options.attention and m in names]
        return [self.segmentation, *(self.layout.map(self.segmentation, kind, of) for kind, of in kinds)]


@dataclass(frozen=True)
class Places:
    """Where a run writes.

    Attributes:
        output: The segmentation of one patient, or a cohort's folder.
        single: Whether it is one patient's file. A cohort of one in a folder is not.
        preview: A PNG of one patient, or a folder with one a patient.
        report: An HTML page of one patient, or a folder with one a patient.
        stats: One file, of one patient or of all.
        share: Ending of the tables of a part of the cohort, e.g. `-0-of-4`.
        layout: How the files of a cohort are named.
        label_file: Whether names and colours of the labels are written for ITK-SNAP.
        viewer: An HTML page of one patient with the images inside, or a folder with one a patient.
    """

    output: Path
    single: bool
    preview: Path | None = None
    report: Path | None = None
    stats: Path | None = None
    share: str = ""
    layout: Layout = PLAIN
    label_file: bool = False
    viewer: Path | None = None

    def __post_init__(self) -> None:
        """Refuse a file where a folder is needed, and the reverse. Raises: UsageError."""
        if self.stats is not None and self.stats.suffix not in (".json", ".csv"):
            raise UsageError(f"stats {self.stats}: expected a name ending in .json or .csv.")
        pages = (("preview", self.preview, ".png"), ("report", self.report, ".html"), ("viewer", self.viewer, ".html"))
        for name, path, suffix in pages:
            if path is not None and self.single != (path.suffix.lower() == suffix):
                expected = f"a name ending in {suffix}" if self.single else f"a folder, for {self.output} is one"
                raise UsageError(f"{name} {path}: expected {expected}.")

    def segmentation(self, case: Case) -> Path:
        """Return where a case's segmentation goes."""
        return self.output if self.single else self.layout.segmentation(self.output, case)

    def preview_of(self, case: Case) -> Path | None:
        """Return where a case's picture goes."""
        return self.preview / f"{case.name}.png" if self.preview and not self.single else self.preview

    def report_of(self, case: Case) -> Path | None:
        """Return where a case's page goes."""
        return self.report / f"{case.name}.html" if self.report and not self.single else self.report

    def viewer_of(self, case: Case) -> Path | None:
        """Return where a case's page with the images inside goes."""
        return self.viewer / f"{case.name}.html" if self.viewer and not self.single else self.viewer

    def thumbnail_of(self, case: Case) -> Path | None:
        """Return where the small picture of a case goes that the cohort's index shows."""
        return self.report / THUMBNAILS / f"{case.name}.png" if self.report and not self.single else None

    def files_of(self, case: Case) -> PatientFiles:
        """Return where all files of a case go."""
        pictures = self.preview_of(case), self.report_of(case), self.thumbnail_of(case)
        return PatientFiles(self.segmentation(case), *pictures, self.layout, self.viewer_of(case))

    @property
    def index(self) -> Path | None:
        """The page that lists a cohort's pages."""
        return self.report / "index.html" if self.report and not self.single else None

    @property
    def table(self) -> Path | None:
        """The status table of a cohort, or of this part of it."""
        return None if self.single else self.output / f"status{self.share}.csv"

    @property
    def stats_file(self) -> Path | None:
        """The statistics, or those of this part of the cohort."""
        return self.stats.with_name(f"{self.stats.stem}{self.share}{self.stats.suffix}") if self.stats else None

    def of_case(self, case: Case, config: ModelConfig, options: OutputOptions) -> list[Path]:
        """Return every file of a case that a run will write but tables, the segmentation first."""
        files = self.files_of(case)
        beside = [files.sidecar] if files.sidecar else []
        return files.images(config, case.images, options) + beside + files.pictures

    def of_run(self, config: ModelConfig, options: OutputOptions, weights: WeightsFile) -> dict[Path, str]:
        """Return the files that hold for all patients, and their texts: of the labels, and of the whole folder."""
        files = {} if self.single else self.layout.folder_files(self.output, config, options, weights)
        if self.label_file:
            place = self.output / "labels.txt"
            if self.single:
                place = self.output.with_name(f"{stem_of(self.output)}_labels.txt")
            files[place] = itk_snap_labels(config.classes, options.label_values(config), options.colours)
        return files

    def check(
        self,
        cases: Sequence[Case],
        config: ModelConfig,
        options: OutputOptions,
        of_run: Iterable[Path],
        inputs: Iterable[Path] = (),
    ) -> None:
        """Refuse what is known beforehand not to work: a closed folder, two outputs of one name, an input's name.

        Args:
            cases: The patients.
            config: The network's regions and modalities.
            options: What is written.
            of_run: The files that hold for all patients.
            inputs: Files that are read beside the images and truths of the cases.
        inputs: Files that are read beside the images and truths of the cases.

        Raises:
            UsageError: two outputs have one name, or one that of an image or a truth; that is never allowed.
            ResourceError: a place cannot be written.
        """
        if not self.single:
            self.layout.check(self.output, cases)
        tables = [*(path for path in (self.table, self.stats_file, self.index) if path), *of_run]
        files = [path for case in cases for path in self.of_case(case, config, options)]
        for path in [*tables, *(files[:1] if not self.single else files)]:
            check_place(path)
        for folder in (self.preview, self.report, self.viewer) if not self.single else ():
            if folder:
                check_place(folder / "x")
        _check_names([*files, *tables], cases, inputs)


def is_image_name(path: Path) -> bool:
    """Return whether a path is the name of one image rather than of a folder."""
    return path.name.lower().endswith((*WRITABLE, DICOM)) and not os.path.isdir(path)


def _check_names(planned: Iterable[Path], cases: Iterable[Case], others: Iterable[Path]) -> None:
    names = [os.path.realpath(path) for path in planned]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"{twice[0]} is the name of two outputs. Give each its own.")
    of_cases = (path for case in cases for path in (*case.files, case.truth) if path)
    inputs = {os.path.realpath(path) for path in (*of_cases, *others)}
    if clash := [name for name in names if name in inputs]:
        raise UsageError(f"{clash[0]} is one of the inputs, which are never written over. Give another name.")
