"""`a2fseg demo`: a phantom patient, segmented from two modalities with the bundled weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from a2fseg_cli.cli.console import print_json, print_table, say
from a2fseg_cli.cli.options import PATH, Device, Json
from a2fseg_cli.cli.runtime import prepare_process


def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where the files go.", **PATH)
    ] = Path("a2fseg-demo"),
    modalities: Annotated[str, typer.Option(help="Which of the phantom's sequences are used")] = "t1c+flair",
    seed: Annotated[int, typer.Option(help="Another seed makes another patient")] = 0,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Make a synthetic patient (no scan ships with the tool), segment it and score the result."""
    prepare_process()
    from a2fseg_cli import api

    network = api.load_network(device=device)
    say("Making a phantom: a synthetic brain with oedema, enhancing rim and necrosis.")
    say(f"Segmenting it from {modalities} alone on {network.compute.device} ({network.compute.reason}).")
    made = api.demo(output, network=network, modalities=modalities.split("+"), seed=seed)
    if json_:
        dice = {row.region: round(100 * row.dice, 1) for row in made.scores}
        print_json({"dice_percent": dice, "files": [str(made.segmentation), str(made.preview)]})
        return
    print_table(
        ("region", "Dice %", "mL found", "mL true"),
        [(r.region, f"{100 * r.dice:.1f}", f"{r.volume_ml:.1f}", f"{r.true_volume_ml:.1f}") for r in made.scores],
        title=f"Phantom from {modalities}",
    )
    print(f"Images and truth: {made.folder}\nSegmentation:     {made.segmentation}\nPicture:          {made.preview}")
