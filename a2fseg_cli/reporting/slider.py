"""The slices of a patient to move through: all sequences of one axial slice side by side, outlines on or off."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from html import escape

import numpy as np

from a2fseg_cli.reporting.colours import class_colours, hex_colour, long_name
from a2fseg_cli.reporting.html import data_uri
from a2fseg_cli.reporting.outlines import Line
from a2fseg_cli.reporting.scene import RGB, Scene
from a2fseg_cli.reporting.slices import MARGIN_MM, Cut

# 36 slices of 5 sequences, each a JPEG of at most 220 x 220, are 1 to 1.5 MB.
_MOST_SLICES = 36
_MOST_PIXELS = 220
_QUALITY = 72
UNCERTAINTY = "uncertainty"

STYLE = """
.slider { display: none; } .live .slider { display: block; } .live .static { display: none; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .4rem; }
.tiles figure { margin: 0; background: #000; color: #fff; }
.tiles figcaption { padding: .1rem .4rem; font-size: .85rem; }
.tiles figure.large { grid-column: 1 / -1; }
.tiles svg { display: block; width: 100%; max-height: 80vh; }
.tiles path { fill: none; stroke-width: 1.3px; vector-effect: non-scaling-stroke; }
.tiles text { fill: #fff; font: 7px sans-serif; }
.controls { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; align-items: center; margin: .5rem 0; }
.controls input[type=range] { width: min(24rem, 90vw); } .swatch { display: inline-block; width: 1.4em; height: .5em;
  border: 1px solid #666; vertical-align: middle; }
@media print { .live .slider { display: none; } .live .static { display: block; } }
"""

SCRIPT = """
const slider = document.querySelector('.slider');
if (slider) {
  const slices = JSON.parse(document.getElementById('slices').textContent);
  const range = slider.querySelector('input[type=range]'), place = slider.querySelector('output');
  const show = () => {
    const slice = slices[range.value];
    place.textContent = slice.place;
    range.setAttribute('aria-valuetext', slice.place);
    slider.querySelectorAll('figure').forEach(figure => {
      figure.querySelector('image').setAttribute('href', slice.images[figure.dataset.image]);
      figure.querySelectorAll('path').forEach(path => path.setAttribute('d', slice.lines[path.dataset.name] || ''));
    });
  };
  range.addEventListener('input', show);
  slider.querySelectorAll('input[type=checkbox]').forEach(box => box.addEventListener('change', () =>
    slider.querySelectorAll('path').forEach(path => {
      if (path.dataset.name === box.value) path.style.display = box.checked ? '' : 'none';
    })));
  slider.querySelectorAll('figure').forEach(figure => {
    const turn = () => figure.classList.toggle('large');
    figure.addEventListener('click', turn);
    figure.addEventListener('keydown', event => { if (event.key === 'Enter') turn(); });
  });
  document.documentElement.classList.add('live');
  show();
}
"""


def slider(scene: Scene) -> str:
    """Return the HTML of the slices, which stays hidden until the page's script shows it.

    All axial slices with something segmented and 6 mm beyond, or every second, third ... of them; without a
    segmentation those of the middle of the head. The slice that an index shows is among them. With an uncertainty
    there is one more picture a slice.
    """
    positions = _positions(scene)
    cuts = [Cut(0, position) for position in positions]
    start = positions.index(next(cut.position for cut in scene.cuts if cut.main))
    slices = [
        {"place": scene.place(cut), "images": dict(_images(scene, cut)), "lines": _paths(scene, cut)} for cut in cuts
    ]
    names = [*scene.backdrops, *([UNCERTAINTY] if scene.uncertainty is not None else [])]
    headings = [*scene.headings, "how unsure"]
    figures = [_figure(scene, name, heading) for name, heading in zip(names, headings, strict=False)]
    data = json.dumps(slices, separators=(",", ":")).replace("<", "\\u003c")  # no `</script>` in a class's name
    return "\n".join(
        [
            '<div class="slider">',
            f'<div class="tiles" style="max-width:{24 * len(figures)}rem">{"".join(figures)}</div>',
            '<div class="controls"><label>Slice '
            f'<input type="range" min="0" max="{len(cuts) - 1}" value="{start}"></label><output></output>',
            *_boxes(scene),
            "</div>",
            '<p class="small">Arrow keys move through the slices. A click on a picture, or Enter, makes it large; '
            "once more, small.</p>",
            f'<script type="application/json" id="slices">{data}</script></div>',
        ]
    )


def _positions(scene: Scene) -> list[int]:
    depth = scene.classes.shape[0]
    occupied = np.flatnonzero(scene.classes.any((1, 2)))
    if len(occupied):
        margin = round(MARGIN_MM / scene.spacing_mm[0])
        first, last = max(int(occupied[0]) - margin, 0), min(int(occupied[-1]) + margin, depth - 1)
    else:
        first, last = depth // 5, depth - 1 - depth // 5
    step = -(-(last - first + 1) // _MOST_SLICES)
    main = next(cut.position for cut in scene.cuts if cut.main)
    return list(range(first + (main - first) % step, last + 1, step))


def _images(scene: Scene, cut: Cut) -> Iterator[tuple[str, str]]:
    """Yield name and address of each picture of a slice, as large as its voxels are many."""
    rows, columns = cut.of(scene.classes).shape
    shrink = min(1.0, _MOST_PIXELS / max(rows, columns))
    size = max(1, round(rows * shrink)), max(1, round(columns * shrink))
    for name in scene.backdrops:
        yield name, _jpeg(scene.grey(name, cut, size))
    if scene.uncertainty is not None:
        yield UNCERTAINTY, _jpeg(scene.unsure(cut, size))


def _jpeg(picture: RGB) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="jpeg", quality=_QUALITY, subsampling=0)
    return data_uri(file.getvalue())


def _paths(scene: Scene, cut: Cut) -> Mapping[str, str]:
    """Return the outlines of each class as SVG writes a path, in mm."""
    tall_mm, wide_mm = cut.pixel_mm(scene.spacing_mm)
    scale = np.array((wide_mm, tall_mm))
    return {name: "".join(_path(line * scale) for line in lines) for name, _, lines in scene.lines(cut) if lines}


def _path(line: Line) -> str:
    closed = bool((line[0] == line[-1]).all())
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (line[:-1] if closed else line).tolist())
    return f"M{points}{'Z' if closed else ''}"


def _figure(scene: Scene, name: str, heading: str) -> str:
    """Return a picture's frame, in mm: the image, the lines, sides and scale."""
    tall = scene.classes.shape[1] * scene.spacing_mm[1]
    wide = scene.classes.shape[2] * scene.spacing_mm[2]
    lines = (
        ""
        if name == UNCERTAINTY
        else "".join(
            f'<path data-name="{escape(line)}" stroke="{hex_colour(colour)}"/>'
            for line, colour, _ in scene.lines(Cut(0, 0))
        )
    )
    bar = 50 if wide > 100 else 10
    y = tall - 4
    return (
        f'<figure tabindex="0" data-image="{escape(name)}"><figcaption>{escape(heading)}</figcaption>'
        f'<svg viewBox="0 0 {wide:.1f} {tall:.1f}" role="img" aria-label="{escape(heading)}, axial slice">'
        f'<image width="{wide:.1f}" height="{tall:.1f}" preserveAspectRatio="none"/>{lines}'
        f'<text x="2" y="{0.86 * tall:.1f}">R</text><text x="{wide - 7:.1f}" y="{0.86 * tall:.1f}">L</text>'
        f'<line x1="3" x2="{3 + bar}" y1="{y:.1f}" y2="{y:.1f}" stroke="#fff"/>'
        f'<text x="3" y="{y - 2:.1f}">{bar} mm</text></svg></figure>'
    )


def _boxes(scene: Scene) -> Iterator[str]:
    names = list(scene.class_names)[1:]
    for name, colour in zip(names, class_colours(names, scene.palette), strict=True):
        swatch = f'<span class="swatch" style="background:{hex_colour(colour)}"></span>'
        guess = " (a guess)" if name in scene.guesses else ""
        yield (
            f'<label><input type="checkbox" value="{escape(name)}" checked> {swatch} {escape(long_name(name))}{guess}'
            "</label>"
        )
