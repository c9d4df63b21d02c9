"""What `train` prints while it runs: a bar of the patients, a bar of the steps, and a line an epoch."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from a2fseg_cli.cli.console import Advance, percentage, progress, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from a2fseg_cli.training.train import Epoch, Listener


class TrainingScreen:
    """The bars of a training. A bar appears with the first thing it counts, the last one ends with the block.

    Args:
        quiet: Only warnings.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar = ExitStack()
        self._advance: Advance | None = None
        self._stepped: Callable[[float], None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def listener(self) -> Listener:
        """Return who `train` tells."""
        from a2fseg_cli.training.train import Listener

        return Listener(
            note=lambda text: say(text, self._quiet),
            warn=lambda text: say(f"Warning: {text}"),
            preprocessed=self._preprocessed,
            stepped=self._step,
            report=lambda epoch: say(epoch_line(epoch), self._quiet),
        )

    def _preprocessed(self, case: str, done: int, total: int) -> None:
        if self._advance is None:
            self._advance = self._bar.enter_context(progress("preprocessing", total, self._quiet))
        self._advance(case)
        if done == total:
            self._bar.close()

    def _step(self, share: float) -> None:
        if self._stepped is None:
            self._stepped = self._bar.enter_context(percentage("training", self._quiet))
        self._stepped(share)


def epoch_line(epoch: Epoch) -> str:
    """Return an epoch in one line: loss, learning rate, time left, Dice of the regions from all modalities."""
    left_min = epoch.hours * 60 * (1 - epoch.done) / max(epoch.done, 1e-9)
    dice = " ".join(f"{region} {value:.3f}" for region, value in epoch.dice.items())
    score = f"; validation {epoch.score:.4f} (all modalities: {dice})" if epoch.score is not None else ""
    return (
        f"epoch {epoch.number} step {epoch.step} loss {epoch.loss:.3f} lr {epoch.learning_rate:.2g} "
        f"{100 * epoch.done:.0f} %, {left_min:.0f} min left{score}"
    )
