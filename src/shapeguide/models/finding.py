"""Where structures lie in a scan, from the class probabilities of a coarse look at all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shapeguide.geometry.boxes import Box, foreground_box, grown_box
from shapeguide.metrics.components import TOUCHING, largest_component

ScalarT = TypeVar("ScalarT", bound=np.generic)

NEIGHBOURHOOD_VOXELS = 2
"""Probability this near to a component counts with it."""
RIVAL_SHARE = 0.5
"""A second head shows at least this share of what the first shows of a structure."""
MARGIN_SHARE = 0.01
"""Intensities up to this share of the range above the lowest count as nothing: resampling rounds,
and blurs an edge into what is beyond it."""


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


@dataclass(frozen=True, eq=False)
class Frame:
    """The part of an array of voxels that a network is shown, with a margin where it ends."""

    box: Box
    """What is shown of the array."""
    before: tuple[int, int, int]
    """Voxels of margin ahead of it."""
    spatial_shape: tuple[int, int, int]

    @property
    def first(self) -> NDArray[np.float64]:
        """Index in the array of the first voxel that is shown, shape (3,)."""
        starts = [part.start for part in self.box]
        return np.subtract(starts, self.before, dtype=np.float64)

    def cut_out(self, array: NDArray[ScalarT], margin: ScalarT) -> NDArray[ScalarT]:
        """What is shown of an array (I, J, K), with this value in the margin."""
        part = array[self.box]
        shown = np.full(self.spatial_shape, margin, dtype=array.dtype)
        i, j, k = (
            slice(start, start + length)
            for start, length in zip(self.before, part.shape, strict=True)
        )
        shown[i, j, k] = part
        return shown


def frame_of(image: NDArray[np.float32], least_shape: tuple[int, int, int], divisor: int) -> Frame:
    """All of an image but for margins of nothing but its lowest value.

    A network that normalises by all that it sees should not see how much nothing there is around a
    head.

    Args:
        image: Intensities, shape (I, J, K).
        least_shape: What is shown is at least this large, with new margins.
        divisor: Its lengths are multiples of this.
    """
    i, j, k = image.shape
    lowest, highest = float(image.min()), float(image.max())
    something = image > lowest + MARGIN_SHARE * (highest - lowest)
    box = foreground_box(something) or (slice(0, i), slice(0, j), slice(0, k))
    lengths = [part.stop - part.start for part in box]
    i, j, k = (
        -(-max(length, least) // divisor) * divisor
        for length, least in zip(lengths, least_shape, strict=True)
    )
    before = [(wanted - length) // 2 for wanted, length in zip((i, j, k), lengths, strict=True)]
    return Frame(box, (before[0], before[1], before[2]), (i, j, k))


def sightings(
    probabilities: NDArray[np.float32], least_voxels: Sequence[float], apart_voxels: float
) -> list[list[Place]]:
    """Where each structure may be: centre of mass and size, weighted by probability.

    What counts is the connected component of the structure's most probable voxels that holds most
    probability, and a margin around it; and others that hold half as much of it, too far away to
    be of the same head.

    Args:
        probabilities: Background first, shape (1 + S, I, J, K).
        least_voxels: A structure of fewer voxels than this is not there; one for each.
        apart_voxels: What lies this far apart is not of one head.

    Returns:
        One list for each structure, the one of most probability first; empty where it is not there.
        A structure that is cut by the edge of the scan is reported with what is left of it.
    """
    classes = probabilities.argmax(axis=0)
    return [
        _seen(probabilities[index], classes == index, least, apart_voxels)
        for index, least in enumerate(least_voxels, start=1)
    ]


def of_one_head(found: Sequence[Sequence[Place]], apart_voxels: float) -> list[Place | None]:
    """One place for each structure, all of the head that most is seen of.

    Args:
        found: What `sightings` gives.
        apart_voxels: What lies this far apart is not of one head.
    """
    if all(len(places) < 2 for places in found):
        return [places[0] if places else None for places in found]

    def near(anchor: Place) -> list[Place | None]:
        chosen: list[Place | None] = []
        for places in found:
            nearest = min(places, key=lambda one: _between(one, anchor), default=None)
            close = nearest is not None and _between(nearest, anchor) < apart_voxels
            chosen.append(nearest if close else None)
        return chosen

    heads = [near(anchor) for places in found for anchor in places]
    return max(heads, key=lambda head: sum(place.voxels for place in head if place))


def _seen(
    probability: NDArray[np.float32], mask: NDArray[np.bool_], least: float, apart_voxels: float
) -> list[Place]:
    seen: list[Place] = []
    while True:
        place, component = _place(probability, mask)
        first = seen[0] if seen else None
        if place is None or place.voxels < max(least, RIVAL_SHARE * first.voxels if first else 0):
            return seen
        if first is None or _between(place, first) >= apart_voxels:
            seen.append(place)
        mask = mask & ~component


def _place(
    probability: NDArray[np.float32], mask: NDArray[np.bool_]
) -> tuple[Place | None, NDArray[np.bool_]]:
    """The component of most probability, and its voxels."""
    component = largest_component(mask, weights=probability)
    box = foreground_box(component)
    if box is None:
        return None, component
    box = grown_box(box, (NEIGHBOURHOOD_VOXELS,) * 3, mask.shape)
    near = ndimage.binary_dilation(component[box], TOUCHING, iterations=NEIGHBOURHOOD_VOXELS)
    weights = np.where(near, probability[box], 0).astype(np.float64)
    voxels = float(weights.sum())
    indices = np.indices(weights.shape).reshape(3, -1)
    first = np.array([part.start for part in box], dtype=np.float64)
    return Place(first + indices @ weights.ravel() / voxels, voxels), component


def _between(one: Place, other: Place) -> float:
    return float(np.linalg.norm(one.centre - other.centre))
