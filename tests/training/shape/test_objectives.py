from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.models.aligned_pose import AlignedPose
from shapeguide.models.quality import ShapeQuality
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.training.engine.seeds import generator_for
from shapeguide.training.settings.groups import ShapeSettings
from shapeguide.training.shape import MaskBank
from shapeguide.training.shape.objectives import pairwise
from shapeguide.training.shape.pairs import Drawing, TwoViews
from shapeguide.training.shape.recipes import batches_of, learner_of, step_of
from shapeguide.training.shape.separation import mean_distance_between_cases, measure_quality
from shapeguide.training.shape.surface_targets import people_apart, surface_targets

SPACING = (1.0, 1.0, 1.0)


def ellipsoid(i: float, j: float, k: float, bump: float = 0.0, edge: int = 24) -> Tensor:
    line = torch.arange(edge) - (edge - 1) / 2
    a, b, c = torch.meshgrid(line, line, line, indexing="ij")
    body = (a / i) ** 2 + (b / j) ** 2 + (c / k) ** 2 <= 1
    knob = (a - i * 0.8) ** 2 + (b - j * 0.4) ** 2 + c**2 <= bump**2
    return (body | knob).to(torch.uint8)[None, None]


def bank() -> MaskBank:
    masks = torch.cat([ellipsoid(4, 7, 5), ellipsoid(4, 7, 5, bump=3), ellipsoid(6, 3, 5, bump=4)])
    return MaskBank(masks, SPACING, WarpLimits(translation_mm=0.0))


class Constant(nn.Module):
    """A collapsed trunk: the same for every mask."""

    def forward(self, masks: Tensor) -> Tensor:
        return torch.ones((len(masks), 1, 2, 2, 2))


def test_targets_are_zero_for_one_shape_in_two_sizes_and_not_for_two_shapes() -> None:
    small, large = ellipsoid(4, 7, 5).float(), ellipsoid(6, 10.5, 7.5).float()
    other = ellipsoid(6, 3, 5, bump=4).float()
    assert surface_targets(small, small, SPACING).item() == 0.0
    assert surface_targets(small, large, SPACING).item() < 0.1
    assert surface_targets(small, other, SPACING).item() > 0.15


def test_targets_in_the_aligned_pose_count_stretch_and_not_size() -> None:
    pose = AlignedPose(1, shape=24)
    small, large = ellipsoid(4, 7, 5).float(), ellipsoid(6, 10.5, 7.5).float()
    longer = ellipsoid(4, 10.5, 5).float()
    pose.fit(small, spacing_mm=SPACING)
    assert surface_targets(small, small, SPACING, pose=pose).item() == 0.0
    same = surface_targets(small, large, SPACING, pose=pose).item()
    stretched = surface_targets(small, longer, SPACING, pose=pose).item()
    assert stretched > 3 * same
    # The canonical pose takes the stretch out.
    assert surface_targets(small, longer, SPACING).item() < 0.1


def test_targets_of_an_empty_mask_are_zero() -> None:
    mask = ellipsoid(4, 7, 5).float()
    assert surface_targets(mask, torch.zeros_like(mask), SPACING).item() == 0.0


def test_unit_is_the_mean_distance_between_two_cases() -> None:
    unit = people_apart(bank(), generator=generator_for(0, 1), pairs=24)
    masks = bank().masks.float()
    pairs = [(0, 1), (0, 2), (1, 2)]
    each = [surface_targets(masks[a : a + 1], masks[b : b + 1], SPACING).item() for a, b in pairs]
    assert min(each) < unit < max(each)


def test_single_case_can_train_against_its_corrupted_copies() -> None:
    alone = MaskBank(ellipsoid(4, 7, 5), SPACING, WarpLimits(translation_mm=0.0))
    network = ShapeNetwork(["a"], channels=(2, 4), canonical_shape=16)
    chosen = ShapeSettings(batch_size=3)
    batch = batches_of(network, chosen, bank=alone, seed=0)[0]
    learner = learner_of(network, chosen, spacing_mm=SPACING, seed=0)
    assert step_of(learner, chosen)(batch, 0).total.isfinite()
    assert people_apart(alone, generator=generator_for(0, 1), pairs=4) > 0


def test_constant_network_minimises_the_published_objective_and_is_found_collapsed() -> None:
    network = ShapeNetwork(["a"], channels=(2,), pose="grid")
    network.trunks[0] = Constant()
    views = TwoViews(Drawing(bank(), batch_size=2, maps="clean", seed=0))[0]
    assert views.second is not None
    first, second = (network(view, spacing_mm=SPACING) for view in (views.first, views.second))
    assert pairwise(first, second, views.present).total.item() == 0.0
    (quality,) = measure_quality(
        network, bank(), pairs=12, generator=generator_for(0, 2), held_out=True
    )
    assert quality.collapsed
    assert quality.auc == pytest.approx(0.5)


def test_network_that_tells_cases_apart_is_not_collapsed() -> None:
    network = ShapeNetwork(["a"], channels=(4, 8), canonical_shape=16)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    chosen = ShapeSettings(batch_size=6)
    batches = batches_of(network, chosen, bank=bank(), seed=0)
    step = step_of(learner_of(network, chosen, spacing_mm=SPACING, seed=0), chosen)
    for iteration in range(60):
        terms = step(batches[iteration], iteration)
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
    (quality,) = measure_quality(
        network, bank(), pairs=30, generator=generator_for(0, 2), held_out=False
    )
    assert not quality.collapsed, str(quality)
    assert quality.different > quality.same
    calibration = mean_distance_between_cases(
        network, bank(), pairs=30, generator=generator_for(0, 2)
    )
    assert calibration.item() == pytest.approx(quality.different)


def test_verdict_follows_from_the_figures() -> None:
    good = ShapeQuality(
        structure="a",
        cases=8,
        held_out=True,
        same=0.2,
        different=0.8,
        ratio=4.0,
        auc=0.99,
        signature_std=0.2,
    )
    assert not good.collapsed
    assert "tells cases apart" in str(good)
    assert "held-out" in str(good)
    assert replace(good, different=0.2, ratio=1.0, auc=0.5).collapsed
    assert replace(good, auc=float("nan")).collapsed
