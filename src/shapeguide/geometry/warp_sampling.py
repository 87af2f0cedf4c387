"""Interpolation under affine index maps, limited to the boxes where a structure can land.

A source map takes the voxel index of the output to the voxel index of the input, (B, 3, 4), float64
on the CPU. Its terms are added in a fixed order, so a voxel gets the same source position, to the
last bit, in a box, in the whole grid and in any batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

BOX_SLACK = 1e-3
"""Voxels added around a box, more than rounding can move a position."""


def occupied_boxes(maps: Tensor) -> Tensor:
    """First and last index of the voxels above zero along each axis.

    Args:
        maps: Shape (B, I, J, K), not negative.

    Returns:
        Shape (B, 3, 2), int64, on the CPU; an empty map has the box (0, -1).
    """
    boxes = torch.zeros(len(maps), 3, 2, dtype=torch.long)
    boxes[..., 1] = -1
    for box, single in zip(boxes, maps.detach(), strict=True):
        across = single.amax(0).cpu()
        if not across.any():
            continue
        j, k = _ends(across.amax(1)), _ends(across.amax(0))
        column = single[:, j[0] : j[1] + 1, k[0] : k[1] + 1]
        box[:] = torch.tensor([_ends(column.amax((1, 2)).cpu()), j, k])
    return boxes


def target_boxes(
    boxes: Tensor,
    source_maps: Tensor,
    spatial_shape: Sequence[int],
    offsets: Tensor | None = None,
) -> tuple[Tensor, tuple[int, int, int]]:
    """Where the occupied boxes land: boxes of one common size inside the output grid.

    Args:
        boxes: Occupied boxes of the inputs, shape (B, 3, 2).
        source_maps: Shape (B, 3, 4).
        spatial_shape: Shape of the output grid.
        offsets: How far from there each voxel is read, in voxels of the input, shape
            (B, 3, *spatial_shape); None for none.

    Returns:
        First index of each box, shape (B, 3), and their common size; 0 when nothing lands.
    """
    shape = torch.tensor(list(spatial_shape))
    occupied = (boxes[..., 1] >= boxes[..., 0]).all(1)
    forward = torch.linalg.inv(source_maps[:, :, :3])
    middle = boxes.sum(2) / 2 - source_maps[:, :, 3]
    half = (boxes[..., 1] - boxes[..., 0]) / 2 + 1 + BOX_SLACK
    if offsets is not None:
        half = half + offsets.detach().abs().amax((2, 3, 4)).double().cpu()
    centre = (forward @ middle[..., None])[..., 0]
    reach = (forward.abs() @ half[..., None].double())[..., 0]
    first = (centre - reach).ceil().long().clamp(min=0)
    last = torch.minimum((centre + reach).floor().long(), shape - 1)
    sizes = (last - first + 1).clamp(min=0)
    sizes[~(occupied & (sizes > 0).all(1))] = 0
    i, j, k = sizes.amax(0).tolist()
    starts = torch.minimum(first, shape - sizes.amax(0)).clamp(min=0)
    return starts, (i, j, k)


def sampling_grid(
    source_maps: Tensor,
    starts: Tensor,
    size: tuple[int, int, int],
    images: Tensor,
    offsets: Tensor | None = None,
) -> Tensor:
    """Sampling positions of a box of voxels per item, as `grid_sample` wants them.

    Args:
        source_maps: Shape (B, 3, 4).
        starts: First index of each box, shape (B, 3).
        size: Common size of the boxes.
        images: What will be sampled, shape (B, ..., I, J, K); gives shape, type and device.
        offsets: How far from there each voxel is read, in voxels, shape (B, 3, *size).

    Returns:
        Shape (B, *size, 3), on the device of the images, in their type (at least float32).
    """
    lengths = torch.tensor(images.shape[-3:], dtype=torch.float64)
    scaled = source_maps * (2 / lengths)[:, None]
    scaled[:, :, 3] += 1 / lengths - 1
    dtype = torch.promote_types(images.dtype, torch.float32)
    grid = torch.empty(len(starts), *size, 3, dtype=dtype, device=images.device)
    for row, (plane, line) in enumerate(_terms(scaled, starts, size, grid)):
        torch.add(plane, line, out=grid[..., 2 - row])
        if offsets is not None:
            grid[..., 2 - row] += offsets[:, row] * (2 / images.shape[row - 3])
    return grid


def sample(images: Tensor, grid: Tensor, *, padding_mode: str) -> Tensor:
    """Linear interpolation at least in float32, in the type of the images; differentiable."""
    sampled = F.grid_sample(
        images.to(grid.dtype), grid, mode="bilinear", padding_mode=padding_mode, align_corners=False
    )
    return sampled.to(images.dtype)


def paste(blocks: Tensor, starts: Tensor, *, into: Tensor) -> None:
    """Write one block (B, *size) per item into (B, I, J, K), at its first index (B, 3)."""
    for block, start, target in zip(blocks, starts.tolist(), into, strict=True):
        window = [slice(at, at + n) for at, n in zip(start, block.shape, strict=True)]
        target[tuple(window)] = block


def sample_classes(
    classes: Tensor,
    boxes: Tensor,
    source_maps: Tensor,
    starts: Tensor,
    size: tuple[int, int, int],
    offsets: Tensor | None = None,
) -> Tensor:
    """Class of each voxel of a box per item: weights interpolated linearly, heaviest class taken.

    Most voxels of a box fall into cells whose eight corners agree, outside the structure or within
    it; one look-up answers them, and the corners are read at the boundary only.

    Args:
        classes: Shape (B, I, J, K), uint8.
        boxes: Occupied boxes, shape (B, 3, 2).
        source_maps: Shape (B, 3, 4).
        starts: First index of each output box, shape (B, 3).
        size: Common size of the output boxes.
        offsets: How far from there each voxel of the whole output is read, in voxels of the input,
            shape (B, 3, I, J, K).

    Returns:
        Shape (B, *size), uint8.
    """
    crops = _padded_crops(classes, boxes)
    relative = source_maps.clone()
    relative[:, :, 3] -= boxes[:, :, 0] - 1
    probe = torch.empty(0, dtype=torch.float32, device=crops.device)
    terms = _terms(relative, starts, size, probe)
    positions = [plane + line for plane, line in terms]
    if offsets is not None:
        beside = _parts(offsets, starts, size)
        positions = [axis + beside[:, row] for row, axis in enumerate(positions)]
    positions = [
        axis.clamp_(0, length - 2) for axis, length in zip(positions, crops.shape[1:], strict=True)
    ]
    cells = _cell_classes(crops)
    index = _flat_index(positions, cells.shape[1:])
    answers = cells.flatten().index_select(0, index.flatten())
    boundary = (answers < 0).nonzero()[:, 0]
    found = answers.clamp_(min=0).to(torch.uint8)
    if len(boundary) > 0:
        item = boundary // index[0].numel()
        near = [axis.flatten()[boundary] for axis in positions]
        found[boundary] = _heaviest_class(crops, item, near)
    return found.view(index.shape)


def _parts(fields: Tensor, starts: Tensor, size: tuple[int, int, int]) -> Tensor:
    """One box of each field (B, 3, I, J, K), from its first index (B, 3) on."""
    parts = []
    for field, start in zip(fields, starts.tolist(), strict=True):
        i, j, k = (slice(at, at + n) for at, n in zip(start, size, strict=True))
        parts.append(field[:, i, j, k])
    return torch.stack(parts)


def _heaviest_class(crops: Tensor, item: Tensor, positions: list[Tensor]) -> Tensor:
    i, j, k = (axis.floor() for axis in positions)
    strides = crops.stride()
    corner = (item * strides[0] + i.long() * strides[1] + j.long() * strides[2] + k.long())[None]
    weight = torch.ones_like(i)[None]
    for axis, floor, stride in zip(positions, (i, j, k), strides[1:], strict=True):
        part = axis - floor
        corner = torch.cat([corner, corner + stride])
        weight = torch.cat([weight * (1 - part), weight * part])
    values = crops.flatten().take(corner)
    inside = _as_many_as_weigh((weight * (values != 0)).sum(0), item)
    largest = values.amax(0) * inside
    mixed = (((values != 0) & (values != largest)).any(0) & inside).nonzero()[:, 0]
    if len(mixed) > 0:
        values, weight = values[:, mixed], weight[:, mixed]
        support = torch.stack([(weight * (values == own)).sum(0) for own in values])
        best = support.masked_fill_(values == 0, -1).argmax(0, keepdim=True)
        largest[mixed] = values.gather(0, best)[0]
    return largest


def _as_many_as_weigh(weight: Tensor, item: Tensor) -> Tensor:
    """Which boundary voxels are inside: the heaviest, so many of each item as their weights sum to.

    A threshold of one half would take about one per cent off the volume of a hippocampus, because
    interpolation rounds every convex edge. Voxels that tie with the first one left out stay out.

    Args:
        weight: Interpolated weight of all structures together, in [0, 1], shape (N,).
        item: Which map each voxel belongs to, ascending, shape (N,).
    """
    inside = torch.zeros_like(weight, dtype=torch.bool)
    start = 0
    for count in torch.bincount(item).tolist():
        own = weight[start : start + count]
        wanted = int(own.sum().round())
        if 0 < wanted < count:
            left_out = own.kthvalue(count - wanted).values
            inside[start : start + count] = own > left_out
        elif wanted:
            inside[start : start + count] = True
        start += count
    return inside


def _padded_crops(classes: Tensor, boxes: Tensor) -> Tensor:
    """Occupied boxes cut out, one background voxel before each and at least two after."""
    size = (boxes[..., 1] - boxes[..., 0] + 1).amax(0)
    crops = classes.new_zeros(len(classes), *(size + 3).tolist())
    for crop, single, box in zip(crops, classes, boxes.tolist(), strict=True):
        source = single[tuple(slice(first, last + 1) for first, last in box)]
        crop[tuple(slice(1, 1 + n) for n in source.shape)] = source
    return crops


def _cell_classes(crops: Tensor) -> Tensor:
    """Class of each cell whose eight corners agree, -1 where they do not, int16."""
    united = common = crops
    for axis in (1, 2, 3):
        count = united.shape[axis] - 1
        united = united.narrow(axis, 0, count) | united.narrow(axis, 1, count)
        common = common.narrow(axis, 0, count) & common.narrow(axis, 1, count)
    return united.short().masked_fill_(united != common, -1).contiguous()


def _flat_index(positions: list[Tensor], lengths: Sequence[int]) -> Tensor:
    """Index into (B, *lengths), flattened, of the cells that positions (B, I, J, K) lie in."""
    count = len(positions[0])
    dtype = torch.int32 if count * math.prod(lengths) < 2**31 else torch.int64
    flat = torch.arange(count, dtype=dtype, device=positions[0].device).view(-1, 1, 1, 1)
    for axis, length in zip(positions, lengths, strict=True):
        flat = flat * length + axis.to(dtype)
    return flat


def _terms(
    maps: Tensor, starts: Tensor, size: tuple[int, int, int], like: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Per row of the maps, what i and j add (B, I, J, 1) and what k adds (B, 1, 1, K)."""
    i, j, k = (
        starts[:, axis, None].double() + torch.arange(size[axis], dtype=torch.float64)
        for axis in range(3)
    )
    terms = []
    for row in maps.unbind(1):
        plane = (row[:, 0, None] * i + row[:, 3, None])[:, :, None] + (row[:, 1, None] * j)[:, None]
        line = row[:, 2, None] * k
        terms.append((plane[..., None].to(like), line[:, None, None].to(like)))
    return terms


def _ends(profile: Tensor) -> tuple[int, int]:
    indices = profile.nonzero()[:, 0]
    return int(indices[0]), int(indices[-1])
