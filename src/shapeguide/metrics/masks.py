"""What every metric asks of its masks, and where in the grid they lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shapeguide.errors import DataError, GeometryError

Box = tuple[slice, slice, slice]


def check_masks(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> None:
    """Refuse two arrays that are not masks (I, J, K) of one grid.

    Raises:
        GeometryError: If the shapes differ, or are not three lengths.
        DataError: If an array is not boolean; label maps have `LabelMap.mask`.
    """
    if prediction.shape != reference.shape:
        raise GeometryError(
            f"prediction has shape {prediction.shape}, reference {reference.shape}; "
            "resample the prediction to the reference grid first"
        )
    for name, mask in (("prediction", prediction), ("reference", reference)):
        if mask.ndim != 3:
            raise GeometryError(f"{name}: a mask has three axes, found shape {mask.shape}")
        if mask.dtype != np.bool_:
            raise DataError(
                f"{name}: a mask is boolean, found {mask.dtype}; "
                "compare with the label id first, or take LabelMap.mask(structure)"
            )


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
