"""The network of the shape restorer: class probabilities in, log odds of the true classes out.

It is ours, of the family of denoising autoencoders of label maps (Ravishankar et al., MICCAI 2017).
Departures: it adds a correction to the log odds that it is given and starts from none, so that it
leaves alone what it does not know; the correction is computed on a coarse grid, for shape is
coarse; and it is a U-Net (Cicek et al., MICCAI 2016).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from shapeguide.models.unet import UNet

SMALLEST_PROBABILITY = 1e-3
"""Probabilities below count as this, so that no class is beyond correction."""
GAIN = 3.0
"""The correction is this many times what the U-Net gives: log odds span several units."""


class ShapeRestorer(nn.Module):
    """Adds a correction to log probabilities; an untrained one adds none.

    Args:
        classes: Structures and the background.
        channels: Channels of the levels of its U-Net.
        coarsening: Edge length, in voxels, of the blocks that the correction is computed on.

    Raises:
        ConfigError: If there is not at least one level.
        ValueError: If the coarsening is below 1.
    """

    def __init__(self, classes: int, *, channels: Sequence[int], coarsening: int) -> None:
        super().__init__()
        if coarsening < 1:
            raise ValueError(f"coarsening is 1 or more voxels, found {coarsening}")
        self.coarsening = coarsening
        self.unet = UNet(classes, classes, channels)
        nn.init.zeros_(self.unet.head.weight)
        if self.unet.head.bias is not None:
            nn.init.zeros_(self.unet.head.bias)

    def forward(self, probabilities: Tensor) -> Tensor:
        """Class probabilities (B, C, I, J, K) of any spatial shape to logits of the same shape."""
        possible = probabilities.float().clamp(min=SMALLEST_PROBABILITY)
        coarse, step = possible, self.coarsening
        if step > 1:
            coarse = functional.avg_pool3d(_padded(possible, _multiples(possible, step)), step)
        correction = self.correction(coarse)
        if step > 1:
            correction = functional.interpolate(correction, scale_factor=step, mode="trilinear")
        return possible.log() + _cropped(correction, possible.shape[2:])

    def correction(self, coarse: Tensor) -> Tensor:
        """What is added to the logits of coarse probabilities (B, C, I, J, K), same shape."""
        lengths = _multiples(coarse, self.unet.divisor)
        if all(length == self.unet.divisor for length in lengths):
            # A single voxel at the deepest level is too few to normalise.
            lengths[0] *= 2
        found: Tensor = self.unet(_padded(coarse, lengths)).float() * GAIN
        return _cropped(found, coarse.shape[2:])


def _multiples(maps: Tensor, divisor: int) -> list[int]:
    """Spatial lengths of maps (B, C, I, J, K), raised to multiples of the divisor."""
    return [-(-length // divisor) * divisor for length in maps.shape[2:]]


def _padded(maps: Tensor, lengths: Sequence[int]) -> Tensor:
    """Edge values repeated at the far ends, up to these lengths."""
    i, j, k = (wanted - found for wanted, found in zip(lengths, maps.shape[2:], strict=True))
    if not (i or j or k):
        return maps
    return functional.pad(maps, (0, k, 0, j, 0, i), mode="replicate")


def _cropped(maps: Tensor, spatial_shape: Sequence[int]) -> Tensor:
    i, j, k = spatial_shape
    return maps[:, :, :i, :j, :k]
