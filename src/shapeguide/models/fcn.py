"""The fully convolutional network FCN-8s in 3D (after Long et al., CVPR 2015).

As published: class scores from the three deepest resolutions, the deeper upsampled by 2 with
learned weights that start as linear interpolation and added to the next; the sum interpolated to
full resolution with fixed weights. With six levels the scores lie at strides 8, 16 and 32, as the
name says; with fewer, at the three deepest (or all) there are.

Departures: 3D; the levels of the U-Net here (two convolutions with instance normalisation and leaky
ReLU, channels free to choose) in place of VGG-16, so without its weights from photographs, its
third convolutions, its fully connected layers and its dropout; a resolution is scored after its
convolutions and not where it is pooled to; padding keeps the shape, so nothing is cropped; trained
at once and not in three stages, hence with random instead of zero score weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from shapeguide.models.levels import Encoder, double_convolution

SCORED_LEVELS = 3


class Fcn(Encoder):
    """FCN-8s: encoder, scores of its deepest levels, and their sum at full resolution.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        channels: Channels of each level, from full resolution down; each level halves it.
        activation_checkpoints: Compute each level again in the backward pass, for less memory.

    Raises:
        ConfigError: If there is not at least one level.
    """

    title: ClassVar[str] = "FCN"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        *,
        activation_checkpoints: bool = False,
    ) -> None:
        super().__init__(channels, activation_checkpoints=activation_checkpoints)
        inputs = [in_channels, *channels[:-1]]
        self.encoders = nn.ModuleList(
            double_convolution(a, b) for a, b in zip(inputs, channels, strict=True)
        )
        self.downsamplers = nn.ModuleList(nn.MaxPool3d(2) for _ in channels[1:])
        scored = channels[-SCORED_LEVELS:]
        self.scores = nn.ModuleList(nn.Conv3d(count, out_channels, 1) for count in scored)
        self.upsamplers = nn.ModuleList(_doubling(out_channels) for _ in scored[1:])
        self.stride = 2 ** (len(channels) - len(scored))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, I, J, K) to logits (B, classes, I, J, K).

        Raises:
            ValueError: If I, J or K is not a multiple of 2 ** (levels - 1), or all are only that.
        """
        scored = self.encoded(images)[-len(self.scores) :]
        scores = [score(found) for score, found in zip(self.scores, scored, strict=True)]
        logits: Tensor = scores.pop()
        for upsampler in self.upsamplers:
            logits = scores.pop() + upsampler(logits)
        if self.stride == 1:
            return logits
        return functional.interpolate(logits, scale_factor=self.stride, mode="trilinear")


def _doubling(classes: int) -> nn.ConvTranspose3d:
    """Upsampling by 2 that starts as linear interpolation of each class by itself."""
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    upsampler = nn.ConvTranspose3d(classes, classes, 4, stride=2, padding=1, bias=False)
    with torch.no_grad():
        upsampler.weight.zero_()
        for index in range(classes):
            upsampler.weight[index, index] = torch.einsum("i,j,k->ijk", line, line, line)
    return upsampler
