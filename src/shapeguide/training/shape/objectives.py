"""What a shape network learns: losses of signatures, tensors in and named terms out.

Signatures are (B, S, i, j, k), one for each shape and structure; `present`, bool (B, S), says which
shapes have which structure, and the others count nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from shapeguide.losses import dice_loss
from shapeguide.models.shape_network import signature_distance

TEMPERATURE = 0.1
INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0
"""Weights of VICReg, as published."""
WANTED_DEVIATION = 1.0
QUADRATIC_BELOW = 0.25
"""Errors of the `surface` objective below this count by their square."""


@dataclass(frozen=True)
class ShapeTerms:
    """Loss of the shape stage and the distances behind it."""

    loss: Tensor
    distance: Tensor
    """Mean raw distance of the pairs of this batch; watched only."""
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    """What the loss is the weighted sum of, where it has several terms; watched only."""

    @property
    def total(self) -> Tensor:
        """The loss to minimise."""
        return self.loss

    def watched(self) -> dict[str, Tensor]:
        """Each figure by its name, for logs."""
        named = {"loss": self.loss, "distance": self.distance, **self.parts}
        return {name: value.detach() for name, value in named.items()}


def pairwise(first: Tensor, second: Tensor, present: Tensor) -> ShapeTerms:
    """The published objective: ||g(M1) - g(M2)|| of one case's map under two random warps.

    A constant network minimises it; the check after the stage says whether that happened.
    """
    mean = mean_over(signature_distance(first, second), present)
    return ShapeTerms(loss=mean, distance=mean)


def contrastive(first: Tensor, second: Tensor, present: Tensor) -> ShapeTerms:
    """A view shall be nearer to the other view of its shape than to any view of another shape."""
    distance = mean_over(signature_distance(first, second), present)
    return ShapeTerms(loss=info_nce(first, second, present), distance=distance)


def vicreg(first: Tensor, second: Tensor, present: Tensor) -> ShapeTerms:
    """Alike for two views, unlike between shapes, and no number of a signature said twice.

    Source: Bardes, Ponce, LeCun, "VICReg", ICLR 2022, with the published weights. Departures: the
    terms are computed on the signatures themselves, without an expander in between, for it is their
    distance that we use; and for each structure apart.
    """
    distance = mean_over(signature_distance(first, second), present)
    rows = [_vicreg_of(first[p, s], second[p, s]) for s, p in enumerate(present.T) if p.sum() > 1]
    # Where no structure is there twice, nothing is learned, but there is a gradient.
    each = torch.stack(rows).mean(0) if rows else 0 * first.sum().expand(3)
    loss = each @ torch.tensor([INVARIANCE, VARIANCE, COVARIANCE], device=first.device)
    names = ("invariance", "variance", "covariance")
    return ShapeTerms(loss, distance, dict(zip(names, each, strict=True)))


def surface(first: Tensor, second: Tensor, present: Tensor, wanted: Tensor) -> ShapeTerms:
    """Distances regressed to the surface error that remains after alignment.

    Args:
        first: Signatures of one mask of each pair.
        second: Signatures of the other.
        present: Which pairs have which structure.
        wanted: Distances that the pairs shall have, shape (B, S).
    """
    distances = signature_distance(first, second)
    errors = functional.smooth_l1_loss(distances, wanted, beta=QUADRATIC_BELOW, reduction="none")
    # Small errors count for more: they tell a person apart, large ones only say "wrong".
    errors = errors / (0.5 + wanted)
    return ShapeTerms(loss=mean_over(errors, present), distance=mean_over(distances, present))


def reconstruction(
    signatures: Tensor, logits: Tensor, present: Tensor, wanted: Tensor
) -> ShapeTerms:
    """Dice loss and cross-entropy of the restored mask against the mask before its warp.

    Args:
        signatures: One of each shape.
        logits: Those of the mask that is restored from it, shape (B, S, I, J, K).
        present: Which shapes have which structure.
        wanted: Masks to restore, in the pose that the network sees, binary, as the logits.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    parts = {
        "dice": dice_loss(logits.sigmoid()[present][:, None], wanted[present][:, None]),
        "cross_entropy": mean_over(entropy.flatten(2).mean(-1), present),
    }
    # Neighbours in the batch are different shapes: their distance says whether signatures collapse.
    apart = signature_distance(signatures.detach(), signatures.detach().roll(1, 0)).mean()
    return ShapeTerms(parts["dice"] + parts["cross_entropy"], apart, parts)


def info_nce(first: Tensor, second: Tensor, present: Tensor) -> Tensor:
    """Cross-entropy of finding a view's counterpart among all other views, by Euclidean distance.

    Source: van den Oord et al., "Representation learning with contrastive predictive coding", 2018,
    in the symmetric form over all views of the batch; similarity here is the negative Euclidean
    distance over a temperature of 0.1, because the shape loss is that distance.

    Args:
        first: Signatures of one view of each shape, shape (B, S, i, j, k).
        second: Signatures of the other view.
        present: Which shapes have which structure, bool (B, S); the others count nowhere.

    Returns:
        Scalar, at least 0; 0 when no structure is there twice.
    """
    views, there = torch.cat([first, second]), present.repeat(2, 1)
    count = len(views)
    own = torch.arange(count, device=views.device)
    distances = signature_distance(
        views.repeat_interleave(count, 0), views.repeat(count, 1, 1, 1, 1)
    )
    # (S, anchors, candidates): what is not there, and the anchor itself, is never found.
    nearness = -distances.reshape(count, count, -1).permute(2, 0, 1) / TEMPERATURE
    barred = ~there.T[:, None, :] | (own[:, None] == own)
    found = nearness.masked_fill(barred, -torch.inf).flatten(0, 1)
    rival = (there.sum(0) > 2)[:, None] & there.T
    wanted = ((own + count // 2) % count).repeat(len(there.T))
    loss = functional.cross_entropy(
        found[rival.flatten()], wanted[rival.flatten()], reduction="sum"
    )
    return loss / rival.sum().clamp(min=1)


def variance_term(signatures: Tensor) -> Tensor:
    """How far standard deviations over a batch (B, D) fall short of 1: a scalar, at least 0."""
    deviations = (signatures.var(0) + 1e-4).sqrt()
    return functional.relu(WANTED_DEVIATION - deviations).mean()


def covariance_term(signatures: Tensor) -> Tensor:
    """Squared covariances of different numbers over a batch (B, D), summed over pairs, over D.

    The sum over all D * D entries is that over the B * B inner products, which are far fewer.
    """
    count, length = signatures.shape
    centred = signatures - signatures.mean(0)
    whole = (centred @ centred.T).square().sum() / (count - 1) ** 2
    return (whole - signatures.var(0).square().sum()) / length


def _vicreg_of(first: Tensor, second: Tensor) -> Tensor:
    """Invariance, variance and covariance of signatures (B, i, j, k) of one structure, (3,)."""
    first, second = first.flatten(1), second.flatten(1)
    invariance = functional.mse_loss(first, second)
    variance = (variance_term(first) + variance_term(second)) / 2
    return torch.stack([invariance, variance, covariance_term(first) + covariance_term(second)])


def mean_over(values: Tensor, present: Tensor) -> Tensor:
    """Mean of values (B, S) where bool (B, S) says so; 0 where it never does."""
    return (values * present).sum() / present.sum().clamp(min=1)
