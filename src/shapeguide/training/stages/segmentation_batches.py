"""Which cases an iteration sees, and how they are varied."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset as TorchDataset

from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.geometry.warp import draw_affine_warps, warp_classes, warp_images
from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.training.engine.seeds import ORDER_OF_CASES, Stage, generator_for

VARIED_SHARE = 0.5


class CaseBatches(TorchDataset[tuple[Tensor, Tensor]]):
    """Item n is the batch of iteration n: images (B, 1, I, J, K) and class indices (B, I, J, K).

    Every case comes once in each round, in an order drawn from the seed and the number of the
    round, so the batch depends on nothing but the seed and the iteration.
    """

    def __init__(self, cases: PreparedCases, *, batch_size: int, seed: int) -> None:
        self.cases = cases
        self.batch_size = batch_size
        self.seed = seed

    def __getitem__(self, iteration: int) -> tuple[Tensor, Tensor]:
        chosen = [self.cases[index] for index in self.indices(iteration)]
        images = torch.stack([torch.from_numpy(case.image) for case in chosen])[:, None]
        return images, torch.stack([torch.from_numpy(case.classes) for case in chosen])

    def indices(self, iteration: int) -> list[int]:
        """Which cases the batch of an iteration holds."""
        first = iteration * self.batch_size
        return [self._index(place) for place in range(first, first + self.batch_size)]

    def _index(self, place: int) -> int:
        turn, offset = divmod(place, len(self.cases))
        generator = generator_for(self.seed, Stage.SEGMENTATION, ORDER_OF_CASES, turn)
        return int(torch.randperm(len(self.cases), generator=generator)[offset])


def warp_batch(
    images: Tensor,
    classes: Tensor,
    limits: WarpLimits,
    *,
    share: float,
    spacing_mm: tuple[float, float, float],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """A random affine warp for a share of the items, the same for image and labels.

    Args:
        images: Shape (B, 1, I, J, K).
        classes: Class indices, shape (B, I, J, K).
        limits: Ranges of the warps.
        share: Chance of each item to be warped, in [0, 1].
        spacing_mm: Voxel spacing.
        generator: Source of all randomness, on the CPU.
    """
    warps = draw_affine_warps(limits, count=len(images), generator=generator)
    chosen = torch.rand(len(images), generator=generator) < share
    if not chosen.any():
        return images, classes
    warps, place = warps[chosen], chosen.to(images.device)
    images, classes = images.clone(), classes.clone()
    images[place] = warp_images(images[place], warps, spacing_mm=spacing_mm)
    classes[place] = warp_classes(classes[place], warps, spacing_mm=spacing_mm)
    return images, classes


def vary_intensities(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Random contrast, brightness, gamma, blur and noise; what differs between scanners.

    Args:
        images: Mean about 0 and standard deviation about 1, shape (B, 1, I, J, K).
        generator: Source of all randomness, on the CPU.

    Returns:
        Same shape. Half of the items come back as they were, so that most of what the network
        learns is still how scans look undisturbed.
    """
    count, device = len(images), images.device
    chosen = torch.rand(count, generator=generator) < VARIED_SHARE

    def drawn(low: float, high: float) -> Tensor:
        values = torch.rand(count, generator=generator) * (high - low) + low
        return values.to(device)[:, None, None, None, None]

    contrast, brightness, gamma = drawn(0.75, 1.25), drawn(-0.3, 0.3), drawn(-0.35, 0.35).exp()
    low, high = images.amin((1, 2, 3, 4), keepdim=True), images.amax((1, 2, 3, 4), keepdim=True)
    reach = (high - low).clamp(min=1e-6)
    varied = ((images - low) / reach) ** gamma * reach + low
    varied = varied * contrast + brightness
    blurred = functional.avg_pool3d(varied, 3, stride=1, padding=1, count_include_pad=False)
    varied = torch.lerp(varied, blurred, drawn(-0.4, 0.8).clamp(min=0))
    # One draw of noise for a volume is costly; the sign keeps it symmetric.
    noise = torch.randn(images.shape, generator=generator).to(device)
    varied = varied + noise * drawn(-0.1, 0.25).clamp(min=0)
    return torch.where(chosen.to(device)[:, None, None, None, None], varied, images)


def one_hot(classes: Tensor, count: int) -> Tensor:
    """Class indices (B, I, J, K) to one-hot float32 (B, count, I, J, K)."""
    wanted = torch.arange(count, device=classes.device, dtype=classes.dtype)
    return (classes[:, None] == wanted[None, :, None, None, None]).float()
