from __future__ import annotations

import pytest
import torch
from torch import Tensor

from shapeguide.models.canonical_pose import (
    canonical_pose,
    confident,
    moments,
    symmetric_square_root,
)


def box(shape: tuple[int, int, int], low: tuple[int, ...], high: tuple[int, ...]) -> Tensor:
    mask = torch.zeros(shape)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1
    return mask[None, None]


def test_moments_of_a_box_are_its_middle_and_the_variance_of_its_edges() -> None:
    mask = box((21, 21, 21), (5, 8, 10), (11, 12, 12))
    centre, root = moments(mask[0], spacing_mm=(1.0, 2.0, 1.0))
    # Middle of the grid is index 10; the box has edges of 6, 4 and 2 voxels.
    assert centre[0].tolist() == pytest.approx([-2.5, -1.0, 0.5], abs=1e-2)
    variances = (root[0] @ root[0]).diagonal().tolist()
    assert variances == pytest.approx([36 / 12, 64 / 12, 4 / 12], rel=1e-2)


def test_square_root_squared_is_the_matrix_even_when_it_is_very_long() -> None:
    rotation = torch.linalg.qr(torch.randn((3, 3), generator=torch.Generator().manual_seed(0)))[0]
    matrix = (rotation @ torch.diag(torch.tensor([1.0, 30.0, 400.0])) @ rotation.T)[None]
    root = symmetric_square_root(matrix)
    assert torch.allclose(root @ root, matrix, rtol=1e-3, atol=1e-2)


def test_canonical_pose_forgets_translation_scale_and_stretch() -> None:
    first = box((32, 32, 32), (4, 4, 4), (12, 12, 20))
    moved = box((32, 32, 32), (14, 10, 8), (30, 22, 24))
    poses = [canonical_pose(mask, spacing_mm=(1.0, 1.0, 1.0), shape=16) for mask in (first, moved)]
    assert (poses[0] - poses[1]).abs().mean() < 0.02


def test_canonical_pose_is_the_same_for_any_spacing_of_the_same_box() -> None:
    fine = box((40, 40, 40), (10, 10, 10), (30, 20, 30))
    coarse = box((20, 40, 40), (5, 10, 10), (15, 20, 30))
    one = canonical_pose(fine, spacing_mm=(1.0, 1.0, 1.0), shape=16)
    other = canonical_pose(coarse, spacing_mm=(2.0, 1.0, 1.0), shape=16)
    assert (one - other).abs().mean() < 0.02


def test_canonical_pose_of_nothing_is_nothing() -> None:
    pose = canonical_pose(torch.zeros((1, 2, 8, 8, 8)), spacing_mm=(1.0, 1.0, 1.0), shape=8)
    assert pose.shape == (1, 2, 8, 8, 8)
    assert pose.abs().max() == 0


def test_gradient_of_the_pose_is_finite_for_a_perfect_cube() -> None:
    mask = box((12, 12, 12), (4, 4, 4), (8, 8, 8)).requires_grad_()
    (canonical_pose(mask, spacing_mm=(1.0, 1.0, 1.0), shape=8) ** 2).sum().backward()
    assert mask.grad is not None
    assert mask.grad.isfinite().all()


def test_confidence_keeps_the_ends_and_the_middle_and_removes_faint_tails() -> None:
    values = torch.tensor([0.0, 0.02, 0.5, 1.0])
    assert confident(values).tolist() == pytest.approx([0.0, 8.5e-6, 0.5, 1.0], abs=1e-6)


def test_faint_tail_over_the_whole_grid_does_not_move_the_pose() -> None:
    mask = box((48, 48, 48), (6, 6, 6), (12, 14, 16))
    tail = torch.where(mask > 0, mask, torch.full_like(mask, 0.02))
    clean = moments(mask[0], spacing_mm=(1.0, 1.0, 1.0))[0]
    soft = moments(confident(tail)[0], spacing_mm=(1.0, 1.0, 1.0))[0]
    assert torch.allclose(clean, soft, atol=0.1)
