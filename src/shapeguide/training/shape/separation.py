"""Does the shape network know shapes? Same-case against different-case distances, and collapse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from shapeguide.models.quality import ShapeQuality
from shapeguide.models.shape_network import ShapeNetwork, signature_distance
from shapeguide.training.shape.mask_bank import MaskBank


@dataclass(frozen=True, eq=False)
class PairDistances:
    """Raw shape distances of random affine pairs of one structure."""

    structure: str
    same: Tensor
    """Pairs of one case under two warps, shape (pairs,); empty with fewer than two people."""
    different: Tensor
    """Pairs of two people, shape (pairs,)."""
    cases: Tensor
    """The case that both pairs of a row start from, shape (pairs,), from 0."""

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
    drawn = draw_views(network, bank, pairs, generator)
    return [one.pairs(pairs, generator, next_stranger) for one in drawn]


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
    drawn = draw_views(network, bank, pairs, generator)
    return [_quality_of(one.pairs(pairs, generator, next_stranger), one, held_out) for one in drawn]


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


Another = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""Draws somebody else: the cases (pairs,), who is somebody else, and the source of randomness."""


def next_stranger(case: Tensor, other: Tensor, generator: torch.Generator) -> Tensor:
    """Any other case, and where it shows the same person the next that does not."""
    cases = len(other)
    found = (case + torch.randint(1, cases, (len(case),), generator=generator)) % cases
    for _ in range(cases):
        found = torch.where(other[case, found], found, (found + 1) % cases)
    return found


def any_stranger(case: Tensor, other: Tensor, generator: torch.Generator) -> Tensor:
    """Any case of somebody else, each as likely as the others."""
    return torch.multinomial(other[case].double(), 1, generator=generator)[:, 0]


@dataclass(frozen=True, eq=False)
class Views:
    """Signatures of one structure, of the cases that have it."""

    structure: str
    signatures: Tensor
    """Shape (views, cases, i, j, k)."""
    other: Tensor
    """Whether two cases show different people, bool (cases, cases)."""

    def pairs(self, count: int, generator: torch.Generator, another: Another) -> PairDistances:
        """Distances of so many pairs of either kind; every case starts equally many, but a rest."""
        signatures, other = self.signatures, self.other
        views, cases = signatures.shape[:2]
        if not other.any():
            none = torch.empty(0)
            return PairDistances(self.structure, none, none, torch.empty(0, dtype=torch.long))
        case = torch.arange(count) % cases
        view = torch.randint(views, (count,), generator=generator)
        other_view = (view + torch.randint(1, views, (count,), generator=generator)) % views
        other_case = another(case, other, generator)
        anchor = signatures[view, case][None]
        same = signature_distance(anchor, signatures[other_view, case][None])[0]
        different = signature_distance(anchor, signatures[other_view, other_case][None])[0]
        return PairDistances(self.structure, same, different, case)

    def finds(self, *, step: int) -> Tensor:
        """Whether the nearest is the case itself, under another warp: bool (views, cases).

        Each view is searched for in the one that lies a step after it. Other scans of the same
        person are not among the candidates, and an equal distance is not a find.
        """
        signatures = self.signatures.flatten(2)
        other = self.other.to(signatures.device)
        found = []
        for queries, gallery in zip(signatures, signatures.roll(-step, 0), strict=True):
            distances = torch.cdist(queries, gallery, compute_mode="donot_use_mm_for_euclid_dist")
            nearest = distances.masked_fill(~other, torch.inf).amin(1)
            found.append(distances.diagonal() < nearest)
        return torch.stack(found)

    @property
    def spread(self) -> float:
        """Standard deviation of signatures between cases, over their mean size."""
        centres = self.signatures.mean(0)
        size = centres.flatten(1).norm(dim=1).mean().clamp(min=1e-12)
        return float((centres - centres.mean(0)).flatten(1).norm(dim=1).mean() / size)


def draw_views(
    network: ShapeNetwork, bank: MaskBank, pairs: int, generator: torch.Generator
) -> list[Views]:
    """Signatures of each structure under so many warps as the pairs take."""
    views = 1 + -(-pairs // len(bank.masks))
    signatures = torch.stack([_signatures(network, bank, generator) for _ in range(views)])
    cases = range(len(bank.masks))
    known = bank.people or tuple(map(str, cases))
    other = torch.tensor([[known[a] != known[b] for b in cases] for a in cases])
    found = []
    for s, (name, there) in enumerate(zip(network.structures, bank.present().T.cpu(), strict=True)):
        found.append(Views(name, signatures[:, there, s], other[there][:, there]))
    return found


def _quality_of(distances: PairDistances, drawn: Views, held_out: bool) -> ShapeQuality:
    """Figures of one structure."""
    name, cases = drawn.structure, drawn.signatures.shape[1]
    if not len(distances.same):
        return ShapeQuality(structure=name, cases=cases, held_out=held_out)
    return ShapeQuality(
        structure=name,
        same=float(distances.same.mean()),
        different=float(distances.different.mean()),
        ratio=distances.ratio,
        auc=distances.auc,
        signature_std=drawn.spread,
        cases=cases,
        held_out=held_out,
        rank1=float(drawn.finds(step=1).float().mean()),
    )
