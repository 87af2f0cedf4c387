"""The shape network g: a label map to its shape signature.

The paper's figure with the layer counts is not at hand. The choice here is ours: stride-2
convolutions, three levels by default, without normalisation (it would erase how much of the view is
filled) unless it is asked for, then one channel. In front of them, by choice, a pose that takes
warps out of the masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shapeguide.errors import ConfigError
from shapeguide.models.aligned_pose import AlignedPose
from shapeguide.models.canonical_pose import canonical_pose
from shapeguide.vocabulary import Pose


class ShapeNetwork(nn.Module):
    """3D fully convolutional; each structure's mask to a one-channel signature.

    Args:
        structures: Names of the structures, in the order of the mask channels.
        channels: Channels of each stride-2 level.
        pose: `grid` looks at the masks as they are, `canonical` at their canonical pose, `aligned`
            at them turned onto the mean shape of a population, which `fit_pose` takes in.
        canonical_shape: Edge length of the grid of either pose.
        trunks: 1, or the number of structures for one network each.
        normalised: Instance normalisation after each convolution of a level.

    Raises:
        ConfigError: If there are no structures, no levels, or another number of trunks.
    """

    calibration: Tensor
    """Mean raw distance between two training cases, shape (S,): the unit of `distances`."""

    def __init__(
        self,
        structures: Sequence[str],
        *,
        channels: Sequence[int] = (16, 32, 64),
        pose: Pose = "canonical",
        canonical_shape: int = 32,
        trunks: int = 1,
        normalised: bool = False,
    ) -> None:
        super().__init__()
        if not structures or not channels or trunks not in (1, len(structures)):
            raise ConfigError(
                "a shape network needs structures, channels, and one trunk or one for each "
                f"structure; found {list(structures)}, {list(channels)}, {trunks}"
            )
        self.structures = tuple(structures)
        self.channels = tuple(channels)
        self.pose = pose
        self.canonical_shape = canonical_shape
        self.normalised = normalised
        self.aligned = (
            AlignedPose(len(structures), shape=canonical_shape) if pose == "aligned" else None
        )
        self.trunks = nn.ModuleList(_trunk(channels, normalised) for _ in range(trunks))
        self.register_buffer("calibration", torch.ones(len(structures)))

    def forward(self, masks: Tensor, *, spacing_mm: tuple[float, float, float]) -> Tensor:
        """Shape signatures of masks.

        Args:
            masks: Soft or binary, in [0, 1], shape (B, S, I, J, K), S in the order of `structures`.
            spacing_mm: Voxel spacing of the masks.

        Returns:
            Signatures, shape (B, S, i, j, k).

        Raises:
            ValueError: If S is not the number of structures.
        """
        if masks.shape[1] != len(self.structures):
            raise ValueError(
                f"masks have {masks.shape[1]} channels, the shape network {len(self.structures)} "
                f"structures: {', '.join(self.structures)}"
            )
        return self.signatures(self.view(masks, spacing_mm=spacing_mm))

    def view(self, masks: Tensor, *, spacing_mm: tuple[float, float, float]) -> Tensor:
        """What the convolutions see: the masks (B, S, I, J, K), or their pose."""
        if self.pose == "grid":
            return masks
        if self.aligned is not None:
            views: Tensor = self.aligned(masks, spacing_mm=spacing_mm)
            return views
        return canonical_pose(masks, spacing_mm=spacing_mm, shape=self.canonical_shape)

    def fit_pose(self, masks: Tensor, *, spacing_mm: tuple[float, float, float]) -> None:
        """Show the masks of a population (N, S, I, J, K) to the pose; only `aligned` looks."""
        if self.aligned is not None:
            self.aligned.fit(masks, spacing_mm=spacing_mm)

    def signatures(self, views: Tensor) -> Tensor:
        """Signatures (B, S, i, j, k) of what `view` gives, shape (B, S, I, J, K)."""
        if len(self.trunks) == 1:
            flat: Tensor = self.trunks[0](views.flatten(0, 1)[:, None])
            return flat.reshape(*views.shape[:2], *flat.shape[2:])
        apart = [trunk(views[:, s : s + 1]) for s, trunk in enumerate(self.trunks)]
        return torch.cat(apart, dim=1)


def signature_distance(first: Tensor, second: Tensor) -> Tensor:
    """||g(M1) - g(M2)||, the Euclidean norm over each signature.

    Args:
        first: Signatures, shape (B, S, i, j, k).
        second: Signatures, same shape.

    Returns:
        Distances, shape (B, S), at least 0; the gradient at equal signatures is 0.
    """
    squares = (first - second).float().flatten(2).square().sum(-1)
    # The square root has no gradient at 0; a step below every real distance keeps it finite.
    tiny = 1e-12
    distances: Tensor = (squares + tiny).sqrt() - tiny**0.5
    return distances


def _trunk(channels: Sequence[int], normalised: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in zip([1, *channels[:-1]], channels, strict=True):
        norm = [nn.InstanceNorm3d(b, affine=True)] if normalised else []
        layers += [nn.Conv3d(a, b, 3, stride=2, padding=1), *norm, nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.Conv3d(channels[-1], 1, 1))
