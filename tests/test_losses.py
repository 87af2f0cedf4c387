"""Losses against the published formulas, written naively from the paper (DLMIA 2018)."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from shapeguide.errors import ConfigError
from shapeguide.geometry.warp import draw_affine_warps, warp_one_hot
from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.losses import (
    LossTerms,
    ShapeLoss,
    cross_entropy_loss,
    deep_supervision_loss,
    dice_loss,
    hard_cap,
    smooth_cap,
)
from shapeguide.metrics.overlap import dice
from shapeguide.metrics.surface import hausdorff_mm, surface_distances
from shapeguide.models.shape_model import load_shape_network
from shapeguide.models.shape_network import ShapeNetwork, signature_distance

SPACING = (1.0, 1.0, 1.0)


def ball(radius: float, centre: tuple[float, float, float] = (8, 8, 8), edge: int = 16) -> Tensor:
    lines = [torch.arange(edge) - c for c in centre]
    i, j, k = torch.meshgrid(*lines, indexing="ij")
    return (i**2 + j**2 + k**2 <= radius**2).float()[None, None]


def network(pose: str = "grid", structures: int = 1) -> ShapeNetwork:
    torch.manual_seed(0)
    names = [f"s{n}" for n in range(structures)]
    return ShapeNetwork(names, channels=(4, 8), pose="grid" if pose == "grid" else "canonical")


def test_published_shape_learning_loss_is_the_norm_between_two_warps_of_one_map() -> None:
    generator = torch.Generator().manual_seed(3)
    warps = draw_affine_warps(WarpLimits(translation_mm=2.0), count=2, generator=generator)
    first, second = (warp_one_hot(ball(5), warp[None], spacing_mm=SPACING) for warp in warps)
    g = network()
    one, other = g(first, spacing_mm=SPACING), g(second, spacing_mm=SPACING)
    naive = math.sqrt(
        sum(
            (a - b) ** 2
            for a, b in zip(one.flatten().tolist(), other.flatten().tolist(), strict=True)
        )
    )
    assert signature_distance(one, other).item() == pytest.approx(naive, rel=1e-4)
    assert naive > 0


def test_published_dice_loss_is_one_minus_twice_the_overlap_over_the_sum() -> None:
    prediction = torch.rand((1, 1, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    reference = (
        torch.rand((1, 1, 4, 5, 6), generator=torch.Generator().manual_seed(1)) > 0.5
    ).float()
    overlap, total = 0.0, 0.0
    for m, p in zip(reference.flatten().tolist(), prediction.flatten().tolist(), strict=True):
        overlap += m * p
        total += m + p
    assert dice_loss(prediction, reference).item() == pytest.approx(
        1 - 2 * overlap / total, abs=1e-6
    )


def test_published_shape_loss_is_the_norm_between_prediction_and_reference() -> None:
    g = network()
    loss = ShapeLoss(g, spacing_mm=SPACING, cap=1e9, cap_form="hard", distance="raw")
    prediction, reference = ball(5) * 0.8, ball(4)
    gap = g(prediction, spacing_mm=SPACING) - g(reference, spacing_mm=SPACING)
    naive = float(np.sqrt((gap.detach().numpy() ** 2).sum()))
    assert loss(prediction, reference).item() == pytest.approx(naive, rel=1e-4)


def test_published_dice_score_is_twice_the_overlap_over_the_sum_of_sizes() -> None:
    first, second = ball(5)[0, 0].numpy() > 0, ball(4)[0, 0].numpy() > 0
    both = sum(1 for a, b in zip(first.flat, second.flat, strict=True) if a and b)
    naive = 2 * both / (int(first.sum()) + int(second.sum()))
    assert dice(first, second) == pytest.approx(naive)


def test_published_hausdorff_distance_is_the_larger_of_both_directed_maxima() -> None:
    first, second = np.zeros((2, 7, 7, 7), dtype=bool)
    first[1, 1, 1] = first[1, 5, 1] = second[1, 2, 1] = True
    a, b = np.argwhere(first), np.argwhere(second)
    directed = [max(min(math.dist(p, q) for q in y) for p in x) for x, y in ((a, b), (b, a))]
    distances = surface_distances(first, second, spacing_mm=SPACING)
    assert hausdorff_mm(distances) == pytest.approx(max(directed)) == 3.0


def test_dice_loss_of_an_absent_class_costs_nothing() -> None:
    nothing = torch.zeros((1, 2, 3, 3, 3))
    assert dice_loss(nothing, nothing).item() == 0.0


def test_dice_loss_averages_over_classes() -> None:
    probabilities, reference = torch.zeros((2, 1, 2, 2, 2, 2))
    reference[0, 0] = probabilities[0, 0] = 1
    reference[0, 1] = 1
    assert dice_loss(probabilities, reference).item() == pytest.approx(0.5)


def test_losses_refuse_different_shapes() -> None:
    with pytest.raises(ValueError, match="same classes"):
        dice_loss(torch.zeros((1, 1, 2, 2, 2)), torch.zeros((1, 2, 2, 2, 2)))


def test_cross_entropy_of_even_logits_is_the_log_of_the_class_count() -> None:
    logits, classes = torch.zeros((1, 3, 2, 2, 2)), torch.ones((1, 2, 2, 2), dtype=torch.uint8)
    assert cross_entropy_loss(logits, classes).item() == pytest.approx(math.log(3))


def test_deep_supervision_compares_with_the_share_of_each_class_at_halving_weight() -> None:
    reference = torch.zeros((1, 2, 4, 4, 4))
    reference[:, 1, 0, :2, :2] = 1  # half of the first voxel of the next resolution
    reference[:, 0] = 1 - reference[:, 1]
    lower = [torch.zeros((1, 2, 2, 2, 2)), torch.zeros((1, 2, 1, 1, 1))]
    # Even logits: each voxel is one half, and the cross-entropy the logarithm of 2.
    expected = 0.0
    for level, voxels in ((1, 8), (2, 1)):
        there = 4 / 8**level
        dice = 1 - 2 * there / 2 / (voxels / 2 + there)
        expected += (dice + 0.5 * math.log(2)) / 2**level
    found = deep_supervision_loss(lower, reference, cross_entropy_weight=0.5)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_hard_cap_has_no_gradient_above_and_the_smooth_cap_always_has_one() -> None:
    for cap_form, expected in ((hard_cap, 0.0), (smooth_cap, 1 / 16)):
        distance = torch.tensor(3.0, requires_grad=True)
        cap_form(distance, 1.0).backward()
        assert distance.grad is not None
        assert distance.grad.item() == pytest.approx(expected)


@pytest.mark.parametrize("cap", [0.5, 1.0, 4.0])
def test_smooth_cap_is_half_the_cap_at_the_cap(cap: float) -> None:
    assert smooth_cap(torch.tensor(cap), cap).item() == pytest.approx(cap / 2)


def test_smooth_cap_stays_below_the_cap_and_starts_like_the_distance() -> None:
    distances = torch.tensor([0.0, 1e-3, 1.0, 1e6])
    capped = smooth_cap(distances, 1.0)
    assert capped.tolist() == pytest.approx([0.0, 1e-3, 0.5, 1.0], rel=2e-3)
    assert (capped <= 1.0).all()


def test_shape_loss_is_zero_for_the_reference_itself_and_grows_with_a_stray_blob() -> None:
    loss = ShapeLoss(network("canonical"), spacing_mm=SPACING)
    reference = ball(4)
    stray = torch.maximum(reference, ball(2, centre=(13, 13, 13)))
    assert loss(reference, reference).item() == 0.0
    assert loss(stray, reference).item() > loss(ball(4.2), reference).item()


def test_shape_loss_is_invariant_to_translation_in_canonical_pose_but_not_to_shape() -> None:
    loss = ShapeLoss(network("canonical"), spacing_mm=SPACING, distance="raw")
    block = torch.zeros_like(ball(4))
    block[..., 5:11, 6:11, 3:12] = 1  # 270 voxels, the ball has 257
    assert loss(ball(4), ball(4, centre=(7, 9, 8))).item() < 1e-4
    assert loss(block, ball(4)).item() > 0.05


def test_shape_loss_gives_the_prediction_a_gradient_and_its_network_none() -> None:
    g = network("canonical")
    loss = ShapeLoss(g, spacing_mm=SPACING)
    prediction = (ball(4) * 0.9).requires_grad_()
    loss(prediction, ball(5)).backward()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()
    assert prediction.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in g.parameters())


def test_shape_loss_counts_in_the_distance_between_two_people() -> None:
    g = network()
    raw = ShapeLoss(g, spacing_mm=SPACING, distance="raw").distances(ball(5), ball(4))[0].item()
    g.calibration.fill_(4.0)
    calibrated = ShapeLoss(g, spacing_mm=SPACING).distances(ball(5), ball(4))[0].item()
    assert calibrated == pytest.approx(raw / 4)


def test_shape_loss_leaves_out_structures_that_the_reference_lacks() -> None:
    loss = ShapeLoss(network(structures=2), spacing_mm=SPACING, distance="raw")
    reference = torch.cat([ball(4), torch.zeros_like(ball(4))], dim=1)
    prediction = torch.cat([ball(5), ball(3)], dim=1)
    distances, present = loss.distances(prediction, reference)
    assert present.tolist() == [[True, False]]
    assert loss(prediction, reference).item() == pytest.approx(
        smooth_cap(distances[0, 0], 1).item()
    )


def test_shape_loss_guides_by_the_structures_and_not_by_the_background() -> None:
    loss = ShapeLoss(network(structures=2), spacing_mm=SPACING, distance="raw", cap=0.1)
    reference = torch.cat([1 - ball(4), ball(4), torch.zeros_like(ball(4))], dim=1)
    prediction = torch.cat([1 - ball(5), ball(5) * 0.9, ball(3)], dim=1).requires_grad_()
    terms = loss.guide(prediction, reference)
    distances, _ = loss.distances(prediction[:, 1:], reference[:, 1:])
    # The second structure is not there, so the first alone counts.
    assert terms.loss.item() == pytest.approx(smooth_cap(distances[0, 0], 0.1).item())
    assert terms.figures["shape_distance"].item() == pytest.approx(distances[0, 0].item())
    assert terms.figures["capped_share"].item() == float(distances[0, 0] >= 0.1)
    terms.loss.backward()
    assert prediction.grad is not None
    assert prediction.grad[:, 1].abs().sum() > 0
    assert prediction.grad[:, [0, 2]].abs().sum() == 0


def test_shape_loss_of_two_structures_is_the_mean_of_their_losses() -> None:
    loss = ShapeLoss(network(structures=2), spacing_mm=SPACING, cap=1.0, cap_form="hard")
    distances, present = torch.tensor([[0.25, 9.0]]), torch.tensor([[True, True]])
    assert loss.reduce(distances, present).item() == pytest.approx((0.25 + 1.0) / 2)


def test_shape_distance_that_is_watched_is_the_mean_over_the_structures_that_are_there() -> None:
    loss = ShapeLoss(network(structures=2), spacing_mm=SPACING, distance="raw")
    reference = torch.cat([torch.zeros_like(ball(4)), ball(4), ball(5)], dim=1)
    prediction = torch.cat([torch.zeros_like(ball(4)), ball(5), ball(3)], dim=1)
    distances, _ = loss.distances(prediction[:, 1:], reference[:, 1:])
    figures = loss.guide(prediction, reference).figures
    assert figures["shape_distance"].item() == pytest.approx(distances.mean().item())


def test_shape_loss_of_nothing_at_all_is_zero() -> None:
    nothing = torch.zeros((1, 1, 16, 16, 16))
    assert ShapeLoss(network("canonical"), spacing_mm=SPACING)(nothing, nothing).item() == 0.0


def test_capped_share_counts_distances_at_or_above_the_cap() -> None:
    loss = ShapeLoss(network(structures=2), spacing_mm=SPACING)
    distances, present = (
        torch.tensor([[0.5, 1.5], [1.0, 9.0]]),
        torch.tensor([[True, True], [True, False]]),
    )
    assert loss.capped_share(distances, present).item() == pytest.approx(2 / 3)


def test_shape_loss_refuses_a_network_without_calibration_and_a_cap_of_zero() -> None:
    g = network()
    with pytest.raises(ConfigError, match="cap"):
        ShapeLoss(g, spacing_mm=SPACING, cap=0.0)
    g.calibration.fill_(0.0)
    with pytest.raises(ConfigError, match="calibration"):
        ShapeLoss(g, spacing_mm=SPACING)


def test_loss_terms_name_what_is_there() -> None:
    terms = LossTerms(dice=torch.tensor(0.2), cross_entropy=torch.tensor(0.1))
    assert list(terms.watched()) == ["dice", "cross_entropy"]
    assert terms.total.item() == pytest.approx(0.3)


def test_shape_loss_takes_a_network_its_model_or_a_run_folder(
    run_by_hand: Callable[..., Path],
) -> None:
    folder = run_by_hand()
    model = load_shape_network(folder)
    masks = torch.zeros((1, 2, 16, 16, 16))
    masks[:, 0, 4:9, 3:9, 2:8] = masks[:, 1, 9:13, 9:14, 9:12] = 1
    losses = [
        ShapeLoss(given, spacing_mm=SPACING)(masks.flip(2), masks).item()
        for given in (model.network, model, folder, folder / "shape", str(folder))
    ]
    assert losses[0] > 0
    assert losses == [losses[0]] * 5
    with pytest.raises(TypeError, match="or the run folder that holds it, found Linear"):
        ShapeLoss(torch.nn.Linear(1, 1), spacing_mm=SPACING)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "spacing_mm", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0), (float("nan"),) * 3]
)
def test_shape_loss_refuses_a_spacing_that_is_none(spacing_mm: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError, match="three positive spacings in mm along R, A, S"):
        ShapeLoss(network("canonical"), spacing_mm=spacing_mm)


def test_shape_loss_refuses_what_is_no_probability() -> None:
    loss, masks = ShapeLoss(network("canonical"), spacing_mm=SPACING), ball(5)
    with pytest.raises(ValueError, match=r"probabilities lie in \[0, 1\].*softmax"):
        loss(8 * masks - 4, masks)
    with pytest.raises(ValueError, match="found nan to nan"):
        loss(masks * float("nan"), masks)
    with pytest.raises(ValueError, match="reference lie in"):
        loss(masks, 2 * masks)
    with pytest.raises(ValueError, match="without the background, found"):
        loss(torch.cat([1 - masks, masks], 1), torch.cat([1 - masks, masks], 1))
    with pytest.raises(ValueError, match="without the background, found"):
        loss(masks[0], masks[0])
