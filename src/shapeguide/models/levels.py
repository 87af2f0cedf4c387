"""What the segmenters share: their double convolution, and how they run a level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from shapeguide.errors import ConfigError


def double_convolution(
    in_channels: int, out_channels: int, *, dimensions: Literal[2, 3] = 3
) -> nn.Sequential:
    """Two padded convolutions of 3 voxels, each with instance normalisation and leaky ReLU."""
    convolution: type[nn.Module] = nn.Conv3d if dimensions == 3 else nn.Conv2d
    normalisation = nn.InstanceNorm3d if dimensions == 3 else nn.InstanceNorm2d
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [
            convolution(channels, out_channels, 3, padding=1, bias=False),
            normalisation(out_channels, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        ]
    return nn.Sequential(*layers)


def check_channels(channels: Sequence[int], title: str) -> None:
    """Refuse a network without levels.

    Raises:
        ConfigError: If there is not at least one level.
    """
    if not channels:
        raise ConfigError(f"a {title} needs at least one level of channels")


def check_spatial_shape(images: Tensor, divisor: int, title: str) -> None:
    """Refuse images that a network cannot halve as often as it must.

    Args:
        images: Shape (B, C, I, J) or (B, C, I, J, K).
        divisor: Of the network: 2 ** (levels - 1).
        title: Name of the network for people.

    Raises:
        ValueError: If a length is not a multiple, or a single voxel is left to normalise.
    """
    check_lengths(tuple(images.shape[2:]), divisor, title)


def check_lengths(lengths: tuple[int, ...], divisor: int, title: str) -> None:
    """Refuse spatial lengths that a network cannot halve as often as it must.

    Args:
        lengths: Voxels along each axis.
        divisor: Of the network: 2 ** (levels - 1).
        title: Name of the network for people.

    Raises:
        ValueError: If a length is not a multiple, or a single voxel is left to normalise.
    """
    if any(length % divisor for length in lengths):
        raise ValueError(f"the {title} needs multiples of {divisor}, found {lengths}")
    if all(length == divisor for length in lengths):
        raise ValueError(
            f"the {title} has a single voxel left of {lengths} at its deepest level, too few to "
            "normalise; take a larger spatial shape or fewer levels of channels"
        )


def run_level(level: Callable[..., Tensor], *features: Tensor, again: bool) -> Tensor:
    """What a level makes of features.

    Args:
        level: Draws nothing at random.
        features: What it takes.
        again: Keep only the features, and compute the level again in the backward pass: the same
            gradients from less memory (Chen et al., arXiv:1604.06174).
    """
    if not (again and torch.is_grad_enabled()):
        return level(*features)
    made: Tensor = checkpoint(level, *features, use_reentrant=False, preserve_rng_state=False)
    return made
