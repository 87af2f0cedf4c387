"""Means, intervals and paired tests where a person is seen by several seeds.

Scores of one person under several seeds or corruptions, or of several scans, are not independent.
So the bootstrap resamples people, each with all scores, and the signed-rank test is over one value
per person: the mean of the differences. Both speak of other people under these trainings; what
other trainings would give is in `interval_over_seeds`, which resamples the seeds as well.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from shapeguide.metrics.summary import CONFIDENCE, RESAMPLES, signed_rank_p

Scores = NDArray[np.float64]
"""Shape (people, scores of each): infinite where a structure was missed, nan without a score."""


def cluster_interval(values: Scores, *, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the mean of all finite values.

    Args:
        values: Shape (people, scores of each).
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
    return _middle(sums / counts)


def interval_over_seeds(
    values: Scores, seeds: NDArray[np.int64], *, seed: int = 0
) -> tuple[float, float]:
    """As `cluster_interval`, where seeds are resampled too, independently of people.

    Owen, "The pigeonhole bootstrap", 2007: it is rather too wide than too narrow.

    Args:
        values: Shape (people, scores of each).
        seeds: Of each score of a person.
        seed: Of the resampling.

    Returns:
        Low and high end; nan for fewer than two people or seeds with a finite value.
    """
    finite = np.isfinite(values)
    shown = np.where(finite, values, 0.0)
    parts = [seeds == one for one in np.unique(seeds[finite.any(axis=0)])]
    kept = finite.any(axis=1)
    if kept.sum() < 2 or len(parts) < 2:
        return float("nan"), float("nan")
    people, trainings = _draws(int(kept.sum()), seed), _draws(len(parts), seed + 1)
    sums, counts = (
        (
            (people @ np.stack([kind[kept][:, part].sum(axis=1) for part in parts], axis=1))
            * trainings
        ).sum(axis=1)
        for kind in (shown, finite.astype(np.float64))
    )
    return _middle(sums[counts > 0] / counts[counts > 0])


def _middle(means: NDArray[np.float64]) -> tuple[float, float]:
    """Ends of the middle 95 % of resampled means."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


@lru_cache(maxsize=8)
def _draws(count: int, seed: int) -> NDArray[np.float64]:
    """How often each is drawn in each resample, shape (RESAMPLES, count)."""
    generator = np.random.default_rng(seed)
    shares = np.full(count, 1 / count)
    return generator.multinomial(count, shares, size=RESAMPLES).astype(np.float64)


def finite_mean(values: Scores) -> float:
    """Mean of the finite values; nan when there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def person_means(differences: Scores) -> NDArray[np.float64]:
    """Mean difference of each person, shape (people,); nan for a person without any.

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


def signed_rank_over_people(differences: Scores) -> float:
    """Two-sided p of Wilcoxon's signed-rank test over the mean differences of the people."""
    means = person_means(differences)
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
