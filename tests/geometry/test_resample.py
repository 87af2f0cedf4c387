"""Resampling between grids: where things land, what survives, what comes back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shapeguide.errors import GeometryError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.resample import (
    ras_grid,
    resample_channels,
    resample_label_map,
    resample_volume,
    to_ras,
    working_grid,
)
from shapeguide.geometry.volume import LabelMap, Placement, Structure, Volume


def grid_of(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> Grid:
    return Grid(shape, np.diag([*spacing_mm, 1.0]))


def rotation(angles_deg: tuple[float, float, float]) -> NDArray[np.float64]:
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(angles_deg)):
        first, second = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def turned_grid(
    shape: tuple[int, int, int],
    *,
    order: tuple[int, int, int],
    signs: tuple[int, int, int],
    angles_deg: tuple[float, float, float],
    spacing_mm: tuple[float, float, float],
) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles_deg) @ np.diag(signs)[:, order] * np.array(spacing_mm)
    affine[:3, 3] = (-11.0, 7.5, 3.25)
    return Grid(shape, affine)


def ball(grid: Grid, radius_mm: float) -> NDArray[np.uint8]:
    indices = np.moveaxis(np.indices(grid.spatial_shape), 0, -1).astype(float)
    distances = np.linalg.norm(grid.to_world(indices) - grid.centre_mm, axis=-1)
    inside: NDArray[np.bool_] = distances <= radius_mm
    return inside.astype(np.uint8)


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return 2 * float((first & second).sum()) / float(first.sum() + second.sum())


grids = st.builds(
    turned_grid,
    st.tuples(*[st.integers(18, 24)] * 3),
    order=st.permutations([0, 1, 2]).map(tuple),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    angles_deg=st.tuples(*[st.floats(-25, 25)] * 3),
    spacing_mm=st.tuples(*[st.floats(0.8, 1.3)] * 3),
)


def test_las_becomes_ras_by_flipping_the_first_axis() -> None:
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[0, 3] = 90
    data = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    moved = to_ras(Volume(data, Grid((2, 3, 4), affine)))
    assert np.array_equal(moved.data, data[::-1])
    assert moved.grid.affine[0].tolist() == [1, 0, 0, 89]


def test_a_ras_item_is_left_as_it_is() -> None:
    label_map = LabelMap(np.ones((2, 3, 4), dtype=np.uint8), grid_of((2, 3, 4)))
    assert to_ras(label_map) is label_map


@settings(max_examples=20, deadline=None)
@given(grids)
def test_to_ras_keeps_every_voxel_at_its_place(grid: Grid) -> None:
    data = np.zeros(grid.spatial_shape, dtype=np.float32)
    data[3, 5, 7] = 1
    moved = to_ras(Volume(data, grid))
    found = moved.grid.to_world(np.argwhere(moved.data == 1).astype(float))[0]
    assert np.allclose(found, grid.to_world(np.array([3.0, 5.0, 7.0])))
    assert np.diag(moved.grid.affine)[:3].min() > 0
    assert moved.grid.matches(ras_grid(grid))


@settings(max_examples=20, deadline=None)
@given(grids)
def test_labels_stay_in_place_through_the_working_grid_and_back(grid: Grid) -> None:
    label_map = LabelMap(ball(grid, 7.0) * 3, grid)
    working = working_grid(grid, (1.0, 1.0, 1.0), (32, 32, 32), grid.centre_mm)
    there = resample_label_map(label_map, working)
    back = resample_label_map(there, grid)
    assert set(np.unique(there.data)) == {0, 3}
    assert dice(there.data > 0, ball(Grid((32, 32, 32), working.affine), 7.0) > 0) > 0.8
    assert dice(back.data > 0, label_map.data > 0) > 0.93


def test_an_item_that_is_turned_no_longer_lies_as_its_header_said() -> None:
    grid = Grid((2, 3, 4), np.diag([-1.0, 1.0, 1.0, 1.0]))
    header = Placement(sform=grid.affine, sform_code=1, qform=grid.affine, qform_code=1)
    assert to_ras(Volume(np.zeros((2, 3, 4), dtype=np.float32), grid, header)).placement is None


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.0, 0.5, 3.0)])
def test_working_grid_keeps_the_voxels_of_a_grid_of_the_same_spacing(
    spacing_mm: tuple[float, float, float],
) -> None:
    grid = grid_of((5, 6, 7), spacing_mm)
    working = working_grid(grid, spacing_mm, (8, 8, 8), grid.centre_mm)
    data = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    resampled = resample_volume(Volume(data, grid), working, outside=-9.0)
    start = np.round(working.to_index(np.zeros(3))).astype(int)
    inner = tuple(slice(first, first + n) for first, n in zip(start, data.shape, strict=True))
    assert np.array_equal(resampled.data[inner], data)
    assert (resampled.data == -9).sum() == 8**3 - data.size


def test_working_grid_is_centred_and_oblique_like_its_input() -> None:
    grid = turned_grid(
        (9, 9, 9), order=(2, 0, 1), signs=(-1, 1, 1), angles_deg=(0, 0, 20), spacing_mm=(1, 2, 3)
    )
    working = working_grid(grid, (1.5, 1.5, 1.5), (6, 7, 8), (1.0, 2.0, 3.0))
    assert np.allclose(working.centre_mm, (1, 2, 3))
    assert np.allclose(working.spacing_mm, 1.5)
    ordered = ras_grid(grid)
    expected = ordered.affine[:3, :3] / np.array(ordered.spacing_mm)
    assert np.allclose(working.affine[:3, :3] / 1.5, expected)


def test_working_grid_refuses_a_spacing_that_is_not_positive() -> None:
    with pytest.raises(GeometryError, match="positive"):
        working_grid(grid_of((4, 4, 4)), (1.0, 0.0, 1.0), (4, 4, 4), (0, 0, 0))


def test_a_ramp_is_read_linearly_on_a_finer_grid() -> None:
    data = np.broadcast_to(np.arange(4, dtype=np.float32)[:, None, None], (4, 3, 3)).copy()
    fine = Grid((6, 3, 3), np.diag([0.5, 1.0, 1.0, 1.0]))
    resampled = resample_volume(Volume(data, grid_of((4, 3, 3))), fine)
    assert np.allclose(resampled.data[:, 1, 1], [0, 0.5, 1, 1.5, 2, 2.5])


def test_a_coarser_grid_takes_the_mean_so_that_stripes_do_not_alias() -> None:
    data = np.zeros((8, 8, 8), dtype=np.float32)
    data[::2] = 1
    affine = np.diag([2.0, 1.0, 1.0, 1.0])
    affine[0, 3] = 0.5
    resampled = resample_volume(Volume(data, grid_of((8, 8, 8))), Grid((4, 8, 8), affine))
    assert np.allclose(resampled.data, 0.5)


def test_beyond_the_volume_lies_its_minimum_or_the_stated_value() -> None:
    volume = Volume(np.full((3, 3, 3), 7, dtype=np.float32), grid_of((3, 3, 3)))
    volume.data[0, 0, 0] = 2
    wide = grid_of((5, 3, 3))
    assert resample_volume(volume, wide).data[4, 1, 1] == 2
    assert resample_volume(volume, wide, outside=-1).data[4, 1, 1] == -1
    assert resample_volume(volume, wide, outside=-1).data[2, 1, 1] == 7


def test_an_oblique_grid_reads_the_same_world_positions() -> None:
    source = grid_of((20, 20, 20))
    indices = np.indices((20, 20, 20)).astype(np.float32)
    volume = Volume(indices[0] + 2 * indices[1] - indices[2], source)
    affine = np.eye(4)
    affine[:3, :3] = rotation((10, 20, 30)) * 0.9
    affine[:3, 3] = 6
    oblique = Grid((5, 6, 7), affine)
    resampled = resample_volume(volume, oblique, outside=-99)
    world = oblique.to_world(np.moveaxis(np.indices((5, 6, 7)), 0, -1).astype(float))
    expected = world @ np.array([1.0, 2.0, -1.0])
    inside = ((world >= 0) & (world <= 19)).all(axis=-1)
    assert inside.sum() > 100
    assert np.allclose(resampled.data[inside], expected[inside], atol=1e-4)
    assert (resampled.data[(world < -0.6).any(axis=-1)] == -99).all()


def test_an_oblique_coarse_grid_is_smoothed_first() -> None:
    noise = np.random.default_rng(1).normal(size=(40, 40, 40)).astype(np.float32)
    affine = np.eye(4)
    affine[:3, :3] = rotation((0, 0, 30)) * 4
    affine[:3, 3] = 12
    coarse = resample_volume(Volume(noise, grid_of((40, 40, 40))), Grid((4, 4, 4), affine))
    assert coarse.data.std() < 0.3


def test_channels_are_resampled_one_by_one_and_vanish_outside() -> None:
    channels = np.stack([np.full((4, 4, 4), value, dtype=np.float32) for value in (0.25, 0.75)])
    resampled = resample_channels(channels, grid_of((4, 4, 4)), grid_of((6, 4, 4)))
    assert resampled.shape == (2, 6, 4, 4)
    assert (resampled[0, :4] == 0.25).all()
    assert (resampled[1, :4] == 0.75).all()
    assert (resampled[:, 4:] == 0).all()


def test_channels_of_another_shape_are_refused() -> None:
    with pytest.raises(GeometryError, match="channels of shape"):
        resample_channels(
            np.zeros((2, 3, 3, 3), np.float32), grid_of((4, 4, 4)), grid_of((4, 4, 4))
        )


@pytest.mark.parametrize("first", [8, 9, 10, 11])
def test_a_sheet_of_one_voxel_survives_twice_the_spacing(first: int) -> None:
    data = np.zeros((20, 20, 20), dtype=np.uint8)
    data[first, 2:18, 2:18] = 1
    coarse = working_grid(grid_of((20, 20, 20)), (2.0, 2.0, 2.0), (10, 10, 10), (9.5, 9.5, 9.5))
    sheet: NDArray[np.bool_] = (
        resample_label_map(LabelMap(data, grid_of((20, 20, 20))), coarse).data > 0
    )
    assert np.any(sheet, axis=0)[1:8, 1:8].all()
    assert np.any(sheet, axis=(1, 2)).sum() == 1


def test_a_sheet_between_two_coarse_layers_ends_in_one_of_them() -> None:
    data = np.zeros((21, 20, 20), dtype=np.uint8)
    data[10, 2:18, 2:18] = 1
    coarse = Grid((10, 10, 10), np.diag([2.0, 2.0, 2.0, 1.0]) + np.eye(4, k=3) * 1.0)
    sheet: NDArray[np.bool_] = (
        resample_label_map(LabelMap(data, grid_of((21, 20, 20))), coarse).data > 0
    )
    assert np.any(sheet, axis=(1, 2)).sum() == 1
    assert np.any(sheet, axis=0)[2:8, 2:8].all()


def test_a_single_voxel_survives_four_times_the_spacing() -> None:
    data = np.zeros((16, 16, 16), dtype=np.int32)
    data[5, 9, 2] = 77
    coarse = working_grid(grid_of((16, 16, 16)), (4.0, 4.0, 4.0), (4, 4, 4), (7.5, 7.5, 7.5))
    found = np.argwhere(
        resample_label_map(LabelMap(data, grid_of((16, 16, 16))), coarse).data == 77
    )
    assert found.tolist() == [[1, 2, 0]]


def test_a_thin_structure_between_thick_ones_survives() -> None:
    data = np.ones((16, 16, 16), dtype=np.uint8)
    data[8:] = 2
    data[8, 3:13, 3:13] = 3
    coarse = working_grid(grid_of((16, 16, 16)), (3.0, 3.0, 3.0), (6, 6, 6), (7.5, 7.5, 7.5))
    resampled = resample_label_map(LabelMap(data, grid_of((16, 16, 16))), coarse)
    assert set(np.unique(resampled.data)) == {0, 1, 2, 3}
    assert (resampled.data == 3).sum() >= 3


def test_volume_is_kept_when_a_grid_is_shifted_by_half_a_voxel() -> None:
    data = np.zeros((12, 12, 12), dtype=np.uint8)
    data[3:9, 3:9, 3:9] = 1
    affine = np.eye(4)
    affine[0, 3] = 0.5
    moved = resample_label_map(LabelMap(data, grid_of((12, 12, 12))), Grid((12, 12, 12), affine))
    assert moved.data.sum() == 6**3


def test_ids_that_no_structure_names_become_background() -> None:
    data = np.zeros((6, 6, 6), dtype=np.int16)
    data[:2], data[2:4], data[4:] = 1, 2, 900
    structures = (Structure("horn", (1, 2)),)
    label_map = LabelMap(data, grid_of((6, 6, 6)), structures)
    moved = resample_label_map(label_map, grid_of((6, 6, 8)))
    assert set(np.unique(moved.data)) == {0, 1, 2}
    assert moved.structures == structures
    assert moved.data.dtype == np.int16


def test_very_large_label_ids_are_kept() -> None:
    data = np.zeros((6, 6, 6), dtype=np.int32)
    data[1:4], data[4:] = 2_000_000_000, 5
    moved = resample_label_map(LabelMap(data, grid_of((6, 6, 6))), grid_of((6, 6, 7)))
    assert set(np.unique(moved.data)) == {0, 5, 2_000_000_000}
    assert np.array_equal(moved.data[:, :, :6], data)


def test_a_structure_outside_the_crop_leaves_nothing() -> None:
    data = np.zeros((12, 12, 12), dtype=np.uint8)
    data[10] = 1
    assert not resample_label_map(
        LabelMap(data, grid_of((12, 12, 12))), grid_of((4, 4, 4))
    ).data.any()


def test_a_working_grid_of_gigabytes_is_refused_before_it_is_made() -> None:
    coarse = grid_of((25, 25, 25), (30.0, 30.0, 30.0))
    with pytest.raises(GeometryError) as caught:
        working_grid(coarse, (1.0, 1.0, 1.0), (750, 750, 750), coarse.centre_mm)
    message = str(caught.value)
    assert "(25, 25, 25) voxels of (30.0, 30.0, 30.0) mm would become (750, 750, 750)" in message
    assert "at most 134,217,728 (512 x 512 x 512)" in message
    assert "crop the scan" in message
    assert working_grid(coarse, (2.0, 2.0, 2.0), (512, 512, 512), (0, 0, 0)).spacing_mm == (2, 2, 2)


@pytest.mark.parametrize("turned", [False, True], ids=["parallel", "oblique"])
def test_a_grid_a_hundred_times_as_coarse_is_a_mistake_in_units(turned: bool) -> None:
    fine = grid_of((8, 8, 8), (0.005, 0.005, 0.005))
    affine = np.eye(4)
    affine[:3, :3] = rotation((0, 0, 30)) if turned else np.eye(3)
    coarse = Grid((8, 8, 8), affine)
    with pytest.raises(GeometryError, match=r"0\.005 x 0\.005 x 0\.005 mm .* 200 times as wide"):
        resample_volume(Volume(np.ones((8, 8, 8), np.float32), fine), coarse)
    with pytest.raises(GeometryError, match="200 times as wide"):
        resample_label_map(LabelMap(np.ones((8, 8, 8), np.uint8), fine), coarse)


def test_an_axis_whose_matrix_would_take_gigabytes_is_refused() -> None:
    line = grid_of((30_000, 1, 1))
    finer = grid_of((30_000, 1, 1), (0.9, 1.0, 1.0))
    with pytest.raises(GeometryError, match="30000 voxels is not resampled to 30000"):
        resample_volume(Volume(np.ones((30_000, 1, 1), np.float32), line), finer)
