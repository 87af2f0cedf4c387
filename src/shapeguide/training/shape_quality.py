"""Does the shape network know shapes? Same-case against different-case distances, and collapse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from shapeguide.models.shape_network import ShapeNetwork, signature_distance
from shapeguide.training.objectives import MaskBank

LOWEST_AUC = 0.75
LOWEST_RATIO = 1.2
SMALLEST_SPREAD = 1e-3


@dataclass(frozen=True)
class ShapeQuality:
    """How well distances tell two people from one person under two warps, for one structure."""

    structure: str
    same: float
    """Mean raw distance of affine pairs of one case."""
    different: float
    """Mean raw distance of affine pairs of two cases."""
    ratio: float
    """different / same."""
    auc: float
    """Chance that a same-case pair is closer than a different-case pair."""
    signature_std: float
    """Standard deviation of signatures between cases, over their mean size."""
    cases: int
    held_out: bool
    """Whether the cases were kept out of training."""

    @property
    def collapsed(self) -> bool:
        """Whether the network tells cases apart no better than chance would."""
        return (
            not self.auc >= LOWEST_AUC
            or not self.ratio >= LOWEST_RATIO
            or self.signature_std < SMALLEST_SPREAD
        )

    def as_row(self) -> Mapping[str, str | float | int | bool]:
        """All figures and the verdict, for a file or a table."""
        return {**asdict(self), "collapsed": self.collapsed}

    def __str__(self) -> str:
        where = "held-out" if self.held_out else "training"
        verdict = "COLLAPSED" if self.collapsed else "tells cases apart"
        return (
            f"{self.structure}: same case {self.same:.3g}, different cases {self.different:.3g}, "
            f"ratio {self.ratio:.2f}, AUC {self.auc:.3f}, "
            f"signature spread {self.signature_std:.2g}, {self.cases} {where} cases: {verdict}"
        )


@dataclass(frozen=True, eq=False)
class PairDistances:
    """Raw shape distances of random affine pairs of one structure."""

    structure: str
    same: Tensor
    """Pairs of one case under two warps, shape (pairs,); empty with fewer than two cases."""
    different: Tensor
    """Pairs of two cases, shape (pairs,)."""

    @property
    def ratio(self) -> float:
        """Mean distance of different cases over that of the same case."""
        return float(self.different.mean() / self.same.mean().clamp(min=1e-12))

    @property
    def auc(self) -> float:
        """Chance that a same-case pair is closer than a different-case pair; ties count half."""
        same, different = self.same[:, None], self.different[None]
        return float(((same < different).float() + 0.5 * (same == different)).mean())


@torch.no_grad()
def pair_distances(
    network: ShapeNetwork, bank: MaskBank, *, pairs: int, generator: torch.Generator
) -> list[PairDistances]:
    """Distances of random affine pairs of the cases in the bank, for each structure.

    Args:
        network: The trained network.
        bank: Masks of the cases to measure on.
        pairs: Pairs of either kind.
        generator: Source of all randomness, on the CPU; the same gives the pairs of
            `measure_quality`.
    """
    drawn = _draw_signatures(network, bank, pairs, generator)
    return [_pairs_of(name, signatures, pairs, generator) for name, signatures in drawn]


@torch.no_grad()
def measure_quality(
    network: ShapeNetwork,
    bank: MaskBank,
    *,
    pairs: int,
    generator: torch.Generator,
    held_out: bool,
) -> list[ShapeQuality]:
    """Distances over random affine pairs of the cases in the bank, for each structure.

    Args:
        network: The trained network.
        bank: Masks of the cases to measure on, at least two.
        pairs: Pairs of either kind.
        generator: Source of all randomness, on the CPU.
        held_out: Whether the network never saw these cases; only noted.
    """
    drawn = _draw_signatures(network, bank, pairs, generator)
    return [
        _quality_of(_pairs_of(name, signatures, pairs, generator), signatures, held_out)
        for name, signatures in drawn
    ]


def mean_distance_between_cases(
    network: ShapeNetwork, bank: MaskBank, *, pairs: int, generator: torch.Generator
) -> Tensor:
    """Mean raw distance of different-case pairs of each structure, (S,): the calibration."""
    qualities = measure_quality(network, bank, pairs=pairs, generator=generator, held_out=False)
    return torch.tensor([quality.different for quality in qualities])


def _signatures(network: ShapeNetwork, bank: MaskBank, generator: torch.Generator) -> Tensor:
    """One signature of each case and structure under a fresh warp, (N, S, i, j, k)."""
    parts = []
    for masks in bank.masks.split(8):
        warped = bank.warped(masks, generator=generator)
        parts.append(network(warped, spacing_mm=bank.spacing_mm))
    return torch.cat(parts)


def _draw_signatures(
    network: ShapeNetwork, bank: MaskBank, pairs: int, generator: torch.Generator
) -> list[tuple[str, Tensor]]:
    """Signatures (views, cases, i, j, k) of each structure, of the cases that have it."""
    views = 1 + -(-pairs // len(bank.masks))
    signatures = torch.stack([_signatures(network, bank, generator) for _ in range(views)])
    present = bank.present()
    return [(name, signatures[:, present[:, s], s]) for s, name in enumerate(network.structures)]


def _pairs_of(
    name: str, signatures: Tensor, pairs: int, generator: torch.Generator
) -> PairDistances:
    """Distances from signatures (views, cases, i, j, k) of one structure."""
    views, cases = signatures.shape[:2]
    if cases < 2:
        return PairDistances(name, torch.empty(0), torch.empty(0))
    case = torch.arange(pairs) % cases
    view = torch.randint(views, (pairs,), generator=generator)
    other_view = (view + torch.randint(1, views, (pairs,), generator=generator)) % views
    other_case = (case + torch.randint(1, cases, (pairs,), generator=generator)) % cases
    anchor = signatures[view, case][None]
    same = signature_distance(anchor, signatures[other_view, case][None])[0]
    different = signature_distance(anchor, signatures[other_view, other_case][None])[0]
    return PairDistances(name, same, different)


def _quality_of(distances: PairDistances, signatures: Tensor, held_out: bool) -> ShapeQuality:
    """Figures of one structure from its distances and signatures (views, cases, i, j, k)."""
    name, cases = distances.structure, signatures.shape[1]
    if cases < 2:
        return ShapeQuality(name, 0.0, 0.0, 0.0, 0.0, 0.0, cases, held_out)
    centres = signatures.mean(0)
    size = centres.flatten(1).norm(dim=1).mean().clamp(min=1e-12)
    spread = (centres - centres.mean(0)).flatten(1).norm(dim=1).mean() / size
    return ShapeQuality(
        structure=name,
        same=float(distances.same.mean()),
        different=float(distances.different.mean()),
        ratio=distances.ratio,
        auc=distances.auc,
        signature_std=float(spread),
        cases=cases,
        held_out=held_out,
    )
