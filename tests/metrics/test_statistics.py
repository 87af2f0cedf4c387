from __future__ import annotations

import math
from math import inf, nan

import numpy as np
import pytest
from scipy import stats

from shapeguide.metrics.statistics import (
    bootstrap_interval,
    cluster_interval,
    holm,
    interval_over_seeds,
    paired_differences,
    person_means,
    signed_rank_over_pairs,
    signed_rank_over_people,
    signed_rank_p,
)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(0).normal(5, 2, 40)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_the_interval_is_close_to_the_normal_one_for_many_cases() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = bootstrap_interval(values, seed=0)
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)


def test_the_interval_does_not_depend_on_how_many_resamples_fit_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(0).normal(5, 2, 40)
    at_once = bootstrap_interval(values, seed=3)
    monkeypatch.setattr("shapeguide.metrics.statistics._DRAWN_AT_ONCE", 1000)
    assert bootstrap_interval(values, seed=3) == at_once


def test_two_cases_have_an_interval_from_the_one_to_the_other() -> None:
    assert bootstrap_interval(np.array([3.0, 1.0]), seed=0) == (1.0, 3.0)


def test_one_case_has_no_interval() -> None:
    low, high = bootstrap_interval(np.array([1.0]), seed=0)
    assert math.isnan(low)
    assert math.isnan(high)


def test_infinite_differences_only_are_still_a_test() -> None:
    assert signed_rank_p(np.full(6, -np.inf)) == pytest.approx(stats.wilcoxon(-np.ones(6)).pvalue)


def test_two_missed_cases_are_a_tie() -> None:
    differences = paired_differences(np.array([np.inf, np.inf, 1.0]), np.array([np.inf, 2.0, 3.0]))
    assert differences.tolist() == [0.0, np.inf, -2.0]


def test_holm_multiplies_the_smallest_by_all_and_never_falls() -> None:
    corrected = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(corrected, [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.9])), [1.0, 1.0])


def test_a_miss_counts_twice_the_largest_difference_in_the_mean_of_its_case() -> None:
    differences = np.array([[1.0, 3.0], [-2.0, inf], [-inf, nan], [nan, nan]])
    np.testing.assert_allclose(person_means(differences), [2.0, 2.0, -6.0, nan])


def test_seeds_of_one_case_are_no_independent_cases() -> None:
    # Six cases that all gain, each seen by ten seeds: the smallest p of six pairs is 2 / 2**6.
    differences = np.repeat(np.arange(1.0, 7)[:, None], 10, axis=1) + np.arange(10) / 100
    assert signed_rank_over_people(differences) == pytest.approx(2 / 2**6)
    assert signed_rank_over_pairs(differences) < 1e-10


def test_the_interval_resamples_people_and_not_their_scores() -> None:
    # Two cases, 0 and 1, a hundred scores each: a resample is (0, 0), (0, 1) or (1, 1).
    assert cluster_interval(np.repeat([[0.0], [1.0]], 100, axis=1)) == (0.0, 1.0)
    low, high = cluster_interval(np.arange(200.0).reshape(200, 1))
    assert low == pytest.approx(99.5 - 1.96 * 57.7 / 200**0.5, abs=0.7)
    assert high == pytest.approx(99.5 + 1.96 * 57.7 / 200**0.5, abs=0.7)


def test_one_person_has_no_interval() -> None:
    assert all(np.isnan(cluster_interval(np.array([[1.0, 2.0], [inf, nan]]))))


def test_what_only_some_trainings_gain_is_not_sure_over_seeds() -> None:
    generator = np.random.default_rng(0)
    seeds = np.repeat(np.arange(5), 2)
    by_seed = np.array([0.5, -0.4, 0.6, -0.3, 0.1])[seeds]
    values = by_seed + generator.normal(scale=0.1, size=(40, 10))
    low, high = cluster_interval(values)
    assert 0.08 < low < high < 0.12
    low_over_seeds, high_over_seeds = interval_over_seeds(values, seeds)
    assert low_over_seeds < -0.2
    assert high_over_seeds > 0.35
    same = 0.1 + generator.normal(scale=0.1, size=(40, 10))
    assert interval_over_seeds(same, seeds) == pytest.approx(cluster_interval(same), abs=0.02)
    assert np.isnan(interval_over_seeds(values, np.zeros(10, dtype=np.int64))).all()
    assert np.isnan(interval_over_seeds(values[:1], seeds)).all()
    assert np.isfinite(interval_over_seeds(values[:, :4], seeds[:4])).all()
