from __future__ import annotations

import numpy as np
import pytest
import torch

from shapeguide.disturbing.probabilities import lose_slab, spoil, unit_mm
from shapeguide.training.stages.distance_bank import ABSENT_MM, edge_distance_mm


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_unit_is_a_ninth_of_the_radius_of_the_ball_of_the_mean_volume() -> None:
    assert unit_mm(4 / 3 * np.pi * 18.0**3) == pytest.approx(2.0)
    assert unit_mm(0.0) == 1.0


def test_signed_distance_is_in_mm_and_zero_at_the_face_of_the_mask() -> None:
    mask = np.zeros((8, 3, 3), dtype=bool)
    mask[:4] = True
    found = edge_distance_mm(mask, spacing_mm=(2.0, 9.0, 9.0))[:, 1, 1]
    # The mask ends at its grid too, on the side of the first voxel.
    assert found.tolist() == [1.0, 3.0, 3.0, 1.0, -1.0, -3.0, -5.0, -7.0]


def test_signed_distance_of_empty_and_full_masks_is_finite() -> None:
    empty = edge_distance_mm(np.zeros((4, 4, 4), dtype=bool), spacing_mm=(1.0, 1.0, 1.0))
    assert (empty == ABSENT_MM).all()
    full = edge_distance_mm(np.ones((4, 4, 4), dtype=bool), spacing_mm=(1.0, 1.0, 1.0))
    assert (full.min(), full.max()) == (0.5, 1.5)


def test_lost_slab_crosses_one_axis_and_is_alike_for_all_structures() -> None:
    maps = torch.ones(40, 2, 8, 12, 16)
    found = lose_slab(maps, chance=1.0, generator=generator())
    assert (maps == 1).all()
    axes = set()
    for item in found:
        assert torch.equal(item[0], item[1])
        lost = item[0] < 1
        across = [axis for axis in range(3) if not lost.all(dim=axis).any()]
        hit = [
            lost.any(dim=tuple(other for other in range(3) if other != axis)) for axis in range(3)
        ]
        (axis,) = [axis for axis in range(3) if not hit[axis].all()]
        assert across == [axis]
        assert 1 <= int(hit[axis].sum()) <= item.shape[1 + axis] // 4
        assert item[0].min() <= 0.6
        axes.add(axis)
    assert axes == {0, 1, 2}
    assert 10 <= sum(float(item.min()) == 0.0 for item in found) <= 30


def test_slab_is_lost_with_the_chance_given() -> None:
    maps = torch.ones(200, 1, 4, 4, 4)
    assert torch.equal(lose_slab(maps, chance=0.0, generator=generator()), maps)
    lost = (lose_slab(maps, chance=0.4, generator=generator()) < 1).flatten(1).any(1)
    assert lost.float().mean().item() == pytest.approx(0.4, abs=0.1)


def ball(radius_mm: float, spacing_mm: float, length: int) -> torch.Tensor:
    line = (torch.arange(length) - (length - 1) / 2) * spacing_mm
    i, j, k = torch.meshgrid(line, line, line, indexing="ij")
    return radius_mm - (i**2 + j**2 + k**2).sqrt()


def test_spoilt_maps_are_probabilities_that_differ_by_structure_and_by_draw() -> None:
    distances_mm = ball(9.0, 2.0, 16).expand(4, 2, -1, -1, -1)
    first, again, other = (
        spoil(distances_mm, spacing_mm=(2.0,) * 3, units_mm=(1.0, 1.0), generator=generator(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == distances_mm.shape
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1
    assert not torch.equal(first[:, 0], first[:, 1])


def test_spoiling_scales_with_the_unit() -> None:
    small = spoil(
        ball(9.0, 2.0, 16)[None, None].repeat(8, 1, 1, 1, 1),
        spacing_mm=(2.0,) * 3,
        units_mm=(1.0,),
        generator=generator(),
    )
    large = spoil(
        ball(27.0, 6.0, 16)[None, None].repeat(8, 1, 1, 1, 1),
        spacing_mm=(6.0,) * 3,
        units_mm=(3.0,),
        generator=generator(),
    )
    assert torch.allclose(small, large, atol=1e-4)


def test_structure_that_is_absent_is_spoilt_by_stray_balls_only() -> None:
    absent = torch.full((16, 1, 12, 12, 12), ABSENT_MM)
    found = spoil(absent, spacing_mm=(2.0,) * 3, units_mm=(1.0,), generator=generator())
    visible = (found > 0.05).flatten(1).any(1)
    assert 1 <= int(visible.sum()) <= 12
    assert torch.isfinite(found).all()
