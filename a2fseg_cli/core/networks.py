"""The networks there are. One row each: `config.architecture` and the class that offers what `network.py` asks for.

Widths, spacing and crops of a network are presets in `presets.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from a2fseg_cli.core.a2fseg import A2FSeg
from a2fseg_cli.core.config import ModelConfig
from a2fseg_cli.core.hemis import HeMIS
from a2fseg_cli.core.mfi import UNetMFI
from a2fseg_cli.core.mmformer import MmFormer
from a2fseg_cli.core.network import Network
from a2fseg_cli.core.rfnet import RFNet
from a2fseg_cli.core.robustseg import RobustSeg
from a2fseg_cli.core.uhved import UHVED
from a2fseg_cli.errors import UsageError

ARCHITECTURES: dict[str, type[Network]] = {
    "a2fseg": A2FSeg,
    "hemis": HeMIS,
    "uhved": UHVED,
    "robustseg": RobustSeg,
    "rfnet": RFNet,
    "mmformer": MmFormer,
    "mfi": UNetMFI,
}


def build_network(config: ModelConfig) -> Network:
    """Return a new network with random parameters. Raises: UsageError when there is none of this architecture."""
    return network_class(config)(config)


def network_class(config: ModelConfig) -> type[Network]:
    """Return the class of a configuration's network. Raises: UsageError when its architecture is not known."""
    try:
        return ARCHITECTURES[config.architecture]
    except KeyError:
        raise UsageError(f"architecture {config.architecture}: expected one of {', '.join(ARCHITECTURES)}.") from None


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor of a network, without allocating any of them.

    Raises: UsageError, as `build_network`.
    """
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in build_network(config).state_dict().items()}


def parameters_of_classes(config: ModelConfig) -> set[str]:
    """Return the names of the tensors that belong to the classes: those whose shape follows their number."""
    count = 3 if len(config.classes) == 2 else 2
    names = ("background", "one", "two")[:count]
    other = replace(config, classes=names, label_values=tuple(range(count)), regions=())
    shapes, others = parameter_shapes(config), parameter_shapes(other)
    return {name for name, shape in shapes.items() if others.get(name) != shape}


@contextmanager
def registered(name: str, network: type[Network]) -> Iterator[None]:
    """Add a row within the block: for tests, and for a network that is only tried. Raises: ValueError if it exists."""
    if name in ARCHITECTURES:
        raise ValueError(f"there is a network {name} already")
    ARCHITECTURES[name] = network
    try:
        yield
    finally:
        del ARCHITECTURES[name]
