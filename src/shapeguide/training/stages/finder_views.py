"""What the finder is shown: scans turned, scaled, moved and cut as the world may bring them.

Everything is drawn on the CPU and applied after, wherever the images are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset as TorchDataset

from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.disturbing.fields import smooth_noise
from shapeguide.geometry.boxes import Box
from shapeguide.geometry.warp import draw_affine_warps, warp_classes, warp_one_hot
from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.models.finding import frame_of
from shapeguide.training.engine.seeds import Stream, generator_for
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.stages.case_order import CaseOrder
from shapeguide.training.stages.variation import Intensities, draw_intensities, vary_intensities

WORLD = WarpLimits(rotation_deg=20.0, scale=(0.8, 1.2), translation_mm=15.0)
"""How heads lie in scans; where in a scan makes no difference, because margins are left out."""
WARPED_SHARE = 0.85
"""Share of the views that are warped; the others show heads as they lie."""
CUT_SHARE = 0.5
"""Chance that a side of the field of view is cut away, and again that a second one is."""
DEEPEST_CUT = 0.5
"""A cut takes at most this share of the field of view."""
HOLE_SHARE = 0.4
"""Chance that a block is lost from anywhere in the head."""
HOLE_SIZES = (0.15, 0.6)
"""Smallest and largest edge of such a block, as shares of the field of view."""
HOLE_BEYOND = 0.3
"""How far such a block may start or end beyond the field of view, as a share of it."""
LARGEST_LOG_GAIN = 0.4
"""Standard deviation of the logarithm of the gain, at most."""
GAIN_CELLS = (4, 4, 4)


class Views(NamedTuple):
    """Images with their label maps, as prepared, and how they are to be changed."""

    above: Tensor
    """Intensities above the lowest of each image, shape (B, 1, I, J, K)."""
    lowest: Tensor
    """What prediction pads each image with, shape (B, 1, 1, 1, 1)."""
    classes: Tensor
    """Class indices, shape (B, I, J, K)."""
    warps: Tensor
    """Shape (B, 3, 4), float64."""
    log_gain: Tensor
    """Bias field, shape (B, 1, I, J, K)."""
    intensities: Intensities
    lost: Tensor
    """First and last place of the blocks that are lost, as shares of the field of view, shape
    (B, blocks, 3, 2); empty blocks end where they start."""


class FramedCases:
    """Prepared cases without the margins around their heads, all of one shape.

    Args:
        cases: Prepared in the space of the finder.
        divisor: The lengths of the shape are multiples of this.
        spatial_shape: The shape; when not given, the smallest that holds all heads.
    """

    def __init__(
        self,
        cases: PreparedCases,
        *,
        divisor: int,
        spatial_shape: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        self.cases = cases
        self.divisor = divisor
        for case in cases:
            shape = frame_of(case.image[0], spatial_shape, divisor).spatial_shape
            i, j, k = map(max, shape, spatial_shape)
            spatial_shape = (i, j, k)
        self.spatial_shape = spatial_shape

    def __len__(self) -> int:
        return len(self.cases)

    def images(self, places: list[int]) -> tuple[Tensor, Tensor]:
        """First channels (B, 1, I, J, K) and class indices (B, I, J, K) of some cases."""
        images, classes = [], []
        for case in (self.cases[place] for place in places):
            first = case.image[0]
            frame = frame_of(first, self.spatial_shape, self.divisor)
            images.append(torch.from_numpy(frame.cut_out(first, first.min())))
            classes.append(torch.from_numpy(frame.cut_out(case.classes, np.uint8(0))))
        return torch.stack(images)[:, None], torch.stack(classes)


class FinderBatches(TorchDataset[Views]):
    """Item n is the batch of iteration n; it depends on the seed and n alone."""

    def __init__(self, cases: FramedCases, settings: TrainSettings) -> None:
        self.cases = cases
        self.settings = settings
        self.order = CaseOrder(len(cases), settings.finder.batch_size, settings.seed)

    def __getitem__(self, iteration: int) -> Views:
        generator = generator_for(self.settings.seed, Stream.FINDER, iteration)
        return draw_views(self.cases, self.order.of(iteration), generator=generator)


def draw_views(cases: FramedCases, places: list[int], *, generator: torch.Generator) -> Views:
    """Random views of some cases; along each axis with a margin of the divisor, or without.

    Args:
        cases: Prepared in the space of the finder.
        places: Which of them.
        generator: Source of all randomness, on the CPU.
    """
    images, classes = cases.images(places)
    lowest = images.amin((1, 2, 3, 4), keepdim=True)
    i, j, k = (torch.randint(0, 2, (3,), generator=generator) * cases.divisor).tolist()
    margins = (k // 2, k - k // 2, j // 2, j - j // 2, i // 2, i - i // 2)
    above, classes = (functional.pad(maps, margins) for maps in (images - lowest, classes))
    count = len(places)
    warps = draw_affine_warps(WORLD, count=count, generator=generator)
    warped = torch.rand(count, generator=generator) < WARPED_SHARE
    warps = torch.where(warped[:, None, None], warps, torch.eye(3, 4, dtype=warps.dtype))
    strength = torch.rand((count, 1, 1, 1, 1), generator=generator) * LARGEST_LOG_GAIN
    field = smooth_noise(above, GAIN_CELLS, align_corners=True, generator=generator)
    return Views(
        above,
        lowest,
        classes,
        warps,
        log_gain=field * strength,
        intensities=draw_intensities(above.shape, generator=generator),
        lost=_draw_lost(count, generator),
    )


def shown(views: Views, *, spacing_mm: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """The views as the finder sees them: images (B, 1, I, J, K) and classes (B, I, J, K).

    Beyond the scan and where it is cut, an image has its lowest value, and there are no structures.
    """
    # Zero beyond the grid, where `warp_images` would repeat the edge of the scan.
    above = warp_one_hot(views.above, views.warps, spacing_mm=spacing_mm)
    classes = warp_classes(views.classes, views.warps, spacing_mm=spacing_mm)
    images = above * views.log_gain.exp() + views.lowest
    images = vary_intensities(images, views.intensities)
    for item, (image, labels) in enumerate(zip(images, classes, strict=True)):
        lowest = image.amin()
        for block in lost_blocks(views, item):
            image[(0, *block)] = lowest
            labels[block] = 0
    return images, classes


def lost_blocks(views: Views, item: int) -> list[Box]:
    """What one of the views loses, in voxels."""
    lengths = torch.tensor(views.classes.shape[1:])
    ends = (views.lost[item].cpu() * lengths[:, None]).round().long().tolist()
    return [(slice(*i), slice(*j), slice(*k)) for i, j, k in ends]


def _draw_lost(count: int, generator: torch.Generator) -> Tensor:
    """Blocks that each view loses: two sides of the field of view, and one anywhere."""
    lost = torch.zeros(count, 3, 3, 2)
    numbers = torch.rand((count, 3, 8), generator=generator)
    for blocks, drawn in zip(lost, numbers, strict=True):
        share = CUT_SHARE
        for block, (chance, side, depth) in zip(blocks[:2], drawn[:2, :3].tolist(), strict=True):
            if chance >= share:
                break
            block[:] = torch.tensor([0.0, 1.0])
            axis, far = divmod(int(side * 6), 2)
            cut = depth * DEEPEST_CUT
            block[axis] = torch.tensor([1 - cut, 1.0] if far else [0.0, cut])
        if drawn[2, 0] < HOLE_SHARE:
            small, large = HOLE_SIZES
            sizes = small + (large - small) * drawn[2, 1:4]
            first = drawn[2, 4:7] * (1 + 2 * HOLE_BEYOND - sizes) - HOLE_BEYOND
            blocks[2] = torch.stack([first, first + sizes], dim=1).clamp(0, 1)
    return lost
