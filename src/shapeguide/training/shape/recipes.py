"""How each objective trains: its batches, what is trained along, and the least that it needs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset

from shapeguide.errors import ConfigError
from shapeguide.models.shape_decoder import ShapeDecoder
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.training.engine.seeds import SHAPE_OBJECTIVE, Stream, first_weights, generator_for
from shapeguide.training.settings.base import affordable
from shapeguide.training.settings.groups import ShapeSettings
from shapeguide.training.shape import objectives
from shapeguide.training.shape.mask_bank import MaskBank
from shapeguide.training.shape.objectives import ShapeTerms
from shapeguide.training.shape.pairs import (
    BeforeAndAfter,
    Drawing,
    ShapeBatch,
    SurfacePairs,
    TwoViews,
)
from shapeguide.training.shape.surface_targets import people_apart
from shapeguide.vocabulary import Objective

BATCH_VOXELS = 2_000_000
"""About so many voxels of masks make a batch, at most,"""
FEWEST_CASES = 4
"""but no fewer cases than these: shapes are told apart in a batch."""

Batches = TorchDataset[ShapeBatch]
Step = Callable[[ShapeBatch, int], ShapeTerms]


class ShapeLearner(nn.Module):
    """What is trained in the shape stage: the network, and for `reconstruction` a decoder.

    Args:
        network: Masks to signatures.
        spacing_mm: Voxel spacing of the masks.
        decoder: Signatures to masks.
    """

    def __init__(
        self,
        network: ShapeNetwork,
        *,
        spacing_mm: tuple[float, float, float],
        decoder: ShapeDecoder | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.decoder = decoder
        self.spacing_mm = spacing_mm

    def forward(
        self, masks: Tensor, shape: torch.Size | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Signatures of masks; with a decoder also logits of the masks restored from them.

        Args:
            masks: Shape (B, S, I, J, K).
            shape: Spatial shape of the restored masks.
        """
        signatures: Tensor = self.network(masks, spacing_mm=self.spacing_mm)
        if self.decoder is None or shape is None:
            return signatures
        return signatures, self.decoder(signatures, shape=shape)


@dataclass(frozen=True)
class Recipe:
    """How an objective trains, and the smallest training that it makes sense for."""

    batches: Callable[[Drawing, ShapeNetwork], Batches]
    """What is drawn for a network, whose pose is fitted."""
    terms: Callable[[nn.Module, ShapeBatch], ShapeTerms]
    """What the learner makes of a batch."""
    decodes: bool = False
    fewest_cases: int = 1
    """Cases that must have each structure."""
    smallest_batch: int = 1
    because: str = "learns from label maps"


def learner_of(
    network: ShapeNetwork,
    settings: ShapeSettings,
    *,
    spacing_mm: tuple[float, float, float],
    seed: int,
) -> ShapeLearner:
    """The network and what its objective trains along with it."""
    decoder = None
    if RECIPES[settings.objective].decodes:
        with first_weights(generator_for(seed, Stream.SHAPE, SHAPE_OBJECTIVE)):
            decoder = ShapeDecoder(network.channels)
    return ShapeLearner(network, spacing_mm=spacing_mm, decoder=decoder)


def batches_of(
    network: ShapeNetwork, settings: ShapeSettings, *, bank: MaskBank, seed: int
) -> Batches:
    """The batches of the objective that the settings name.

    Args:
        network: To train, its pose fitted.
        settings: Those of the shape stage.
        bank: Masks of the training cases, on the CPU.
        seed: Seed of the training.

    Raises:
        ConfigError: If the batch is too small for the objective, or too few cases have a structure.
    """
    check_batch(settings)
    _check_cases(network, bank, settings)
    batch_size = affordable(
        settings.batch_size,
        each=bank.masks[0].numel(),
        most=BATCH_VOXELS,
        fewest=FEWEST_CASES,
    )
    drawing = Drawing(bank, batch_size, settings.maps, seed)
    return RECIPES[settings.objective].batches(drawing, network)


