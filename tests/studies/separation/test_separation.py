from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.studies.separation.measure import Separation, measure_separation
from shapeguide.training.shape import MaskBank

STILL = WarpLimits(rotation_deg=0.0, scale=(1.0, 1.0), translation_mm=0.0)
TURNED = WarpLimits(rotation_deg=8.0, scale=(0.9, 1.1), translation_mm=1.0)


def separation(same: list[float], different: list[float], found: list[list[bool]]) -> Separation:
    """Two cases that start the pairs in turn."""
    cases = np.arange(len(same)) % 2
    distances = np.array(same), np.array(different)
    return Separation(cases, *distances, np.array(found), signature_std=0.1, people=np.arange(2))


def bank(*shapes: NDArray[np.bool_], limits: WarpLimits = STILL) -> MaskBank:
    masks = torch.zeros((len(shapes), 1, 24, 24, 24), dtype=torch.uint8)
    for item, shape in zip(masks, shapes, strict=True):
        i, j, k = shape.shape
        item[0, 2 : 2 + i, 2 : 2 + j, 2 : 2 + k] = torch.from_numpy(shape)
    return MaskBank(masks, (1.0, 1.0, 1.0), limits)


def network() -> ShapeNetwork:
    torch.manual_seed(0)
    made = ShapeNetwork(["a"], channels=(4, 8), pose="grid")
    return made.eval().requires_grad_(False)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


ROD = np.ones((4, 4, 20), dtype=bool)
PLATE = np.ones((16, 16, 3), dtype=bool)
BALL = np.linalg.norm(np.indices((13, 13, 13)) - 6, axis=0) <= 6


def test_ratio_and_auc_are_those_of_the_pairs() -> None:
    found = separation([1.0, 2.0], [2.0, 4.0], [[True, False]])
    assert found.ratio == 2.0
    # Of four comparisons 1 < 2, 1 < 4 and 2 < 4 hold, and 2 = 2 counts half.
    assert found.auc == 3.5 / 4
    assert found.rank1 == 0.5


def test_intervals_resample_cases_with_all_their_pairs() -> None:
    found = separation([1.0, 2.0], [2.0, 8.0], [[True, False], [True, False]])
    # Drawn are both cases, or one of them twice: ratios 10/3, 2 and 4, rank-1 of 1/2, 1 and 0.
    assert found.intervals()["ratio"] == pytest.approx((2.0, 4.0))
    assert found.intervals()["rank1"] == pytest.approx((0.0, 1.0))
    assert found.intervals()["auc"] == pytest.approx((0.875, 1.0))


def test_equal_cases_have_an_interval_of_no_width() -> None:
    found = separation([1.0] * 4, [3.0] * 4, [[True, True]])
    assert found.intervals() == {"ratio": (3.0, 3.0), "auc": (1.0, 1.0), "rank1": (1.0, 1.0)}


def test_shapes_that_differ_are_told_apart_without_fail() -> None:
    found = measure_separation(network(), bank(ROD, PLATE, BALL), pairs=9, generator=seeded())
    assert (found.auc, found.rank1) == (1.0, 1.0)
    assert found.same.max() == 0
    assert found.different.min() > 0
    assert found.cases.tolist() == [0, 1, 2] * 3
    assert found.signature_std > 0


def test_warps_part_the_copies_of_a_case_and_the_same_seed_draws_them_again() -> None:
    shapes = bank(ROD, BALL, limits=TURNED)
    first, again = (
        measure_separation(network(), shapes, pairs=6, generator=seeded()) for _ in range(2)
    )
    assert first.same.min() > 0
    assert np.array_equal(first.same, again.same)
    assert np.array_equal(first.different, again.different)


def test_a_network_to_which_all_are_alike_finds_nobody() -> None:
    constant = network()
    for weights in constant.parameters():
        weights.zero_()
    found = measure_separation(constant, bank(ROD, BALL), pairs=4, generator=seeded())
    assert (found.ratio, found.auc, found.rank1, found.signature_std) == (0.0, 0.5, 0.0, 0.0)


def test_two_scans_of_one_person_are_neither_two_people_nor_a_wrong_find() -> None:
    scans = replace(bank(ROD, ROD, BALL), people=("a", "a", "b"))
    found = measure_separation(network(), scans, pairs=30, generator=seeded())
    # The two rods are alike; were they two people, they would lie at distance 0.
    assert found.different.min() > 0
    assert (found.auc, found.rank1) == (1.0, 1.0)
    assert found.people.tolist() == [0, 0, 1]


def test_intervals_draw_a_person_with_all_scans() -> None:
    found = replace(separation([1.0, 2.0], [2.0, 8.0], [[True, False]]), people=np.array([0, 0]))
    # There is one person only: every draw is the whole.
    assert found.intervals()["ratio"] == pytest.approx((10 / 3, 10 / 3))
    assert found.intervals()["rank1"] == (0.5, 0.5)


def test_two_people_of_one_shape_are_not_told_apart() -> None:
    found = measure_separation(network(), bank(ROD, ROD), pairs=4, generator=seeded())
    assert (found.auc, found.rank1) == (0.5, 0.0)
