from __future__ import annotations

import pytest
import torch

from shapeguide.errors import ConfigError
from shapeguide.models.shape_network import ShapeNetwork, signature_distance
from shapeguide.models.unet import UNet

SPACING = (1.0, 1.0, 1.0)


def test_unet_gives_logits_on_the_grid_of_the_image() -> None:
    network = UNet(1, 3, (4, 8, 16))
    assert network(torch.randn((2, 1, 8, 12, 16))).shape == (2, 3, 8, 12, 16)


def test_unet_refuses_a_grid_that_it_cannot_halve() -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        UNet(1, 2, (4, 8, 16))(torch.randn((1, 1, 8, 10, 8)))
    with pytest.raises(ConfigError, match="level"):
        UNet(1, 2, ())


def test_every_parameter_of_the_unet_learns() -> None:
    network = UNet(1, 2, (4, 8))
    network(torch.randn((1, 1, 8, 8, 8))).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_signature_has_one_channel_at_an_eighth_of_the_resolution() -> None:
    network = ShapeNetwork(["a"], channels=(2, 4, 8), pose="grid")
    assert network(torch.zeros((2, 1, 16, 24, 32)), spacing_mm=SPACING).shape == (2, 1, 2, 3, 4)


def test_one_network_for_all_structures_treats_them_alike() -> None:
    network = ShapeNetwork(["a", "b"], channels=(2, 4), pose="grid")
    mask = torch.rand((1, 1, 8, 8, 8))
    signatures = network(mask.repeat(1, 2, 1, 1, 1), spacing_mm=SPACING)
    assert torch.equal(signatures[:, 0], signatures[:, 1])


def test_one_network_each_treats_structures_apart() -> None:
    network = ShapeNetwork(["a", "b"], channels=(2, 4), pose="grid", trunks=2)
    mask = torch.rand((1, 1, 8, 8, 8))
    signatures = network(mask.repeat(1, 2, 1, 1, 1), spacing_mm=SPACING)
    assert not torch.equal(signatures[:, 0], signatures[:, 1])
    alone = network.trunks[1](mask)
    assert torch.allclose(signatures[:, 1], alone[:, 0], atol=1e-6)


def test_shape_network_refuses_other_structures() -> None:
    with pytest.raises(ValueError, match="2 channels"):
        ShapeNetwork(["a"])(torch.zeros((1, 2, 8, 8, 8)), spacing_mm=SPACING)
    with pytest.raises(ConfigError, match="trunk"):
        ShapeNetwork(["a", "b"], trunks=3)


def test_distance_of_equal_signatures_is_zero_with_a_finite_gradient() -> None:
    signature = torch.rand((1, 1, 2, 2, 2), requires_grad=True)
    distance = signature_distance(signature, signature.detach().clone())
    distance.sum().backward()
    assert distance.item() == 0
    assert signature.grad is not None
    assert signature.grad.abs().max() == 0
