"""The 3D U-Net that segments (after Cicek et al., MICCAI 2016).

Departures: instance instead of batch normalisation, for batches of one or two volumes; padded
convolutions, so that the output has the shape of the input; nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shapeguide.errors import ConfigError


class UNet3d(nn.Module):
    """3D U-Net with two convolutions at each level and skip connections between equal levels.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        channels: Channels of each level, from full resolution down; each level halves it.

    Raises:
        ConfigError: If there is not at least one level.
    """

    def __init__(self, in_channels: int, out_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        if not channels:
            raise ConfigError("a U-Net needs at least one level of channels")
        inputs = [in_channels, *channels[:-1]]
        self.encoders = nn.ModuleList(
            _double_convolution(a, b) for a, b in zip(inputs, channels, strict=True)
        )
        self.pool = nn.MaxPool3d(2)
        upward = list(zip(channels[1:], channels[:-1], strict=True))
        self.upsamplers = nn.ModuleList(nn.ConvTranspose3d(a, b, 2, stride=2) for a, b in upward)
        self.decoders = nn.ModuleList(_double_convolution(2 * b, b) for _, b in upward)
        self.head = nn.Conv3d(channels[0], out_channels, 1)
        self.divisor = 2 ** (len(channels) - 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, I, J, K) to logits (B, classes, I, J, K).

        Raises:
            ValueError: If I, J or K is not a multiple of 2 ** (levels - 1).
        """
        if any(length % self.divisor for length in images.shape[2:]):
            raise ValueError(
                f"the U-Net needs multiples of {self.divisor}, found {tuple(images.shape[2:])}"
            )
        features, skips = images, []
        for level, encoder in enumerate(self.encoders):
            features = encoder(self.pool(features) if level else features)
            skips.append(features)
        for level in reversed(range(len(self.decoders))):
            risen = self.upsamplers[level](features)
            features = self.decoders[level](torch.cat([skips[level], risen], dim=1))
        logits: Tensor = self.head(features)
        return logits


def _double_convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [
            nn.Conv3d(channels, out_channels, 3, padding=1, bias=False),
            nn.InstanceNorm3d(out_channels, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        ]
    return nn.Sequential(*layers)
