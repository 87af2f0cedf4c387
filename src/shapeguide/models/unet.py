"""The U-Net that segments, of volumes (after Cicek et al., MICCAI 2016) and of slices.

Departures: instance instead of batch normalisation, for batches of one or two volumes; leaky ReLU;
padded convolutions, so that the output has the shape of the input; as many channels after the first
convolution of a level as after the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal

from torch import nn

from shapeguide.models.levels import EncoderDecoder, double_convolution


class UNet(EncoderDecoder):
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

    title: ClassVar[str] = "U-Net"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        *,
        dimensions: Literal[2, 3] = 3,
        activation_checkpoints: bool = False,
    ) -> None:
        super().__init__(channels, activation_checkpoints=activation_checkpoints)
        three = dimensions == 3
        double = partial(double_convolution, dimensions=dimensions)
        rise = nn.ConvTranspose3d if three else nn.ConvTranspose2d
        inputs = [in_channels, *channels[:-1]]
        self.encoders = nn.ModuleList(double(a, b) for a, b in zip(inputs, channels, strict=True))
        pool = nn.MaxPool3d if three else nn.MaxPool2d
        self.downsamplers = nn.ModuleList(pool(2) for _ in channels[1:])
        upward = list(zip(channels[1:], channels[:-1], strict=True))
        self.upsamplers = nn.ModuleList(rise(a, b, 2, stride=2) for a, b in upward)
        self.decoders = nn.ModuleList(double(2 * b, b) for _, b in upward)
        self.head = (nn.Conv3d if three else nn.Conv2d)(channels[0], out_channels, 1)
