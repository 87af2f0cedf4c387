"""Autoencoders of label maps: the shape priors of ACNN and SRN.

ACNN (Oktay et al., "Anatomically Constrained Neural Networks", IEEE TMI 2018) squeezes a label map
through a fully connected layer to a code of 64 numbers. SRN (Ravishankar et al., "Learning and
Incorporating Shape Models for Semantic Segmentation", MICCAI 2017) has no such layer: its code is
the feature map of the lowest resolution, and it is taught to restore corrupted maps.

Both papers leave layer counts to figures that are not at hand; the layers here are ours: one
stride-2 convolution for each level, two convolutions at the lowest resolution, so that it sees far,
and transposed convolutions up again. Batch normalisation, without which the dense code hardly
trains; not instance normalisation, which would erase how much of the map is filled. No skip
connections: everything passes the code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from shapeguide.errors import ConfigError


class MaskAutoencoder(nn.Module):
    """Class probabilities to a code, and a code to logits of the classes.

    Args:
        classes: Classes, background included.
        spatial_shape: Voxels of the maps; any lengths. Binding only with a dense layer.
        channels: Channels of each stride-2 level.
        code_length: Numbers of the code behind a fully connected layer; None leaves the code a
            feature map. The layer and its counterpart hold twice code_length times
            channels[-1] times the voxels of the lowest resolution.

    Raises:
        ConfigError: If there are no levels.
    """

    def __init__(
        self,
        classes: int,
        *,
        spatial_shape: tuple[int, int, int],
        channels: Sequence[int] = (16, 32, 64),
        code_length: int | None = None,
    ) -> None:
        super().__init__()
        if not channels:
            raise ConfigError("an autoencoder needs at least one level of channels")
        self.classes = classes
        self.spatial_shape = spatial_shape
        self.dense = code_length is not None
        self.levels = len(channels)
        inputs = [classes, *channels[:-1]]
        self.encoder = nn.Sequential(
            *(_down(a, b) for a, b in zip(inputs, channels, strict=True)), _far(channels[-1])
        )
        self.to_code: nn.Module = nn.Identity()
        self.from_code: nn.Module = nn.Identity()
        if code_length is not None:
            lowest = (channels[-1], *self._shapes(spatial_shape)[-1])
            size = math.prod(lowest)
            self.to_code = nn.Sequential(nn.Flatten(), nn.Linear(size, code_length))
            self.from_code = nn.Sequential(
                nn.Linear(code_length, size), nn.LeakyReLU(0.1), nn.Unflatten(1, lowest)
            )
        ascending = list(zip(reversed(channels), [*reversed(channels[:-1]), classes], strict=True))
        self.decoder = nn.ModuleList(
            _up(a, b, last=n == self.levels) for n, (a, b) in enumerate(ascending, start=1)
        )

    def forward(self, probabilities: Tensor) -> Tensor:
        """Probabilities (B, C, I, J, K), background first, to restored logits of equal shape."""
        i, j, k = probabilities.shape[2:]
        return self.decode(self.encode(probabilities), spatial_shape=(i, j, k))

    def encode(self, probabilities: Tensor) -> Tensor:
        """The code: (B, code_length), or (B, channels[-1], i, j, k) without a dense layer.

        Raises:
            ValueError: If the classes are not those of the autoencoder, or the spatial shape with
                a dense layer.
        """
        classes, *shape = probabilities.shape[1:]
        if classes != self.classes or (self.dense and tuple(shape) != self.spatial_shape):
            raise ValueError(
                f"the autoencoder takes {self.classes} classes, background included, on a grid "
                f"of {self.spatial_shape} voxels, found {tuple(probabilities.shape)}"
            )
        code: Tensor = self.to_code(self.encoder(probabilities))
        return code

    def decode(self, code: Tensor, *, spatial_shape: tuple[int, int, int]) -> Tensor:
        """Logits (B, C, I, J, K) of a code that was taken from maps of this spatial shape."""
        features: Tensor = self.from_code(code)
        for level, (i, j, k) in zip(self.decoder, self._shapes(spatial_shape)[-2::-1], strict=True):
            features = level(features)[:, :, :i, :j, :k]
        return features

    def _shapes(self, spatial_shape: tuple[int, int, int]) -> list[tuple[int, int, int]]:
        """Spatial shapes from full resolution down; a stride-2 convolution rounds up."""
        shapes = [spatial_shape]
        for _ in range(self.levels):
            i, j, k = shapes[-1]
            shapes.append(((i + 1) // 2, (j + 1) // 2, (k + 1) // 2))
        return shapes


def _down(inputs: int, outputs: int) -> nn.Sequential:
    return _activated(nn.Conv3d(inputs, outputs, 3, stride=2, padding=1, bias=False), outputs)


def _far(channels: int) -> nn.Sequential:
    """Two convolutions that keep the resolution; each output sees five voxels along each axis."""
    return nn.Sequential(
        *(
            _activated(nn.Conv3d(channels, channels, 3, padding=1, bias=False), channels)
            for _ in range(2)
        )
    )


def _up(inputs: int, outputs: int, *, last: bool) -> nn.Module:
    layer = nn.ConvTranspose3d(inputs, outputs, 4, stride=2, padding=1, bias=last)
    return layer if last else _activated(layer, outputs)


def _activated(layer: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm3d(channels), nn.LeakyReLU(0.1))
