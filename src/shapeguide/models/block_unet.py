"""A U-Net of blocks: one that takes blocks of voxels as channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from shapeguide.models.levels import check_channels
from shapeguide.models.unet import UNet

BLOCK = 2
"""Edge length, in voxels, of the blocks. Nothing is averaged: a block of 8 voxels is 8 channels,
and each voxel has logits of its own, at an eighth of the time that the voxels would take one by
one (sub-pixel convolution, Shi et al., CVPR 2016)."""

BACKGROUND_LOGIT = 5.0
"""What an untrained network of this kind says of the background, and of structures 0: they fill
next to nothing of what is so large. Otherwise the first hundred iterations and more teach nothing
but that (Lin et al., ICCV 2017)."""


class BlockUNet(UNet):
    """Images (B, C, I, J, K) to logits (B, classes, I, J, K), by way of blocks.

    It is the 3D U-Net of one level more without the convolutions at full resolution, which take
    most of the time of that.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        channels: Channels of each level, from full resolution down, as of every segmenter; at full
            resolution there are the voxels of the blocks instead of the first.
        activation_checkpoints: Compute each level again in the backward pass, for less memory.

    Raises:
        ConfigError: If there is no level below full resolution.
    """

    title: ClassVar[str] = "U-Net of blocks"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        *,
        activation_checkpoints: bool = False,
    ) -> None:
        check_channels(channels[1:], f"{self.title}, below full resolution,")
        super().__init__(
            in_channels * BLOCK**3,
            out_channels * BLOCK**3,
            channels[1:],
            activation_checkpoints=activation_checkpoints,
        )
        self.divisor *= BLOCK
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)
            nn.init.constant_(self.head.bias[: BLOCK**3], BACKGROUND_LOGIT)

    def entered(self, images: Tensor) -> Tensor:
        """The voxels of each block as channels."""
        return as_blocks(images)

    def answered(self, head: nn.Module, features: Tensor) -> Tensor:
        """Logits of each voxel of the blocks of a level."""
        return as_voxels(head(features))


def as_blocks(images: Tensor) -> Tensor:
    """The voxels of each block as channels: (B, C, I, J, K) to (B, 8 C, I/2, J/2, K/2)."""
    count, channels, *lengths = images.shape
    i, j, k = (length // BLOCK for length in lengths)
    split = images.reshape(count, channels, i, BLOCK, j, BLOCK, k, BLOCK)
    return split.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(count, channels * BLOCK**3, i, j, k)


def as_voxels(blocks: Tensor) -> Tensor:
    """The way back: (B, 8 C, I/2, J/2, K/2) to (B, C, I, J, K)."""
    count, channels, i, j, k = blocks.shape
    split = blocks.reshape(count, channels // BLOCK**3, BLOCK, BLOCK, BLOCK, i, j, k)
    joined = split.permute(0, 1, 5, 2, 6, 3, 7, 4)
    return joined.reshape(count, channels // BLOCK**3, i * BLOCK, j * BLOCK, k * BLOCK)
