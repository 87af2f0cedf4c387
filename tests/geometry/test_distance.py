from __future__ import annotations

import numpy as np

from shapeguide.geometry.distance import distance_across_mm, signed_distance_mm


def test_distances_are_in_mm_positive_inside_and_zero_between_inside_and_outside() -> None:
    mask = np.zeros((5, 5, 9), dtype=bool)
    mask[:, :, :4] = True
    distance = signed_distance_mm(mask, spacing_mm=(2.0, 2.0, 2.0))
    assert distance[2, 2].tolist() == [7, 5, 3, 1, -1, -3, -5, -7, -9]


def test_the_other_side_is_reached_along_the_shortest_way_in_mm() -> None:
    mask = np.zeros((3, 3, 3), dtype=bool)
    mask[1, 1, 1] = True
    distance = distance_across_mm(mask, spacing_mm=(3.0, 4.0, 12.0))
    assert distance[1, 1, 1] == 3.0
    assert distance[0, 0, 1] == -5.0
    assert distance[0, 0, 0] == -13.0


def test_a_mask_without_edge_is_infinitely_far_from_one() -> None:
    empty = np.zeros((2, 2, 2), dtype=bool)
    for distance_mm in (signed_distance_mm, distance_across_mm):
        assert (distance_mm(empty, spacing_mm=(1.0, 1.0, 1.0)) == -np.inf).all()
        assert (distance_mm(~empty, spacing_mm=(1.0, 1.0, 1.0)) == np.inf).all()
