"""Deep supervision: a segmenter that also answers at lower resolutions while it trains.

Dou et al., "3D deeply supervised network", MICCAI 2016. The extra answers are made by a convolution
of 1 voxel each, which belong to the training alone: what is left of it is the segmenter.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from shapeguide.models.levels import EncoderDecoder

PREFIX = "segmenter."


class DeeplySupervised(nn.Module):
    """A segmenter and the heads of its lower resolutions, the lowest left out.

    Args:
        segmenter: One that goes down and up again, with a resolution between its lowest and full.
    """

    def __init__(self, segmenter: EncoderDecoder) -> None:
        super().__init__()
        self.segmenter = segmenter
        head = segmenter.head
        # What rises from a level is what its decoder gives; the deepest has none.
        rising = [len(up.get_parameter("weight")) for up in list(segmenter.upsamplers)[:-1]]
        self.heads = nn.ModuleList(type(head)(count, head.out_channels, 1) for count in rising)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits of images (B, C, I, J, K): of each resolution, from full down, while it trains.

        Each resolution is half the one before. In evaluation it is the segmenter alone.

        Raises:
            ValueError: If I, J or K is not a multiple of the divisor, or all are only that.
        """
        if not self.training:
            made: Tensor = self.segmenter(images)
            return made
        first, *lower = self.segmenter.decoded(images)
        answered = self.segmenter.answered
        answers = [answered(head, found) for head, found in zip(self.heads, lower, strict=False)]
        return (answered(self.segmenter.head, first), *answers)


def deeply_supervised(segmenter: nn.Module) -> nn.Module:
    """The segmenter with heads at its lower resolutions, or itself if it has none to supervise."""
    if isinstance(segmenter, EncoderDecoder) and len(segmenter.decoders) > 1:
        return DeeplySupervised(segmenter)
    return segmenter


def trained_segmenter(learner: nn.Module) -> nn.Module:
    """The segmenter that a learner trains: what it holds, or the learner itself."""
    return learner.segmenter if isinstance(learner, DeeplySupervised) else learner


def tensors_of_segmenter(learner: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a learner's state, or of an average of it, that are of its segmenter."""
    if not isinstance(learner, DeeplySupervised):
        return dict(tensors)
    return {
        name.removeprefix(PREFIX): value
        for name, value in tensors.items()
        if name.startswith(PREFIX)
    }
