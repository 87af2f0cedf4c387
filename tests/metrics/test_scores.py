from __future__ import annotations

import math

import numpy as np
import pytest

from shapeguide.errors import ConfigError, GeometryError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import LabelMap, Structure
from shapeguide.metrics.scores import COLUMNS, error_rows, score, score_rows, score_table

HEAD = Structure("head", (1,))
TAIL = Structure("tail", (2, 3))
GRID = Grid((10, 10, 10), np.diag((2.0, 1.0, 1.0, 1.0)))


def label_map(
    *voxels: tuple[int, int, int, int],
    structures: tuple[Structure, ...] = (HEAD, TAIL),
    grid: Grid = GRID,
) -> LabelMap:
    """A label map with single voxels, each given as i, j, k and its label id."""
    data = np.zeros(grid.spatial_shape, dtype=np.int16)
    for i, j, k, label_id in voxels:
        data[i, j, k] = label_id
    return LabelMap(data, grid, structures)


def test_distances_and_volumes_are_in_millimetres_of_the_grid() -> None:
    prediction = label_map((2, 4, 4, 1))
    reference = label_map((5, 4, 4, 1), (5, 4, 5, 1))
    head = score(prediction, reference)["head"]
    assert head.hausdorff_mm == pytest.approx(math.sqrt(36 + 1))
    assert head.assd_mm == pytest.approx((6 + 6 + math.sqrt(37)) / 3)
    assert head.dice == 0.0
    assert (head.prediction_mm3, head.reference_mm3) == (2.0, 4.0)
    assert not head.missed


def test_all_label_ids_of_a_structure_count_as_one_on_both_sides() -> None:
    # Our own predictions write the first label id of a structure for all of it.
    prediction = label_map((1, 1, 1, 2), (1, 1, 2, 2))
    reference = label_map((1, 1, 1, 2), (1, 1, 2, 3))
    assert score(prediction, reference)["tail"].dice == 1.0


def test_a_structure_in_one_label_map_only_is_missed() -> None:
    missed = score(label_map((0, 0, 0, 1)), label_map((0, 0, 0, 1), (9, 9, 9, 2)))["tail"]
    assert missed.missed
    assert missed.dice == missed.surface_dice_1mm == 0.0
    assert missed.hausdorff_mm == missed.hd95_mm == missed.assd_mm == math.inf
    invented = score(label_map((9, 9, 9, 2)), label_map())["tail"]
    assert invented.missed
    assert str(invented) == "tail: missed (prediction 2 mm3, reference 0 mm3)"


def test_a_structure_in_neither_label_map_has_no_score() -> None:
    absent = score(label_map(), label_map())["head"]
    assert math.isnan(absent.dice)
    assert math.isnan(absent.hausdorff_mm)
    assert not absent.missed
    assert str(absent) == "head: in neither label map"


def test_scores_read_as_one_line() -> None:
    scores = score(label_map((0, 0, 0, 1)), label_map((0, 0, 0, 1), (1, 1, 1, 3)))
    assert str(scores) == (
        "head: Dice 1.000, Hausdorff 0.00 mm, HD95 0.00 mm, ASSD 0.00 mm, "
        "surface Dice 1.000 at 1 mm; tail: missed (prediction 0 mm3, reference 2 mm3)"
    )
    assert [found.structure for found in scores] == ["head", "tail"]
    assert len(scores) == 2


def test_a_reference_without_structures_takes_those_of_the_prediction() -> None:
    prediction = label_map((1, 1, 1, 1), structures=(HEAD,))
    scores = score(prediction, label_map((1, 1, 1, 1), structures=()))
    assert [found.structure for found in scores] == ["head"]
    assert scores["head"].dice == 1.0


def test_each_side_is_read_with_its_own_label_ids() -> None:
    prediction = label_map((1, 1, 1, 7), structures=(Structure("head", (7,)),))
    reference = label_map((1, 1, 1, 1), structures=(HEAD,))
    assert score(prediction, reference)["head"].dice == 1.0


def test_a_prediction_of_other_structures_is_refused() -> None:
    prediction = label_map((1, 1, 1, 1), structures=(Structure("whole", (1, 2)),))
    with pytest.raises(ConfigError, match="unknown structure 'head'; known structures: whole"):
        score(prediction, label_map((1, 1, 1, 1)))


def test_label_maps_without_any_structure_are_refused() -> None:
    with pytest.raises(ConfigError, match="what its label ids stand for"):
        score(label_map(structures=()), label_map(structures=()))


def test_different_grids_are_refused_with_both_affines_and_the_way_out() -> None:
    moved = Grid((10, 10, 10), np.diag((2.5, 1.0, 1.0, 1.0)))
    with pytest.raises(GeometryError, match=r"(?s)prediction.*2\.5.*reference.*resample"):
        score(label_map(grid=moved), label_map())


def test_grids_that_differ_by_the_rounding_of_a_header_are_the_same() -> None:
    affine = GRID.affine.copy()
    affine[:3, 3] += 0.005
    assert score(label_map((1, 1, 1, 1), grid=Grid((10, 10, 10), affine)), label_map((1, 1, 1, 1)))


def test_a_structure_that_was_not_scored_is_an_error_that_names_the_others() -> None:
    with pytest.raises(ConfigError, match="'body'; scored structures: head, tail"):
        score(label_map(), label_map())["body"]


def test_a_table_has_one_row_per_case_and_structure() -> None:
    scores = score(label_map((0, 0, 0, 1)), label_map((0, 0, 0, 1)))
    table = score_table([*score_rows("a", scores), *error_rows("b", (HEAD,), "no prediction")])
    assert tuple(table.columns) == COLUMNS
    assert table["case"].tolist() == ["a", "a", "b"]
    assert table["dice"].tolist()[0] == 1.0
    assert math.isnan(table["dice"].tolist()[2])
    assert table["error"].tolist() == ["", "", "no prediction"]
