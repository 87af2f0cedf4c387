"""The masks of each iteration of the shape stage.

Item n of each of these data sets is the batch of iteration n: it depends on the seed and on n, so
any process can make it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from shapeguide.models.aligned_pose import AlignedPose
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.training.engine.seeds import Stream, generator_for
from shapeguide.training.shape.mask_bank import MaskBank
from shapeguide.training.shape.surface_targets import draw_pairs, surface_targets
from shapeguide.vocabulary import Maps


class ShapeBatch(NamedTuple):
    """What a shape network is shown in one iteration."""

    first: Tensor
    """Masks as it sees them, shape (B, S, I, J, K)."""
    second: Tensor | None
    """Their counterparts, same shape, where shapes come in pairs."""
    present: Tensor
    """Which shapes have which structure, bool (B, S)."""
    wanted: Tensor | None = None
    """What the objective asks for: of `surface` distances (B, S), of `reconstruction` the masks
    before warp and softening, as the pose of the network shows them."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """From what, how many, and how batches are drawn."""

    bank: MaskBank
    """On the CPU."""
    batch_size: int
    maps: Maps
    seed: int

    def generator(self, iteration: int) -> torch.Generator:
        """Source of all randomness of an iteration."""
        return generator_for(self.seed, Stream.SHAPE, iteration)


class TwoViews(TorchDataset[ShapeBatch]):
    """Different shapes, each under two random affine warps: the positive pairs."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing

    def __getitem__(self, iteration: int) -> ShapeBatch:
        drawn, generator = self.drawing, self.drawing.generator(iteration)
        shapes = drawn.bank.draw(drawn.batch_size, maps=drawn.maps, generator=generator)
        first, second = (
            drawn.bank.seen(shapes, maps=drawn.maps, generator=generator) for _ in range(2)
        )
        return ShapeBatch(first, second, shapes.flatten(2).amax(-1) > 0)


class SurfacePairs(TorchDataset[ShapeBatch]):
    """Pairs of masks with the surface error between them.

    Of each three pairs one shows a case twice, one shows two cases and one a case and a corrupted
    copy, which is left out unless maps are corrupted. The errors are measured before the warps, so
    that warps must not count.

    Args:
        drawing: What is drawn.
        unit: Surface error that the network shall call 1, as `people_apart` gives it.
        pose: In which the error is measured, on the CPU; the canonical one when not given.
    """

    def __init__(self, drawing: Drawing, *, unit: float, pose: AlignedPose | None) -> None:
        self.drawing = drawing
        self.unit = unit
        self.pose = pose

    @torch.no_grad()
    def __getitem__(self, iteration: int) -> ShapeBatch:
        drawn, generator = self.drawing, self.drawing.generator(iteration)
        bank = drawn.bank
        first, second = draw_pairs(bank, drawn.batch_size, drawn.maps, generator)
        wanted = surface_targets(first, second, bank.spacing_mm, pose=self.pose) / self.unit
        present = first.flatten(2).any(-1) & second.flatten(2).any(-1)
        both = torch.cat([first, second])
        seen = bank.seen(both, maps=drawn.maps, generator=generator).chunk(2)
        return ShapeBatch(seen[0], seen[1], present, wanted)


class BeforeAndAfter(TorchDataset[ShapeBatch]):
    """Shapes under a random affine warp, and what they were before it.

    A corrupted map is wanted as it was corrupted: a signature has to show what is wrong with it.

    Args:
        drawing: What is drawn.
        network: Whose pose shows the masks that are wanted, on the CPU.
    """

    def __init__(self, drawing: Drawing, *, network: ShapeNetwork) -> None:
        self.drawing = drawing
        self.network = network

    @torch.no_grad()
    def __getitem__(self, iteration: int) -> ShapeBatch:
        drawn, generator = self.drawing, self.drawing.generator(iteration)
        shapes = drawn.bank.draw(drawn.batch_size, maps=drawn.maps, generator=generator)
        view = self.network.view(shapes.float(), spacing_mm=drawn.bank.spacing_mm)
        seen = drawn.bank.seen(shapes, maps=drawn.maps, generator=generator)
        return ShapeBatch(seen, None, shapes.flatten(2).amax(-1) > 0, (view > 0.5).float())
