from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from shapeguide.models.aligned_pose import AlignedPose, rotation_of, without_tail
from shapeguide.models.canonical_pose import canonical_pose

MM = (1.0, 1.0, 1.0)


def hook(
    *, turn_deg: float = 0.0, scale: float = 1.0, shift: float = 0.0, bump: float = 0.0
) -> Tensor:
    """A soft bent rod with a knob, turned about the third axis, shape (1, 1, 40, 40, 40)."""
    line = torch.arange(40) - 19.5
    i, j, k = torch.meshgrid(line, line, line, indexing="ij")
    angle = math.radians(turn_deg)
    a = (math.cos(angle) * (i - shift) + math.sin(angle) * j) / scale
    b = (-math.sin(angle) * (i - shift) + math.cos(angle) * j) / scale
    c = k / scale
    rod = 1 - ((a / 13) ** 2 + ((b - 0.03 * a**2) / 5) ** 2 + (c / 4) ** 2)
    knob = (3 + bump) ** 2 / 16 - ((a - 9) ** 2 + (b + 1) ** 2 + (c - 3) ** 2) / 16
    return torch.sigmoid(torch.maximum(rod, knob) * 6)[None, None]


def population() -> Tensor:
    turned = [hook(turn_deg=turn, bump=bump) for turn, bump in ((-6, 0), (0, 0.8), (7, 0.4))]
    return (torch.cat(turned) > 0.5).float()


def fitted(shape: int = 24) -> AlignedPose:
    pose = AlignedPose(1, shape=shape)
    pose.fit(population(), spacing_mm=MM)
    return pose


def change(pose: AlignedPose, first: Tensor, second: Tensor) -> float:
    views = [pose(mask, spacing_mm=MM) for mask in (first, second)]
    return float((views[0] - views[1]).norm() / views[0].norm())


def test_view_forgets_where_how_large_and_how_turned_a_mask_is() -> None:
    pose, mask = fitted(), hook()
    assert change(pose, mask, hook(shift=3.0)) < 0.05
    assert change(pose, mask, hook(scale=0.85)) < 0.2
    assert change(pose, mask, hook(turn_deg=14)) < 0.1


def test_canonical_pose_keeps_the_rotation_that_the_aligned_one_takes_out() -> None:
    kept = [canonical_pose(hook(turn_deg=turn), spacing_mm=MM, shape=24) for turn in (0, 14)]
    left = float((kept[0] - kept[1]).norm() / kept[0].norm())
    assert left > 4 * change(fitted(), hook(), hook(turn_deg=14))


def test_view_keeps_stretch_and_a_bump() -> None:
    pose, mask = fitted(), (hook() > 0.5).float()
    thicker = torch.nn.functional.max_pool3d(mask, 3, stride=1, padding=1)
    assert change(pose, mask, thicker) > 0.3
    assert change(pose, hook(), hook(bump=2.0)) > 0.3


def test_view_hardly_depends_on_the_spacing() -> None:
    pose, mask = fitted(), hook()
    coarse = torch.nn.functional.avg_pool3d(mask, 2)
    views = pose(mask, spacing_mm=MM), pose(coarse, spacing_mm=(2.0, 2.0, 2.0))
    assert float((views[0] - views[1]).norm() / views[0].norm()) < 0.3


def test_turning_a_mask_has_no_gradient_and_bending_it_has() -> None:
    pose = fitted()
    mask = hook().requires_grad_()
    wanted = pose(hook(bump=1.5), spacing_mm=MM).detach()
    (slope,) = torch.autograd.grad((pose(mask, spacing_mm=MM) - wanted).square().sum(), mask)
    turning = (hook(turn_deg=1) - hook(turn_deg=-1)) / 2
    growing = (hook(bump=0.1) - hook(bump=-0.1)) / 0.2
    along, across = (float((slope * way).sum()) for way in (turning, growing))
    # Per voxel changed, so that the two ways can be compared.
    assert abs(along) / turning.norm() < 0.15 * abs(across) / growing.norm()
    assert across < 0


