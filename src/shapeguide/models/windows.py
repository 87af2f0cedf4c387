"""A network looks at an image through windows of the size that it was trained on."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

WINDOW_OVERLAP = 0.25


def through_windows(
    network: Callable[[Tensor], Tensor], images: Tensor, window: tuple[int, int, int]
) -> Tensor:
    """What a network makes of images, seen through overlapping windows where they are larger.

    Args:
        network: Images (B, C, *window) to maps (B, N, *window).
        images: Shape (B, C, I, J, K), at least as large as the window.
        window: Voxels that the network sees at once.

    Returns:
        Shape (B, N, I, J, K).
    """
    if images.shape[2:] == window:
        return network(images)
    from monai.inferers import sliding_window_inference

    found = sliding_window_inference(
        images, window, 1, network, overlap=WINDOW_OVERLAP, mode="gaussian"
    )
    if not isinstance(found, Tensor):
        raise TypeError(f"the network gave {type(found)}, expected one tensor")
    return found
