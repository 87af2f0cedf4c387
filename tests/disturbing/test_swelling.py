"""What is dark grows or shrinks by what was drawn, folds nowhere, and brings labels along."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from shapeguide.disturbing.fields import ball_radius_mm
from shapeguide.disturbing.swelling import (
    Swellings,
    draw_swellings,
    evened,
    moved,
    swelling_field,
)
from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.training.stages.variation import (
    draw_warps,
    warp_batch,
    with_displacements,
    with_swellings,
)

CELL_MM = (3.0, 3.0, 3.0)
RADIUS_MM = 15.0


def dark_ball(length: int, spacing_mm: float) -> Tensor:
    """A dark ball in the middle of a bright cube with an edge a voxel wide, (1, 1, I, J, K)."""
    axis = (torch.arange(length) - (length - 1) / 2) * spacing_mm
    squares = axis.square()
    distance = (squares[:, None, None] + squares[:, None] + squares).sqrt()
    return ((distance - RADIUS_MM) / spacing_mm + 0.5).clamp(0, 1)[None, None]


def radius_mm(image: Tensor, spacing_mm: float) -> float:
    """That of the ball of the volume that is dark."""
    volume = float((1 - image).sum()) * spacing_mm**3
    return ball_radius_mm(volume)


def swelling(amount_mm: float, fill: float = 1.0) -> Swellings:
    return Swellings(torch.tensor([0.5]), torch.tensor([amount_mm]), torch.tensor([fill]))


@pytest.mark.parametrize("amount_mm", [-4.0, -2.0, 2.0, 4.0, 6.0])
def test_the_surface_of_what_is_dark_moves_by_about_the_amount(amount_mm: float) -> None:
    image = dark_ball(26, 3.0)
    field = swelling_field(image, swelling(amount_mm), spacing_mm=CELL_MM)
    swollen = moved(image, field, spacing_mm=CELL_MM)
    change = radius_mm(swollen, 3.0) - radius_mm(image, 3.0)
    # The steps between neighbours are blurred: a little of the amount is lost.
    assert change == pytest.approx(0.8 * amount_mm, abs=0.2 * abs(amount_mm))
    assert float(field.norm(dim=1).max()) <= abs(amount_mm)


def test_no_two_voxels_change_places() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 20, 22, 24, generator=generator)
    for amount_mm in (-8.0, 8.0):
        field = swelling_field(image, swelling(amount_mm), spacing_mm=CELL_MM)
        assert float(field.abs().max()) > 0.1
        for axis in range(3):
            steps = torch.diff(field[:, axis], dim=axis + 1)
            assert float(steps.min()) > -CELL_MM[axis]


def test_an_image_that_is_all_alike_stays() -> None:
    field = swelling_field(torch.ones(1, 1, 8, 8, 8), swelling(6.0), spacing_mm=CELL_MM)
    assert torch.equal(field, torch.zeros(1, 3, 8, 8, 8))


def test_a_share_of_the_items_swells_by_any_amount_up_to_the_largest() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = draw_swellings(6.0, count=2000, share=0.5, generator=generator)
    swelling = drawn.amounts_mm != 0
    assert 900 < int(swelling.sum()) < 1100
    assert 5.8 < float(drawn.amounts_mm.max()) <= 6
    assert -6 <= float(drawn.amounts_mm.min()) < -5.8
    assert 0.15 <= float(drawn.levels.min()) < float(drawn.levels.max()) <= 0.85
    # Of what is dark, only what grows is evened, and about half of that.
    grown = drawn.amounts_mm > 0
    assert (drawn.fills[~grown] == 1).all()
    assert 0.4 < float((drawn.fills[grown] < 1).float().mean()) < 0.6


def test_dark_parts_become_as_dark_as_their_fill_and_bright_ones_stay() -> None:
    generator = torch.Generator().manual_seed(0)
    image = dark_ball(40, 1.0)
    image = torch.where(image < 0.1, 0.4 * torch.rand(image.shape, generator=generator), image)
    dark, bright = image < 0.41, image > 0.9
    even = evened(image, swelling(4.0, fill=0.25), every=1)
    # The level is halfway from 0 to 1, the fill at a quarter of that.
    assert float(even[dark].max()) < 0.2
    assert (even <= image).all()
    torch.testing.assert_close(even[bright], image[bright], rtol=0, atol=1e-4)
    darker = image < 0.1
    assert torch.equal(even[darker], image[darker])
    assert torch.equal(evened(image, swelling(4.0), every=1), image)


def test_labels_move_with_what_swells_under_a_warp_and_elastic_displacements() -> None:
    ball = dark_ball(60, 1.0)
    classes = (ball[:, 0] < 0.5).to(torch.uint8)
    generator = torch.Generator().manual_seed(1)
    limits = WarpLimits(rotation_deg=20, scale=(0.9, 1.1), translation_mm=3.0)
    warps = draw_warps(limits, classes, spacing_mm=(1.0, 1.0, 1.0), share=1, generator=generator)
    extent_mm = (48.0, 48.0, 48.0)
    elastic = with_displacements(warps, deviation_mm=2.0, extent_mm=extent_mm, generator=generator)
    for still in (warps, elastic):
        sizes = []
        for amount_mm in (-5.0, 0.0, 5.0):
            found, labels = warp_batch(
                ball,
                classes,
                still._replace(swellings=swelling(amount_mm)),
                spacing_mm=(1.0, 1.0, 1.0),
                context=(6, 6, 6),
            )
            dark = found[:, 0] < 0.5
            common = 2 * float((dark & (labels == 1)).sum())
            assert common / float(dark.sum() + labels.sum()) > 0.97
            sizes.append(radius_mm((labels != 1).float()[:, None], 1.0))
        shrunk, same, grown = sizes
        assert shrunk < same - 3
        assert grown > same + 3


def test_a_swelling_of_nothing_changes_nothing_but_rounding() -> None:
    ball = dark_ball(40, 1.0)
    classes = (ball[:, 0] < 0.5).to(torch.uint8)
    generator = torch.Generator().manual_seed(1)
    spacing_mm = (1.0, 1.0, 1.0)
    warps = draw_warps(WarpLimits(), classes, spacing_mm=spacing_mm, share=1, generator=generator)
    with_none = with_swellings(warps, most_mm=0.0, share=1.0, generator=generator)
    for one, other in zip(
        warp_batch(ball, classes, warps, spacing_mm=spacing_mm),
        warp_batch(ball, classes, with_none, spacing_mm=spacing_mm),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
