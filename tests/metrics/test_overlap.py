from __future__ import annotations

import math

import numpy as np
import pytest

from shapeguide.errors import DataError, GeometryError
from shapeguide.metrics.overlap import dice


def test_dice_is_twice_the_shared_voxels_over_the_sum_of_both() -> None:
    prediction, reference = np.zeros((2, 4, 4, 4), dtype=bool)
    prediction[0, 0, :3] = True
    reference[0, 0, 1:4] = True
    reference[3, 3, 3] = True
    assert dice(prediction, reference) == pytest.approx(2 * 2 / (3 + 4))


def test_dice_of_equal_masks_is_one_and_of_disjoint_ones_zero() -> None:
    mask = np.zeros((3, 3, 3), dtype=bool)
    mask[1, 1] = True
    assert dice(mask, mask) == 1.0
    assert dice(mask, ~mask) == 0.0


def test_dice_is_zero_when_one_mask_is_empty_and_nan_when_both_are() -> None:
    empty, full = np.zeros((2, 2, 2), dtype=bool), np.ones((2, 2, 2), dtype=bool)
    assert dice(empty, full) == 0.0
    assert dice(full, empty) == 0.0
    assert math.isnan(dice(empty, empty))


def test_dice_refuses_masks_of_different_shapes_and_says_what_to_do() -> None:
    with pytest.raises(GeometryError, match=r"\(2, 2, 2\).*\(2, 2, 3\).*resample"):
        dice(np.zeros((2, 2, 2), dtype=bool), np.zeros((2, 2, 3), dtype=bool))


def test_dice_refuses_arrays_of_two_axes() -> None:
    with pytest.raises(GeometryError, match="three axes"):
        dice(np.zeros((2, 2), dtype=bool), np.zeros((2, 2), dtype=bool))


def test_dice_refuses_label_ids_instead_of_masks() -> None:
    mask = np.zeros((2, 2, 2), dtype=bool)
    with pytest.raises(DataError, match="reference: a mask is boolean, found int64"):
        dice(mask, mask.astype(np.int64))
