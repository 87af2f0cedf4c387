"""Losses of the rivals against their published formulas, written naively."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from shapeguide.losses import (
    AcnnLoss,
    SrnLoss,
    relative_squared_distance,
    restoration_loss,
    squared_code_distance,
)
from shapeguide.models.mask_autoencoder import MaskAutoencoder

SHAPE = (8, 6, 7)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def autoencoder(code_length: int | None) -> MaskAutoencoder:
    torch.manual_seed(0)
    return MaskAutoencoder(3, spatial_shape=SHAPE, channels=(4, 6), code_length=code_length)


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
