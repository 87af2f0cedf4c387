"""The network of the finder: a U-Net that takes blocks of voxels as channels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from shapeguide.models.unet import UNet

BLOCK = 2
"""Edge length, in voxels, of the blocks. Nothing is averaged: a block of 8 voxels is 8 channels,
and each voxel has logits of its own, at an eighth of the time that the voxels would take one by
one (sub-pixel convolution, Shi et al., CVPR 2016)."""
BACKGROUND_LOGIT = 5.0
"""What an untrained finder says of the background; of structures, which fill less than a hundredth
of a head, 0. Otherwise the first hundred iterations teach nothing but that (Lin et al., ICCV 2017).
"""


class FinderNetwork(nn.Module):
    """Images (B, 1, I, J, K) to logits (B, classes, I, J, K).

    Args:
        classes: Structures and the background.
        channels: Channels of the levels of its U-Net, from the blocks down.

    Raises:
        ConfigError: If there is not at least one level.
    """

    def __init__(self, classes: int, *, channels: Sequence[int]) -> None:
        super().__init__()
        self.unet = UNet(BLOCK**3, classes * BLOCK**3, channels)
        self.divisor = finder_divisor(channels)
        if self.unet.head.bias is not None:
            nn.init.zeros_(self.unet.head.bias)
            nn.init.constant_(self.unet.head.bias[: BLOCK**3], BACKGROUND_LOGIT)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of each voxel.

        Raises:
            ValueError: If a length is not a multiple of `divisor`, or all are only that.
        """
        return _voxels(self.unet(_blocks(images)))


def finder_divisor(channels: Sequence[int]) -> int:
    """What a spatial shape must be a multiple of, without building the network."""
    return int(BLOCK * 2 ** (len(channels) - 1))


def _blocks(images: Tensor) -> Tensor:
    """The voxels of each block as channels: (B, C, I, J, K) to (B, 8 C, I/2, J/2, K/2)."""
    count, channels, *lengths = images.shape
    if any(length % BLOCK for length in lengths):
        raise ValueError(f"the finder needs multiples of {BLOCK}, found {tuple(lengths)}")
    i, j, k = (length // BLOCK for length in lengths)
    split = images.reshape(count, channels, i, BLOCK, j, BLOCK, k, BLOCK)
    return split.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(count, channels * BLOCK**3, i, j, k)


def _voxels(blocks: Tensor) -> Tensor:
    """The way back: (B, 8 C, I/2, J/2, K/2) to (B, C, I, J, K)."""
    count, channels, i, j, k = blocks.shape
    split = blocks.reshape(count, channels // BLOCK**3, BLOCK, BLOCK, BLOCK, i, j, k)
    joined = split.permute(0, 1, 5, 2, 6, 3, 7, 4)
    return joined.reshape(count, channels // BLOCK**3, i * BLOCK, j * BLOCK, k * BLOCK)
