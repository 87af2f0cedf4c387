"""Signed distances to the edge of a mask, in mm: positive inside, negative outside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt


def signed_distance_mm(
    mask: NDArray[np.bool_], *, spacing_mm: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Distance of each voxel centre to the edge of a mask, which lies between voxels.

    It is the distance to the nearest voxel centre on the other side less half a voxel, which is
    exact where the edge is a plane across the finest axis. Beyond the grid nothing is known: a
    structure that the grid cuts has no edge there.

    Args:
        mask: Shape (I, J, K).
        spacing_mm: Voxel spacing.

    Returns:
        Shape (I, J, K), positive inside; -inf everywhere for an empty mask, inf for a full one.
    """
    half = min(spacing_mm) / 2
    return distance_across_mm(mask, spacing_mm=spacing_mm) + np.where(mask, -half, half)


def distance_across_mm(
    mask: NDArray[np.bool_], *, spacing_mm: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Distance of each voxel centre to the nearest one on the other side of the edge.

    Args:
        mask: Shape (I, J, K).
        spacing_mm: Voxel spacing.

    Returns:
        Shape (I, J, K), positive inside; -inf everywhere for an empty mask, inf for a full one.
    """
    if not mask.any() or mask.all():
        return np.where(mask, np.inf, -np.inf)
    inside = np.asarray(distance_transform_edt(mask, sampling=spacing_mm), dtype=np.float64)
    return inside - distance_transform_edt(~mask, sampling=spacing_mm)
