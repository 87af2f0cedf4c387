from __future__ import annotations

import numpy as np
import pytest

from shapeguide.errors import GeometryError
from shapeguide.geometry.grid import Grid

OBLIQUE = np.array(
    [[0.0, -2.0, 0.0, 5.0], [1.0, 0.0, 0.0, -3.0], [0.0, 0.0, 4.0, 1.0], [0.0, 0.0, 0.0, 1.0]]
)


def test_spacing_and_volume_come_from_the_affine() -> None:
    grid = Grid((3, 4, 5), OBLIQUE)
    assert grid.spacing_mm == (1.0, 2.0, 4.0)
    assert grid.voxel_volume_mm3 == pytest.approx(8.0)


def test_index_and_world_are_inverse_and_known_by_hand() -> None:
    grid = Grid((3, 4, 5), OBLIQUE)
    assert grid.to_world(np.array([1.0, 2.0, 3.0])).tolist() == [1.0, -2.0, 13.0]
    assert grid.to_index(np.array([1.0, -2.0, 13.0])) == pytest.approx([1, 2, 3])
    assert grid.centre_mm.tolist() == grid.to_world(np.array([1.0, 1.5, 2.0])).tolist()


def test_corners_enclose_the_voxel_centres() -> None:
    corners = Grid((3, 4, 5), np.eye(4)).corners_mm()
    assert corners.shape == (8, 3)
    assert corners.min(axis=0).tolist() == [0, 0, 0]
    assert corners.max(axis=0).tolist() == [2, 3, 4]


def test_grids_match_by_their_corners() -> None:
    grid = Grid((3, 4, 5), OBLIQUE)
    nudged = OBLIQUE.copy()
    nudged[0, 3] += 5e-4
    assert grid.matches(Grid((3, 4, 5), nudged))
    nudged[0, 3] += 1.0
    assert not grid.matches(Grid((3, 4, 5), nudged))
    assert not grid.matches(Grid((3, 4, 6), OBLIQUE))


def test_affine_of_a_grid_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        Grid((3, 4, 5), OBLIQUE).affine[0, 0] = 1.0


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.eye(3), "shape"),
        (np.diag([1.0, np.nan, 1.0, 1.0]), "not finite"),
        (np.diag([1.0, 0.0, 1.0, 1.0]), "spacing must be positive"),
        (np.diag([1.0, 1.0, 1.0, 2.0]), "last row"),
        (np.diag([1.0, 1e25, 1.0, 1.0]), r"4e\+25 mm from the origin"),
        (np.diag([1.0, 1e308, 1e308, 1.0]), "from the origin"),
        (np.eye(4) + np.eye(4, k=3) * 2e6, "at most 1e\\+06 mm are believed"),
        (
            np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
            "singular.*qform",
        ),
    ],
)
def test_affine_that_places_nothing_is_refused(affine: np.ndarray, message: str) -> None:
    with pytest.raises(GeometryError, match=f"(?s){message}"):
        Grid((3, 4, 5), affine)


@pytest.mark.parametrize("shape", [(3, 4), (0, 4, 5), (-1, 2, 2)])
def test_shape_must_be_three_positive_lengths(shape: tuple[int, int, int]) -> None:
    with pytest.raises(GeometryError, match="three positive lengths"):
        Grid(shape, np.eye(4))