def step_of(wrapped: nn.Module, settings: ShapeSettings) -> Step:
    """The step of the objective that the settings name, by a learner as it is called."""
    terms = RECIPES[settings.objective].terms

    def step(batch: ShapeBatch, iteration: int) -> ShapeTerms:
        return terms(wrapped, batch)

    return step


def check_batch(settings: ShapeSettings) -> None:
    """Refuse a batch that is too small for the objective.

    Raises:
        ConfigError: If it is.
    """
    recipe = RECIPES[settings.objective]
    if settings.batch_size < recipe.smallest_batch:
        raise ConfigError(
            f"objective {settings.objective!r} {recipe.because} and needs batches of at least "
            f"{recipe.smallest_batch}, found shape.batch_size={settings.batch_size}; raise it, or "
            "choose another shape.objective"
        )


def _check_cases(network: ShapeNetwork, bank: MaskBank, settings: ShapeSettings) -> None:
    recipe = RECIPES[settings.objective]
    for name, there in zip(network.structures, bank.present().T, strict=True):
        if there.sum() < recipe.fewest_cases:
            several = "s" if recipe.fewest_cases > 1 else ""
            ways = ["leave it out", "add cases"]
            if recipe.fewest_cases > 1:
                ways.append("use the objective 'surface'")
            raise ConfigError(
                f"objective {settings.objective!r} {recipe.because} and needs at least "
                f"{recipe.fewest_cases} training case{several} with {name}, found "
                f"{int(there.sum())} of {len(there)}; {', or '.join(ways)}"
            )


def _two_views(drawing: Drawing, network: ShapeNetwork) -> Batches:
    return TwoViews(drawing)


def _surface_pairs(drawing: Drawing, network: ShapeNetwork) -> Batches:
    pose = None if network.aligned is None else copy.deepcopy(network.aligned).cpu()
    generator = generator_for(drawing.seed, Stream.SHAPE, SHAPE_OBJECTIVE)
    unit = people_apart(drawing.bank, generator=generator, pose=pose)
    return SurfacePairs(drawing, unit=unit, pose=pose)


def _before_and_after(drawing: Drawing, network: ShapeNetwork) -> Batches:
    return BeforeAndAfter(drawing, network=copy.deepcopy(network).cpu().requires_grad_(False))


def _of_views(
    objective: Callable[[Tensor, Tensor, Tensor], ShapeTerms],
) -> Callable[[nn.Module, ShapeBatch], ShapeTerms]:
    """Terms of an objective that asks for nothing but views."""

    def terms(learner: nn.Module, batch: ShapeBatch) -> ShapeTerms:
        first, second = _signatures(learner, batch)
        return objective(first, second, batch.present)

    return terms


def _surface_terms(learner: nn.Module, batch: ShapeBatch) -> ShapeTerms:
    first, second = _signatures(learner, batch)
    return objectives.surface(first, second, batch.present, _given(batch.wanted))


def _reconstruction_terms(learner: nn.Module, batch: ShapeBatch) -> ShapeTerms:
    wanted = _given(batch.wanted)
    signatures, logits = learner(batch.first, wanted.shape[2:])
    return objectives.reconstruction(signatures, logits, batch.present, wanted)


def _signatures(learner: nn.Module, batch: ShapeBatch) -> tuple[Tensor, Tensor]:
    first, second = learner(torch.cat([batch.first, _given(batch.second)])).chunk(2)
    return first, second


def _given(part: Tensor | None) -> Tensor:
    if part is None:
        raise ValueError("the batch lacks what the objective asks for; it belongs to another one")
    return part


_APART = "tells the shapes of a batch apart"
RECIPES: dict[Objective, Recipe] = {
    "pairwise": Recipe(_two_views, _of_views(objectives.pairwise)),
    "contrastive": Recipe(
        _two_views,
        _of_views(objectives.contrastive),
        fewest_cases=2,
        smallest_batch=2,
        because=_APART,
    ),
    "vicreg": Recipe(
        _two_views, _of_views(objectives.vicreg), fewest_cases=2, smallest_batch=2, because=_APART
    ),
    "reconstruction": Recipe(_before_and_after, _reconstruction_terms, decodes=True),
    "surface": Recipe(_surface_pairs, _surface_terms),
}
