"""Masks made wrong the way segmenters err."""

from __future__ import annotations

import torch
from torch import Tensor

from shapeguide.disturbing.masks import corrupt, soften
from shapeguide.training.engine.seeds import generator_for


def ellipsoid(i: float, j: float, k: float, edge: int = 24) -> Tensor:
    """Shape (1, 1, edge, edge, edge), in the middle."""
    line = torch.arange(edge) - (edge - 1) / 2
    a, b, c = torch.meshgrid(line, line, line, indexing="ij")
    return ((a / i) ** 2 + (b / j) ** 2 + (c / k) ** 2 <= 1).to(torch.uint8)[None, None]


def test_corruption_changes_every_mask_and_keeps_it_binary() -> None:
    masks = ellipsoid(5, 7, 6).repeat(16, 2, 1, 1, 1).float()
    broken = corrupt(masks, generator=generator_for(0, 1))
    assert broken.shape == masks.shape
    assert set(broken.unique().tolist()) == {0.0, 1.0}
    assert ((broken != masks).flatten(2).any(-1)).float().mean() > 0.9
    overlap = 2 * (broken * masks).flatten(2).sum(-1) / (broken + masks).flatten(2).sum(-1)
    assert overlap.min() > 0.3
    assert overlap.max() <= 1.0


def test_corruption_is_the_same_for_the_same_generator() -> None:
    masks = ellipsoid(5, 7, 6).float()
    first, second = (corrupt(masks, generator=generator_for(0, 1)) for _ in range(2))
    assert torch.equal(first, second)


def test_softening_keeps_the_half_level_where_it_was() -> None:
    masks = ellipsoid(5, 7, 6).float()
    soft = soften(masks, generator=generator_for(0, 1))
    assert ((soft > 0) & (soft < 1)).any()
    changed = ((soft > 0.5) != (masks > 0.5)).float().sum()
    assert changed / masks.sum() < 0.15
