"""The network of the finder: a U-Net of blocks that expects next to nothing of a voxel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from shapeguide.models.block_unet import BLOCK, BlockUNet

BACKGROUND_LOGIT = 5.0
"""What an untrained finder says of the background; of structures, which fill less than a hundredth
of a head, 0. Otherwise the first hundred iterations teach nothing but that (Lin et al., ICCV 2017).
"""


class FinderNetwork(BlockUNet):
    """Images (B, 1, I, J, K) to logits (B, classes, I, J, K).

    Args:
        classes: Structures and the background.
        channels: Channels of the levels, from the blocks down.

    Raises:
        ConfigError: If there is not at least one level.
    """

    title: ClassVar[str] = "finder"

    def __init__(self, classes: int, *, channels: Sequence[int]) -> None:
        super().__init__(1, classes, (BLOCK**3, *channels))
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)
            nn.init.constant_(self.head.bias[: BLOCK**3], BACKGROUND_LOGIT)


def finder_divisor(channels: Sequence[int]) -> int:
    """What a spatial shape must be a multiple of, without building the network."""
    return int(BLOCK * 2 ** (len(channels) - 1))
