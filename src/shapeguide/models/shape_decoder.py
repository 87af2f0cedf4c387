"""From a shape signature back to the mask: how much of the shape the signature holds.

Only the `reconstruction` objective trains it, beside the shape network; a finished model does not
keep it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


class ShapeDecoder(nn.Module):
    """Mirror image of one trunk of the shape network, for all structures.

    Args:
        channels: Channels of the levels of the shape network, finest first.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        coarse_first = list(channels)[::-1]
        self.entry = nn.Conv3d(1, coarse_first[0], 1)
        self.levels = nn.ModuleList(
            nn.Conv3d(a, b, 3, padding=1)
            for a, b in zip(coarse_first, [*coarse_first[1:], coarse_first[-1]], strict=True)
        )
        self.exit = nn.Conv3d(coarse_first[-1], 1, 1)

    def forward(self, signatures: Tensor, *, shape: Sequence[int]) -> Tensor:
        """Logits of masks.

        Args:
            signatures: Shape (B, S, i, j, k).
            shape: Spatial shape of the masks.

        Returns:
            Shape (B, S, *shape).
        """
        features = functional.leaky_relu(self.entry(signatures.flatten(0, 1)[:, None]), 0.1)
        for place, level in enumerate(self.levels, start=1):
            # Each level has the resolution of its mirror image, whatever was rounded there.
            left = len(self.levels) - place
            size = [-(-length // 2**left) for length in shape]
            features = functional.interpolate(features, size=size, mode="trilinear")
            features = functional.leaky_relu(level(features), 0.1)
        logits: Tensor = self.exit(features)
        return logits.reshape(*signatures.shape[:2], *shape)
