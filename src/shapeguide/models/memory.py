"""What a network takes is known before it is taken."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from shapeguide.errors import CheckpointError

LARGEST_WINDOW_BYTES = 16 * 2**30
"""One window of any preset, at any spacing that its scans have, takes less."""
KEPT_AT_ONCE = 6
"""Feature maps of one level that a segmenter holds at once, at most: what skips, what was raised,
both joined, and what comes in and out of a convolution and its normalisation."""
CLASS_MAPS = 3
"""Maps of each class: logits, probabilities, and those gathered from all windows."""

TRAINED_AT_ONCE = 8
"""Feature maps of one level that a training step holds at once, at least: measured were 10 in bf16,
13 to 29 in fp32."""


RECOMPUTED_SHARE = 0.5
"""Share of its memory that a training step takes, at least, where activations are computed again;
measured were 0.58 and 0.62."""
LIKELY_OVER_LEAST = 3
"""A training step in fp32 may take so many times what it takes at least."""


def window_bytes(channels: Sequence[int], classes: int, spatial_shape: tuple[int, int, int]) -> int:
    """Memory that a network takes to predict one window, about and rather too much.

    Args:
        channels: Channels of each level, from full resolution down; each halves the resolution.
        classes: Background included.
        spatial_shape: Voxels of the window.
    """
    maps = KEPT_AT_ONCE * sum(count / 8**level for level, count in enumerate(channels))
    return int(4 * prod(spatial_shape) * (maps + CLASS_MAPS * classes))


def step_bytes(
    channels: Sequence[int], spatial_shape: tuple[int, int, int], batch_size: int
) -> int:
    """Memory that a training step of a segmenter takes, at least.

    Args:
        channels: Channels of each level, from full resolution down; each halves the resolution.
        spatial_shape: Voxels of a window.
        batch_size: Windows in a batch.
    """
    maps = TRAINED_AT_ONCE * sum(count / 8**level for level, count in enumerate(channels))
    return int(4 * batch_size * prod(spatial_shape) * maps)


def check_window(
    channels: Sequence[int], classes: int, spatial_shape: tuple[int, int, int]
) -> None:
    """Refuse a network that would take too much memory for one window.

    Raises:
        CheckpointError: If it takes more than `LARGEST_WINDOW_BYTES`.
    """
    needed = window_bytes(channels, classes, spatial_shape)
    if needed > LARGEST_WINDOW_BYTES:
        raise CheckpointError(
            f"one window of {spatial_shape} voxels with channels {tuple(channels)} and {classes} "
            f"classes takes about {needed / 2**30:.0f} GiB, and at most "
            f"{LARGEST_WINDOW_BYTES // 2**30} GiB are taken; train with a smaller spatial shape "
            "(data.spatial_shape), a coarser spacing (data.spacing_mm) or fewer channels"
        )
