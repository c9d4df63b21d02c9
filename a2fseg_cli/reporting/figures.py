"""Figures: a PNG of a given size, whatever the user's matplotlib settings, and texts that its font can show."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from a2fseg_cli.files import atomic_write_bytes

DPI = 170

RGB = npt.NDArray[np.uint8]


@contextmanager
def png_figure(path: Path | BinaryIO, width_in: float, height_in: float) -> Iterator[Any]:
    """Give a white matplotlib figure of a size in inches, and write it to `path` when the block ends.

    Neither pyplot nor a display is touched, and the user's matplotlib settings do not show.
    """
    with _figure(width_in, height_in, "white") as (figure, canvas):
        yield figure
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    _write(path, pixels)


@contextmanager
def drawing_over(path: Path | BinaryIO, pixels: RGB) -> Iterator[Any]:
    """Give axes in pixels over a picture (rows, columns, 3), and write it with what was drawn when the block ends.

    The upper left corner is (0, 0). The picture is put under the lines as it is: matplotlib's `imshow` and `figimage`
    resample each pixel to itself, which takes a second for 3 million.
    """
    height, width = pixels.shape[:2]
    # A hundredth of a pixel more, since matplotlib cuts what is left of its product with the resolution.
    with _figure((width + 0.01) / DPI, (height + 0.01) / DPI, "none") as (figure, canvas):
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
        yield axes
        canvas.draw()
        drawn = np.asarray(canvas.buffer_rgba())
    rows, columns = np.nonzero(drawn[..., 3])
    ink = drawn[rows, columns].astype(np.float32)
    share = ink[:, 3:] / 255
    result = pixels.copy()
    result[rows, columns] = np.round(ink[:, :3] * share + pixels[rows, columns] * (1 - share)).astype(np.uint8)
    _write(path, result)


@contextmanager
def _figure(width_in: float, height_in: float, ground: str) -> Iterator[tuple[Any, Any]]:
    """Give a figure and its canvas, of which matplotlib's type hints do not know all that it offers."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc may name fonts that are not there, or a dark style
        figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor=ground)
        yield figure, FigureCanvasAgg(figure)


def _write(path: Path | BinaryIO, pixels: RGB) -> None:
    """Write a PNG.

    Level 3 takes half the time of zlib's 6 and no more bytes: 3 million pixels of brain 0.09 and 0.19 s, 1.10 and
    1.09 MB.
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png", dpi=(DPI, DPI), compress_level=3)
    if isinstance(path, Path):
        atomic_write_bytes(path, buffer.getvalue())
    else:
        path.write(buffer.getvalue())


def dark_edge(width: float = 1.6) -> list[Any]:
    """Return matplotlib's path effects by which white words stay legible on a raw scan's scalp."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=width, foreground="black")]


def printable(text: str) -> str:
    """Return the text with `$` taken literally and characters that the font does not have as a question mark."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    return "".join(c if font.get_char_index(ord(c)) else "?" for c in text).replace("$", r"\$")


def as_jpeg(png: bytes) -> bytes:
    """Return a PNG as JPEG, a third of its size; coloured lines keep their colours."""
    from PIL import Image

    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(file, format="jpeg", quality=85, subsampling=0)
    return file.getvalue()
