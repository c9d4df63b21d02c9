"""The network on workers: which device and precision they take, and one network a process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch

from a2fseg_cli.cluster.crew import Crew
from a2fseg_cli.core.device import Compute, choose_compute
from a2fseg_cli.errors import UsageError
from a2fseg_cli.inference.predictor import Segmenter, WindowOptions
from a2fseg_cli.weights.same import same_weights


@dataclass(frozen=True)
class Elsewhere(Compute):
    """Workers compute; the device of this process is a CPU, for what little it does itself.

    Attributes:
        crew: The workers.
        asked: Device and precision that each takes: auto is its own choice.
        devices: What that is, such as `cuda`.
    """

    crew: Crew
    asked: tuple[str, str]
    devices: str

    @property
    def name(self) -> str:
        """What the workers compute on."""
        return self.devices


@dataclass(frozen=True)
class NetworkAsked:
    """A network as a worker has to load it.

    Attributes:
        path: Of the weights, where the client has them.
        sha256: Of the weights.
        device: auto, or by name.
        precision: That the client expects; never auto.
        windows: How windows are laid.
    """

    path: Path
    sha256: str
    device: str
    precision: str
    windows: WindowOptions

    def load(self) -> Segmenter:
        """Return the network, loaded once a process. Raises: WeightsError, UsageError."""
        return _loaded(self)


def compute_of(crew: Crew, device: str = "auto", precision: str = "auto") -> Elsewhere:
    """Return how the workers compute that are there; one at least is waited for.

    Raises:
        UsageError: a worker has no such device or precision, or they would not all take the same precision.
        ResourceError: there is no worker.
    """
    choices = crew.ask(partial(_choice, device, precision))
    taken = {of_worker[1]: words for words, of_worker in choices.items()}
    if len(taken) > 1:
        told = ", ".join(f"{words} in {name}" for name, words in taken.items())
        raise UsageError(f"The workers would compute in different precisions: {told}. Name one (precision).")
    devices = "+".join(sorted({of_worker[0] for of_worker in choices.values()}))
    reason = f"{len(choices)} worker{'s' * (len(choices) != 1)}: {crew.words}"
    return Elsewhere(torch.device("cpu"), next(iter(taken)), reason, crew, (device, precision), devices)


def network_asked(segmenter: Segmenter) -> NetworkAsked:
    """Return what a worker needs to load the same network."""
    compute, weights = segmenter.compute, segmenter.weights
    device = compute.asked[0] if isinstance(compute, Elsewhere) else "auto"
    return NetworkAsked(weights.path.absolute(), weights.sha256, device, compute.precision, segmenter.inference)


def _choice(device: str, precision: str) -> tuple[str, str]:
    compute = choose_compute(device, precision)
    return compute.device.type, compute.precision


@lru_cache(maxsize=2)  # of two clients that share the workers; each stays in memory
def _loaded(asked: NetworkAsked) -> Segmenter:
    path = same_weights(asked.path, asked.sha256)
    return Segmenter(path, choose_compute(asked.device, asked.precision), asked.windows)
