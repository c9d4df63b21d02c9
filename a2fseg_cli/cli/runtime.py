"""What every command that computes sets up: threads, determinism, the memory allocator, device and weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2fseg_cli.errors import UsageError

if TYPE_CHECKING:
    from a2fseg_cli.core.device import Compute
    from a2fseg_cli.prediction.segmenter import Inference, Segmenter


def prepare_process(threads: int | None = None, deterministic: bool = False) -> None:
    """Set threads and determinism for this process. Called once, before the first tensor."""
    from a2fseg_cli.core.device import keep_pages

    keep_pages()
    import torch

    if threads is not None:
        if threads < 1:
            raise UsageError(f"--threads {threads}: expected at least 1.")
        import SimpleITK as sitk

        torch.set_num_threads(threads)
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    if deterministic:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def load_segmenter(weights: str | None, compute: Compute, inference: Inference | None = None) -> Segmenter:
    """Return the loaded network of a weights file, a name in the manifest, or the bundled weights."""
    from a2fseg_cli.prediction.segmenter import Segmenter
    from a2fseg_cli.weights.cache import resolve_weights

    return Segmenter(resolve_weights(weights), compute, inference)


def three(text: str | None, option: str) -> tuple[int, int, int] | None:
    """Return the three edges of an option such as `96,112,96`; one number stands for a cube."""
    if text is None:
        return None
    parts = text.replace("x", ",").split(",")
    try:
        edges = [int(part) for part in parts]
    except ValueError:
        edges = []
    if len(edges) == 1:
        edges *= 3
    if len(edges) != 3 or min(edges) < 1:
        raise UsageError(f"{option} {text}: expected one or three positive integers, e.g. 96 or 96,112,96.")
    return edges[0], edges[1], edges[2]
