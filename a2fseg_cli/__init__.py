"""Brain tumour segmentation from any subset of T1, T1c, T2 and FLAIR (A2FSeg, MICCAI 2023).

    import a2fseg_cli as a2fseg
    result = a2fseg.segment(t1c="a.nii.gz", flair="b.nii.gz")

What is public is imported when it is first used: importing the package loads neither torch nor an image library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from a2fseg_cli.api import OutputOptions as OutputOptions
    from a2fseg_cli.api import ReadingOptions as ReadingOptions
    from a2fseg_cli.api import Segmentation as Segmentation
    from a2fseg_cli.api import Selection as Selection
    from a2fseg_cli.api import find_cases as find_cases
    from a2fseg_cli.api import load_network as load_network
    from a2fseg_cli.api import predict as predict
    from a2fseg_cli.api import segment as segment
    from a2fseg_cli.cluster.connection import connected as connected
    from a2fseg_cli.errors import A2FSegError as A2FSegError
    from a2fseg_cli.evaluation.evaluate import evaluate as evaluate
    from a2fseg_cli.inference.raw_cohort import prepare as prepare
    from a2fseg_cli.training.train import train as train

__version__ = "0.1.0"

_HOMES = {
    "A2FSegError": "errors",
    "OutputOptions": "api",
    "ReadingOptions": "api",
    "Segmentation": "api",
    "Selection": "api",
    "connected": "cluster.connection",
    "evaluate": "evaluation.evaluate",
    "find_cases": "api",
    "load_network": "api",
    "predict": "api",
    "prepare": "inference.raw_cohort",
    "segment": "api",
    "train": "training.train",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import what is public at its first use. Raises: AttributeError for anything else."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
