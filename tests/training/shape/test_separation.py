from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.training.engine.seeds import generator_for
from shapeguide.training.shape import MaskBank
from shapeguide.training.shape.separation import measure_quality, pair_distances

STILL = WarpLimits(rotation_deg=0.0, scale=(1.0, 1.0), translation_mm=0.0)


class Volume(nn.Module):
    """A trunk whose signature is the number of voxels, so distances are known."""

    def forward(self, masks: Tensor) -> Tensor:
        return masks.sum((2, 3, 4), keepdim=True)


def bank(*volumes: int, people: tuple[str, ...] = ()) -> MaskBank:
    masks = torch.zeros((len(volumes), 1, 8, 8, 8), dtype=torch.uint8)
    for mask, volume in zip(masks, volumes, strict=True):
        mask.view(-1)[:volume] = 1
    return MaskBank(masks, (1.0, 1.0, 1.0), STILL, people)


def counting() -> ShapeNetwork:
    network = ShapeNetwork(["a"], channels=(2,), pose="grid")
    network.trunks[0] = Volume()
    return network


def seeded() -> torch.Generator:
    return generator_for(0, 1)


def test_distances_and_retrieval_of_people_who_differ_in_size() -> None:
    (quality,) = measure_quality(
        counting(), bank(10, 20, 30), pairs=12, generator=seeded(), held_out=True
    )
    assert quality.same == 0.0
    assert 10.0 <= quality.different <= 20.0
    assert (quality.auc, quality.rank1, quality.cases) == (1.0, 1.0, 3)
    assert "rank-1 1.00" in str(quality)


def test_another_case_at_the_same_distance_is_not_found() -> None:
    (quality,) = measure_quality(
        counting(), bank(10, 10, 30), pairs=12, generator=seeded(), held_out=True
    )
    assert quality.rank1 == pytest.approx(1 / 3)


def test_two_scans_of_one_person_are_never_two_people() -> None:
    repeated = bank(10, 10, 30, people=("p", "p", "q"))
    (quality,) = measure_quality(counting(), repeated, pairs=30, generator=seeded(), held_out=True)
    assert quality.different == pytest.approx(20.0)
    assert quality.auc == 1.0
    assert quality.rank1 == 1.0
    (pairs,) = pair_distances(counting(), repeated, pairs=30, generator=seeded())
    assert pairs.different.tolist() == pytest.approx([20.0] * 30)


@pytest.mark.parametrize("masks", [bank(10), bank(10, 20, people=("p", "p")), bank(10, 0)])
def test_a_single_person_counts_as_collapsed(masks: MaskBank) -> None:
    (quality,) = measure_quality(counting(), masks, pairs=4, generator=seeded(), held_out=False)
    assert quality.collapsed
    assert not quality.measured
    assert "fewer than two people have it" in str(quality)
    assert (quality.ratio, quality.rank1) == (0.0, 0.0)


def test_a_network_that_says_the_same_of_all_was_measured_and_has_collapsed() -> None:
    (quality,) = measure_quality(
        counting(), bank(10, 10), pairs=4, generator=seeded(), held_out=False
    )
    assert (quality.same, quality.different, quality.measured) == (0.0, 0.0, True)
    assert "COLLAPSED" in str(quality)
