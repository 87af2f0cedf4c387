"""Means, intervals and paired tests where a case is seen by several seeds.

Scores of one case under several seeds or corruptions are not independent. So the bootstrap
resamples cases, each with all its scores, and the signed-rank test is over one value per case: the
mean of its differences.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from shapeguide.metrics.summary import CONFIDENCE, RESAMPLES, signed_rank_p

Scores = NDArray[np.float64]
"""Shape (cases, scores of each): infinite where a structure was missed, nan without a score."""


def cluster_interval(values: Scores, *, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the mean of all finite values.

    Args:
        values: Shape (cases, scores of each).
        seed: Of the resampling.

    Returns:
        Low and high end; nan for fewer than two cases with a finite value.
    """
    finite = np.isfinite(values)
    kept = finite.any(axis=1)
    if kept.sum() < 2:
        return float("nan"), float("nan")
    sums = np.where(finite, values, 0.0)[kept].sum(axis=1)
    counts = finite[kept].sum(axis=1)
    sums, counts = (_draws(int(kept.sum()), seed) @ np.stack([sums, counts], axis=1)).T
    means = sums / counts
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


@lru_cache(maxsize=8)
def _draws(count: int, seed: int) -> NDArray[np.float64]:
    """How often each case is drawn in each resample, shape (RESAMPLES, count)."""
    generator = np.random.default_rng(seed)
    shares = np.full(count, 1 / count)
    return generator.multinomial(count, shares, size=RESAMPLES).astype(np.float64)


def finite_mean(values: Scores) -> float:
    """Mean of the finite values; nan when there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def case_means(differences: Scores) -> NDArray[np.float64]:
    """Mean difference of each case over its seeds, shape (cases,); nan for a case without any.

    An infinite difference, where one side missed the structure, counts as twice the largest finite
    one: more than any other, and still something to average.
    """
    finite = np.abs(differences[np.isfinite(differences)])
    beyond = 2 * (finite.max() if finite.size and finite.max() > 0 else 1.0)
    ranked = np.where(np.isinf(differences), np.sign(differences) * beyond, differences)
    counts = (~np.isnan(ranked)).sum(axis=1)
    sums = np.nansum(ranked, axis=1)
    means = np.full(len(sums), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def signed_rank_over_cases(differences: Scores) -> float:
    """Two-sided p of Wilcoxon's signed-rank test over the mean differences of the cases."""
    means = case_means(differences)
    return signed_rank_p(means[~np.isnan(means)])


def signed_rank_over_pairs(differences: Scores) -> float:
    """Two-sided p over all pairs as if they were independent; they are not, so it is too small."""
    return signed_rank_p(differences[~np.isnan(differences)])


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's correction for so many tests at once, shape (N,): each at most 1.

    Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    order = np.argsort(p, kind="stable")
    scaled = np.minimum(p[order] * (len(p) - np.arange(len(p))), 1.0)
    corrected = np.empty_like(scaled)
    corrected[order] = np.maximum.accumulate(scaled)
    return corrected
