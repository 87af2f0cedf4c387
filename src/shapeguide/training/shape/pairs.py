"""Objectives on two views of each shape: pairwise as published, contrastive, VICReg.

Each draws a batch of shapes, and looks at each under two random affine warps.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from shapeguide.models.shape_network import ShapeNetwork, signature_distance
from shapeguide.training.shape.bank import MaskBank
from shapeguide.training.shape.terms import ShapeTerms, mean_over
from shapeguide.vocabulary import Maps

TEMPERATURE = 0.1
INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0
"""Weights of VICReg, as published."""
WANTED_DEVIATION = 1.0


def pairwise_terms(
    network: ShapeNetwork,
    bank: MaskBank,
    *,
    batch_size: int,
    generator: torch.Generator,
    maps: Maps = "clean",
) -> ShapeTerms:
    """The published objective: ||g(M1) - g(M2)|| of one case's map under two random warps.

    A constant network minimises it; the check after the stage says whether that happened.
    """
    first, second, present = two_views(network, bank, batch_size, maps, generator)
    mean = mean_over(signature_distance(first, second), present)
    return ShapeTerms(loss=mean, distance=mean)


def contrastive_terms(
    network: ShapeNetwork,
    bank: MaskBank,
    *,
    batch_size: int,
    generator: torch.Generator,
    maps: Maps = "clean",
) -> ShapeTerms:
    """A view shall be nearer to the other view of its shape than to any view of another shape."""
    first, second, present = two_views(network, bank, batch_size, maps, generator)
    distance = mean_over(signature_distance(first, second), present)
    return ShapeTerms(loss=info_nce(first, second, present), distance=distance)


def vicreg_terms(
    network: ShapeNetwork,
    bank: MaskBank,
    *,
    batch_size: int,
    generator: torch.Generator,
    maps: Maps = "clean",
) -> ShapeTerms:
    """Alike for two views, unlike between shapes, and no number of a signature said twice.

    Source: Bardes, Ponce, LeCun, "VICReg", ICLR 2022, with the published weights. Departures: the
    terms are computed on the signatures themselves, without an expander in between, for it is their
    distance that we use; and for each structure apart.
    """
    first, second, present = two_views(network, bank, batch_size, maps, generator)
    distance = mean_over(signature_distance(first, second), present)
    rows = [_vicreg_of(first[p, s], second[p, s]) for s, p in enumerate(present.T) if p.sum() > 1]
    # Where no structure is there twice, nothing is learned, but there is a gradient.
    each = torch.stack(rows).mean(0) if rows else 0 * first.sum().expand(3)
    loss = each @ torch.tensor([INVARIANCE, VARIANCE, COVARIANCE], device=first.device)
    names = ("invariance", "variance", "covariance")
    return ShapeTerms(loss, distance, dict(zip(names, each, strict=True)))


def two_views(
    network: ShapeNetwork, bank: MaskBank, count: int, maps: Maps, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Signatures of a batch of shapes seen twice, and which structures are there, bool (B, S)."""
    shapes = bank.draw(count, maps=maps, generator=generator)
    views = [bank.seen(shapes, maps=maps, generator=generator) for _ in range(2)]
    first, second = network(torch.cat(views), spacing_mm=bank.spacing_mm).chunk(2)
    return first, second, shapes.flatten(2).any(-1)


def info_nce(first: Tensor, second: Tensor, present: Tensor) -> Tensor:
    """Cross-entropy of finding a view's counterpart among all other views, by Euclidean distance.

    Source: van den Oord et al., "Representation learning with contrastive predictive coding", 2018,
    in the symmetric form over all views of the batch; similarity here is the negative Euclidean
    distance over a temperature of 0.1, because the shape loss is that distance.

    Args:
        first: Signatures of one view of each shape, shape (B, S, i, j, k).
        second: Of the other view.
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
