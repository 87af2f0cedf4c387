"""What every metric asks of its masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shapeguide.errors import DataError, GeometryError


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
