"""Does the shape network know shapes? Same-case against different-case distances, and collapse."""

from __future__ import annotations

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
    return [_pairs_of(one, pairs, generator) for one in drawn]


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
    return [_quality_of(_pairs_of(one, pairs, generator), one, held_out) for one in drawn]


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


@dataclass(frozen=True, eq=False)
class _Views:
    """Signatures of one structure, of the cases that have it."""

    structure: str
    signatures: Tensor
    """Shape (views, cases, i, j, k)."""
    other: Tensor
    """Whether two cases show different people, bool (cases, cases)."""


def _draw_signatures(
    network: ShapeNetwork, bank: MaskBank, pairs: int, generator: torch.Generator
) -> list[_Views]:
    """Signatures of each structure under so many warps as the pairs take."""
    views = 1 + -(-pairs // len(bank.masks))
    signatures = torch.stack([_signatures(network, bank, generator) for _ in range(views)])
    cases = range(len(bank.masks))
    known = bank.people or tuple(map(str, cases))
    other = torch.tensor([[known[a] != known[b] for b in cases] for a in cases])
    found = []
    for s, (name, there) in enumerate(zip(network.structures, bank.present().T.cpu(), strict=True)):
        found.append(_Views(name, signatures[:, there, s], other[there][:, there]))
    return found


def _pairs_of(drawn: _Views, pairs: int, generator: torch.Generator) -> PairDistances:
    """Distances of pairs drawn from the signatures of one structure."""
    signatures, other = drawn.signatures, drawn.other
    views, cases = signatures.shape[:2]
    if not other.any():
        return PairDistances(drawn.structure, torch.empty(0), torch.empty(0))
    case = torch.arange(pairs) % cases
    view = torch.randint(views, (pairs,), generator=generator)
    other_view = (view + torch.randint(1, views, (pairs,), generator=generator)) % views
    other_case = (case + torch.randint(1, cases, (pairs,), generator=generator)) % cases
    # Two scans of one person are no pair of two people: the next case that is somebody else.
    for _ in range(cases):
        other_case = torch.where(other[case, other_case], other_case, (other_case + 1) % cases)
    anchor = signatures[view, case][None]
    same = signature_distance(anchor, signatures[other_view, case][None])[0]
    different = signature_distance(anchor, signatures[other_view, other_case][None])[0]
    return PairDistances(drawn.structure, same, different)


def _quality_of(distances: PairDistances, drawn: _Views, held_out: bool) -> ShapeQuality:
    """Figures of one structure."""
    name, cases = drawn.structure, drawn.signatures.shape[1]
    if not len(distances.same):
        return ShapeQuality(structure=name, cases=cases, held_out=held_out)
    centres = drawn.signatures.mean(0)
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
        rank1=_rank1(drawn),
    )


def _rank1(drawn: _Views) -> float:
    """Share of searches in which the nearest is the case itself, under another warp.

    Each view is searched for in the next. Other scans of the same person are not among the
    candidates, and an equal distance is not a find.
    """
    signatures = drawn.signatures.flatten(2)
    other = drawn.other.to(signatures.device)
    found = []
    for queries, gallery in zip(signatures, signatures.roll(-1, 0), strict=True):
        distances = torch.cdist(queries, gallery, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distances.masked_fill(~other, torch.inf).amin(1)
        found.append((distances.diagonal() < nearest).float())
    return float(torch.cat(found).mean())
