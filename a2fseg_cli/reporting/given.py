"""A mask that exists, such as one corrected by hand: looked at in the viewer, measured, with a page. No network."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from a2fseg_cli import __version__
from a2fseg_cli.cases.case import Case
from a2fseg_cli.cases.marked import MarkedCase, load_marked, read_uncertainty
from a2fseg_cli.cases.selection import Selection
from a2fseg_cli.cases.time_points import time_point
from a2fseg_cli.core.config import ModelConfig, subset_name
from a2fseg_cli.errors import UsageError
from a2fseg_cli.files import atomic_write_text, check_place, csv_text, json_text
from a2fseg_cli.imaging.geometry import Geometry, axes_to_canonical, cropped, reoriented
from a2fseg_cli.imaging.labels import region_mask
from a2fseg_cli.imaging.preprocessing import Reorient, bounding_box, canonical_spacing_mm
from a2fseg_cli.modalities import picture_order
from a2fseg_cli.reporting.figures import as_jpeg
from a2fseg_cli.reporting.page import page_pictures, patient_page
from a2fseg_cli.reporting.preview import write_preview
from a2fseg_cli.reporting.scene import Scene
from a2fseg_cli.reporting.slices import Backdrop, grey_limits, with_margin
from a2fseg_cli.reporting.viewer import ViewerCase, size_sentence, viewer_page, without_folders
from a2fseg_cli.reporting.volumes import largest_axial_diameters_mm, tissue_table

# What is darker than this share of the brightest tissue is taken for air.
_AIR_BELOW = 0.1


def write_view(
    source: Path,
    seg: Path | None,
    output: Path,
    *,
    uncertainty: Path | None = None,
    labels: str = "auto",
    selection: Selection | None = None,
    overwrite: bool = False,
) -> tuple[tuple[str, ...], str]:
    """Write the viewer's page of a patient.

    Args:
        source: The patient's folder, or a CSV with one patient.
        seg: A mask; None shows the images alone.
        output: The page, `.html`.
        uncertainty: A map, 0 (sure) to 1.
        labels: In which values the mask is written: auto, a scheme, or an order such as `NCR=2,ED=1,ET=3`.
        selection: Which of several files of a sequence, and the patient's name.
        overwrite: Whether a page that exists is replaced.

    Returns:
        What a user should know of the images, and a sentence on what was written.

    Raises:
        InputError: the patient, the mask or the map is not acceptable.
        UsageError: the output exists, is no `.html`, or is an input.
    """
    config = ModelConfig()
    _check_outputs([output], [source, seg, uncertainty], overwrite)
    marked = load_marked(source, seg, config, labels, selection)
    unsure = read_uncertainty(uncertainty, marked) if uncertainty else None
    scene, geometry = _scene(marked, config, unsure)
    files = [image.path for image in marked.images.images.values()]
    remarks = without_folders(marked.warnings, [*files, *([seg] if seg else [])])
    page = viewer_page(
        ViewerCase(marked.images.name, scene, geometry, marked.mask is not None, remarks),
        as_jpeg(_picture(scene, marked.images.name)),
    )
    atomic_write_text(output, page)
    return marked.warnings, size_sentence(page, output)


def write_report(
    source: Path,
    seg: Path,
    output: Path,
    *,
    stats: Path | None = None,
    labels: str = "auto",
    selection: Selection | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the page of a mask that exists, and its numbers; return them as plain values.

    No region is called a guess: that is said of networks, and none made this mask.

    Args:
        source: As of `write_view`.
        seg: The mask, on the grid of one of the images.
        output: The page, `.html`.
        stats: A file for the numbers that ends in .json or .csv.
        labels: As of `write_view`.
        selection: As of `write_view`.
        overwrite: Whether files that exist are replaced.

    Raises:
        InputError: the patient or the mask is not acceptable.
        UsageError: an output exists, has another ending, or is an input.
    """
    config = ModelConfig()
    if stats is not None and stats.suffix not in (".json", ".csv"):
        raise UsageError(f"stats {stats}: expected a name ending in .json or .csv.")
    _check_outputs([output, *([stats] if stats else [])], [source, seg], overwrite)
    marked = load_marked(source, seg, config, labels, selection)
    facts = given_stats(marked, config)
    scene, _ = _scene(marked, config)
    pictures = page_pictures(scene, _picture(scene, f"{facts['case']}, {seg.name}"))
    told = without_folders(facts["warnings"], [seg, *(image.path for image in marked.images.images.values())])
    atomic_write_text(output, patient_page(facts | {"warnings": told}, pictures))
    if stats is not None:
        atomic_write_text(stats, json_text(facts) if stats.suffix == ".json" else csv_text([_row(facts)]))
    return facts


