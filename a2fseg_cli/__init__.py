"""Brain tumour segmentation from any subset of T1, T1c, T2 and FLAIR (A2FSeg, MICCAI 2023).

    import a2fseg_cli as a2fseg
    result = a2fseg.segment(t1c="a.nii.gz", flair="b.nii.gz")

What is public is imported when it is first used: importing the package loads neither torch nor an image library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "A2FSegError",
    "Segmentation",
    "__version__",
    "find_cases",
    "load_network",
    "predict",
    "segment",
]

if TYPE_CHECKING:
    from a2fseg_cli.api import (
        A2FSegError,
        Segmentation,
        find_cases,
        load_network,
        predict,
        segment,
    )


def __getattr__(name: str) -> Any:
    """Import what is public at its first use. Raises: AttributeError for anything else."""
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from a2fseg_cli import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return __all__
