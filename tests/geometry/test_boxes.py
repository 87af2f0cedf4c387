from __future__ import annotations

import numpy as np

from shapeguide.geometry.boxes import (
    box_ends,
    foreground_box,
    grown_box,
    is_empty,
    joined_box,
    whole_box,
)


def test_the_foreground_box_holds_exactly_the_true_voxels() -> None:
    mask = np.zeros((6, 7, 8), dtype=bool)
    mask[1, 2, 3] = mask[4, 2, 7] = True
    assert foreground_box(mask) == (slice(1, 5), slice(2, 3), slice(3, 8))
    assert foreground_box(np.asfortranarray(mask)) == (slice(1, 5), slice(2, 3), slice(3, 8))


def test_an_empty_mask_has_no_foreground_box() -> None:
    assert foreground_box(np.zeros((2, 2, 2), dtype=bool)) is None


def test_the_ends_of_a_box_are_its_first_and_last_index() -> None:
    assert box_ends((slice(1, 5), slice(2, 3), slice(3, 8))).tolist() == [[1, 2, 3], [4, 2, 7]]


def test_a_box_grows_as_far_as_the_grid_goes() -> None:
    box = (slice(1, 5), slice(2, 3), slice(3, 8))
    grown = grown_box(box, (2, 0, 1), (9, 9, 8))
    assert grown == (slice(0, 7), slice(2, 3), slice(2, 8))


def test_boxes_are_joined_and_empty_ones_count_for_nothing() -> None:
    first = (slice(2, 4), slice(0, 3), slice(5, 6))
    second = (slice(1, 3), slice(2, 7), slice(5, 9))
    empty = (slice(0, 0), slice(0, 9), slice(0, 9))
    assert is_empty(empty)
    assert not is_empty(first)
    assert joined_box([first, empty, second]) == (slice(1, 4), slice(0, 7), slice(5, 9))
    assert is_empty(joined_box([empty]))
    assert is_empty(joined_box([]))
    assert whole_box((2, 3, 4)) == (slice(0, 2), slice(0, 3), slice(0, 4))
