"""Losses of the rivals against their published formulas, written naively."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor

from shapeguide.losses import (
    RATIO_RANGE,
    AcnnLoss,
    BoundaryLoss,
    HausdorffLoss,
    SrnLoss,
    balanced,
    boundary_loss,
    dice_loss,
    relative_squared_distance,
    restoration_loss,
    signed_distances_mm,
    squared_code_distance,
)
from shapeguide.models.mask_autoencoder import MaskAutoencoder

Place: TypeAlias = tuple[int, ...]
SHAPE = (8, 6, 7)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def autoencoder(code_length: int | None) -> MaskAutoencoder:
    torch.manual_seed(0)
    network = MaskAutoencoder(3, spatial_shape=SHAPE, channels=(4, 6), code_length=code_length)
    with torch.no_grad():  # first weights are so small that every input is restored alike
        for parameter in network.parameters():
            parameter.mul_(3)
    return network


def prediction_and_reference() -> tuple[Tensor, Tensor]:
    probabilities = (4 * random(2, 3, *SHAPE)).softmax(1)
    classes = (3 * random(2, *SHAPE, seed=1)).long()
    return probabilities, torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).float()


def naive_squares(first: Tensor, second: Tensor) -> float:
    pairs = zip(first.flatten().tolist(), second.flatten().tolist(), strict=True)
    return float(sum((a - b) ** 2 for a, b in pairs))


def test_published_acnn_term_is_the_squared_distance_of_codes() -> None:
    network = autoencoder(5)
    loss = AcnnLoss(network)
    prediction, reference = prediction_and_reference()
    codes = [network.encode(maps) for maps in (prediction, reference)]
    naive = sum(naive_squares(codes[0][item], codes[1][item]) for item in range(2)) / 2
    terms = loss.guide(prediction, reference)
    assert terms.loss.item() == pytest.approx(naive, rel=1e-4)
    assert terms.figures["acnn_code"].item() == terms.loss.item()
    assert naive > 0


def test_published_srn_terms_are_distances_of_restored_map_and_of_codes() -> None:
    network = autoencoder(None)
    loss = SrnLoss(network, reconstruction_weight=0.3, code_weight=0.7)
    prediction, reference = prediction_and_reference()
    restored = network(prediction).softmax(1)
    codes = [network.encode(maps) for maps in (prediction, reference)]
    zero = torch.zeros(())
    reconstruction, code = 0.0, 0.0
    for item in range(2):
        for structure in (1, 2):
            r, m = restored[item, structure], reference[item, structure]
            sizes = naive_squares(r, zero.expand_as(r)) + naive_squares(m, zero.expand_as(m))
            reconstruction += naive_squares(r, m) / sizes / 4
        p, m = codes[0][item], codes[1][item]
        sizes = naive_squares(p, zero.expand_as(p)) + naive_squares(m, zero.expand_as(m))
        code += naive_squares(p, m) / (sizes + 1e-6) / 2
    terms = loss.guide(prediction, reference)
    of_reference = restoration_loss(network(reference), reference).item()
    assert of_reference != pytest.approx(reconstruction, rel=1e-2)
    assert terms.figures["srn_reconstruction"].item() == pytest.approx(reconstruction, rel=1e-4)
    assert terms.figures["srn_code"].item() == pytest.approx(code, rel=1e-4)
    assert terms.loss.item() == pytest.approx(0.3 * reconstruction + 0.7 * code, rel=1e-4)


@pytest.mark.parametrize("kind", ["acnn", "srn"])
def test_codes_of_the_reference_itself_cost_nothing(kind: str) -> None:
    reference = prediction_and_reference()[1]
    loss = AcnnLoss(autoencoder(5)) if kind == "acnn" else SrnLoss(autoencoder(None))
    figures = loss.guide(reference, reference).figures
    assert figures["acnn_code" if kind == "acnn" else "srn_code"].item() == 0.0


@pytest.mark.parametrize("kind", ["acnn", "srn"])
def test_autoencoder_guides_the_prediction_and_is_not_trained(kind: str) -> None:
    prediction, reference = prediction_and_reference()
    loss = AcnnLoss(autoencoder(5)) if kind == "acnn" else SrnLoss(autoencoder(None))
    prediction.requires_grad_()
    loss.guide(prediction, reference).loss.backward()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()
    assert prediction.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in loss.parameters())
    assert not loss.autoencoder.training


def test_relative_distance_of_masks_is_one_minus_twice_the_overlap_over_the_sizes() -> None:
    first, second = torch.zeros((2, 1, 1, 2, 2, 2))
    first[0, 0, 0] = 1  # four voxels
    second[0, 0, :, 0] = 1  # four voxels, two of them shared
    assert relative_squared_distance(first, second, start=2).item() == pytest.approx(1 - 4 / 8)
    assert relative_squared_distance(first, first).item() == 0.0
    nothing = torch.zeros_like(first)
    assert relative_squared_distance(nothing, nothing).item() == 0.0


def test_relative_distance_does_not_count_the_size_of_the_grid() -> None:
    first, second = random(1, 2, 4, 4, 4), random(1, 2, 4, 4, 4, seed=1)
    padded = [torch.nn.functional.pad(part, (3, 3, 3, 3, 3, 3)) for part in (first, second)]
    assert relative_squared_distance(*padded, start=2).item() == pytest.approx(
        relative_squared_distance(first, second, start=2).item()
    )


def test_restoration_loss_leaves_the_background_out() -> None:
    reference = torch.zeros((1, 2, 2, 2, 2))
    reference[:, 0] = 1
    reference[0, :, 0, 0, 0] = torch.tensor([0.0, 1.0])
    assert restoration_loss(100 * reference, reference).item() == pytest.approx(0.0, abs=1e-6)
    swapped = reference.flip(1)
    # One voxel wanted and missed, seven found and not wanted: nothing is shared.
    assert restoration_loss(100 * swapped, reference).item() == pytest.approx(1.0)


def test_code_distance_is_averaged_over_the_batch() -> None:
    first = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    assert squared_code_distance(first, torch.zeros_like(first)).item() == pytest.approx(2.5)


def test_losses_of_codes_refuse_other_shapes() -> None:
    prediction, reference = prediction_and_reference()
    with pytest.raises(ValueError, match="same classes"):
        AcnnLoss(autoencoder(5)).guide(prediction, reference[:, :2])
    with pytest.raises(ValueError, match="grid of"):
        AcnnLoss(autoencoder(5)).guide(prediction[..., 1:], reference[..., 1:])


def cube(*, low: int, high: int, edge: int = 7) -> Tensor:
    mask = torch.zeros((1, 1, edge, edge, edge))
    mask[..., low:high, low:high, low:high] = 1
    return mask


def naive_distance(mask: Tensor, spacing_mm: tuple[float, float, float]) -> dict[Place, float]:
    """From each voxel of a mask (I, J, K) to the nearest one of the other side, mm, by search."""
    places = list(np.ndindex(*mask.shape))
    sides = {place: bool(mask[place]) for place in places}
    return {
        place: min(
            math.dist(np.multiply(place, spacing_mm), np.multiply(other, spacing_mm))
            for other in places
            if sides[other] != sides[place]
        )
        for place in places
    }


def test_signed_distance_is_negative_inside_and_counts_millimetres() -> None:
    mask = torch.zeros((1, 1, 5, 3, 3), dtype=torch.bool)
    mask[0, 0, 1:3] = True
    found = signed_distances_mm(mask, spacing_mm=(2.0, 1.0, 1.0))[0, 0]
    assert found[:, 1, 1].tolist() == [2.0, -2.0, -2.0, 2.0, 4.0]
    assert found.shape == (5, 3, 3)


def test_mask_without_an_edge_has_no_distances() -> None:
    masks = torch.stack([torch.zeros((3, 3, 3)), torch.ones((3, 3, 3))])[None] > 0
    assert not signed_distances_mm(masks, spacing_mm=(1.0, 1.0, 1.0)).any()


def test_published_boundary_loss_is_probability_times_signed_distance() -> None:
    spacing_mm = (1.0, 2.0, 0.5)
    reference, probabilities = cube(low=2, high=5, edge=6), random(1, 1, 6, 6, 6)
    distances = naive_distance(reference[0, 0], spacing_mm)
    naive = sum(
        (-1 if reference[0, 0][place] else 1) * distance * probabilities[0, 0][place].item()
        for place, distance in distances.items()
    )
    found = boundary_loss(probabilities, reference, spacing_mm=spacing_mm)
    assert found.item() == pytest.approx(naive / 6**3, rel=1e-4)


def test_boundary_loss_is_least_for_the_reference_itself() -> None:
    reference = cube(low=2, high=5)
    losses = [
        boundary_loss(prediction, reference, spacing_mm=(1.0, 1.0, 1.0)).item()
        for prediction in (reference, cube(low=2, high=6), cube(low=3, high=5), 0 * reference)
    ]
    assert losses[0] == min(losses) < 0
    assert losses[3] == 0.0


def test_published_hausdorff_loss_is_squared_error_times_squared_distances() -> None:
    spacing_mm = (1.0, 2.0, 0.5)
    reference, probabilities = cube(low=1, high=4, edge=6), random(1, 1, 6, 6, 6)
    of_reference = naive_distance(reference[0, 0], spacing_mm)
    of_prediction = naive_distance(probabilities[0, 0] > 0.5, spacing_mm)
    naive = sum(
        (probabilities[0, 0][place].item() - reference[0, 0][place].item()) ** 2
        * (of_reference[place] ** 2 + of_prediction[place] ** 2)
        for place in of_reference
    )
    found = HausdorffLoss(spacing_mm=spacing_mm).guide(*with_background(probabilities, reference))
    assert found.loss.item() == pytest.approx(naive / 6**3, rel=1e-4)
    assert found.figures["hausdorff"].item() == found.loss.item()


def with_background(*parts: Tensor) -> list[Tensor]:
    return [torch.cat([1 - part, part], dim=1) for part in parts]


def test_hausdorff_loss_is_that_of_monai_where_voxels_measure_one_millimetre() -> None:
    from monai.losses import HausdorffDTLoss

    prediction, reference = prediction_and_reference()
    ours = HausdorffLoss(spacing_mm=(1.0, 1.0, 1.0)).guide(prediction, reference).loss
    assert ours.item() == pytest.approx(HausdorffDTLoss()(prediction, reference).item(), rel=1e-5)
    twice = HausdorffLoss(spacing_mm=(2.0, 2.0, 2.0)).guide(prediction, reference).loss
    assert twice.item() == pytest.approx(4 * ours.item(), rel=1e-5)


def test_distance_losses_punish_a_far_blob_more_than_a_near_one() -> None:
    reference = cube(low=1, high=4, edge=12)
    for guide in (BoundaryLoss(spacing_mm=(1, 1, 1)), HausdorffLoss(spacing_mm=(1, 1, 1))):
        losses = []
        for place in (5, 10):
            prediction = reference.clone()
            prediction[0, 0, place, place, place] = 1
            losses.append(guide.guide(*with_background(prediction, reference)).loss.item())
        assert losses[0] < losses[1]


def test_importing_the_losses_does_not_import_monai() -> None:
    program = "import sys, shapeguide.losses; print('monai' in sys.modules)"
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "False"


def losses_of(logits: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    probabilities = logits.softmax(1)
    base = dice_loss(probabilities[:, 1:], reference[:, 1:])
    return base, 37.0 * BoundaryLoss(spacing_mm=(1, 1, 1)).guide(probabilities, reference).loss


def test_balanced_term_has_its_share_of_the_gradient() -> None:
    reference = prediction_and_reference()[1]
    logits = random(2, 3, *SHAPE, seed=4).requires_grad_()
    base, term = losses_of(logits, reference)
    (of_base,) = torch.autograd.grad(base, logits, retain_graph=True)
    (of_term,) = torch.autograd.grad(term, logits, retain_graph=True)
    scaled, scale = balanced(base, term, logits, share=0.3)
    (base + scaled).backward()
    assert logits.grad is not None
    added = logits.grad - of_base
    assert added.norm().item() == pytest.approx(0.3 * of_base.norm().item(), rel=1e-4)
    assert torch.allclose(added, scale * of_term, atol=1e-7)
    assert scaled.item() == pytest.approx((scale * term).item())


def test_balanced_term_does_not_depend_on_its_own_scale() -> None:
    reference, logits = prediction_and_reference()[1], random(2, 3, *SHAPE, seed=4)
    gradients: list[Tensor] = []
    for factor in (1.0, 50.0):
        live = logits.clone().requires_grad_()
        base, term = losses_of(live, reference)
        scaled = balanced(base, factor * term, live, share=0.5)[0]
        gradients += torch.autograd.grad(scaled, live)
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-4)


def test_guide_without_a_gradient_adds_none() -> None:
    reference, logits = prediction_and_reference()[1], random(2, 3, *SHAPE).requires_grad_()
    base, term = losses_of(logits, reference)
    scaled, scale = balanced(base, 0.0 * term, logits, share=0.5)
    assert scaled.item() == 0.0
    assert scale.item() == pytest.approx(0.5 * RATIO_RANGE[1])
    scaled.backward()
    assert logits.grad is not None
    assert not logits.grad.any()
