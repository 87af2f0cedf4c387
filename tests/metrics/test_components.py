from __future__ import annotations

import numpy as np
import pytest

from shapeguide.errors import ConfigError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import LabelMap, Structure
from shapeguide.metrics.components import (
    keep_largest_component,
    largest_component,
    structure_volumes_mm3,
)

LEFT, RIGHT = Structure("left", (1, 2)), Structure("right", (5,))
GRID = Grid((12, 10, 8), np.diag((2.0, 1.0, 1.5, 1.0)))


def label_map(data: np.ndarray) -> LabelMap:
    return LabelMap(data, GRID, (LEFT, RIGHT))


def test_each_structure_keeps_its_largest_component_alone() -> None:
    data = np.zeros(GRID.spatial_shape, dtype=np.uint8)
    data[1:4, 1, 1] = 1
    data[4, 1, 1] = 2  # touches label id 1 of the same structure: one component
    data[9, 9, 7] = 2
    data[1, 5, 1] = 5
    data[6, 5:8, 1] = 5
    kept = keep_largest_component(label_map(data))
    expected = data.copy()
    expected[9, 9, 7] = expected[1, 5, 1] = 0
    np.testing.assert_array_equal(kept.data, expected)
    assert kept.structures == (LEFT, RIGHT)
    assert data[9, 9, 7] == 2, "the given label map stays as it is"


def test_voxels_that_share_only_a_corner_are_connected() -> None:
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True
    np.testing.assert_array_equal(largest_component(mask), mask)


def test_of_equal_components_the_first_in_index_order_stays() -> None:
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[0, 8, 5:7] = mask[2, 0, 0:2] = mask[8, 1, 1:3] = True
    kept = largest_component(mask)
    assert kept[0, 8, 5:7].all()
    assert kept.sum() == 2


def test_voxels_of_no_structure_stay() -> None:
    data = np.zeros(GRID.spatial_shape, dtype=np.int32)
    data[0, 0, 0] = data[5, 5, 5] = 77
    np.testing.assert_array_equal(keep_largest_component(label_map(data)).data, data)


def test_an_empty_label_map_stays_empty() -> None:
    empty = label_map(np.zeros(GRID.spatial_shape, dtype=np.uint8))
    assert not keep_largest_component(empty).data.any()
    assert structure_volumes_mm3(empty) == {"left": 0.0, "right": 0.0}
    assert not largest_component(np.zeros((2, 2, 2), dtype=bool)).any()


def test_volumes_count_the_voxels_of_all_label_ids_in_cubic_millimetres() -> None:
    data = np.zeros(GRID.spatial_shape, dtype=np.uint8)
    data[0, 0, 0] = 1
    data[1, 1, 1:4] = 2
    assert structure_volumes_mm3(label_map(data)) == pytest.approx({"left": 12.0, "right": 0.0})


def test_a_label_map_without_structures_is_refused() -> None:
    nameless = LabelMap(np.ones(GRID.spatial_shape, dtype=np.uint8), GRID)
    with pytest.raises(ConfigError, match="what its label ids stand for"):
        keep_largest_component(nameless)
    with pytest.raises(ConfigError, match="what its label ids stand for"):
        structure_volumes_mm3(nameless)
