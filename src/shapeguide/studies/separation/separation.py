"""How well distances tell people apart: pairs, retrieval, spread, and intervals over cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from shapeguide.metrics.statistics import middle, times_drawn
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.training.shape import MaskBank
from shapeguide.training.shape.separation import any_stranger, draw_views

RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Separation:
    """Distances of random affine pairs of held-out cases, and searches among them."""

    cases: NDArray[np.int64]
    """The case that both pairs of a row start from, shape (P,), from 0."""
    same: NDArray[np.float64]
    """Raw distance of two warped copies of that case, shape (P,)."""
    different: NDArray[np.float64]
    """Raw distance of a warped copy of it and one of another case, shape (P,)."""
    found: NDArray[np.bool_]
    """Whether the nearest of the case itself and of all other people's was the case itself, shape
    (searches, cases)."""
    signature_std: float
    """Standard deviation of signatures between cases, over their mean size."""
    people: NDArray[np.int64]
    """Number of the person that each case shows, shape (cases,), from 0."""

    @property
    def ratio(self) -> float:
        """Mean distance of different cases over that of the same case; 0 when all are equal."""
        return float(self._ratios(np.ones((1, self.found.shape[1])))[0])

    @property
    def auc(self) -> float:
        """Chance that a same-case pair is closer than a different-case pair; ties count half."""
        return float(self._aucs(np.ones((1, self.found.shape[1])))[0])

    @property
    def rank1(self) -> float:
        """Share of searches that found the same case; chance is 1 over the number of cases."""
        return float(self.found.mean())

    def intervals(self, *, seed: int = 0) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals of ratio, auc and rank1 that resample people, not pairs.

        Pairs that start from one person are not independent, so a person is drawn with all of them.
        """
        count = int(self.people.max()) + 1
        weights = times_drawn(count, resamples=RESAMPLES, seed=seed)[:, self.people]
        resampled = {
            "ratio": self._ratios(weights),
            "auc": self._aucs(weights),
            "rank1": weights @ self.found.mean(axis=0) / weights.sum(axis=1),
        }
        return {name: middle(values) for name, values in resampled.items()}

    def _ratios(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Ratio under each weighting of the cases, weights (R, cases)."""
        same, different = (weights[:, self.cases] @ one for one in (self.same, self.different))
        return np.divide(different, same, out=np.zeros_like(same), where=same > 0)

    def _aucs(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """AUC under each weighting of the cases, weights (R, cases)."""
        same, different = self.same[:, None], self.different[None]
        closer = (same < different) + 0.5 * (same == different)
        rows = np.eye(weights.shape[1])[self.cases]
        by_cases = rows.T @ closer @ rows
        pairs = weights @ rows.sum(axis=0)
        wins = np.einsum("ra,ab,rb->r", weights, by_cases, weights)
        return np.asarray(wins / pairs**2, dtype=np.float64)


@torch.no_grad()
def measure_separation(
    network: ShapeNetwork, bank: MaskBank, *, pairs: int, generator: torch.Generator
) -> Separation:
    """Draw warped copies of every case and compare them, by the estimator of the training.

    Args:
        network: A trained network of one structure.
        bank: Masks of held-out cases that have it, of at least two people. Two scans of one
            person are neither a pair of two people nor a wrong find.
        pairs: Pairs of either kind; every case starts equally many, but for a rest.
        generator: Source of all randomness, on the CPU.
    """
    (views,) = draw_views(network, bank, pairs, generator)
    drawn = views.pairs(pairs, generator, any_stranger)
    return Separation(
        cases=drawn.cases.numpy(),
        same=drawn.same.cpu().double().numpy(),
        different=drawn.different.cpu().double().numpy(),
        found=views.finds(step=-1).cpu().numpy(),
        signature_std=views.spread,
        people=_people(bank),
    )


def _people(bank: MaskBank) -> NDArray[np.int64]:
    """Number of the person that each case shows; each another one where the bank does not say."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(bank.people))}
    count = len(bank.masks)
    return np.array([numbers[name] for name in bank.people] if numbers else range(count))