def given_stats(marked: MarkedCase, config: ModelConfig) -> dict[str, Any]:
    """Return what is known of a mask that was given as plain values, under the names that `predict` gives them.

    Args:
        marked: A patient with a mask.
        config: Classes and regions.
    """
    assert marked.mask is not None
    images, mask = marked.images, marked.mask
    geometry = images.geometry
    rows = tissue_table(mask.classes, config.classes, mask.values, dict(config.regions), geometry.spacing_mm)
    reorient = Reorient(*axes_to_canonical(geometry))
    spacing_mm = canonical_spacing_mm(geometry, reorient)
    masks = {r: reorient.apply(region_mask(mask.classes, config.region_classes(r))) for r, _ in config.regions}
    unseen = () if "t1c" in images.images else ("Without T1c nothing in these images shows what enhances.",)
    point = time_point(Case(images.name, {}))
    return {
        "case": images.name,
        "subject": point.subject,
        "session": point.session,
        "modalities": subset_name(images.images, config.modalities),
        "inputs": {m: str(image.path) for m, image in images.images.items()},
        "mask": str(mask.path),
        "mask_sha256": hashlib.sha256(mask.path.read_bytes()).hexdigest(),
        "labels": [vars(row) for row in rows],
        "volumes_ml": {row.name: row.volume_ml for row in rows if row.label is None},
        "guesses": {},
        "largest_axial_diameters_mm": {r: largest_axial_diameters_mm(m, spacing_mm) for r, m in masks.items()},
        "regions": {region: list(members) for region, members in config.regions},
        "warnings": [*unseen, *marked.warnings],
        "note": "",
        "mean_attention": {},
        "agreement_with_fewer": {},
        "date": date.today().isoformat(),
        "versions": {"a2fseg": __version__},
    }


def _scene(
    marked: MarkedCase, config: ModelConfig, uncertainty: npt.NDArray[np.float32] | None = None
) -> tuple[Scene, Geometry]:
    """Return what pictures are drawn from, the box around head and mask, and the grid of that box."""
    images = marked.images
    reorient = Reorient(*axes_to_canonical(images.geometry))
    spacing_mm = canonical_spacing_mm(images.geometry, reorient)
    arrays = {name: reorient.apply(images.images[name].array) for name in picture_order(images.images)}
    heads = [array > _AIR_BELOW * np.percentile(array, 99.5) for array in arrays.values()]
    tissue = {name: reorient.apply(mask) for name, mask in images.masks.items()}
    first = next(iter(arrays.values()))
    classes = reorient.apply(marked.mask.classes) if marked.mask else np.zeros(first.shape, np.uint8)
    visible = np.logical_or.reduce([*heads, classes > 0])
    frame = with_margin(*bounding_box(visible), visible.shape, spacing_mm)
    z, y, x = (part.start for part in frame)
    scene = Scene(
        backdrops={
            name: Backdrop(np.ascontiguousarray(array[frame]), grey_limits(array[tissue[name]]))
            for name, array in arrays.items()
        },
        classes=np.ascontiguousarray(classes[frame]),
        spacing_mm=spacing_mm,
        class_names=config.classes,
        members={region: config.region_classes(region) for region, _ in config.regions},
        start=(z, y, x),
        whole=first.shape,
        uncertainty=None if uncertainty is None else np.ascontiguousarray(reorient.apply(uncertainty)[frame]),
    )
    return scene, cropped(reoriented(images.geometry, reorient.permutation, reorient.flips), frame)


def _picture(scene: Scene, title: str) -> bytes:
    """Return the preview, a PNG."""
    file = io.BytesIO()
    write_preview(file, scene, title)
    return file.getvalue()


def _row(facts: Mapping[str, Any]) -> dict[str, object]:
    """Return the numbers as one flat row; volumes in mL, diameters in mm."""
    row: dict[str, object] = {name: facts[name] for name in ("case", "subject", "session", "modalities")}
    row |= {f"{part['name']}_ml": round(part["volume_ml"], 3) for part in facts["labels"]}
    for region, (longest, across) in facts["largest_axial_diameters_mm"].items():
        row |= {f"{region}_diameter_mm": round(longest, 2), f"{region}_diameter_across_mm": round(across, 2)}
    return row | {"mask": facts["mask"], "warnings": "; ".join(facts["warnings"])}


def _check_outputs(outputs: Sequence[Path], inputs: Sequence[Path | None], overwrite: bool) -> None:
    """Refuse a page of another ending, a file that exists, and an input's name. Raises: UsageError, ResourceError."""
    if outputs[0].suffix.lower() != ".html":
        raise UsageError(f"output {outputs[0]}: expected a name ending in .html.")
    known = [path for path in inputs if path is not None]
    for output in outputs:
        check_place(output)
        if output.exists() and any(path.exists() and output.samefile(path) for path in known):
            raise UsageError(f"{output} is one of the inputs, which are never written over. Give another name.")
        if output.exists() and not overwrite:
            raise UsageError(f"{output} exists. Overwrite it (overwrite), or give another name.")
    if len(set(outputs)) < len(outputs):
        raise UsageError(f"{outputs[0]} is the name of two outputs. Give each its own.")
