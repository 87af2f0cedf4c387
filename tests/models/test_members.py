"""Members answer together: the mean of their probabilities."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shapeguide.models.members import Members


class Says(nn.Module):
    """A segmenter that gives every voxel the same logits."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits[None, :, None, None, None].expand(len(images), -1, *images.shape[2:])


def test_probabilities_and_not_logits_are_averaged() -> None:
    sure, torn = (10.0, -10.0), (0.0, 1.0)
    images = torch.zeros(2, 1, 2, 3, 4)
    found = Members([Says(*sure), Says(*torn)])(images).softmax(dim=1)
    expected = (torch.tensor(sure).softmax(0) + torch.tensor(torn).softmax(0)) / 2
    assert found.shape == (2, 2, 2, 3, 4)
    torch.testing.assert_close(found[0, :, 0, 0, 0], expected)


def test_a_class_that_no_member_thinks_of_stays_finite() -> None:
    found = Members([Says(0.0, -1000.0), Says(0.0, -1000.0)])(torch.zeros(1, 1, 1, 1, 1))
    assert found.isfinite().all()
    assert found.softmax(dim=1)[0, 1].item() < 1e-30
