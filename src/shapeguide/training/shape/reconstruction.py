"""The `reconstruction` objective: a signature must tell what the mask was before its warp."""

from __future__ import annotations

import torch
from torch.nn import functional

from shapeguide.losses import dice_loss
from shapeguide.models.shape_decoder import ShapeDecoder
from shapeguide.models.shape_network import ShapeNetwork, signature_distance
from shapeguide.training.shape.bank import MaskBank
from shapeguide.training.shape.terms import ShapeTerms, mean_over
from shapeguide.vocabulary import Maps


def reconstruction_terms(
    network: ShapeNetwork,
    decoder: ShapeDecoder,
    bank: MaskBank,
    *,
    batch_size: int,
    generator: torch.Generator,
    maps: Maps = "clean",
) -> ShapeTerms:
    """Dice loss and cross-entropy of the restored mask against the mask before warp and softening.

    The mask is restored as the network's pose shows it. Since it is the one before the warp, a
    signature gains nothing from knowing the warp; a corrupted map is restored as it was corrupted,
    because the signature has to show what is wrong with it.

    Args:
        network: The network in training.
        decoder: Trained along.
        bank: Masks to draw from.
        batch_size: Masks.
        generator: Source of all randomness, on the CPU.
        maps: What the network is trained on.
    """
    shapes = bank.draw(batch_size, maps=maps, generator=generator)
    present = shapes.flatten(2).any(-1)
    with torch.no_grad():
        wanted = (network.view(shapes, spacing_mm=bank.spacing_mm) > 0.5).float()
    signatures = network(
        bank.seen(shapes, maps=maps, generator=generator), spacing_mm=bank.spacing_mm
    )
    logits = decoder(signatures, shape=wanted.shape[2:])
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    parts = {
        "dice": dice_loss(logits.sigmoid()[present][:, None], wanted[present][:, None]),
        "cross_entropy": mean_over(entropy.flatten(2).mean(-1), present),
    }
    # Neighbours in the batch are different shapes: their distance says whether signatures collapse.
    apart = signature_distance(signatures.detach(), signatures.detach().roll(1, 0)).mean()
    return ShapeTerms(parts["dice"] + parts["cross_entropy"], apart, parts)
