"""Several segmenters of one training as one network: their probabilities are averaged."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from shapeguide.vocabulary import MOST_MEMBERS

MEMBER_FOLDERS = tuple(f"member{number}" for number in range(2, MOST_MEMBERS + 1))
"""Folders of the members inside a run; the first is the run itself."""


class Members(nn.Module):
    """Segmenters that answer together.

    Args:
        members: At least one, each images (B, 1, I, J, K) to logits (B, classes, I, J, K).
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Logits whose softmax is the mean of the members' probabilities, float32."""
        total = torch.zeros((), device=images.device)
        for member in self.members:
            total = total + member(images).float().softmax(dim=1)
        mean = total / len(self.members)
        return mean.clamp(min=torch.finfo(mean.dtype).tiny).log()


def folder_of_member(run_dir: Path, number: int) -> Path:
    """Where a member of a run lies, counted from 1."""
    return run_dir if number == 1 else run_dir / MEMBER_FOLDERS[number - 2]
