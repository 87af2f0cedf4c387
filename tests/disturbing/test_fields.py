from __future__ import annotations

import math

import pytest
import torch

from shapeguide.disturbing.fields import ball_radius_mm, smooth_noise


def test_noise_takes_the_values_of_its_cells_and_lies_between_them() -> None:
    like = torch.zeros(2, 5, 5, 9)
    generator = torch.Generator().manual_seed(0)
    noise = smooth_noise(like, (2, 2, 3), align_corners=True, generator=generator)
    cells = torch.randn((2, 1, 2, 2, 3), generator=torch.Generator().manual_seed(0))
    assert noise.shape == (2, 1, 5, 5, 9)
    torch.testing.assert_close(noise[..., ::4, ::4, ::4], cells)
    torch.testing.assert_close(noise[..., 0, 0, 2], (cells[..., 0, 0, 0] + cells[..., 0, 0, 1]) / 2)


def test_a_ball_of_unit_radius_has_four_thirds_of_pi() -> None:
    assert ball_radius_mm(4 / 3 * math.pi) == pytest.approx(1)
    assert ball_radius_mm(8 * 4 / 3 * math.pi) == pytest.approx(2)
    assert ball_radius_mm(0.0) == 0
