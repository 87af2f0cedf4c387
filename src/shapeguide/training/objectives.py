"""What the shape network learns: affine pairs as published, or distances as surface error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from shapeguide.geometry.warp import WarpLimits, draw_affine_warps, warp_one_hot
from shapeguide.metrics.surface import assd_mm, surface_distances
from shapeguide.models.canonical_pose import canonical_pose
from shapeguide.models.shape_network import ShapeNetwork, signature_distance
from shapeguide.training.corruption import corrupt, soften

TARGET_SHAPE = 32
TARGET_EXTENT = 3.0


@dataclass(frozen=True)
class MaskBank:
    """The masks of the training cases, ready to be drawn from."""

    masks: Tensor
    """uint8, shape (N, S, I, J, K)."""
    spacing_mm: tuple[float, float, float]
    limits: WarpLimits

    def present(self) -> Tensor:
        """Which case has which structure, bool (N, S)."""
        return self.masks.flatten(2).amax(-1) > 0

    def warped(self, masks: Tensor, *, generator: torch.Generator) -> Tensor:
        """Masks (B, S, I, J, K), each under a random affine warp of its own, soft at the edge."""
        warps = draw_affine_warps(self.limits, count=len(masks), generator=generator)
        return warp_one_hot(masks.float(), warps, spacing_mm=self.spacing_mm)


@dataclass(frozen=True)
class ShapeTerms:
    """Loss of the shape stage and the distances behind it."""

    loss: Tensor
    distance: Tensor
    """Mean raw distance of the pairs of this batch; watched only."""

    @property
    def total(self) -> Tensor:
        """The loss to minimise."""
        return self.loss

    def watched(self) -> dict[str, Tensor]:
        """Each figure by its name, for logs."""
        return {"loss": self.loss.detach(), "distance": self.distance.detach()}


def pairwise_terms(
    network: ShapeNetwork, bank: MaskBank, *, batch_size: int, generator: torch.Generator
) -> ShapeTerms:
    """The published objective: ||g(M1) - g(M2)|| of one case's map under two random warps.

    A constant network minimises it; the check after the stage says whether that happened.
    """
    chosen = _draw_cases(len(bank.masks), batch_size, generator)
    masks = bank.masks[chosen]
    first, second = (bank.warped(masks, generator=generator) for _ in range(2))
    signatures = network(torch.cat([first, second]), spacing_mm=bank.spacing_mm)
    distances = signature_distance(*signatures.chunk(2))
    weights = bank.present()[chosen].float()
    mean = (distances * weights).sum() / weights.sum().clamp(min=1)
    return ShapeTerms(loss=mean, distance=mean)


def surface_terms(
    network: ShapeNetwork,
    bank: MaskBank,
    *,
    unit: float,
    batch_size: int,
    generator: torch.Generator,
) -> ShapeTerms:
    """Distances regressed to the surface error that remains after affine alignment.

    Of each three pairs one shows a case twice, one shows two cases and one a case and a corrupted
    copy. Targets are measured before the warps, so that warps must not count; every second mask
    is softened, for the shape loss sees soft predictions.

    Args:
        network: The network in training.
        bank: Masks to draw from.
        unit: Surface error that the network shall call 1, as `people_apart` gives it.
        batch_size: Pairs.
        generator: Source of all randomness, on the CPU.
    """
    first, second = _draw_pairs(bank, batch_size, generator)
    targets = surface_targets(first, second, bank.spacing_mm) / unit
    weights = (first.flatten(2).any(-1) & second.flatten(2).any(-1)).float()
    seen = torch.cat([first, second])
    softened = torch.rand(len(seen), generator=generator) < 0.5
    if softened.any():
        seen = seen.clone()
        seen[softened] = soften(seen[softened], generator=generator)
    signatures = network(bank.warped(seen, generator=generator), spacing_mm=bank.spacing_mm)
    distances = signature_distance(*signatures.chunk(2))
    errors = functional.smooth_l1_loss(distances, targets, beta=0.25, reduction="none")
    # Small errors count for more: they tell a person apart, large ones only say "wrong".
    errors = errors * weights / (0.5 + targets)
    total = weights.sum().clamp(min=1)
    return ShapeTerms(loss=errors.sum() / total, distance=(distances * weights).sum() / total)


def surface_targets(
    first: Tensor, second: Tensor, spacing_mm: tuple[float, float, float]
) -> Tensor:
    """Mean symmetric surface distance of masks in canonical pose, in standard deviations.

    Args:
        first: Binary masks, shape (B, S, I, J, K).
        second: Binary masks, same shape.
        spacing_mm: Voxel spacing.

    Returns:
        Shape (B, S), 0 where either mask is empty.
    """
    both = torch.cat([first, second])
    posed = canonical_pose(both, spacing_mm=spacing_mm, shape=TARGET_SHAPE, extent=TARGET_EXTENT)
    edges = (posed > 0.5).cpu().numpy()
    step = 2 * TARGET_EXTENT / (TARGET_SHAPE - 1)
    found = np.zeros(first.shape[:2], dtype=np.float32)
    count = len(first)
    for item, structure in np.ndindex(*found.shape):
        one, other = edges[item, structure], edges[item + count, structure]
        if one.any() and other.any() and not np.array_equal(one, other):
            distances = surface_distances(one, other, spacing_mm=(step, step, step))
            found[item, structure] = assd_mm(distances)
    return torch.from_numpy(found).to(first.device)


def people_apart(bank: MaskBank, *, generator: torch.Generator, pairs: int = 64) -> float:
    """Mean surface error between two different cases, in standard deviations: the unit of training.

    With a single case, that between the case and its corrupted copies.
    """
    first, second = _draw_two_cases(bank.masks.float(), pairs, generator)
    targets = surface_targets(first, second, bank.spacing_mm)
    known = targets[targets > 0]
    return float(known.mean()) if len(known) else 1.0


def _draw_pairs(
    bank: MaskBank, batch_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A third of pairs each: the same case, two cases, a case and its corrupted copy."""
    first, second = _draw_two_cases(bank.masks, batch_size, generator)
    first, second = first.float(), second.float()
    kinds = torch.randint(3, (batch_size,), generator=generator)
    same, broken = kinds == 0, kinds == 1
    second[same] = first[same]
    if broken.any():
        second[broken] = corrupt(first[broken], generator=generator)
    return first, second


def _draw_two_cases(masks: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pairs of different cases; with a single case, it and its corrupted copies."""
    first = _draw_cases(len(masks), count, generator)
    if len(masks) == 1:
        return masks[first], corrupt(masks[first], generator=generator).to(masks.dtype)
    step = torch.randint(1, len(masks), (count,), generator=generator)
    return masks[first], masks[(first + step) % len(masks)]


def _draw_cases(cases: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(cases, (count,), generator=generator)
