"""What the segmenters share: how they run their levels, down and up, and a double convolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from shapeguide.errors import ConfigError


class Encoder(nn.Module):
    """The way down of a segmenter, which halves the resolution from level to level.

    A network of this kind fills `encoders`, and `downsamplers`, one fewer.

    Args:
        channels: Channels of each level, from full resolution down; each level halves it.
        activation_checkpoints: Compute each level again in the backward pass, for less memory.

    Raises:
        ConfigError: If there is not at least one level.
    """

    title: ClassVar[str]
    """Name of the network for people."""
    encoders: nn.ModuleList
    downsamplers: nn.ModuleList

    def __init__(self, channels: Sequence[int], *, activation_checkpoints: bool) -> None:
        super().__init__()
        check_channels(channels, self.title)
        self.divisor = 2 ** (len(channels) - 1)
        self.activation_checkpoints = activation_checkpoints

    def encoded(self, images: Tensor) -> list[Tensor]:
        """Features of each level, from full resolution down.

        Raises:
            ValueError: If a length is not a multiple of the divisor, or all are only that.
        """
        check_lengths(tuple(images.shape[2:]), self.divisor, self.title)
        entered = self.entered(images)
        levels: list[Tensor] = []
        for level in range(len(self.encoders)):
            features = levels[-1] if levels else entered
            levels.append(self._run(partial(self._descend, level), features))
        return levels

    def entered(self, images: Tensor) -> Tensor:
        """What the first level is given: the images as they are."""
        return images

    def _descend(self, level: int, features: Tensor) -> Tensor:
        halved = self.downsamplers[level - 1](features) if level else features
        made: Tensor = self.encoders[level](halved)
        return made

    def _run(self, level: Callable[..., Tensor], *features: Tensor) -> Tensor:
        """What a level, which draws nothing at random, makes of features.

        With activation checkpoints only the features are kept, and the level is computed again in
        the backward pass: the same gradients from less memory (Chen et al., arXiv:1604.06174).
        """
        if not (self.activation_checkpoints and torch.is_grad_enabled()):
            return level(*features)
        made: Tensor = checkpoint(level, *features, use_reentrant=False, preserve_rng_state=False)
        return made


class EncoderDecoder(Encoder):
    """The way down and up again, with skip connections between equal levels.

    A network of this kind fills `upsamplers` and `decoders` too, one fewer than encoders, and
    `head`. See `Encoder`.
    """

    upsamplers: nn.ModuleList
    decoders: nn.ModuleList
    head: nn.Conv2d | nn.Conv3d

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, I, J, K) to logits (B, classes, I, J, K); K only in 3 dimensions.

        Raises:
            ValueError: If I, J or K is not a multiple of the divisor, or all are only that.
        """
        return self.answered(self.head, self.decoded(images)[0])

    def answered(self, head: nn.Module, features: Tensor) -> Tensor:
        """Logits (B, classes, I, J, K) that a head makes of the features of a level."""
        logits: Tensor = head(features)
        return logits

    def decoded(self, images: Tensor) -> list[Tensor]:
        """Features of each level on the way up, from full resolution down to the deepest level.

        Raises:
            ValueError: As `forward`.
        """
        *skips, deepest = self.encoded(images)
        levels = [deepest]
        for level in reversed(range(len(self.decoders))):
            levels.append(self._run(partial(self._rise, level), levels[-1], skips[level]))
        return levels[::-1]

    def _rise(self, level: int, features: Tensor, skip: Tensor) -> Tensor:
        risen = self.upsamplers[level](features)
        made: Tensor = self.decoders[level](torch.cat([skip, risen], dim=1))
        return made


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


def check_lengths(lengths: tuple[int, ...], divisor: int, title: str) -> None:
    """Refuse spatial lengths that a network cannot halve as often as it must.

    Args:
        lengths: Voxels along each axis.
        divisor: That of the network: 2 ** (levels - 1).
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
