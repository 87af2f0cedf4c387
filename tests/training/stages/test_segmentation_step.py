"""What one step of the segmentation stage minimises, against the published formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.losses import ShapeLoss, dice_loss
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset
from shapeguide.training.stages.segmentation_batches import LabelledImages
from shapeguide.training.stages.segmentation_step import SegmentationStep
from shapeguide.training.stages.variation import draw_warps

SPACING_MM = (1.0, 1.0, 1.0)
STRUCTURES = ("left", "right")
FIRST_GUIDED = 800
"""The paper's first iteration with a shape loss."""


class Fixed(nn.Module):
    """A segmenter that answers the same logits whatever it is shown."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1, -1, -1, -1)


def unvaried(classes: Tensor) -> LabelledImages:
    """A batch with empty images that nothing is done to."""
    generator = torch.Generator().manual_seed(0)
    warps = draw_warps(
        WarpLimits(), classes, spacing_mm=(1.0, 1.0, 1.0), share=0.0, generator=generator
    )
    return LabelledImages(torch.zeros_like(classes[:, None], dtype=torch.float32), classes, warps)


def two_blocks() -> Tensor:
    """Class indices (1, 8, 8, 8) of two blocks of different size."""
    classes = torch.zeros((1, 8, 8, 8), dtype=torch.uint8)
    classes[:, 1:4, 2:6, 2:6] = 1
    classes[:, 5:7, 3:6, 2:7] = 2
    return classes


def shape_loss_of_the_paper(settings: TrainSettings, *, size: float) -> ShapeLoss:
    """The shape loss as published, with signatures of about the given size."""
    torch.manual_seed(0)
    network = ShapeNetwork(STRUCTURES, channels=(4,), pose="grid")
    *_, head = network.trunks[0].children()
    assert isinstance(head, nn.Conv3d)
    with torch.no_grad():
        head.weight.mul_(size)
        network.calibration.fill_(7.0)  # as published, the distance is raw: this must not matter
    chosen = settings.shape_loss
    return ShapeLoss(
        network,
        spacing_mm=SPACING_MM,
        cap=chosen.cap,
        cap_form=chosen.cap_form,
        distance=chosen.distance,
    )


@pytest.mark.parametrize("size", [0.1, 100.0], ids=["below the cap", "above the cap"])
def test_a_step_of_the_paper_minimises_dice_plus_a_tenth_of_the_capped_shape_distance(
    size: float,
) -> None:
    settings = preset("paper")
    loss = shape_loss_of_the_paper(settings, size=size)
    segmenter = Fixed(torch.randn((1, 3, 8, 8, 8), generator=torch.Generator().manual_seed(1)))
    step = SegmentationStep(segmenter, SPACING_MM, settings, loss)
    classes = two_blocks()
    batch = unvaried(classes)

    logits = segmenter.logits.detach().numpy()[0]
    predicted = np.exp(logits) / np.exp(logits).sum(0)
    dice, shape, distances = 0.0, 0.0, []
    for index in (1, 2):
        m, p = (classes[0] == index).numpy().astype(np.float32), predicted[index]
        dice += (1 - 2 * (m * p).sum() / (m.sum() + p.sum())) / 2
        signatures = []
        for mask in (m, p):
            both = torch.from_numpy(np.stack([mask, mask]))[None]
            signatures.append(loss.shape_network(both, spacing_mm=SPACING_MM)[0, 0].numpy())
        distances.append(np.sqrt(((signatures[0] - signatures[1]) ** 2).sum()))
        shape += min(distances[-1], 1.0) / 2
    assert (max(distances) < 1) == (size < 1)
    assert step(batch, FIRST_GUIDED).total.item() == pytest.approx(dice + 0.1 * shape, abs=1e-5)
    assert step(batch, FIRST_GUIDED - 1).total.item() == pytest.approx(dice, abs=1e-5)


def test_above_the_cap_of_the_paper_the_step_follows_dice_alone() -> None:
    settings = preset("paper")
    loss = shape_loss_of_the_paper(settings, size=100.0)
    segmenter = Fixed(torch.randn((1, 3, 8, 8, 8), generator=torch.Generator().manual_seed(1)))
    step = SegmentationStep(segmenter, SPACING_MM, settings, loss)
    batch = unvaried(two_blocks())
    gradients = []
    for iteration in (FIRST_GUIDED - 1, FIRST_GUIDED):
        segmenter.zero_grad()
        step(batch, iteration).total.backward()
        assert segmenter.logits.grad is not None
        gradients.append(segmenter.logits.grad.clone())
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_balanced_step_gives_the_guide_its_share_of_the_gradient_of_the_base() -> None:
    settings = preset("default")
    assert settings.is_balanced
    torch.manual_seed(0)
    loss = ShapeLoss(ShapeNetwork(STRUCTURES, channels=(4,), pose="grid"), spacing_mm=SPACING_MM)
    segmenter = Fixed(torch.randn((1, 3, 8, 8, 8), generator=torch.Generator().manual_seed(1)))
    step = SegmentationStep(segmenter, SPACING_MM, settings, loss)
    terms = step(unvaried(two_blocks()), 10**6)
    base = terms.dice if terms.cross_entropy is None else terms.dice + terms.cross_entropy
    assert terms.guide is not None
    of_base, of_guide = (
        torch.autograd.grad(term, segmenter.logits, retain_graph=True)[0].norm()
        for term in (base, terms.guide)
    )
    share = settings.shape_loss.alpha
    assert (of_guide / of_base).item() == pytest.approx(share, rel=1e-3)


def test_the_background_is_no_structure_of_the_dice_term() -> None:
    settings = preset("paper")
    logits = torch.zeros((1, 3, 8, 8, 8))
    step = SegmentationStep(Fixed(logits), SPACING_MM, settings)
    classes = two_blocks()
    third = torch.full((1, 2, 8, 8, 8), 1 / 3)
    masks = torch.stack([classes == 1, classes == 2], dim=1).float()
    found = step(unvaried(classes), 0)
    assert found.dice.item() == pytest.approx(dice_loss(third, masks).item(), abs=1e-6)
