"""What the segmenter is shown in an iteration."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.training.engine.seeds import Stream, generator_for
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.stages.case_order import CaseOrder
from shapeguide.training.stages.faults import Faults, draw_faults
from shapeguide.training.stages.variation import Intensities, Warps, draw_intensities, draw_warps


class LabelledImages(NamedTuple):
    """Images with their label maps, as prepared, and how they are to be varied."""

    images: Tensor
    """Shape (B, 1, I, J, K)."""
    classes: Tensor
    """Class indices, shape (B, I, J, K)."""
    warps: Warps
    intensities: Intensities | None = None
    """None leaves them as they are."""
    faults: Faults | None = None
    """None makes none."""


class SegmentationBatches(TorchDataset[LabelledImages]):
    """Item n is the batch of iteration n; it depends on the seed and n alone."""

    def __init__(self, cases: PreparedCases, settings: TrainSettings) -> None:
        self.cases = cases
        self.settings = settings
        self.order = CaseOrder(len(cases), settings.segmentation.batch_size, settings.seed)

    def __getitem__(self, iteration: int) -> LabelledImages:
        chosen = [self.cases[place] for place in self.order.of(iteration)]
        images = torch.stack([torch.from_numpy(case.image) for case in chosen])[:, None]
        classes = torch.stack([torch.from_numpy(case.classes) for case in chosen])
        generator = generator_for(self.settings.seed, Stream.SEGMENTATION, iteration)
        course = self.settings.segmentation
        warps = draw_warps(
            self.settings.warp,
            count=len(images),
            share=course.warped_share,
            generator=generator,
        )
        intensities = None
        if course.intensity_augmentation:
            intensities = draw_intensities(images.shape, generator=generator)
        faults = None
        if course.scanner_faults:
            share = course.scanner_faults
            faults = draw_faults(images.shape, share=share, generator=generator)
        return LabelledImages(images, classes, warps, intensities, faults)
