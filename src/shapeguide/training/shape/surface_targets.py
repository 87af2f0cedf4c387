"""Surface error between masks in one pose: what the distances of the `surface` objective mean."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from shapeguide.disturbing.masks import corrupt
from shapeguide.metrics.surface import assd_mm, surface_distances
from shapeguide.models.aligned_pose import AlignedPose
from shapeguide.models.canonical_pose import canonical_pose
from shapeguide.training.shape.mask_bank import MaskBank
from shapeguide.vocabulary import Maps

TARGET_SHAPE = 32
TARGET_EXTENT = 3.0


def surface_targets(
    first: Tensor,
    second: Tensor,
    spacing_mm: tuple[float, float, float],
    *,
    pose: AlignedPose | None = None,
) -> Tensor:
    """Mean symmetric surface distance of masks in one pose.

    Args:
        first: Binary masks, shape (B, S, I, J, K).
        second: Binary masks, same shape.
        spacing_mm: Voxel spacing.
        pose: Position, size and rotation are taken out, and the distance is in sizes of the mask;
            without it they are compared in canonical pose, which takes out stretch as well, and
            the distance is in standard deviations.

    Returns:
        Shape (B, S), 0 where either mask is empty.
    """
    found = np.zeros(first.shape[:2], dtype=np.float32)
    differ = (first != second).flatten(1).any(1).nonzero()[:, 0]
    if len(differ) == 0:
        return torch.from_numpy(found).to(first.device)
    posed, sizes = _posed(torch.cat([first[differ], second[differ]]), spacing_mm, pose)
    edges = (posed > 0.5).cpu().numpy()
    for place, item in enumerate(differ.tolist()):
        for structure, size in enumerate(sizes):
            one, other = edges[place, structure], edges[place + len(differ), structure]
            if one.any() and other.any() and not np.array_equal(one, other):
                distances = surface_distances(one, other, spacing_mm=size)
                found[item, structure] = assd_mm(distances)
    return torch.from_numpy(found).to(first.device)


def _posed(
    masks: Tensor, spacing_mm: tuple[float, float, float], pose: AlignedPose | None
) -> tuple[Tensor, list[tuple[float, float, float]]]:
    """Views of masks (B, S, I, J, K), and the edge lengths of their voxels for each structure."""
    if pose is None:
        step = 2 * TARGET_EXTENT / (TARGET_SHAPE - 1)
        posed = canonical_pose(
            masks, spacing_mm=spacing_mm, shape=TARGET_SHAPE, extent=TARGET_EXTENT
        )
        return posed, [(step, step, step)] * masks.shape[1]
    posed = pose(masks, spacing_mm=spacing_mm, shape=TARGET_SHAPE)
    return posed, [(i, j, k) for i, j, k in pose.voxel_sizes(TARGET_SHAPE).tolist()]


def people_apart(
    bank: MaskBank,
    *,
    generator: torch.Generator,
    pairs: int = 64,
    pose: AlignedPose | None = None,
) -> float:
    """Mean surface error between two different cases, as `surface_targets`: the unit of training.

    With a single case, that between the case and its corrupted copies.
    """
    first, second = draw_two_cases(bank.masks.float(), pairs, generator)
    targets = surface_targets(first, second, bank.spacing_mm, pose=pose)
    known = targets[targets > 0]
    return float(known.mean()) if len(known) else 1.0


def draw_pairs(
    bank: MaskBank, batch_size: int, maps: Maps, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Equal shares of the same case, two cases and, of corrupted maps, a case and its copy."""
    first, second = draw_two_cases(bank.masks, batch_size, generator)
    first, second = first.float(), second.float()
    kinds = torch.randint(3 if maps == "corrupted" else 2, (batch_size,), generator=generator)
    same, broken = kinds == 0, kinds == 2
    second[same] = first[same]
    if broken.any():
        second[broken] = corrupt(first[broken], generator=generator)
    return first, second


def draw_two_cases(masks: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pairs of different cases; with a single case, it and its corrupted copies."""
    first = torch.randint(len(masks), (count,), generator=generator)
    if len(masks) == 1:
        return masks[first], corrupt(masks[first], generator=generator).to(masks.dtype)
    step = torch.randint(1, len(masks), (count,), generator=generator)
    return masks[first], masks[(first + step) % len(masks)]
