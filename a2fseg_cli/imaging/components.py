"""Connected parts of a mask."""

# SimpleITK has no type hints.
# mypy: allow-untyped-calls

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def connected_components(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
    """Return the 26-connected components of a mask (D, H, W), numbered from 1, 0 outside."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(mask, np.uint8))
    labels: npt.NDArray[np.uint32] = sitk.GetArrayFromImage(sitk.ConnectedComponent(image, True))
    return labels
