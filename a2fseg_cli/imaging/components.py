"""Connected parts of a mask."""

# SimpleITK has no type hints.
# mypy: allow-untyped-calls

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def connected_components(mask: npt.NDArray[np.bool_], *, by_faces: bool = False) -> npt.NDArray[np.uint32]:
    """Return the connected components of a mask (D, H, W), numbered from 1, 0 outside.

    Args:
        mask: (D, H, W).
        by_faces: Only voxels that share a face are connected (6 neighbours), else also an edge or a corner (26).
    """
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(mask, np.uint8))
    labels: npt.NDArray[np.uint32] = sitk.GetArrayFromImage(sitk.ConnectedComponent(image, not by_faces))
    return labels


def largest_component(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the largest part of a mask (D, H, W) whose voxels hang together by their faces; nothing of nothing."""
    if not mask.any():
        return mask
    components = connected_components(mask, by_faces=True)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    largest: npt.NDArray[np.bool_] = components == sizes.argmax()
    return largest
