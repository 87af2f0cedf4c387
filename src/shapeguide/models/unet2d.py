"""The 2D U-Net, slice by slice (after Ronneberger et al., MICCAI 2015).

Every axial slice of a volume is segmented by itself, so grids in and out are those of the other
segmenters. Departures: instance normalisation of each slice, leaky ReLU, padded convolutions, no
dropout. As published with `channels` (64, 128, 256, 512, 1024).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from shapeguide.models.unet import UNet


class UNet2d(nn.Module):
    """2D U-Net that takes volumes and looks at their slices along the last axis.

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
        super().__init__()
        self.slices = UNet(
            in_channels,
            out_channels,
            channels,
            dimensions=2,
            activation_checkpoints=activation_checkpoints,
        )
        self.divisor = self.slices.divisor

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, I, J, K) to logits (B, classes, I, J, K).

        Raises:
            ValueError: If I or J is not a multiple of 2 ** (levels - 1), or both are only that; any
                K will do.
        """
        slices = images.movedim(-1, 1)  # (B, K, C, I, J)
        logits: Tensor = self.slices(slices.flatten(0, 1))
        stacked: Tensor = logits.unflatten(0, slices.shape[:2])  # (B, K, classes, I, J)
        return stacked.movedim(1, -1)
