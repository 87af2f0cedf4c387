from __future__ import annotations

import numpy as np
import pytest

from shapeguide.geometry.distance import signed_distance_mm
from shapeguide.report.rendering import View, render, smoothed, view_of

SPACING_MM = (1.0, 1.0, 2.0)


def test_a_ball_is_seen_as_a_disc_of_its_size_whatever_the_spacing() -> None:
    i, j, k = np.indices((40, 40, 20))
    mask = ((i - 20) ** 2 + (j - 20) ** 2 + (2 * (k - 10)) ** 2) <= 10**2
    view = View(np.array([20.0, 20.0, 20.0]), radius_mm=20.0, pixels=200)
    opacity = render(mask, view, spacing_mm=SPACING_MM)[..., 3]
    area_mm2 = opacity.sum() * (40 / 199) ** 2
    assert area_mm2 == pytest.approx(np.pi * 10**2, rel=0.12)
    middle = np.argwhere(opacity > 0).mean(0)
    np.testing.assert_allclose(middle, [99.5, 99.5], atol=3)


def test_up_in_the_picture_is_along_the_third_axis() -> None:
    mask = np.zeros((20, 20, 20), dtype=bool)
    mask[8:12, 8:12, 16:19] = True
    view = View(np.array([10.0, 10.0, 10.0]), radius_mm=12.0, elevation_deg=0.0, pixels=60)
    rows = np.argwhere(render(mask, view, spacing_mm=(1.0, 1.0, 1.0))[..., 3] > 0)[:, 0]
    assert rows.max() < 30


def test_a_single_stray_voxel_is_not_smoothed_away() -> None:
    mask = np.zeros((15, 15, 15), dtype=bool)
    mask[7, 7, 7] = True
    assert smoothed(mask)[7, 7, 7] > 0.5


def test_colours_tell_how_far_the_surface_is_from_another() -> None:
    mask = np.zeros((20, 20, 20), dtype=bool)
    mask[6:14, 6:14, 6:14] = True
    view = view_of([mask], spacing_mm=(1.0, 1.0, 1.0), pixels=60)
    near = -signed_distance_mm(mask, spacing_mm=(1.0, 1.0, 1.0))
    far = np.full(mask.shape, 4.0)
    pictures = [
        render(mask, view, spacing_mm=(1.0, 1.0, 1.0), distance_mm=distance)
        for distance in (near, far)
    ]
    green = [picture[picture[..., 3] > 0][:, 1].mean() for picture in pictures]
    assert green[1] < 0.5 * green[0]


def test_an_empty_mask_gives_an_empty_picture() -> None:
    mask = np.zeros((6, 6, 6), dtype=bool)
    view = view_of([mask], spacing_mm=SPACING_MM, pixels=20)
    assert not render(mask, view, spacing_mm=SPACING_MM).any()


def test_one_view_holds_all_masks() -> None:
    first, second = np.zeros((2, 30, 30, 30), dtype=bool)
    first[2:5, 2:5, 2:5] = True
    second[25:28, 25:28, 25:28] = True
    view = view_of([first, second], spacing_mm=(1.0, 1.0, 1.0), pixels=80)
    pictures = [render(mask, view, spacing_mm=(1.0, 1.0, 1.0)) for mask in (first, second)]
    opacity = pictures[0][..., 3] + pictures[1][..., 3]
    edge = np.concatenate([opacity[0], opacity[-1], opacity[:, 0], opacity[:, -1]])
    assert not edge.any()
    assert opacity.any()
