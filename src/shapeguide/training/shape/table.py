"""Which objectives there are, and what each needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from shapeguide.errors import ConfigError
from shapeguide.models.shape_decoder import ShapeDecoder
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.training.engine.seeds import first_weights
from shapeguide.training.settings.groups import ShapeSettings
from shapeguide.training.shape.bank import MaskBank
from shapeguide.training.shape.pairs import contrastive_terms, pairwise_terms, vicreg_terms
from shapeguide.training.shape.reconstruction import reconstruction_terms
from shapeguide.training.shape.surface import people_apart, surface_terms
from shapeguide.training.shape.terms import Objective, ShapeTerms

Prepare = Callable[[ShapeNetwork, MaskBank, ShapeSettings, torch.Generator], Objective]


@dataclass(frozen=True)
class ObjectiveKind:
    """How an objective is made ready, and the smallest training that it makes sense for."""

    prepare: Prepare
    fewest_cases: int = 1
    """Cases that must have each structure."""
    smallest_batch: int = 1
    because: str = ""


def prepare_objective(
    network: ShapeNetwork, bank: MaskBank, settings: ShapeSettings, generator: torch.Generator
) -> Objective:
    """The objective that the settings name, for this network and these masks.

    Args:
        network: The network to train.
        bank: Masks of the training cases.
        settings: Of the shape stage.
        generator: Source of what is drawn once, before the first iteration.

    Raises:
        ConfigError: If the batch is too small for the objective, or too few cases have a structure.
    """
    kind = OBJECTIVES[settings.objective]
    check_batch(settings)
    for name, there in zip(network.structures, bank.present().T, strict=True):
        if there.sum() < kind.fewest_cases:
            raise ConfigError(
                f"objective {settings.objective!r} {kind.because} and needs at least "
                f"{kind.fewest_cases} training cases with {name}, found {int(there.sum())} of "
                f"{len(there)}; leave {name} out, add cases, or use the objective 'surface'"
            )
    return kind.prepare(network, bank, settings, generator)


def check_batch(settings: ShapeSettings) -> None:
    """Refuse a batch that is too small for the objective.

    Raises:
        ConfigError: If it is.
    """
    kind = OBJECTIVES[settings.objective]
    if settings.batch_size < kind.smallest_batch:
        raise ConfigError(
            f"objective {settings.objective!r} {kind.because} and needs batches of at least "
            f"{kind.smallest_batch}, found shape.batch_size={settings.batch_size}; raise it, or "
            "choose another shape.objective"
        )


def _of_pairs(terms: Callable[..., ShapeTerms]) -> Prepare:
    """An objective that needs nothing but masks."""

    def prepare(
        network: ShapeNetwork, bank: MaskBank, settings: ShapeSettings, generator: torch.Generator
    ) -> Objective:
        return Objective(_ready(partial(terms, network, bank), settings))

    return prepare


def _reconstruction(
    network: ShapeNetwork, bank: MaskBank, settings: ShapeSettings, generator: torch.Generator
) -> Objective:
    with first_weights(generator):
        decoder = ShapeDecoder(network.channels).to(bank.masks.device)
    return Objective(
        _ready(partial(reconstruction_terms, network, decoder, bank), settings), companion=decoder
    )


def _surface(
    network: ShapeNetwork, bank: MaskBank, settings: ShapeSettings, generator: torch.Generator
) -> Objective:
    unit = people_apart(bank, generator=generator, pose=network.aligned)
    return Objective(_ready(partial(surface_terms, network, bank, unit=unit), settings))


def _ready(
    terms: Callable[..., ShapeTerms], settings: ShapeSettings
) -> Callable[[torch.Generator], ShapeTerms]:
    def draw(generator: torch.Generator) -> ShapeTerms:
        return terms(batch_size=settings.batch_size, maps=settings.maps, generator=generator)

    return draw


_APART = "tells the shapes of a batch apart"
OBJECTIVES: dict[str, ObjectiveKind] = {
    "pairwise": ObjectiveKind(_of_pairs(pairwise_terms)),
    "contrastive": ObjectiveKind(_of_pairs(contrastive_terms), 2, 2, _APART),
    "vicreg": ObjectiveKind(_of_pairs(vicreg_terms), 2, 2, _APART),
    "reconstruction": ObjectiveKind(_reconstruction),
    "surface": ObjectiveKind(_surface),
}
