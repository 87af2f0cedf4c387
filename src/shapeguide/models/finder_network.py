"""The network of the finder: a U-Net of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from shapeguide.models.block_unet import BLOCK, BlockUNet


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


def finder_divisor(channels: Sequence[int]) -> int:
    """What a spatial shape must be a multiple of, without building the network."""
    return int(BLOCK * 2 ** (len(channels) - 1))
