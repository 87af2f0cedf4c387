"""The U-Net that segments, of volumes (after Cicek et al., MICCAI 2016) and of slices.

Departures: instance instead of batch normalisation, for batches of one or two volumes; leaky ReLU;
padded convolutions, so that the output has the shape of the input; as many channels after the first
convolution of a level as after the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from shapeguide.models.levels import (
    check_channels,
    check_spatial_shape,
    double_convolution,
    run_level,
)


class UNet(nn.Module):
    """U-Net with two convolutions at each level and skip connections between equal levels.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        channels: Channels of each level, from full resolution down; each level halves it.
        dimensions: 3 for volumes, 2 for slices.
        activation_checkpoints: Compute each level again in the backward pass, for less memory.

    Raises:
        ConfigError: If there is not at least one level.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        *,
        dimensions: Literal[2, 3],
        activation_checkpoints: bool = False,
    ) -> None:
        super().__init__()
        check_channels(channels, "U-Net")
        three = dimensions == 3
        double = partial(double_convolution, dimensions=dimensions)
        rise = nn.ConvTranspose3d if three else nn.ConvTranspose2d
        inputs = [in_channels, *channels[:-1]]
        self.encoders = nn.ModuleList(double(a, b) for a, b in zip(inputs, channels, strict=True))
        self.pool = nn.MaxPool3d(2) if three else nn.MaxPool2d(2)
        upward = list(zip(channels[1:], channels[:-1], strict=True))
        self.upsamplers = nn.ModuleList(rise(a, b, 2, stride=2) for a, b in upward)
        self.decoders = nn.ModuleList(double(2 * b, b) for _, b in upward)
        self.head = (nn.Conv3d if three else nn.Conv2d)(channels[0], out_channels, 1)
        self.divisor = 2 ** (len(channels) - 1)
        self.activation_checkpoints = activation_checkpoints

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, I, J, K) to logits (B, classes, I, J, K); K only in 3 dimensions.

        Raises:
            ValueError: If I, J or K is not a multiple of 2 ** (levels - 1), or all are only that.
        """
        check_spatial_shape(images, self.divisor, "U-Net")
        again = self.activation_checkpoints
        features, skips = images, []
        for level in range(len(self.encoders)):
            features = run_level(partial(self._descend, level), features, again=again)
            skips.append(features)
        for level in reversed(range(len(self.decoders))):
            features = run_level(partial(self._rise, level), features, skips[level], again=again)
        logits: Tensor = self.head(features)
        return logits

    def _descend(self, level: int, features: Tensor) -> Tensor:
        made: Tensor = self.encoders[level](self.pool(features) if level else features)
        return made

    def _rise(self, level: int, features: Tensor, skip: Tensor) -> Tensor:
        risen = self.upsamplers[level](features)
        made: Tensor = self.decoders[level](torch.cat([skip, risen], dim=1))
        return made


class UNet3d(UNet):
    """The 3D U-Net; see `UNet`.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        channels: Channels of each level, from full resolution down; each level halves it.
        activation_checkpoints: Compute each level again in the backward pass, for less memory.

    Raises:
        ConfigError: If there is not at least one level.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        *,
        activation_checkpoints: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            channels,
            dimensions=3,
            activation_checkpoints=activation_checkpoints,
        )
