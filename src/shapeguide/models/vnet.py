"""The V-Net (after Milletari et al., 3DV 2016).

As published: convolutions of 5 voxels, one at full resolution, two at half and three below; each
level adds its input to what its convolutions make of it; strided convolutions of 2 voxels down and
transposed ones up; PReLU throughout; the published network has `channels` (16, 32, 64, 128, 256).
Fewer and narrower levels can be chosen, for a kernel of 5 voxels costs 4.6 times one of 3.

Departures: instance normalisation after each convolution that keeps or halves the resolution, where
the paper has none. MONAI's network of that name is not used: its channels are fixed, it normalises
over the batch, has two convolutions instead of three at some levels, and by default drops features
out by the global random state, so that a resumed run would not repeat an unbroken one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from shapeguide.models.levels import EncoderDecoder

MOST_CONVOLUTIONS = 3


class VNet(EncoderDecoder):
    """V-Net with residual levels and skip connections between equal levels.

    Args:
        in_channels: Channels of the image; one, or as many as the first level has.
        out_channels: Classes, background included.
        channels: Channels of each level, from full resolution down; each level halves it.
        activation_checkpoints: Compute each level again in the backward pass, for less memory.

    Raises:
        ConfigError: If there is not at least one level.
    """

    title: ClassVar[str] = "V-Net"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        *,
        activation_checkpoints: bool = False,
    ) -> None:
        super().__init__(channels, activation_checkpoints=activation_checkpoints)
        counts = [min(level + 1, MOST_CONVOLUTIONS) for level in range(len(channels))]
        downward = list(pairwise(channels))
        self.downsamplers = nn.ModuleList(_halving(a, b) for a, b in downward)
        inputs = [in_channels, *channels[1:]]
        self.encoders = nn.ModuleList(
            _Residual(a, b, count) for a, b, count in zip(inputs, channels, counts, strict=True)
        )
        # A level on the way up has the channels of its skip connection twice.
        deepest = len(downward)
        self.upsamplers = nn.ModuleList(
            nn.ConvTranspose3d(b if level == deepest else 2 * b, a, 2, stride=2)
            for level, (a, b) in enumerate(downward, start=1)
        )
        self.decoders = nn.ModuleList(
            _Residual(2 * b, 2 * b, count)
            for b, count in zip(channels[:-1], counts[:-1], strict=True)
        )
        self.head = nn.Conv3d((1 + bool(downward)) * channels[0], out_channels, 1)


class _Residual(nn.Module):
    """Convolutions of 5 voxels whose result is added to their input.

    An input of one channel is added to every channel of the result.
    """

    def __init__(self, in_channels: int, out_channels: int, count: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(count):
            layers += [
                nn.Conv3d(
                    out_channels if index else in_channels, out_channels, 5, padding=2, bias=False
                ),
                nn.InstanceNorm3d(out_channels, affine=True),
                nn.PReLU(out_channels),
            ]
        self.layers = nn.Sequential(*layers[:-1])
        self.activation = nn.PReLU(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, in, I, J, K) to features (B, out, I, J, K)."""
        made: Tensor = self.activation(features + self.layers(features))
        return made


def _halving(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, 2, stride=2, bias=False),
        nn.InstanceNorm3d(out_channels, affine=True),
        nn.PReLU(out_channels),
    )
