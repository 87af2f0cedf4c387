"""Connected components and volumes of the structures of a label map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shapeguide.errors import ConfigError
from shapeguide.geometry.boxes import foreground_box
from shapeguide.geometry.volume import LabelMap

TOUCHING = np.ones((3, 3, 3), dtype=np.bool_)
"""Voxels that share a face, an edge or a corner are connected (26-connectivity)."""


def keep_largest_component(label_map: LabelMap) -> LabelMap:
    """Keep the largest connected component of each structure; the rest becomes background.

    All label ids of a structure count as one, so a structure made of touching parts stays whole.
    Voxels of no structure stay as they are.

    Args:
        label_map: With at least one structure.

    Returns:
        A new label map; the given one stays as it is.

    Raises:
        ConfigError: If the label map names no structure.
    """
    _check_named(label_map)
    kept = label_map.data.copy()
    filled = foreground_box(label_map.data != 0)
    if filled is None:
        return replace(label_map, data=kept)
    labels = kept[filled]
    for structure in label_map.structures:
        mask = np.isin(labels, structure.label_ids)
        labels[mask & ~largest_component(mask)] = 0
    return replace(label_map, data=kept)


def largest_component(
    mask: NDArray[np.bool_], *, weights: NDArray[np.floating] | None = None
) -> NDArray[np.bool_]:
    """The largest connected component (26-connectivity) of a mask (I, J, K).

    Of equally large ones it is the one whose first voxel, in index order, comes first. An empty
    mask stays empty.

    Args:
        mask: What is connected or not.
        weights: What each voxel counts, above 0, same shape; all count the same when not given.
    """
    largest = np.zeros(mask.shape, dtype=np.bool_)
    box = foreground_box(mask)
    if box is None:
        return largest
    components, _ = ndimage.label(mask[box], structure=TOUCHING)
    counted = None if weights is None else weights[box].ravel()
    sizes = np.bincount(components.ravel(), counted)
    sizes[0] = 0
    # Components are numbered in index order and argmax takes the first of equals.
    largest[box] = components == int(sizes.argmax())
    return largest


def structure_volumes_mm3(label_map: LabelMap) -> dict[str, float]:
    """Volume of each structure in mm3, by name; 0 for a structure that is not there.

    Raises:
        ConfigError: If the label map names no structure.
    """
    _check_named(label_map)
    filled = foreground_box(label_map.data != 0)
    if filled is None:
        return {structure.name: 0.0 for structure in label_map.structures}
    labels = np.ascontiguousarray(label_map.data[filled])
    return {
        structure.name: int(np.count_nonzero(np.isin(labels, structure.label_ids)))
        * label_map.grid.voxel_volume_mm3
        for structure in label_map.structures
    }


def _check_named(label_map: LabelMap) -> None:
    if not label_map.structures:
        raise ConfigError(
            "the label map does not say what its label ids stand for; "
            "read it with structures, for instance (Structure('hippocampus', (1, 2)),)"
        )
