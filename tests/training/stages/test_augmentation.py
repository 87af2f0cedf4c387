"""What training does to its batches: warps that keep labels on images, changes of intensity."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.training.stages.variation import (
    draw_intensities,
    draw_warps,
    vary_intensities,
    warp_batch,
)

SPACING_MM = (2.0, 1.0, 1.0)
FAR = WarpLimits(rotation_deg=40, scale=(0.9, 1.1), translation_mm=4.0)
"""Far enough that a small ball off the middle lands elsewhere under another draw."""
LEVELS = (-1.0, 0.0, 1.5)
"""Intensities of three slabs, each six voxels thick."""


def warped(classes: Tensor, *, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Classes as images and as labels, a share of them warped."""
    generator = torch.Generator().manual_seed(seed)
    warps = draw_warps(FAR, classes, spacing_mm=SPACING_MM, share=share, generator=generator)
    return warp_batch(classes[:, None].float(), classes, warps, spacing_mm=SPACING_MM)


def varied_by(images: Tensor, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return vary_intensities(images, draw_intensities(images.shape, generator=generator))


def ball_off_the_middle(count: int) -> Tensor:
    """Class indices (B, I, J, K) of a ball of radius 4 mm, 8 mm from the middle of the grid."""
    i, j, k = torch.meshgrid(
        torch.arange(14) * 2.0 - 13, torch.arange(28) - 13.5, torch.arange(28) - 13.5, indexing="ij"
    )
    return ((i**2 + (j - 8) ** 2 + k**2) <= 16).to(torch.uint8).expand(count, -1, -1, -1)


def overlap(first: Tensor, second: Tensor) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def test_labels_lie_on_their_images_after_every_warp() -> None:
    classes = ball_off_the_middle(12)
    images, labels = warped(classes, share=1.0, seed=0)
    bright, labelled = images[:, 0] > 0.5, labels == 1
    assert all(overlap(*both) > 0.9 for both in zip(bright, labelled, strict=True))
    # Had each its own warp, they would rarely meet: neighbours in the batch do not.
    neighbours = [overlap(*both) for both in zip(bright, labelled.roll(1, 0), strict=True)]
    assert sum(neighbours) / len(neighbours) < 0.5


def test_items_that_are_not_chosen_keep_image_and_labels_and_the_others_lose_both() -> None:
    classes = ball_off_the_middle(24)
    images, labels = warped(classes, share=0.5, seed=1)
    kept = (images[:, 0] == classes).flatten(1).all(1)
    assert torch.equal(kept, (labels == classes).flatten(1).all(1))
    assert 6 < kept.sum() < 18


def three_slabs(count: int) -> Tensor:
    image = torch.tensor(LEVELS).repeat_interleave(6)[:, None, None].expand(18, 24, 24)
    return image.expand(count, 1, 18, 24, 24)


def test_contrast_brightness_gamma_blur_and_noise_fill_their_ranges_and_stay_inside() -> None:
    images = three_slabs(300)
    varied = varied_by(images, seed=2)[:, 0]
    chosen = varied[(varied != images[:, 0]).flatten(1).any(1)]
    # Two voxels from the next slab, blur does nothing and the mean takes the noise out.
    inside = chosen.unflatten(1, (3, 6))[:, :, 2:4]
    low, middle, high = inside.mean((2, 3, 4)).unbind(1)
    contrast = (high - low) / (LEVELS[2] - LEVELS[0])
    brightness = low - LEVELS[0] * contrast
    # A value at 0.4 of the reach goes to 0.4 to the power of gamma.
    gamma = ((middle - low) / (high - low)).log() / math.log(0.4)
    noise = inside.std((2, 3, 4)).mean(1)
    # Beside the next slab a third of the step is blurred away: of the first voxel of the middle.
    first = chosen[:, 6].mean((1, 2))
    blur = 3 * (middle - first) / (middle - low)

    def fills(found: Tensor, smallest: float, largest: float, slack: float) -> bool:
        reach = (largest - smallest) / 10
        return bool(
            smallest - slack <= found.min() < smallest + reach
            and largest - reach < found.max() <= largest + slack
        )

    assert fills(contrast, 0.75, 1.25, 0.02)
    assert fills(brightness, -0.3, 0.3, 0.04)
    assert fills(gamma.log(), -0.35, 0.35, 0.06)
    assert fills(noise, 0.0, 0.25, 0.01)
    quiet = noise < 1e-6
    # Noise is drawn from -0.1 to 0.25 and blur from -0.4 to 0.8; below 0 there is none.
    assert 0.15 < quiet.float().mean() < 0.45
    assert fills(blur[quiet], 0.0, 0.8, 0.01)
    assert 0.1 < (blur[quiet] < 1e-4).float().mean() < 0.6


def test_half_of_the_images_stay_as_they_are_and_none_is_changed_in_place() -> None:
    images = three_slabs(300).clone()
    varied = varied_by(images, seed=3)
    assert torch.equal(images, three_slabs(300))
    same = (varied == images).flatten(1).all(1).float().mean()
    assert 0.4 < same < 0.6


def test_an_image_without_contrast_is_only_shifted_and_scaled() -> None:
    flat = torch.full((50, 1, 4, 4, 4), 2.0)
    varied = varied_by(flat, seed=4)
    assert varied.isfinite().all()
    means = varied.mean((1, 2, 3, 4))
    assert means.min() > 2 * 0.75 - 0.3 - 0.1
    assert means.max() < 2 * 1.25 + 0.3 + 0.1
