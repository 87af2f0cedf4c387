"""Boxes of voxels: the part of a grid that something fills."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Box: TypeAlias = tuple[slice, slice, slice]


def foreground_box(mask: NDArray[np.bool_]) -> Box | None:
    """The smallest box that holds every true voxel of a mask (I, J, K); none when it is empty."""
    box: list[slice] = []
    rest = mask
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(rest.any(axis=others))
        if filled.size == 0:
            return None
        bounds = slice(int(filled[0]), int(filled[-1]) + 1)
        box.append(bounds)
        # The next axes only need to look at the slab that is left.
        rest = rest[(slice(None),) * axis + (bounds,)]
    return box[0], box[1], box[2]


def box_ends(box: Box) -> NDArray[np.int64]:
    """First and last index along each axis, shape (2, 3)."""
    return np.array([[part.start for part in box], [part.stop - 1 for part in box]])


def grown_box(box: Box, margins: Sequence[int], spatial_shape: Sequence[int]) -> Box:
    """The box with a margin along each axis, as far as the grid goes."""
    i, j, k = (
        slice(max(0, part.start - margin), min(length, part.stop + margin))
        for part, margin, length in zip(box, margins, spatial_shape, strict=True)
    )
    return i, j, k


def whole_box(spatial_shape: Sequence[int]) -> Box:
    """All of a grid."""
    i, j, k = (slice(0, length) for length in spatial_shape)
    return i, j, k


def is_empty(box: Box) -> bool:
    """Whether a box holds no voxel."""
    return any(side.start >= side.stop for side in box)


def joined_box(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all of these; one without voxels where none has any."""
    filled = [box for box in boxes if not is_empty(box)]
    if not filled:
        return slice(0, 0), slice(0, 0), slice(0, 0)
    i, j, k = (
        slice(min(side.start for side in along), max(side.stop for side in along))
        for along in zip(*filled, strict=True)
    )
    return i, j, k
