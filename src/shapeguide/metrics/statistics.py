"""Means, intervals and paired tests of the scores of people.

Scores of one person under several seeds or corruptions, or of several scans, are not independent.
So the bootstrap resamples people, each with all scores, and the signed-rank test is over one value
per person: the mean of the differences. Both speak of other people under these trainings; what
other trainings would give is in `interval_over_seeds`, which resamples the seeds as well.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 5000
_DRAWN_AT_ONCE = 2**22

ScoresOfPeople = NDArray[np.float64]
"""Shape (people, scores of each): infinite where a structure was missed, nan without a score."""


def finite_mean(values: NDArray[np.float64]) -> float:
    """Mean of the finite values; nan when there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def bootstrap_interval(values: NDArray[np.float64], *, seed: int) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of a mean.

    Args:
        values: Finite values of the cases, shape (N,).
        seed: Start of the resampling; the same values and seed give the same interval.

    Returns:
        Low and high end; nan for fewer than two values, which say nothing about their spread.
    """
    count = values.size
    if count < 2:
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    block = max(1, _DRAWN_AT_ONCE // count)
    for start in range(0, RESAMPLES, block):
        stop = min(start + block, RESAMPLES)
        drawn = generator.integers(count, size=(stop - start, count))
        means[start:stop] = values[drawn].mean(axis=1)
    return middle(means)


def cluster_interval(values: ScoresOfPeople, *, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the mean of all finite values over people.

    Args:
        values: Shape (people, scores of each).
        seed: Start of the resampling.

    Returns:
        Low and high end; nan for fewer than two people with a finite value.
    """
    finite = np.isfinite(values)
    kept = finite.any(axis=1)
    if kept.sum() < 2:
        return float("nan"), float("nan")
    sums = np.where(finite, values, 0.0)[kept].sum(axis=1)
    counts = finite[kept].sum(axis=1)
    drawn = times_drawn(int(kept.sum()), resamples=RESAMPLES, seed=seed)
    sums, counts = (drawn @ np.stack([sums, counts], axis=1)).T
    return middle(sums / counts)


def interval_over_seeds(
    values: ScoresOfPeople, seeds: NDArray[np.int64], *, seed: int = 0
) -> tuple[float, float]:
    """The interval of `cluster_interval` where seeds are resampled too, independently of people.

    Owen, "The pigeonhole bootstrap", 2007: it is rather too wide than too narrow.

    Args:
        values: Shape (people, scores of each).
        seeds: Seed of each score of a person, shape (scores of each,).
        seed: Start of the resampling.

    Returns:
        Low and high end; nan for fewer than two people or seeds with a finite value.
    """
    finite = np.isfinite(values)
    shown = np.where(finite, values, 0.0)
    parts = [seeds == one for one in np.unique(seeds[finite.any(axis=0)])]
    kept = finite.any(axis=1)
    if kept.sum() < 2 or len(parts) < 2:
        return float("nan"), float("nan")
    people = times_drawn(int(kept.sum()), resamples=RESAMPLES, seed=seed)
    trainings = times_drawn(len(parts), resamples=RESAMPLES, seed=seed + 1)
    sums, counts = (
        (
            (people @ np.stack([kind[kept][:, part].sum(axis=1) for part in parts], axis=1))
            * trainings
        ).sum(axis=1)
        for kind in (shown, finite.astype(np.float64))
    )
    return middle(sums[counts > 0] / counts[counts > 0])


@lru_cache(maxsize=8)
def times_drawn(count: int, *, resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each of so many is drawn in each resample with replacement.

    Args:
        count: How many there are to draw from; so many are drawn each time.
        resamples: How often they are drawn.
        seed: Start of the draws.

    Returns:
        Whole numbers, shape (resamples, count); the sum of each row is `count`. It is shared
        between calls and cannot be written to.
    """
    generator = np.random.default_rng(seed)
    shares = np.full(count, 1 / count)
    drawn = generator.multinomial(count, shares, size=resamples).astype(np.float64)
    drawn.setflags(write=False)
    return drawn


def middle(resampled: NDArray[np.float64]) -> tuple[float, float]:
    """Ends of the middle 95 % of resampled values, shape (R,)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return float(low), float(high)


def paired_differences(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    """First minus second, of any shape; infinite where one side missed, 0 where both did."""
    both_missed = np.isinf(first) & np.isinf(second)
    return np.subtract(first, second, out=np.zeros(first.shape), where=~both_missed)


def person_means(differences: ScoresOfPeople) -> NDArray[np.float64]:
    """Mean difference of each person, shape (people,); nan for a person without any.

    An infinite difference, where one side missed the structure, counts as twice the largest finite
    one: more than any other, and still something to average.
    """
    ranked = _beyond_all(differences)
    counts = (~np.isnan(ranked)).sum(axis=1)
    sums = np.nansum(ranked, axis=1)
    means = np.full(len(sums), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def signed_rank_p(differences: NDArray[np.float64]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; zeros are left out, infinities rank largest.

    Args:
        differences: Paired differences, shape (N,); infinite where one side missed.

    Returns:
        In (0, 1]; 1 when no difference is left.
    """
    left = differences[differences != 0]
    if left.size == 0:
        return 1.0
    return float(stats.wilcoxon(_beyond_all(left)).pvalue)


def signed_rank_over_people(differences: ScoresOfPeople) -> float:
    """Two-sided p of Wilcoxon's signed-rank test over the mean differences of the people."""
    means = person_means(differences)
    return signed_rank_p(means[~np.isnan(means)])


def signed_rank_over_pairs(differences: ScoresOfPeople) -> float:
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


def _beyond_all(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Differences in which an infinite one is twice as large as the largest finite one."""
    finite = np.abs(differences[np.isfinite(differences)])
    beyond = 2 * (finite.max() if finite.size and finite.max() > 0 else 1.0)
    return np.where(np.isinf(differences), np.sign(differences) * beyond, differences)