def test_gradient_is_that_of_finite_differences() -> None:
    pose = fitted(shape=12)
    wanted = pose(hook(bump=1.5), spacing_mm=MM).detach()
    base, way = hook(), hook(bump=1.0) - hook()

    def loss(mask: Tensor) -> Tensor:
        total: Tensor = (pose(mask, spacing_mm=MM) - wanted).square().sum()
        return total

    mask = base.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(mask), mask)
    step = 0.02
    difference = (loss(base + step * way) - loss(base - step * way)) / (2 * step)
    assert float((slope * way).sum()) == pytest.approx(float(difference), rel=0.1)


def test_equal_masks_have_equal_views_with_and_without_a_graph() -> None:
    pose, mask = fitted(), hook()
    with_graph = pose(mask.clone().requires_grad_(), spacing_mm=MM)
    assert torch.equal(with_graph, pose(mask, spacing_mm=MM))


def test_faint_tail_over_the_whole_grid_hardly_moves_the_view() -> None:
    pose, mask = fitted(), hook(shift=4.0)
    assert change(pose, mask, mask.clamp(min=0.02)) < 0.1
    values = without_tail(torch.tensor([0.0, 0.02, 0.5, 1.0])).tolist()
    assert values == pytest.approx([0.0, 0.0, 0.496, 1.0], abs=1e-3)


def test_a_single_voxel_has_a_view() -> None:
    mask = torch.zeros((1, 1, 9, 9, 9))
    mask[0, 0, 4, 3, 5] = 1
    pose = AlignedPose(1, shape=16)
    pose.fit(mask, spacing_mm=MM)
    view = pose(mask.requires_grad_(), spacing_mm=MM)
    view.sum().backward()
    assert view.max() > 0.5
    assert mask.grad is not None
    assert mask.grad.isfinite().all()


def test_a_ball_is_not_turned_at_random() -> None:
    line = torch.arange(20) - 9.5
    i, j, k = torch.meshgrid(line, line, line, indexing="ij")
    ball = (i**2 + j**2 + k**2 < 36).float()[None, None]
    pose = AlignedPose(1, shape=16)
    pose.fit(ball, spacing_mm=MM)
    assert pose.filters.isfinite().all()
    views = pose(ball, spacing_mm=MM), pose(ball.roll(1, 2), spacing_mm=MM)
    assert (views[0] - views[1]).abs().mean() < 0.01


def test_nothing_stays_nothing_and_each_structure_has_a_population_of_its_own() -> None:
    masks = torch.cat([population(), torch.zeros((3, 1, 40, 40, 40))], dim=1)
    pose = AlignedPose(2, shape=16)
    pose.fit(masks, spacing_mm=MM)
    alone = AlignedPose(1, shape=16)
    alone.fit(population(), spacing_mm=MM)
    assert torch.allclose(pose.filters[0], alone.filters[0], atol=1e-5)
    views = pose(masks, spacing_mm=MM)
    assert views[:, 1].abs().max() == 0
    assert torch.allclose(views[:, :1], alone(population(), spacing_mm=MM), atol=1e-4)


def test_voxels_of_a_view_are_as_large_as_they_look() -> None:
    pose = AlignedPose(1, shape=31)
    pose.axes[0] = torch.diag(torch.tensor([2.0, 1.0, 0.5]))
    # A cube from -3 to 3 axes has 30 steps.
    assert pose.voxel_sizes(31)[0].tolist() == pytest.approx([0.4, 0.2, 0.1])


def test_rotation_vector_turns_by_its_length() -> None:
    turn = rotation_of(torch.tensor([[0.0, 0.0, 0.1], [0.0, 0.0, 0.0]]))
    assert torch.allclose(turn @ turn.mT, torch.eye(3).expand(2, 3, 3), atol=1e-6)
    assert math.atan2(float(turn[0, 1, 0]), float(turn[0, 0, 0])) == pytest.approx(0.1, rel=1e-2)
    assert torch.equal(turn[1], torch.eye(3))
