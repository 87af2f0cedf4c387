from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from shapeguide.errors import ConfigError
from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.training.engine.seeds import generator_for
from shapeguide.training.settings.groups import ShapeSettings
from shapeguide.training.settings.presets import PRESETS
from shapeguide.training.shape import MaskBank
from shapeguide.training.shape.objectives import (
    ShapeTerms,
    covariance_term,
    info_nce,
    variance_term,
)
from shapeguide.training.shape.recipes import (
    RECIPES,
    ShapeLearner,
    batches_of,
    learner_of,
    step_of,
)
from shapeguide.vocabulary import OBJECTIVES, POSES

MAPS = get_args(ShapeSettings.model_fields["maps"].annotation)
LIMITS = WarpLimits(translation_mm=1.0)


def box(*lengths: int) -> Tensor:
    mask = torch.zeros((1, 1, 20, 20, 20), dtype=torch.uint8)
    i, j, k = (slice(10 - n // 2, 10 + n - n // 2) for n in lengths)
    mask[0, 0, i, j, k] = 1
    return mask


def bank(*masks: Tensor) -> MaskBank:
    drawn = masks or (box(6, 12, 8), box(8, 8, 8), box(5, 14, 6), box(12, 6, 7))
    return MaskBank(torch.cat(drawn), (1.0, 1.0, 1.0), LIMITS)


def network(pose: str = "canonical", structures: int = 1) -> ShapeNetwork:
    torch.manual_seed(0)
    names = [f"s{n}" for n in range(structures)]
    made = ShapeNetwork(names, channels=(2, 4), pose=pose, canonical_shape=16)  # type: ignore[arg-type]
    made.fit_pose(bank().masks.repeat(1, structures, 1, 1, 1), spacing_mm=(1.0, 1.0, 1.0))
    return made


def settings(objective: str, **changes: object) -> ShapeSettings:
    return ShapeSettings(batch_size=4).changed(objective=objective, **changes)


class Training:
    """A network in training: what is learnt, and the terms of each iteration."""

    def __init__(self, made: ShapeNetwork, masks: MaskBank, chosen: ShapeSettings) -> None:
        self.learner: ShapeLearner = learner_of(made, chosen, spacing_mm=masks.spacing_mm, seed=0)
        self.batches = batches_of(made, chosen, bank=masks, seed=0)
        self.step = step_of(self.learner, chosen)

    def terms(self, iteration: int = 0) -> ShapeTerms:
        return self.step(self.batches[iteration], iteration)


def test_table_has_every_objective_that_the_settings_know() -> None:
    assert set(RECIPES) == set(get_args(ShapeSettings.model_fields["objective"].annotation))


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("maps", MAPS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_a_gradient_in_every_pose_on_all_maps(
    name: str, maps: str, pose: str
) -> None:
    training = Training(network(pose), bank(), settings(name, maps=maps))
    terms = training.terms()
    terms.total.backward()
    assert terms.total.isfinite()
    assert {"loss", "distance"} <= set(terms.watched())
    for module in training.learner.children():
        slopes = [p.grad.abs().sum() for p in module.parameters() if p.grad is not None]
        assert sum(slopes) > 0
    assert torch.equal(training.terms().total, terms.total)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_tensor_of_a_batch_has_the_shapes_along_its_first_axis(name: str) -> None:
    batch = Training(network(), bank(), settings(name)).batches[3]
    assert [len(part) for part in batch if part is not None] == [4] * (
        len(batch) - batch.count(None)
    )


def test_views_of_binary_maps_are_binary_and_keep_their_place() -> None:
    training = Training(network("grid"), bank(), settings("pairwise", maps="binary"))
    batch = training.batches[0]
    assert batch.second is not None
    for view in (batch.first, batch.second):
        assert set(view.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(batch.first, batch.second)
    overlap = (batch.first * batch.second).flatten(2).sum(-1) / batch.first.flatten(2).sum(-1)
    assert overlap.min() > 0.5
    # An interpolated edge is not binary.
    soft = Training(network("grid"), bank(), settings("pairwise", maps="clean")).batches[0].first
    assert len(soft.unique()) > 2


def test_the_objective_as_printed_gets_binary_maps() -> None:
    assert (PRESETS["paper"].shape.objective, PRESETS["paper"].shape.maps) == ("pairwise", "binary")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_case_without_one_of_the_structures_counts_for_the_others(name: str) -> None:
    masks = torch.cat([bank().masks, bank().masks], dim=1)
    masks[0, 1] = 0
    lacking = MaskBank(masks, (1.0, 1.0, 1.0), LIMITS)
    training = Training(network(structures=2), lacking, settings(name))
    terms = training.terms()
    terms.total.backward()
    assert terms.total.isfinite()
    slopes = [p.grad for p in training.learner.parameters()]
    assert all(slope is None or slope.isfinite().all() for slope in slopes)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["contrastive", "vicreg"])
def test_batches_of_one_are_refused_where_shapes_are_told_apart(name: str, preset: str) -> None:
    alone = PRESETS[preset].shape.changed(objective=name, batch_size=1)
    with pytest.raises(ConfigError, match=rf"'{name}'.*batches of at least 2.*batch_size=1"):
        Training(network(), bank(), alone)


def test_a_structure_that_one_case_has_is_named() -> None:
    masks = torch.cat([bank().masks, bank().masks], dim=1)
    masks[1:, 1] = 0
    lacking = MaskBank(masks, (1.0, 1.0, 1.0), LIMITS)
    with pytest.raises(ConfigError, match=r"at least 2 training cases with s1, found 1 of 4"):
        Training(network(structures=2), lacking, settings("contrastive"))
    Training(network(structures=2), lacking, settings("surface"))


def test_a_structure_that_no_case_has_is_named_in_a_whole_sentence() -> None:
    masks = torch.cat([bank().masks, 0 * bank().masks], dim=1)
    lacking = MaskBank(masks, (1.0, 1.0, 1.0), LIMITS)
    expected = (
        "^objective 'surface' learns from label maps and needs at least 1 training case with s1, "
        "found 0 of 4; leave it out, or add cases$"
    )
    with pytest.raises(ConfigError, match=expected):
        Training(network(structures=2), lacking, settings("surface"))


def test_contrastive_loss_is_the_published_sum() -> None:
    signatures = torch.randn((2, 3, 1, 1, 1, 2), generator=torch.Generator().manual_seed(0))
    first, second = signatures
    views = torch.cat([first, second])[:, 0, 0, 0]
    expected = 0.0
    for anchor in range(6):
        near = [math.exp(-float((views[anchor] - view).norm()) / 0.1) for view in views]
        others = sum(near) - near[anchor]
        expected -= math.log(near[(anchor + 3) % 6] / others) / 6
    present = torch.ones((3, 1), dtype=torch.bool)
    assert info_nce(first, second, present).item() == pytest.approx(expected, rel=1e-4)


def test_contrastive_loss_passes_over_what_is_not_there() -> None:
    signatures = torch.randn((2, 3, 2, 1, 1, 2), generator=torch.Generator().manual_seed(0))
    first, second = signatures
    present = torch.tensor([[True, True], [True, False], [True, False]])
    # The second structure is there once: nothing to tell it from.
    everything = torch.ones((3, 1), dtype=torch.bool)
    alone = info_nce(first[:, :1], second[:, :1], everything)
    assert info_nce(first, second, present).item() == pytest.approx(alone.item(), rel=1e-5)
    assert info_nce(first, second, torch.zeros((3, 2), dtype=torch.bool)).item() == 0.0


def test_vicreg_terms_by_hand() -> None:
    # Variances 2 and 8, covariance 4: the one entry off the diagonal counts twice.
    rows = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    assert covariance_term(rows).item() == pytest.approx(2 * 4.0**2 / 2)
    assert variance_term(rows).item() == pytest.approx(0.0)
    assert variance_term(torch.ones((3, 2))).item() == pytest.approx(1 - 0.01)


def test_collapsed_signatures_cost_under_vicreg() -> None:
    learner = network()
    for parameter in learner.parameters():
        parameter.data.zero_()
    terms = Training(learner, bank(), settings("vicreg")).terms()
    assert terms.parts["invariance"].item() == 0.0
    assert terms.total.item() == pytest.approx(25 * 0.99)


def test_drawn_cases_are_different_until_they_run_out() -> None:
    masks = bank()
    sizes = {int(mask.sum()) for mask in masks.masks}
    drawn = masks.draw(4, maps="clean", generator=generator_for(0, 1))
    assert {int(mask.sum()) for mask in drawn} == sizes
    assert len(masks.draw(9, maps="softened", generator=generator_for(0, 1))) == 9


def test_every_second_of_corrupted_maps_is_a_copy_of_a_drawn_one() -> None:
    masks = bank(box(10, 14, 12), box(12, 10, 10), box(14, 14, 8))
    drawn = masks.draw(4, maps="corrupted", generator=generator_for(0, 1))
    known = [any(torch.equal(one, mask.float()) for mask in masks.masks) for one in drawn]
    assert known == [True, True, False, False]
    overlap = (drawn[:2] * drawn[2:]).flatten(1).sum(1) / drawn[:2].flatten(1).sum(1)
    assert overlap.min() > 0.3


def test_only_maps_that_are_not_clean_are_softened() -> None:
    still = MaskBank(
        bank().masks, (1.0, 1.0, 1.0), WarpLimits(rotation_deg=0, scale=(1, 1), translation_mm=0)
    )
    masks = still.masks.float()
    clean = still.seen(masks, maps="clean", generator=generator_for(0, 1))
    assert torch.allclose(clean, masks, atol=1e-4)
    many = masks.repeat(4, 1, 1, 1, 1)
    softened = still.seen(many, maps="softened", generator=generator_for(0))
    changed = ((softened - many).abs() > 0.01).flatten(1).any(1)
    assert 2 < int(changed.sum()) < 14


def test_decoder_learns_to_restore_masks() -> None:
    training = Training(network(), bank(), settings("reconstruction", maps="clean"))
    optimizer = torch.optim.Adam(training.learner.parameters(), lr=1e-2)
    dice = []
    for iteration in range(40):
        terms = training.terms(iteration)
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        dice.append(terms.parts["dice"].item())
    assert min(dice[-5:]) < 0.6 * dice[0]
