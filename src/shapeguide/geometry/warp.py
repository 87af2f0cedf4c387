"""Random affine warps: draw parameters first, apply one draw to images and label maps after.

A warp maps mm to mm, along the axes of the grid and relative to the middle of the grid. It moves
material points: what lies at `p` lies at `warp[:, :3] @ p + warp[:, 3]` afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from shapeguide.errors import ConfigError, GeometryError
from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.geometry.warp_sampling import (
    occupied_boxes,
    paste,
    sample,
    sample_classes,
    sampling_grid,
    target_boxes,
)

SMALLEST_DETERMINANT = 1e-6
"""A warp that shrinks volumes more than this is taken for a mistake."""


def draw_affine_warps(limits: WarpLimits, *, count: int, generator: torch.Generator) -> Tensor:
    """Draw random warps: rotation about each axis, isotropic scale, translation.

    Each warp takes seven numbers from the generator, so one draw of four warps equals a draw of
    two and another of two, and the draw is the same whatever device it is applied on.

    Args:
        limits: Ranges of the parameters.
        count: Number of warps, B.
        generator: Source of randomness, on the CPU.

    Returns:
        Warps in mm about the middle of the grid, shape (B, 3, 4), float64, on the CPU.

    Raises:
        ConfigError: If count is below 1 or the generator is not on the CPU.
    """
    if count < 1:
        raise ConfigError(f"draw at least one warp, found count={count}")
    if generator.device.type != "cpu":
        raise ConfigError(f"warps are drawn on the CPU, found a generator on {generator.device}")
    numbers = torch.rand(count, 7, generator=generator, dtype=torch.float64)
    sides = 2 * numbers - 1
    angles = torch.deg2rad(limits.rotation_deg * sides[:, :3])
    smallest, largest = limits.scale
    scales = smallest + (largest - smallest) * numbers[:, 3]
    linear = _rotations(angles) * scales[:, None, None]
    return torch.cat([linear, limits.translation_mm * sides[:, 4:, None]], dim=2)


def draw_warps_of(
    limits: WarpLimits,
    objects: Tensor,
    *,
    spacing_mm: tuple[float, float, float],
    generator: torch.Generator,
) -> Tensor:
    """Draw a random warp for each object, about the middle of the grid or of the object.

    Args:
        limits: Ranges of the parameters, and what the warps turn about.
        objects: Above zero where an object is, shape (B, ..., I, J, K).
        spacing_mm: Voxel spacing.
        generator: Source of randomness, on the CPU; what is drawn does not depend on the objects.

    Returns:
        Warps in mm about the middle of the grid, shape (B, 3, 4), float64, on the CPU.

    Raises:
        ConfigError: If there are no objects or the generator is not on the CPU.
    """
    warps = draw_affine_warps(limits, count=len(objects), generator=generator)
    return placed(warps, objects, limits=limits, spacing_mm=spacing_mm)


def placed(
    warps: Tensor,
    objects: Tensor,
    *,
    limits: WarpLimits,
    spacing_mm: tuple[float, float, float],
) -> Tensor:
    """Warps that turn and scale about what their limits say.

    Args:
        warps: About the middle of the grid, shape (B, 3, 4), in mm.
        objects: Above zero where an object is, shape (B, ..., I, J, K).
        limits: What the warps were drawn from.
        spacing_mm: Voxel spacing.

    Returns:
        Warps in mm about the middle of the grid, shape (B, 3, 4).
    """
    if limits.centre == "grid":
        return warps
    linear = warps[:, :, :3]
    still = middles_mm(objects, spacing_mm=spacing_mm).to(warps)[..., None]
    return torch.cat([linear, warps[:, :, 3:] + still - linear @ still], dim=2)


def middles_mm(objects: Tensor, *, spacing_mm: tuple[float, float, float]) -> Tensor:
    """Centres of mass of what is above zero, in mm from the middle of the grid.

    Args:
        objects: Shape (B, ..., I, J, K); how far above zero counts for nothing.
        spacing_mm: Voxel spacing.

    Returns:
        Shape (B, 3), float64, on the CPU; zeros where nothing is.
    """
    shape = objects.shape[-3:]
    occupied = (objects > 0).reshape(len(objects), -1, *shape).any(1)
    # Objects are small in their grids: their voxels are counted, not the grid summed.
    which, *along = occupied.nonzero().cpu().unbind(1)
    middles = torch.zeros(len(objects), 3, dtype=torch.float64)
    for axis, (length, step) in enumerate(zip(shape, spacing_mm, strict=True)):
        counts = torch.bincount(which * length + along[axis], minlength=len(objects) * length)
        weights = counts.view(len(objects), length).double()
        places = (torch.arange(length, dtype=torch.float64) - (length - 1) / 2) * step
        middles[:, axis] = (weights @ places) / weights.sum(1).clamp(min=1)
    return middles


def warp_images(
    images: Tensor,
    warps: Tensor,
    *,
    spacing_mm: tuple[float, float, float],
    coarsening: int = 1,
    margin: tuple[int, int, int] = (0, 0, 0),
    displacements_mm: Tensor | None = None,
) -> Tensor:
    """Warp intensities, linearly interpolated; beyond the grid the nearest edge voxel goes on.

    Args:
        images: Shape (B, C, I, J, K), floating; halves are interpolated in float32.
        warps: One per image, shape (B, 3, 4), in mm about the middle of the grid.
        spacing_mm: Voxel spacing of the images.
        coarsening: Edge length, in voxels, of the blocks that a voxel of the result stands for;
            it is read at the middle of its block, not averaged over it.
        margin: Voxels of the images, at both ends of each axis, that the result leaves out: it
            has what the warp brings in from there.
        displacements_mm: How far beside its place under the warp each voxel of the result is read,
            along the axes of the images, as `displacement_field` gives it for the shape of the
            result; shape (B, 3, I, J, K). None reads all of them at their places.

    Returns:
        Warped images on the same grid, or on that of its blocks, without the margin;
        differentiable.

    Raises:
        GeometryError: If shapes do not fit together or a warp cannot be inverted.
    """
    _check_channels(images, warps)
    source_maps = _target_to_source(images.shape[2:], warps, spacing_mm, margin)
    source_maps[:, :, 3] += source_maps[:, :, :3].sum(2) * (coarsening - 1) / 2
    source_maps[:, :, :3] *= coarsening
    whole = torch.zeros(len(images), 3, dtype=torch.long)
    i, j, k = (-(-length // coarsening) for length in _without(margin, images.shape[2:]))
    offsets = _offsets(displacements_mm, (i, j, k), spacing_mm)
    grid = sampling_grid(source_maps, whole, (i, j, k), images, offsets)
    return sample(images, grid, padding_mode="border")


def warp_one_hot(
    one_hot: Tensor, warps: Tensor, *, spacing_mm: tuple[float, float, float]
) -> Tensor:
    """Warp masks or probabilities, linearly interpolated; zero beyond the grid.

    Channels are structures without the background, so zero is background. Only the part of the
    grid where a structure can land is interpolated; the values are those of the whole grid. When
    a gradient is asked for, the whole grid is interpolated, because voxels at zero have one too.

    Args:
        one_hot: Shape (B, S, I, J, K); booleans and integers become float32.
        warps: One per item, shape (B, 3, 4), in mm about the middle of the grid.
        spacing_mm: Voxel spacing.

    Returns:
        Warped channels on the same grid and device, floating; differentiable.

    Raises:
        GeometryError: If shapes do not fit together or a warp cannot be inverted.
    """
    _check_channels(one_hot, warps)
    source_maps = _target_to_source(one_hot.shape[2:], warps, spacing_mm)
    if one_hot.requires_grad and torch.is_grad_enabled():
        whole = torch.zeros(len(one_hot), 3, dtype=torch.long)
        grid = sampling_grid(source_maps, whole, _spatial_shape(one_hot), one_hot)
        return sample(one_hot, grid, padding_mode="zeros")
    floating = one_hot if one_hot.is_floating_point() else one_hot.float()
    channels = floating.flatten(0, 1)
    channel_maps = source_maps.repeat_interleave(one_hot.shape[1], dim=0)
    starts, size = target_boxes(occupied_boxes(channels), channel_maps, channels.shape[1:])
    warped = torch.zeros_like(channels, memory_format=torch.contiguous_format)
    if min(size) > 0:
        grid = sampling_grid(channel_maps, starts, size, channels)
        block = sample(channels[:, None], grid, padding_mode="zeros")[:, 0]
        paste(block, starts, into=warped)
    return warped.view(one_hot.shape)


def warp_classes(
    classes: Tensor,
    warps: Tensor,
    *,
    spacing_mm: tuple[float, float, float],
    margin: tuple[int, int, int] = (0, 0, 0),
    displacements_mm: Tensor | None = None,
) -> Tensor:
    """Warp hard label maps: linearly interpolated weights, then one class per voxel.

    The voxels of largest interpolated weight are foreground, so many of them as the weights of all
    structures sum to: the warp changes the volume by the cube of its scale and by nothing else. A
    foreground voxel takes the class of the largest weight, so touching structures stay in touch.
    Beyond the grid is background. Only voxels next to a structure are interpolated.

    Args:
        classes: Class index of each voxel, shape (B, I, J, K), uint8; 0 is the background.
        warps: One per item, shape (B, 3, 4), in mm about the middle of the grid.
        spacing_mm: Voxel spacing.
        margin: Voxels at both ends of each axis that the result leaves out, see `warp_images`.
        displacements_mm: How far beside its place each voxel is read, see `warp_images`.

    Returns:
        Warped class indices, shape (B, I, J, K) less the margin, uint8, on the same device.

    Raises:
        GeometryError: If shapes or types do not fit together or a warp cannot be inverted.
    """
    _check_classes(classes)
    _check_count(warps, len(classes))
    source_maps = _target_to_source(classes.shape[1:], warps, spacing_mm, margin)
    shape = _without(margin, classes.shape[1:])
    warped = classes.new_zeros(len(classes), *shape)
    boxes = occupied_boxes(classes)
    offsets = _offsets(displacements_mm, shape, spacing_mm)
    starts, size = target_boxes(boxes, source_maps, shape, offsets)
    if min(size) > 0:
        found = sample_classes(classes, boxes, source_maps, starts, size, offsets)
        paste(found, starts, into=warped)
    return warped


def draw_displacements(
    deviation_mm: float, *, count: int, cells: Sequence[int], generator: torch.Generator
) -> Tensor:
    """Draw smooth random displacements, at the corners of a coarse grid.

    Args:
        deviation_mm: Standard deviation along each axis, at a corner.
        count: Number of items, B.
        cells: Cells along each axis.
        generator: Source of randomness, on the CPU.

    Returns:
        Displacements in mm, shape (B, 3, cells + 1 along each axis), on the CPU.
    """
    corners = [along + 1 for along in cells]
    return deviation_mm * torch.randn(count, 3, *corners, generator=generator)


def displacement_field(coarse_mm: Tensor, spatial_shape: Sequence[int]) -> Tensor:
    """Displacements of every voxel, linearly interpolated between the corners of coarse cells.

    Args:
        coarse_mm: As `draw_displacements` gives them; the outermost corners are the outermost
            voxels.
        spatial_shape: Shape of the grid.

    Returns:
        Displacements in mm, shape (B, 3, I, J, K), on the same device.
    """
    return F.interpolate(coarse_mm, size=list(spatial_shape), mode="trilinear", align_corners=True)


def _target_to_source(
    spatial_shape: Sequence[int],
    warps: Tensor,
    spacing_mm: tuple[float, float, float],
    margin: tuple[int, int, int] = (0, 0, 0),
) -> Tensor:
    """Maps from the voxel index of the output to that of the input, (B, 3, 4), float64."""
    if not all(0 < step < math.inf for step in spacing_mm):
        raise GeometryError(f"spacing_mm must be three positive numbers, found {spacing_mm}")
    warps = warps.detach().to("cpu", torch.float64)
    determinants = torch.linalg.det(warps[:, :, :3])
    if not torch.isfinite(warps).all() or float(determinants.abs().min()) < SMALLEST_DETERMINANT:
        raise GeometryError(f"a warp is singular or not finite: {warps.tolist()}")
    spacing = torch.tensor(spacing_mm, dtype=torch.float64)
    middle = (torch.tensor(spatial_shape, dtype=torch.float64) - 1) / 2
    inverse = torch.linalg.inv(warps[:, :, :3])
    linear = inverse * spacing / spacing[:, None]
    shift = (inverse @ warps[:, :, 3:])[..., 0] / spacing
    first = middle - linear @ middle - shift
    if any(margin):
        first = first + linear @ torch.tensor(margin, dtype=torch.float64)
    return torch.cat([linear, first[..., None]], dim=2)


def _offsets(
    displacements_mm: Tensor | None, shape: Sequence[int], spacing_mm: Sequence[float]
) -> Tensor | None:
    """Displacements in voxels, same shape."""
    if displacements_mm is None:
        return None
    if tuple(displacements_mm.shape[1:]) != (3, *shape):
        raise GeometryError(
            f"displacements have shape {tuple(displacements_mm.shape)}, expected three for each "
            f"voxel of the result: (B, 3, {', '.join(map(str, shape))})"
        )
    steps = torch.tensor(spacing_mm, dtype=torch.float32, device=displacements_mm.device)
    return displacements_mm / steps[:, None, None, None]


def _without(margin: Sequence[int], spatial_shape: Sequence[int]) -> tuple[int, int, int]:
    """A shape less a margin at both ends of each axis."""
    i, j, k = (
        length - 2 * left_out for length, left_out in zip(spatial_shape, margin, strict=True)
    )
    return i, j, k


def _spatial_shape(images: Tensor) -> tuple[int, int, int]:
    i, j, k = images.shape[-3:]
    return i, j, k


def _rotations(angles: Tensor) -> Tensor:
    """Rotation about I, then J, then K; angles in radians (B, 3) to matrices (B, 3, 3)."""
    rotation = torch.eye(3, dtype=angles.dtype).expand(len(angles), 3, 3)
    for axis in range(3):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        single = torch.eye(3, dtype=angles.dtype).repeat(len(angles), 1, 1)
        cosine, sine = torch.cos(angles[:, axis]), torch.sin(angles[:, axis])
        single[:, first, first] = single[:, second, second] = cosine
        single[:, first, second], single[:, second, first] = -sine, sine
        rotation = single @ rotation
    return rotation


def _check_classes(classes: Tensor) -> None:
    if classes.ndim != 4 or classes.dtype != torch.uint8:
        raise GeometryError(
            f"expected class indices (B, I, J, K) of type uint8, "
            f"found shape {tuple(classes.shape)} of type {classes.dtype}"
        )


def _check_channels(images: Tensor, warps: Tensor) -> None:
    if images.ndim != 5:
        raise GeometryError(f"expected (B, C, I, J, K), found shape {tuple(images.shape)}")
    _check_count(warps, len(images))


def _check_count(warps: Tensor, count: int) -> None:
    if warps.shape != (count, 3, 4):
        raise GeometryError(
            f"expected one (3, 4) warp for each of {count} items, "
            f"found warps of shape {tuple(warps.shape)}"
        )
