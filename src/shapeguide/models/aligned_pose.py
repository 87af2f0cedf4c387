"""A mask brought to the pose in which the training population looks alike.

Centroid and size come from the mask's own moments, the rotation from turning the mask onto the mean
shape of the training cases by Gauss-Newton steps. That removes translation, isotropic scale and
rotation, which is what the paper's warps draw from, and keeps everything else: unlike the canonical
pose it still shows how long and thick a structure is, and leaves no rotation behind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from shapeguide.models.canonical_pose import central_moments, sample_cube

EXTENT = 3.0
"""Half the edge of the view, in standard deviations of the population along each axis."""
SMALL_SHAPE = 16
"""Edge length of the views that rotations are found in."""
STEPS = 6
"""Each step leaves about a quarter of the error of a rotation."""
LONGEST_STEP_RAD = 0.35
FIT_ROUNDS = 4
"""Times that the population is turned onto its own mean shape."""
TAIL = 0.15
"""Probabilities well below count for nothing in the moments."""
RIDGE = 1e-3
"""Share of its mean that is added to the diagonal of the Gram matrix."""


class AlignedPose(nn.Module):
    """Axes and mean shape of a population, and the views of masks turned onto it.

    Args:
        structures: Number of structures, S.
        shape: Edge length of a view in voxels.
    """

    axes: Tensor
    """Columns: principal axes of the population, as long as its standard deviations along them over
    their quadratic mean; shape (S, 3, 3)."""
    filters: Tensor
    """A view times these is how far it is turned from the mean shape: a rotation vector in radians
    with `offset` taken off; shape (S, 3, n ** 3)."""
    offset: Tensor
    """Shape (S, 3, 1)."""

    def __init__(self, structures: int, *, shape: int) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("axes", torch.eye(3).repeat(structures, 1, 1))
        self.register_buffer("filters", torch.zeros(structures, 3, SMALL_SHAPE**3))
        self.register_buffer("offset", torch.zeros(structures, 3, 1))

    def forward(
        self, masks: Tensor, *, spacing_mm: tuple[float, float, float], shape: int | None = None
    ) -> Tensor:
        """Views of masks; differentiable with respect to them.

        Args:
            masks: Soft or binary masks in [0, 1], shape (B, S, I, J, K).
            spacing_mm: Voxel spacing of the masks.
            shape: Another edge length of the views.

        Returns:
            Shape (B, S, shape, shape, shape), float32. An empty mask stays empty.
        """
        placed = _Placed.at_rest(masks.float().flatten(0, 1), spacing_mm)
        turned = self._turned(placed, len(masks))
        views = turned.view(self._axes(len(masks)), shape or self.shape)
        return views.reshape(*masks.shape[:2], *views.shape[1:])

    def voxel_sizes(self, shape: int) -> Tensor:
        """Edge lengths of the voxels of views of this shape, (S, 3), in sizes of the mask.

        The axes of a view are perpendicular, so distances within it are those of space.
        """
        sizes: Tensor = self.axes.norm(dim=1) * (2 * EXTENT / (shape - 1))
        return sizes

    @torch.no_grad()
    def fit(self, masks: Tensor, *, spacing_mm: tuple[float, float, float]) -> None:
        """Take axes and mean shape from a population.

        Args:
            masks: Binary masks of the training cases, shape (N, S, I, J, K); empty ones are left
                out.
            spacing_mm: Voxel spacing.
        """
        for structure in range(masks.shape[1]):
            present = masks[:, structure].flatten(1).amax(1) > 0
            if present.any():
                alone = AlignedPose(1, shape=self.shape).to(masks.device)
                alone._fit_alone(_Placed.at_rest(masks[present, structure].float(), spacing_mm))
                for name, found in alone.named_buffers():
                    self.get_buffer(name)[structure] = found[0]

    def _fit_alone(self, placed: _Placed) -> None:
        variances, directions = torch.linalg.eigh(placed.relative_covariance.mean(0))
        # A population of single voxels still has an extent.
        self.axes[0] = directions * variances.clamp(min=1e-3).sqrt()
        for _ in range(FIT_ROUNDS):
            turned = self._turned(placed, len(placed.masks))
            mean = turned.view(self._axes(len(placed.masks)), SMALL_SHAPE).mean(0)
            self.filters[0], self.offset[0] = turn_filters(_smoothed(mean[None])[0], self.axes[0])

    def _turned(self, placed: _Placed, count: int) -> _Placed:
        """Masks (count * S, ...) turned until they are no longer turned from the mean shape.

        The fixed point is found without a graph. The last step from there has the gradient of the
        implicit function, up to the quarter of it that a step leaves.
        """
        with torch.no_grad():
            for _ in range(STEPS - 1):
                placed = self._step(placed, count)
        return self._step(placed, count)

    def _step(self, placed: _Placed, count: int) -> _Placed:
        """One Gauss-Newton step; a long one is shortened."""
        views = placed.view(self._axes(count), SMALL_SHAPE).unflatten(0, (count, -1))
        found = torch.einsum("swn,bsn->bsw", self.filters, views.flatten(2)) - self.offset[..., 0]
        length = found.square().sum(-1, keepdim=True)
        turn = found / (1 + length / LONGEST_STEP_RAD**2).sqrt()
        return placed.turned(rotation_of(-turn.flatten(0, 1)))

    def _axes(self, count: int) -> Tensor:
        return self.axes.repeat(count, 1, 1)


@dataclass(frozen=True, eq=False)
class _Placed:
    """Masks with a frame each, in which they are looked at."""

    masks: Tensor
    """Shape (B, I, J, K)."""
    spacing_mm: tuple[float, float, float]
    centre_mm: Tensor
    """Shape (B, 3)."""
    size_mm: Tensor
    """Quadratic mean of the standard deviations along three axes, shape (B,)."""
    rotation: Tensor
    """Shape (B, 3, 3)."""
    relative_covariance: Tensor
    """Covariance over the square of the size, shape (B, 3, 3)."""

    @classmethod
    def at_rest(cls, masks: Tensor, spacing_mm: tuple[float, float, float]) -> _Placed:
        """By their own moments, not turned."""
        centre_mm, covariance = central_moments(without_tail(masks), spacing_mm=spacing_mm)
        square = covariance.diagonal(dim1=-2, dim2=-1).sum(-1) / 3
        identity = torch.eye(3, device=masks.device).expand(len(masks), 3, 3)
        relative = covariance / square[:, None, None]
        return cls(masks, spacing_mm, centre_mm, square.sqrt(), identity, relative)

    def turned(self, rotation: Tensor) -> _Placed:
        """The frames turned further, by (B, 3, 3)."""
        return replace(self, rotation=self.rotation @ rotation)

    def view(self, axes: Tensor, shape: int) -> Tensor:
        """The masks in their frames along axes (B, 3, 3): (B, shape, shape, shape)."""
        frame_mm = self.size_mm[:, None, None] * (self.rotation @ axes)
        return sample_cube(self.masks, self.centre_mm, frame_mm, self.spacing_mm, shape, EXTENT)


def without_tail(masks: Tensor) -> Tensor:
    """Probabilities without their faint tail; 0 and 1 stay as they are, the middle nearly so.

    Over a whole head the faint tail of a soft prediction outweighs the structure and would carry
    its moments away. Pushing all probabilities apart, as the canonical pose does, would move the
    moments of an interpolated edge, and with them those of every warped mask.
    """
    fourth, tail = masks.square().square(), TAIL**4
    return masks * fourth * (1 + tail) / (fourth + tail)


def turn_filters(template: Tensor, axes: Tensor) -> tuple[Tensor, Tensor]:
    """What a Gauss-Newton step needs: a rotation vector is filters @ view - offset.

    The filters are the derivatives of the template by its rotation about three axes, weighted by
    the inverse of their Gram matrix and smoothed, so that the view need not be.

    Args:
        template: Smooth view of the mean shape, shape (n, n, n).
        axes: Axes of the view in columns, shape (3, 3).

    Returns:
        Filters, shape (3, n ** 3), and offset, shape (3, 1).
    """
    steps = torch.linspace(-EXTENT, EXTENT, len(template), device=template.device)
    slopes = torch.stack(torch.gradient(template, spacing=float(steps[1] - steps[0])), dim=-1)
    cube = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), dim=-1)
    turns = torch.linalg.inv(axes) @ _cross(torch.eye(3, device=axes.device)) @ axes
    moved = torch.einsum("wab,ijkb->wijka", turns, cube)
    derivatives = (slopes * moved).sum(-1)
    flat = derivatives.flatten(1)
    gram = flat @ flat.T
    # A structure that is round about an axis is not turned about it.
    ridge = (RIDGE * gram.trace() / 3 + 1e-6) * torch.eye(3, device=axes.device)
    offset = torch.linalg.solve(gram + ridge, flat @ template.flatten()[:, None])
    return torch.linalg.solve(gram + ridge, _smoothed(derivatives).flatten(1)), offset


def rotation_of(vectors: Tensor) -> Tensor:
    """Rotations (B, 3, 3) about vectors (B, 3), by their length in radians to first order.

    This is Cayley's transform: always a rotation, and smooth also where the vector is zero.
    """
    cross, length = _cross(vectors), vectors.square().sum(-1)[:, None, None]
    identity = torch.eye(3, device=vectors.device)
    return identity + (cross + cross @ cross / 2) / (1 + length / 4)


def _smoothed(views: Tensor) -> Tensor:
    """Mean of each 27 neighbours, shape (B, n, n, n); linear and symmetric."""
    return functional.avg_pool3d(views[:, None], 3, stride=1, padding=1)[:, 0]


def _cross(vectors: Tensor) -> Tensor:
    """Matrices (B, 3, 3) that multiply by the cross product with vectors (B, 3)."""
    a, b, c = vectors.unbind(-1)
    zero = torch.zeros_like(a)
    rows = [(zero, -c, b), (c, zero, -a), (-b, a, zero)]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
