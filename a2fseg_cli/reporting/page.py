"""One HTML page about one patient, with everything in it: no font, no picture, no script from elsewhere."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import PurePath
from typing import Any

from a2fseg_cli.modalities import heading
from a2fseg_cli.reporting.colours import LONG_NAMES, class_colours, hex_colour, long_name
from a2fseg_cli.reporting.figures import as_jpeg
from a2fseg_cli.reporting.html import data_uri, document, raw_table, table
from a2fseg_cli.reporting.preview import write_uncertainty
from a2fseg_cli.reporting.scene import Scene
from a2fseg_cli.reporting.slider import SCRIPT, slider
from a2fseg_cli.reporting.slider import STYLE as SLIDER_STYLE
from a2fseg_cli.weights.card import guess_sentence

_STYLE = """
.bar { display: inline-block; width: 6.5rem; height: .55rem; margin-right: .4rem; background: #e8e8e8;
  border: 1px solid #777; } .bar span { display: block; height: 100%; }
.bars td { white-space: nowrap; } @media (max-width: 40rem) { .bar { width: 2.4rem; } }
"""


@dataclass(frozen=True)
class PagePictures:
    """Pictures of a patient, as they stand in the page.

    Attributes:
        still: The preview, a JPEG.
        words: What is on it, for who cannot see it.
        moving: HTML of the slices to move through.
        uncertainty: A JPEG; None where there is none.
        registration: A JPEG; None where nothing was registered.
    """

    still: bytes
    words: str
    moving: str = ""
    uncertainty: bytes | None = None
    registration: bytes | None = None


def page_pictures(scene: Scene, preview: bytes, registration: bytes | None = None) -> PagePictures:
    """Return the pictures of a page.

    Args:
        scene: What to show; with an uncertainty the page has a map of it.
        preview: Of the same scene, a PNG.
        registration: A PNG, of raw images: how they lie on one another.
    """
    unsure = None
    if scene.uncertainty is not None:
        file = io.BytesIO()
        write_uncertainty(file, scene)
        unsure = as_jpeg(file.getvalue())
    places = ", ".join(dict.fromkeys(scene.place(cut) for cut in scene.cuts))
    volumes = "; ".join(words for words, _ in scene.legend)
    drawn = f"Outlines of {volumes}" if volumes else "No tumour was found; nothing is outlined"
    words = f"{drawn}. On {', '.join(scene.headings)}, slices {places}."
    return PagePictures(as_jpeg(preview), words, slider(scene), unsure, registration and as_jpeg(registration))


def patient_page(stats: Mapping[str, Any], pictures: PagePictures, palette: str = "ours") -> str:
    """Return the page as HTML.

    Args:
        stats: What `predict --stats` writes of a patient, as plain values.
        pictures: From `page_pictures`.
        palette: Colours of the regions' bars, as in the pictures.
    """
    still = f'<img alt="{escape(pictures.words)}" src="{data_uri(pictures.still)}">'
    parts = [
        f"<h1>{escape(stats['case'])}</h1>",
        f"<p>{escape(_origin(stats))}</p>",
        *(f'<p class="warning">{escape(text)}</p>' for text in _to_read_first(stats)),
        pictures.moving,
        f'<div class="static wide">{still}</div>',
        "<h2>Volumes</h2>",
        _volumes(stats),
        f'<p class="small">{escape(_regions_in_words(stats["regions"]))}</p>',
    ]
    if pictures.uncertainty is not None:
        alt = "Map of the uncertainty in the same slices: coloured where the network hesitated between classes."
        parts += [
            "<h2>Where the network is unsure</h2>",
            f'<div class="wide"><img alt="{alt}" src="{data_uri(pictures.uncertainty)}"></div>',
            '<p class="small">Entropy of the classes: 0 where one class is certain, 1 where every class is as likely. '
            "A network can be sure and wrong.</p>",
        ]
    if pictures.registration is not None:
        alt = "Each sequence in fields that take turns with the reference's, with the outline of the brain."
        parts += [
            "<h2>How the sequences were registered</h2>",
            f'<div class="wide"><img alt="{alt}" src="{data_uri(pictures.registration)}"></div>',
            '<p class="small">Where borders go on from field to field, the sequences lie on one another. What is '
            "outside the yellow line was taken for no brain, and is never marked.</p>",
        ]
    parts += [*_contributions(stats), *_agreement(stats, palette), "<h2>How it was made</h2>"]
    parts.append(table((), _settings(stats), "settings"))
    made_for = escape(stats["weights"]["made_for"]) if "weights" in stats else ""
    parts.append(f'<p class="small">{made_for} For research. Not a medical device.</p>')
    script = SCRIPT if pictures.moving else ""
    return document(f"{stats['case']} (a2fseg)", parts, SLIDER_STYLE + _STYLE, script)


def _origin(stats: Mapping[str, Any]) -> str:
    """Return where the outlines come from: the network, or a file that was given."""
    sequences = ", ".join(heading(m) for m in stats["modalities"].split("+"))
    if "mask" not in stats:
        return f"Tumour outlined by a2fseg from {sequences}, {stats['date']}."
    name = PurePath(stats["mask"]).name
    return f"The mask {name} was given, not made by a2fseg: no network ran. Measured on {sequences}, {stats['date']}."


def _to_read_first(stats: Mapping[str, Any]) -> list[str]:
    """Return what a reader has to know before the numbers: guesses, warnings, what absent sequences cost."""
    guesses = guess_sentence(stats["guesses"], stats["modalities"])
    warnings = [text.removeprefix(f"{stats['case']}: ") for text in stats["warnings"]]
    return [text for text in (guesses, *warnings, stats["note"]) if text]


def _volumes(stats: Mapping[str, Any]) -> str:
    diameters = stats["largest_axial_diameters_mm"]
    labels = {row["name"]: row["label"] for row in stats["labels"] if row["label"] is not None}
    regions = {row["name"] for row in stats["labels"] if row["label"] is None}
    rows = []
    for row in stats["labels"]:
        name = row["name"]
        if row["label"] is not None and name in regions:
            continue  # ET is a class and a region: one line, with the diameters
        across = " x ".join(f"{mm:.0f}" for mm in diameters[name]) if name in regions else ""
        label = labels.get(name, "")
        cells = (long_name(name), label, row["voxels"], f"{row['volume_ml']:.2f}", across)
        guess = '<span class="guess">guess</span>' if row["guess"] else ""
        rows.append((*(escape(str(cell)) for cell in cells), guess))
    return raw_table(("name", "label", "voxels", "mL", "largest axial diameters, mm", ""), rows)


def _regions_in_words(regions: Mapping[str, Sequence[str]]) -> str:
    """Return which classes make a region, such as that WT (whole tumour) is NCR, ED and ET together."""
    sentences = []
    for name, members in regions.items():
        if len(members) > 1:
            long = f" ({LONG_NAMES[name.upper()]})" if name.upper() in LONG_NAMES else ""
            sentences.append(f"{name}{long} is {', '.join(members[:-1])} and {members[-1]} together.")
    return " ".join(sentences)


def _contributions(stats: Mapping[str, Any]) -> list[str]:
    """Return the attention weights of the sequences, where there are several."""
    weights = stats["mean_attention"]
    names = list(next(iter(weights.values()), ()))
    if len(names) < 2:  # one sequence contributes everything
        return []
    rows = [(name, *(f"{100 * row[column]:.1f}" for column in names)) for name, row in weights.items()]
    return [
        "<h2>What each sequence contributed</h2>",
        table(["inside", *(f"{heading(m)} %" for m in names)], rows),
        '<p class="small">Mean attention weight in the voxels of each class found; the weights of a voxel add up '
        "to 100 %.</p>",
    ]


def _agreement(stats: Mapping[str, Any], palette: str) -> list[str]:
    """Return the Dice of each smaller subset of the sequences as bars with their numbers."""
    agreement = stats["agreement_with_fewer"]
    if not agreement:
        return []
    regions = list(stats["volumes_ml"])
    colours = [hex_colour(colour) for colour in class_colours(regions, palette)]
    rows = []
    for subset, dice in agreement.items():
        bars = (_bar(dice[region], colour) for region, colour in zip(regions, colours, strict=True))
        rows.append((escape(subset), *bars))
    return [
        "<h2>Agreement of fewer sequences with this result</h2>",
        raw_table(["from only", *(f"{escape(region)} Dice %" for region in regions)], rows, "bars"),
        '<p class="small">100 is the same outline, compared before anything is removed or filled. '
        "No expert's outline is involved.</p>",
    ]


def _bar(share: float, colour: str) -> str:
    percent = f"{100 * share:.1f}"
    inner = f'<span style="width:{percent}%;background:{colour}"></span>'
    return f'<span class="bar" aria-hidden="true">{inner}</span>{percent}'


def _settings(stats: Mapping[str, Any]) -> list[tuple[str, str]]:
    inputs = [(m, PurePath(path).name) for m, path in stats["inputs"].items()]
    made_with = ("versions", ", ".join(f"{name} {version}" for name, version in stats["versions"].items()))
    if "mask" in stats:
        return [*inputs, ("mask", f"{PurePath(stats['mask']).name}, sha256 {stats['mask_sha256']}"), made_with]
    device, windows = stats["device"], stats["windows"]
    return [
        *inputs,
        ("weights", f"{stats['weights']['file']}, sha256 {stats['weights']['sha256']}"),
        ("device", f"{device['name']} ({device['reason']}), {device['precision']}, {device['threads']} threads"),
        ("windows", f"{windows['count']} of {' x '.join(map(str, windows['edges']))} voxels"),
        *(("afterwards", "; ".join(done)) for done in [_afterwards(stats["settings"])] if done),
        ("seconds", ", ".join(f"{step} {value:.2f}" for step, value in stats["seconds"].items())),
        made_with,
    ]


def _afterwards(settings: Mapping[str, Any]) -> list[str]:
    """Return what was to be done to the mask behind the network."""
    small = [f"parts of {region} under {mm3:g} mm3 removed" for region, mm3 in settings["remove_small"].items()]
    return [*small, *(["holes filled"] if settings["fill_holes"] else [])]
