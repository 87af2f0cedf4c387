"""A mask brought to the pose that its own moments define.

The centroid and the symmetric square root of the covariance place a unit box on the mask;
sampling the mask there removes translation, scale and stretch exactly and leaves only a small
rotation. All of it is differentiable with respect to a soft mask.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SQUARE_ROOT_STEPS = 15
CONFIDENCE_POWER = 3


def canonical_pose(
    masks: Tensor, *, spacing_mm: tuple[float, float, float], shape: int, extent: float = 3.0
) -> Tensor:
    """Sample each mask on a cube of `extent` standard deviations to each side of its centroid.

    Args:
        masks: Soft or binary masks in [0, 1], shape (B, S, I, J, K).
        spacing_mm: Voxel spacing of the masks.
        shape: Edge length of the result in voxels.
        extent: Half the edge of the cube, in standard deviations of the mask along each axis.

    Returns:
        Masks in canonical pose, shape (B, S, shape, shape, shape), float32. An empty mask stays
        empty.
    """
    flat = confident(masks.float()).flatten(0, 1)
    centre_mm, root_mm = moments(flat, spacing_mm=spacing_mm)
    sampled = sample_cube(flat, centre_mm, root_mm, spacing_mm, shape, extent)
    return sampled.reshape(*masks.shape[:2], shape, shape, shape)


def sample_cube(
    masks: Tensor,
    centre_mm: Tensor,
    axes_mm: Tensor,
    spacing_mm: tuple[float, float, float],
    shape: int,
    extent: float,
) -> Tensor:
    """Interpolate masks on a cube from -extent to extent of axes of their own.

    Args:
        masks: Shape (B, I, J, K).
        centre_mm: Middle of each cube from the middle of the grid, shape (B, 3).
        axes_mm: Columns: what one step of 1 along each axis of the cube is in mm, (B, 3, 3).
        spacing_mm: Voxel spacing of the masks.
        shape: Edge length of the result in voxels.
        extent: Half the edge of the cube.

    Returns:
        Shape (B, shape, shape, shape), 0 beyond the grid.
    """
    half_mm = _half_extent_mm(masks.shape[1:], spacing_mm, masks.device)
    # grid_sample wants the last axis first, and the outermost voxel centres at -1 and 1.
    middle, columns = (centre_mm / half_mm).flip(1), (axes_mm / half_mm[:, None]).flip(1)
    steps = torch.linspace(-extent, extent, shape, device=masks.device)
    i, j, k = (steps[:, None] * columns[:, None, :, axis] for axis in range(3))
    plane = (i + middle[:, None])[:, :, None] + j[:, None]
    places = plane[:, :, :, None] + k[:, None, None]
    return functional.grid_sample(masks[:, None], places, align_corners=True)[:, 0]


def confident(masks: Tensor) -> Tensor:
    """Push probabilities towards 0 and 1, as if their logits were three times as large.

    Over a whole head the faint tail of a soft prediction outweighs the structure and would carry
    its moments away; 0, 1/2 and 1 stay as they are.
    """
    inside = masks**CONFIDENCE_POWER
    return inside / (inside + (1 - masks) ** CONFIDENCE_POWER)


def moments(masks: Tensor, *, spacing_mm: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """Centroid and symmetric square root of the covariance of each mask.

    Args:
        masks: Non-negative weights, shape (B, I, J, K).
        spacing_mm: Voxel spacing.

    Returns:
        Centroids (B, 3) in mm from the middle of the grid, and square roots (B, 3, 3) in mm. An
        empty mask has its centroid in the middle and the spread of about one voxel.
    """
    centre, covariance = central_moments(masks, spacing_mm=spacing_mm)
    return centre, symmetric_square_root(covariance)


def central_moments(
    masks: Tensor, *, spacing_mm: tuple[float, float, float]
) -> tuple[Tensor, Tensor]:
    """Centroid (B, 3) in mm and covariance (B, 3, 3) in mm2 of each mask; as `moments`."""
    faint = 1e-3
    total = masks.sum(dim=(1, 2, 3)) + faint
    axes = [
        _positions_mm(n, s, masks.device) for n, s in zip(masks.shape[1:], spacing_mm, strict=True)
    ]
    planes = {(0, 1): masks.sum(3), (0, 2): masks.sum(2), (1, 2): masks.sum(1)}
    lines = [planes[0, 1].sum(2), planes[0, 1].sum(1), planes[0, 2].sum(1)]
    centre = torch.stack([(lines[a] @ axes[a]) / total for a in range(3)], dim=-1)
    # The floor is the variance of one voxel: a single voxel still has an extent.
    entries: list[list[Tensor]] = [[torch.zeros_like(total)] * 3 for _ in range(3)]
    for a in range(3):
        entries[a][a] = (
            (lines[a] @ axes[a] ** 2) / total - centre[:, a] ** 2 + spacing_mm[a] ** 2 / 12
        )
    for a, b in planes:
        product = torch.einsum("bmn,m,n->b", planes[a, b], axes[a], axes[b]) / total
        entries[a][b] = entries[b][a] = product - centre[:, a] * centre[:, b]
    covariance = torch.stack([torch.stack(row, dim=-1) for row in entries], dim=-2)
    return centre, covariance


def symmetric_square_root(matrices: Tensor) -> Tensor:
    """Square root of symmetric positive definite matrices (B, 3, 3) by the Newton-Schulz iteration.

    Unlike an eigendecomposition it has a finite gradient where two eigenvalues agree.
    """
    trace = matrices.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
    root = matrices / trace
    inverse_root = torch.eye(3, device=matrices.device).expand_as(matrices)
    for _ in range(SQUARE_ROOT_STEPS):
        correction = 1.5 * torch.eye(3, device=matrices.device) - 0.5 * inverse_root @ root
        root = root @ correction
        inverse_root = correction @ inverse_root
    return root * trace.sqrt()


def _positions_mm(length: int, spacing_mm: float, device: torch.device) -> Tensor:
    return (
        torch.arange(length, device=device, dtype=torch.float32) - (length - 1) / 2
    ) * spacing_mm


def _half_extent_mm(
    spatial_shape: torch.Size, spacing_mm: tuple[float, float, float], device: torch.device
) -> Tensor:
    lengths = [max(n - 1, 1) * s / 2 for n, s in zip(spatial_shape, spacing_mm, strict=True)]
    return torch.tensor(lengths, device=device)
