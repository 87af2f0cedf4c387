"""Where structures lie in a scan, from the class probabilities of a coarse look at all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shapeguide.geometry.boxes import foreground_box, grown_box
from shapeguide.metrics.components import TOUCHING, largest_component

NEIGHBOURHOOD_VOXELS = 2
"""Probability this near to a component counts with it."""


@dataclass(frozen=True)
class FoundStructure:
    """Where a structure lies in a scan, and how large it is there, about."""

    centre_mm: tuple[float, float, float]
    """Its centre of mass in the world."""
    volume_mm3: float


@dataclass(frozen=True, eq=False)
class Place:
    """Where a structure lies in an array of voxels."""

    centre: NDArray[np.float64]
    """Its centre of mass, a voxel index with fractions, shape (3,)."""
    voxels: float
    """Its size, fractions of voxels counted."""


def locate(probabilities: NDArray[np.float32], least_voxels: Sequence[float]) -> list[Place | None]:
    """The centre of mass and the size of each structure, weighted by probability.

    What counts is the connected component of the structure's most probable voxels that holds most
    probability, and a margin around it. So of two heads in one scan the one that shows the
    structure more clearly or larger is taken, for each structure by itself.

    Args:
        probabilities: Background first, shape (1 + S, I, J, K).
        least_voxels: A structure of fewer voxels than this is not there; one for each.

    Returns:
        One for each structure; None where it is not there. A structure that is cut by the edge of
        the scan is reported with what is left of it.
    """
    classes = probabilities.argmax(axis=0)
    return [
        _place(probabilities[index], classes == index, least)
        for index, least in enumerate(least_voxels, start=1)
    ]


def _place(probability: NDArray[np.float32], mask: NDArray[np.bool_], least: float) -> Place | None:
    component = largest_component(mask, weights=probability)
    box = foreground_box(component)
    if box is None:
        return None
    box = grown_box(box, (NEIGHBOURHOOD_VOXELS,) * 3, mask.shape)
    near = ndimage.binary_dilation(component[box], TOUCHING, iterations=NEIGHBOURHOOD_VOXELS)
    weights = np.where(near, probability[box], 0).astype(np.float64)
    voxels = float(weights.sum())
    if voxels < least:
        return None
    indices = np.indices(weights.shape).reshape(3, -1)
    first = np.array([part.start for part in box], dtype=np.float64)
    return Place(first + indices @ weights.ravel() / voxels, voxels)
