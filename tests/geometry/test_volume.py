from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from shapeguide.errors import ConfigError, DataError, GeometryError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import LabelMap, Structure, Volume, check_structures

GRID = Grid((1, 1, 4), np.eye(4))
PARTS = (Structure("head", (3, 1)), Structure("tail", (7,)))


def test_label_map_gives_masks_and_class_indices_of_its_structures() -> None:
    labels = LabelMap(np.array([[[1, 7, 9, 3]]]), GRID, PARTS)
    assert labels.mask("head").tolist() == [[[True, False, False, True]]]
    assert labels.mask(Structure("other", (9,))).tolist() == [[[False, False, True, False]]]
    assert labels.class_indices().tolist() == [[[1, 2, 0, 1]]]
    assert labels.class_indices().dtype == np.uint8


@pytest.mark.parametrize("largest", [9, 65535, 65536, 2**31 - 1])
def test_class_indices_and_counts_are_the_same_however_large_the_ids_are(largest: int) -> None:
    labels = LabelMap(np.array([[[1, 7, largest, 3]]]), GRID, (*PARTS, Structure("x", (largest,))))
    assert labels.class_indices().tolist() == [[[1, 2, 3, 1]]]
    assert labels.voxels_of_ids() == {1: 1, 3: 1, 7: 1, largest: 1}


def test_voxels_are_counted_by_label_id() -> None:
    labels = LabelMap(np.array([[[0, 7, 0, 7]], [[0, 1, 7, 0]]]), Grid((2, 1, 4), np.eye(4)))
    assert labels.voxels_of_ids() == {0: 4, 1: 1, 7: 3}


def test_unknown_structure_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'body'.*head, tail"):
        LabelMap(np.zeros((1, 1, 4), dtype=int), GRID, PARTS).mask("body")


def test_arrays_must_fit_their_grid_and_kind() -> None:
    with pytest.raises(GeometryError, match="shape"):
        Volume(np.zeros((1, 1, 5), dtype=np.float32), GRID)
    with pytest.raises(DataError, match="integers"):
        LabelMap(np.zeros((1, 1, 4)), GRID)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("structures", "message"),
    [
        ((Structure("a", (1,)), Structure("a", (2,))), "share the name a"),
        ((Structure("a", (1,)), Structure("b", (2, 1))), "share label id 1"),
        (tuple(Structure(f"s{n}", (n + 1,)) for n in range(256)), "at most 255"),
    ],
)
def test_structures_must_be_apart(structures: tuple[Structure, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_structures(structures)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ((), "found ()"),
        ((0,), "0 is the background"),
        ((2, 2), "different label ids"),
        ((2**31,), "to 2147483647, found (2147483648,)"),
        ((True,), "found (True,)"),
        (("1",), "found ('1',)"),
        (tuple(range(1000)), "found (0, 1, 2, 3, 4, 5, ...)"),
    ],
)
def test_a_structure_has_different_label_ids_that_files_can_hold(ids: Any, message: str) -> None:
    with pytest.raises(ConfigError, match="structure a: .*" + re.escape(message)):
        Structure("a", ids)


@pytest.mark.parametrize("name", ["", "x/../../../evil", "..", "a\0b", "nul", "a\ud800"])
def test_a_structure_is_not_named_as_no_file_can_be(name: str) -> None:
    with pytest.raises(ConfigError, match="a structure cannot be named"):
        Structure(name, (1,))
