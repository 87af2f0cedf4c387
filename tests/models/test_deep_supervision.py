"""Deep supervision: answers at lower resolutions in training, the segmenter alone afterwards."""

from __future__ import annotations

import pytest
import torch

from shapeguide.models.deep_supervision import (
    DeeplySupervised,
    deeply_supervised,
    tensors_of_segmenter,
    trained_segmenter,
)
from shapeguide.models.levels import EncoderDecoder
from shapeguide.models.segmenter import build_segmenter


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("unet3d", (4, 6, 8, 10)),
        ("unet3d_blocks", (1, 4, 6, 8, 10)),
        ("vnet", (4, 6, 8, 10)),
    ],
)
def test_each_resolution_but_the_lowest_answers_in_training_and_the_first_in_evaluation(
    name: str,
    channels: tuple[int, ...],
) -> None:
    segmenter = build_segmenter(name, channels, classes=3)
    assert isinstance(segmenter, EncoderDecoder)
    learner = DeeplySupervised(segmenter)
    images = torch.randn(2, 1, 16, 16, 32)
    first, second, third = learner(images)
    assert first.shape == (2, 3, 16, 16, 32)
    assert second.shape == (2, 3, 8, 8, 16)
    assert third.shape == (2, 3, 4, 4, 8)
    assert torch.equal(first, segmenter(images))
    assert torch.equal(learner.eval()(images), segmenter(images))


def test_what_is_left_of_a_learner_is_its_segmenter_under_its_own_names() -> None:
    segmenter = build_segmenter("unet3d", (4, 6, 8), classes=2)
    assert isinstance(segmenter, EncoderDecoder)
    learner = DeeplySupervised(segmenter)
    assert trained_segmenter(learner) is segmenter
    assert trained_segmenter(segmenter) is segmenter
    own = tensors_of_segmenter(learner, learner.state_dict())
    assert own.keys() == segmenter.state_dict().keys()
    assert len(learner.state_dict()) > len(own)
    assert tensors_of_segmenter(segmenter, own) == own


@pytest.mark.parametrize(
    ("name", "channels"), [("fcn", (4, 6, 8)), ("unet2d", (4, 6, 8)), ("unet3d", (4, 6))]
)
def test_a_network_without_a_lower_resolution_on_its_way_up_stays_as_it_is(
    name: str, channels: tuple[int, ...]
) -> None:
    segmenter = build_segmenter(name, channels, classes=2)
    assert deeply_supervised(segmenter) is segmenter


def test_other_networks_are_deeply_supervised() -> None:
    assert isinstance(
        deeply_supervised(build_segmenter("vnet", (4, 6, 8), classes=2)), DeeplySupervised
    )
