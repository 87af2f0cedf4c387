"""What the segmenter is shown in an iteration."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.data.sides import mirrored_classes
from shapeguide.geometry.boxes import Box
from shapeguide.training.engine.seeds import Stream, generator_for
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.stages.case_order import CaseOrder
from shapeguide.training.stages.faults import Faults, draw_faults
from shapeguide.training.stages.variation import (
    Intensities,
    Warps,
    draw_intensities,
    draw_warps,
    with_displacements,
    with_swellings,
)

MIRRORED_SHARE = 0.5


class LabelledImages(NamedTuple):
    """Images with their label maps, as prepared, and how they are to be varied."""

    images: Tensor
    """Shape (B, C, I, J, K)."""
    classes: Tensor
    """Class indices, shape (B, I, J, K)."""
    warps: Warps
    intensities: Intensities | None = None
    """Those of each channel of each item, B * C; None leaves them as they are."""
    faults: Faults | None = None
    """Likewise; None makes none."""


class SegmentationBatches(TorchDataset[LabelledImages]):
    """Item n is the batch of iteration n; it depends on the seed and n alone.

    Regions are laid off their middles, as a finder lays them, patches anywhere in theirs, and both
    come with `context` around them.
    """

    def __init__(self, cases: PreparedCases, settings: TrainSettings) -> None:
        self.cases = cases
        self.settings = settings
        self.suited = settings.segmentation.suited(cases.space.spatial_shape)
        self.order = CaseOrder(len(cases), self.suited.batch_size, settings.seed)
        self.mirrored: Tensor | None = None
        """What each class becomes in a mirrored image; None where none is mirrored."""
        if settings.segmentation.mirrored:
            names = [structure.name for structure in cases.cases[0].structures]
            self.mirrored = torch.tensor(mirrored_classes(names))
        i, j, k = (room - off for room, off in zip(cases.room, cases.off, strict=True))
        self.context = (i, j, k)
        """Voxels of the images beyond the working space, at both ends of each axis."""

    def __getitem__(self, iteration: int) -> LabelledImages:
        chosen = [self.cases.with_room(place) for place in self.order.of(iteration)]
        generator = generator_for(self.settings.seed, Stream.SEGMENTATION, iteration)
        boxes = [self._box(case.grid.spatial_shape, generator) for case in chosen]
        images = torch.stack(
            [
                torch.from_numpy(case.image[(slice(None), *box)])
                for case, box in zip(chosen, boxes, strict=True)
            ]
        )
        classes = torch.stack(
            [torch.from_numpy(case.classes[box]) for case, box in zip(chosen, boxes, strict=True)]
        )
        course = self.settings.segmentation
        if self.mirrored is not None:
            turned = torch.rand(len(images), generator=generator) < MIRRORED_SHARE
            images, classes = _mirrored(images, classes, turned, self.mirrored)
        warps = self._warps(classes, generator)
        # A scanner takes each channel by itself.
        count = len(images) * images.shape[1]
        shape = torch.Size((count, 1, *self.cases.space.spatial_shape))
        intensities = None
        if course.intensity_augmentation:
            intensities = draw_intensities(shape, generator=generator)
        faults = None
        share = course.scanner_faults
        if share:
            faults = draw_faults(shape, share=share, generator=generator)
        return LabelledImages(images, classes, warps, intensities, faults)

    def _warps(self, classes: Tensor, generator: torch.Generator) -> Warps:
        """Warps of items with these class indices, (B, I, J, K) with context."""
        course, space = self.settings.segmentation, self.cases.space
        warps = draw_warps(
            self.settings.warp,
            classes,
            spacing_mm=space.spacing_mm,
            share=course.warped_share,
            generator=generator,
        )
        if self.suited.elastic_mm:
            lengths = zip(space.spatial_shape, space.spacing_mm, strict=True)
            warps = with_displacements(
                warps,
                deviation_mm=self.suited.elastic_mm,
                extent_mm=[length * step for length, step in lengths],
                generator=generator,
            )
        if course.swelling_mm:
            warps = with_swellings(
                warps,
                most_mm=course.swelling_mm,
                share=course.swollen_share,
                generator=generator,
            )
        return warps

    def _box(self, lengths: tuple[int, int, int], generator: torch.Generator) -> Box:
        """A part of a prepared item of these lengths, laid at random."""
        most = self.cases.off
        if not any(most):
            return slice(0, lengths[0]), slice(0, lengths[1]), slice(0, lengths[2])
        starts = [int(torch.randint(2 * off + 1, (1,), generator=generator)) for off in most]
        i, j, k = (
            slice(start, start + length - 2 * off)
            for start, length, off in zip(starts, lengths, most, strict=True)
        )
        return i, j, k


def _mirrored(
    images: Tensor, classes: Tensor, chosen: Tensor, becomes: Tensor
) -> tuple[Tensor, Tensor]:
    """The chosen items with left and right changed; the first spatial axis runs to the right."""
    images, classes = images.clone(), classes.clone()
    images[chosen] = images[chosen].flip(2)
    classes[chosen] = becomes.to(classes.dtype)[classes[chosen].flip(1).long()]
    return images, classes
