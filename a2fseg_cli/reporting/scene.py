"""A segmentation with the images under it: what every picture of a patient is drawn from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from a2fseg_cli.modalities import heading
from a2fseg_cli.reporting.colours import DEFAULT_PALETTE, Colour, class_colours, hex_colour, long_name
from a2fseg_cli.reporting.figures import RGB
from a2fseg_cli.reporting.outlines import Line, outlines
from a2fseg_cli.reporting.slices import PLANES, Backdrop, Classes, Cut, main_cuts

FloatVolume = npt.NDArray[np.float32]

_OUTERMOST_FIRST = ("ED", "ET", "NCR")
# From this share of the largest entropy on a voxel has the map's colour; below, the image shines through.
_OPAQUE_FROM = 0.25


@dataclass(frozen=True)
class Scene:
    """A segmentation with the images under it, on canonical axes (z to the head, y to the back, x to the left).

    Attributes:
        backdrops: Name of each sequence that was given to its image, in the order to show.
        classes: Class indices (d, h, w), 0 background.
        spacing_mm: Voxel spacing (z, y, x).
        class_names: Name of each class index, background first.
        members: Class indices of each region, outermost region first.
        guesses: Classes that the sequences at hand cannot show.
        palette: Which colours, a key of PALETTES.
        start: Where (z, y, x) these arrays lie in the whole image.
        whole: Its shape (D, H, W); theirs by default.
        uncertainty: (d, h, w), 0 (sure) to 1 (every class as likely); None where there is none.

    Raises:
        ValueError: arrays that differ in shape, no image, or a class without a name.
    """

    backdrops: Mapping[str, Backdrop]
    classes: Classes
    spacing_mm: tuple[float, float, float]
    class_names: Sequence[str]
    members: Mapping[str, Sequence[int]]
    guesses: Collection[str] = ()
    palette: str = DEFAULT_PALETTE
    start: tuple[int, int, int] = (0, 0, 0)
    whole: tuple[int, int, int] | None = None
    uncertainty: FloatVolume | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse what does not fit together. Raises: ValueError."""
        maps = () if self.uncertainty is None else (self.uncertainty.shape,)
        shapes = [*(image.voxels.shape for image in self.backdrops.values()), *maps]
        if not self.backdrops or self.classes.ndim != 3 or any(shape != self.classes.shape for shape in shapes):
            raise ValueError(f"expected images and classes of one shape (D, H, W); got {shapes}, {self.classes.shape}")
        if self.classes.max(initial=0) >= len(self.class_names):
            raise ValueError(f"class {self.classes.max()} has no name among {tuple(self.class_names)}")

    @cached_property
    def cuts(self) -> list[Cut]:
        """The slices that show what was segmented."""
        return main_cuts(self.classes, self.members, self.spacing_mm)

    @property
    def headings(self) -> list[str]:
        """The sequences' names as they are printed."""
        return [heading(name) for name in self.backdrops]

    @property
    def legend(self) -> list[tuple[str, Colour]]:
        """Words and colour of each class that there is: its name, volume, and whether it is a guess."""
        volumes_ml = (
            np.bincount(self.classes.ravel(), minlength=len(self.class_names)) * np.prod(self.spacing_mm) / 1000
        )
        names = list(self.class_names)[1:]
        return [
            (f"{long_name(name)}, {ml:.1f} mL{' (a guess)' if name in self.guesses else ''}", colour)
            for name, ml, colour in zip(names, volumes_ml[1:], class_colours(names, self.palette), strict=True)
            if ml
        ]

    def place(self, cut: Cut) -> str:
        """Return which slice of the whole image a cut is: `axial 78 of 155`."""
        whole = self.whole or self.classes.shape
        return f"{PLANES[cut.plane]} {self.start[cut.plane] + cut.position + 1} of {whole[cut.plane]}"

    def lines(self, cut: Cut) -> Iterator[tuple[str, Colour, list[Line]]]:
        """Yield name, colour and outlines of each class, in pixels of the slice, in the order to draw.

        A border between two classes is one line, in the colour of the inner class: round an enhancing rim, and
        inside it round the necrosis. Two lines side by side, or one over the other, mixed their colours.
        """
        picture = cut.of(self.classes)
        names = list(self.class_names)
        colours = dict(zip(names[1:], class_colours(names[1:], self.palette), strict=True))
        nested = [name for name in _OUTERMOST_FIRST if name in names]
        for place, name in enumerate(nested):
            inner = [names.index(other) for other in nested[place:]]
            yield name, colours[name], outlines(np.isin(picture, inner), picture == inner[0])
        for name in names[1:]:
            if name not in nested:
                yield name, colours[name], outlines(picture == names.index(name))

    def grey(self, name: str, cut: Cut, size: tuple[int, int]) -> RGB:
        """Return a slice of a sequence in grey (rows, columns), scaled smoothly to a size in pixels.

        What has the value 0 or is not finite is the background: black.
        """
        from PIL import Image

        low, high = self.backdrops[name].limits
        picture = cut.of(self.backdrops[name].voxels).astype(np.float32)
        picture = np.where(np.isfinite(picture) & (picture != 0), picture, np.float32(low))
        shades = (np.clip((picture - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        rows, columns = size
        return np.asarray(Image.fromarray(shades).resize((columns, rows), Image.Resampling.BICUBIC))

    def unsure(self, cut: Cut, size: tuple[int, int]) -> RGB:
        """Return the uncertainty in colour over the first sequence (rows, columns, 3), scaled to a size in pixels."""
        from PIL import Image

        assert self.uncertainty is not None
        rows, columns = size
        share = np.clip(cut.of(self.uncertainty), 0, 1).astype(np.float32)
        share = np.asarray(Image.fromarray(share).resize((columns, rows), Image.Resampling.BILINEAR))
        opacity = np.clip(share / _OPAQUE_FROM, 0, 1)[..., None]
        under = self.grey(next(iter(self.backdrops)), cut, size)[..., None].astype(np.float32)
        colour = uncertainty_colours()[np.round(share * 255).astype(np.intp)]
        return np.round(under * (1 - opacity) + colour * opacity).astype(np.uint8)


def uncertainty_colours() -> RGB:
    """Return the 256 colours (256, 3) of an uncertainty from 0 to 1: matplotlib's inferno, which rises in lightness."""
    from matplotlib import colormaps

    return np.asarray(np.round(colormaps["inferno"](np.arange(256))[:, :3] * 255), np.uint8)


def uncertainty_gradient() -> str:
    """Return the same colours as a gradient of CSS, from left to right."""
    stops = uncertainty_colours()[::51] / 255
    return f"linear-gradient(to right, {', '.join(hex_colour((r, g, b)) for r, g, b in stops.tolist())})"
