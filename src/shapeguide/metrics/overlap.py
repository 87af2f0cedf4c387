"""How much of two masks is shared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shapeguide.metrics.mask_checks import check_masks


def dice(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Dice score of two masks: twice the shared voxels over the sum of both.

    Args:
        prediction: Boolean mask, shape (I, J, K).
        reference: Boolean mask, same shape.

    Returns:
        In [0, 1], 1 for equal masks; 0 when one mask is empty, nan when both are.

    Raises:
        GeometryError: If the shapes differ, or are not three lengths.
        DataError: If an array is not boolean.
    """
    check_masks(prediction, reference)
    total = int(np.count_nonzero(prediction)) + int(np.count_nonzero(reference))
    if total == 0:
        return float("nan")
    return 2 * int(np.count_nonzero(prediction & reference)) / total
