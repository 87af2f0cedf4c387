"""The label maps that the shape stage draws from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from shapeguide.data.prepared_cases import LabelMapSource
from shapeguide.disturbing.masks import corrupt, soften
from shapeguide.errors import ConfigError
from shapeguide.geometry.boxes import Box, whole_box
from shapeguide.geometry.warp import (
    draw_affine_warps,
    placed,
    warp_classes,
    warp_one_hot,
)
from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.vocabulary import Maps

CROP_MARGIN_VOXELS = 6
ROOM = 1.35
"""Room for the largest warp, and for a blob beside the structure."""


@dataclass(frozen=True)
class MaskBank:
    """The masks of the training cases, ready to be drawn from."""

    masks: Tensor
    """uint8, shape (N, S, I, J, K)."""
    spacing_mm: tuple[float, float, float]
    limits: WarpLimits
    people: tuple[str, ...] = ()
    """Whom each case shows; when not given, each another person."""
    hard: bool = False
    """Whether masks stay binary where they are warped to be measured."""

    def to(self, device: torch.device) -> MaskBank:
        """The same on a device."""
        return replace(self, masks=self.masks.to(device))

    def present(self) -> Tensor:
        """Which case has which structure, bool (N, S)."""
        return self.masks.flatten(2).amax(-1) > 0

    def warped(self, masks: Tensor, *, generator: torch.Generator) -> Tensor:
        """Masks (B, S, I, J, K), each under a random affine warp of its own.

        Their edges become soft, unless the masks are to stay binary.
        """
        if self.hard:
            return self._warped_hard(masks, generator=generator)
        each = self._warps_of(masks, generator=generator)
        apart = masks.float().flatten(0, 1)[:, None]
        return warp_one_hot(apart, each, spacing_mm=self.spacing_mm).view(masks.shape)

    def seen(self, masks: Tensor, *, maps: Maps, generator: torch.Generator) -> Tensor:
        """Masks as a network in training sees them: warped, and as `maps` says.

        Binary ones keep a hard edge under the warp, which interpolates that of all others; every
        second of softened and of corrupted ones is soft before it.
        """
        if maps == "binary":
            return self._warped_hard(masks, generator=generator)
        if maps != "clean":
            softened = torch.rand(len(masks), generator=generator) < 0.5
            if softened.any():
                masks = masks.clone()
                masks[softened] = soften(masks[softened], generator=generator)
        return self.warped(masks, generator=generator)

    def _warped_hard(self, masks: Tensor, *, generator: torch.Generator) -> Tensor:
        """The same as `warped` gives, with a hard edge."""
        each = self._warps_of(masks, generator=generator)
        classes = masks.to(torch.uint8).flatten(0, 1)
        warped = warp_classes(classes, each, spacing_mm=self.spacing_mm)
        return warped.view(masks.shape).float()

    def _warps_of(self, masks: Tensor, *, generator: torch.Generator) -> Tensor:
        """Warps (B * S, 3, 4) of masks (B, S, I, J, K): those of one case turn alike.

        Each structure is an object by itself.
        """
        warps = draw_affine_warps(self.limits, count=len(masks), generator=generator)
        each = warps.repeat_interleave(masks.shape[1], dim=0)
        return placed(each, masks.flatten(0, 1), limits=self.limits, spacing_mm=self.spacing_mm)

    def draw(self, count: int, *, maps: Maps, generator: torch.Generator) -> Tensor:
        """So many different shapes (count, S, I, J, K): float, uint8 where they stay binary.

        The cases are all different as long as there are enough. Of `corrupted` maps every second
        is a corrupted copy of one of the others: a shape of its own that looks much like it.
        """
        copies = 0
        if maps == "corrupted":
            # An odd one is either.
            copies = (count + int(torch.randint(2, (1,), generator=generator))) // 2
        order = torch.randperm(len(self.masks), generator=generator)
        wanted = max(count - copies, copies)
        chosen = order.repeat(-(-wanted // len(order)))[:wanted]
        masks = self.masks[chosen]
        if maps == "binary":
            return masks
        masks = masks.float()
        if not copies:
            return masks
        return torch.cat([masks[: count - copies], corrupt(masks[:copies], generator=generator)])


def mask_bank(cases: LabelMapSource, settings: TrainSettings) -> MaskBank:
    """Masks of prepared cases: on the whole working grid, or cropped around each structure.

    The other poses remove position, so a crop loses nothing and costs a fraction; translations then
    are not drawn. No image is read.

    Args:
        cases: At least one.
        settings: Those of the shape stage that the masks are for.

    Raises:
        ConfigError: If the masks would take more memory than the settings allow.
        DataError: If a case cannot be prepared.
    """
    names = [structure.name for structure in cases.cases[0].structures]
    limits, people = settings.warp, tuple(case.person for case in cases.cases)
    boxes: list[list[Box | None]]
    if settings.shape.pose == "grid":
        boxes = [[whole_box(cases.space.spatial_shape)] * len(names) for _ in people]
        shape = cases.space.spatial_shape
    else:
        found = [structure_boxes(item.classes, len(names)) for item in cases.label_maps()]
        boxes = [
            [found[cases.showing(n, s)][s] for s in range(len(names))] for n in range(len(people))
        ]
        shape = _common_shape(boxes)
        limits = replace(limits, translation_mm=0.0)
    _check_memory((len(people), len(names), *shape), settings.data.memory_limit_bytes)
    masks = torch.zeros((len(people), len(names), *shape), dtype=torch.uint8)
    for n, own in enumerate(boxes):
        for s, box in enumerate(own):
            if box is not None:
                classes = cases.label_map(cases.showing(n, s)).classes
                inside = torch.from_numpy(classes[box] == s + 1)
                masks[n, s][_in_the_middle(inside.shape, shape)] = inside
    return MaskBank(masks, cases.space.spacing_mm, limits, people)


def structure_boxes(classes: NDArray[np.uint8], count: int) -> list[Box | None]:
    """The smallest box around each of so many structures, by class index from 1; none if absent."""
    found: Sequence[tuple[slice, ...] | None] = ndimage.find_objects(classes, max_label=count)
    return [None if box is None else (box[0], box[1], box[2]) for box in found]


def _common_shape(boxes: Sequence[Sequence[Box | None]]) -> tuple[int, int, int]:
    """Shape of a box that holds each of these with room around it."""
    lengths = [[part.stop - part.start for part in box] for case in boxes for box in case if box]
    longest = torch.tensor(lengths or [[1, 1, 1]]).amax(0)
    i, j, k = ((longest.float() * ROOM).ceil().long() + 2 * CROP_MARGIN_VOXELS).tolist()
    return i, j, k


def _in_the_middle(lengths: Sequence[int], shape: Sequence[int]) -> Box:
    starts = [(whole - length) // 2 for length, whole in zip(lengths, shape, strict=True)]
    i, j, k = (slice(start, start + length) for start, length in zip(starts, lengths, strict=True))
    return i, j, k


def _check_memory(shape: Sequence[int], limit_bytes: int) -> None:
    """Refuse masks of a shape (N, S, I, J, K) that would take more than this.

    Raises:
        ConfigError: If they would.
    """
    if prod(shape) > limit_bytes:
        raise ConfigError(
            f"the shape stage needs {prod(shape) / 2**30:.1f} GB for the masks of {shape[0]} cases "
            f"and {shape[1]} structures, more than the limit of {limit_bytes / 2**30:.1f} GB; "
            "raise data.memory_limit_gb, name fewer structures, or train without guidance"
        )
