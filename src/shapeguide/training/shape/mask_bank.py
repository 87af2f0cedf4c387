"""The label maps that the shape stage draws from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.disturbing.masks import corrupt, soften
from shapeguide.geometry.boxes import foreground_box
from shapeguide.geometry.warp import draw_affine_warps, warp_classes, warp_one_hot
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

    def to(self, device: torch.device) -> MaskBank:
        """The same on a device."""
        return replace(self, masks=self.masks.to(device))

    def present(self) -> Tensor:
        """Which case has which structure, bool (N, S)."""
        return self.masks.flatten(2).amax(-1) > 0

    def warped(self, masks: Tensor, *, generator: torch.Generator) -> Tensor:
        """Masks (B, S, I, J, K), each under a random affine warp of its own, soft at the edge."""
        warps = draw_affine_warps(self.limits, count=len(masks), generator=generator)
        return warp_one_hot(masks.float(), warps, spacing_mm=self.spacing_mm)

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
        warps = draw_affine_warps(self.limits, count=len(masks), generator=generator)
        each = warps.repeat_interleave(masks.shape[1], dim=0)
        classes = masks.to(torch.uint8).flatten(0, 1)
        warped = warp_classes(classes, each, spacing_mm=self.spacing_mm)
        return warped.view(masks.shape).float()

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


def mask_bank(cases: PreparedCases, settings: TrainSettings) -> MaskBank:
    """Masks of prepared cases: on the whole working grid, or cropped around each structure.

    The other poses remove position, so a crop loses nothing and costs a fraction; translations then
    are not drawn. No image is read.

    Args:
        cases: At least one.
        settings: Of the shape stage that the masks are for.
    """
    count = len(cases.cases[0].structures)
    whole = [
        torch.stack([torch.from_numpy(case.classes == s + 1) for s in range(count)])
        for case in cases.label_maps()
    ]
    limits = settings.warp
    if settings.shape.pose == "grid":
        masks = torch.stack(whole)
    else:
        masks = cropped(whole)
        limits = replace(limits, translation_mm=0.0)
    people = tuple(case.person for case in cases.cases)
    return MaskBank(masks.to(torch.uint8), cases.space.spacing_mm, limits, people)


def cropped(masks: Sequence[Tensor]) -> Tensor:
    """Masks (S, I, J, K) of each case to (N, S, i, j, k): a common box around each structure."""
    boxes = [[foreground_box(mask.cpu().numpy() > 0) for mask in case] for case in masks]
    lengths = [[part.stop - part.start for part in box] for case in boxes for box in case if box]
    longest = torch.tensor(lengths or [[1, 1, 1]]).amax(0)
    shape = (longest.float() * ROOM).ceil().long() + 2 * CROP_MARGIN_VOXELS
    found = torch.zeros((len(masks), len(masks[0]), *shape.tolist()), dtype=torch.bool)
    for n, case in enumerate(masks):
        for s, mask in enumerate(case):
            box = boxes[n][s]
            if box is None:
                continue
            inside = mask[box]
            start = (shape - torch.tensor(inside.shape)) // 2
            stop = start + torch.tensor(inside.shape)
            found[n, s][tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = inside
    return found
