"""`a2fseg demo`: a phantom patient, segmented from two modalities with the bundled weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from a2fseg_cli.cli.console import print_json, print_table, say
from a2fseg_cli.cli.options import PATH, Device, Json
from a2fseg_cli.cli.runtime import load_segmenter, prepare_process
from a2fseg_cli.errors import UsageError


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where it goes.", **PATH)] = Path(
        "a2fseg-demo"
    ),
    modalities: Annotated[str, typer.Option(help="Which of the phantom's sequences are used")] = "t1c+flair",
    seed: Annotated[int, typer.Option(help="Another seed makes another patient")] = 0,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Make a synthetic patient (no scan ships with the tool), segment it and score the result."""
    if seed < 0:
        raise UsageError(f"--seed {seed}: expected 0 or more.")
    prepare_process()
    from a2fseg_cli.core.device import choose_compute
    from a2fseg_cli.evaluation.metrics import TruthMask, score
    from a2fseg_cli.imaging.labels import SCHEMES, region_mask, to_classes
    from a2fseg_cli.imaging.reading import read_label_map
    from a2fseg_cli.inference.exports import finish_patient
    from a2fseg_cli.inference.patient import OutputOptions, load_patient, segment_patient
    from a2fseg_cli.phantom import write_phantom

    segmenter = load_segmenter(None, choose_compute(device))
    wanted = modalities.split("+")
    if not set(wanted) <= set(segmenter.config.modalities):
        raise UsageError(f"--modalities {modalities}: expected some of {'+'.join(segmenter.config.modalities)}.")
    say("Making a phantom: a synthetic brain with oedema, enhancing rim and necrosis.")
    paths = write_phantom(output, seed)
    say(f"Segmenting it from {modalities} alone on {segmenter.compute.device} ({segmenter.compute.reason}).")
    settings = OutputOptions()
    patient = load_patient("phantom", {m: paths[m] for m in wanted}, segmenter.config, settings)
    found = segment_patient(patient, segmenter, settings)
    preview = output / "preview.png"
    result = finish_patient(patient, found, segmenter, settings, output / "phantom_a2fseg_seg.nii.gz", preview)
    values = SCHEMES[settings.labels]
    truth = to_classes(read_label_map(paths["seg"])[0], values, str(paths["seg"]))
    predicted = to_classes(read_label_map(result.segmentation)[0], values, str(result.segmentation))
    rows = []
    for region, _ in segmenter.config.regions:
        members = segmenter.config.region_classes(region)
        reference = TruthMask(region_mask(truth, members), patient.geometry.spacing_mm)
        values_of = score(reference, region_mask(predicted, members), ("dice", "volume")).values
        dice, found_ml, true_ml = (values_of[key] for key in ("dice", "volume_ml", "reference_volume_ml"))
        rows.append((region, f"{100 * dice:.1f}", f"{found_ml:.1f}", f"{true_ml:.1f}"))
    if json_:
        print_json({"dice_percent": {row[0]: float(row[1]) for row in rows}, "files": [str(p) for p in result.outputs]})
        return
    print_table(("region", "Dice %", "mL found", "mL true"), rows, title=f"Phantom from {modalities}")
    print(f"Images and truth: {output}\nSegmentation:     {result.segmentation}\nPicture:          {preview}")
