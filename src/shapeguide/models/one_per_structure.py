"""Segmenters of one structure each as one network: each says by itself whether a voxel is its own.

As the paper trains: every structure in a training of its own, then all written into one label map.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

STRUCTURES_FOLDER = "structures"
"""Folder inside a run that holds one run for each structure, in a folder of its name."""


class OnePerStructure(nn.Module):
    """Segmenters of one structure each that answer together.

    A voxel is background where each of them says so. Where several want it, it belongs to the one
    that is surest.

    Args:
        segmenters: At least one, each images (B, C, I, J, K) to logits (B, 2, I, J, K).
    """

    def __init__(self, segmenters: Iterable[nn.Module]) -> None:
        super().__init__()
        self.segmenters = nn.ModuleList(segmenters)

    def forward(self, images: Tensor) -> Tensor:
        """Log odds of each structure over the background, whose own are 0.

        Args:
            images: Shape (B, C, I, J, K).

        Returns:
            Logits of background and structures, shape (B, 1 + segmenters, I, J, K), float32.
        """
        found = []
        for segmenter in self.segmenters:
            logits = segmenter(images).float()
            found.append(logits[:, 1:] - logits[:, :1])
        return torch.cat([torch.zeros_like(found[0]), *found], dim=1)


def folder_of_structure(run_dir: Path, name: str) -> Path:
    """Where the run of one structure lies inside a run of several."""
    return run_dir / STRUCTURES_FOLDER / name
