"""From the scores of every case to the summary and the paired comparisons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapeguide.metrics.metric import METRICS
from shapeguide.metrics.statistics import (
    ScoresOfPeople,
    cluster_interval,
    finite_mean,
    holm,
    interval_over_seeds,
    signed_rank_over_pairs,
    signed_rank_over_people,
)
from shapeguide.studies.scores import (
    AND,
    MEASURED,
    RESTORED,
    RESTORERS,
    TEST,
    Cube,
    compared_systems,
    cubes,
)
from shapeguide.studies.systems.systems import GUIDED, GUIDED_ALL_MAPS, OTHERS, PLAIN

DEFAULTS = tuple(f"{name}{AND}{RESTORERS[RESTORED]}" for name in (GUIDED, GUIDED_ALL_MAPS))
"""The forms of the method that a user gets: guided, and restored."""


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over scans, seeds and images, per test, system and metric.

    A missed structure has Dice 0, which enters the mean, and infinite distances, which do not: they
    are counted in `missed`. Degraded images are summed up once more over severities, with severity
    `all`, and over all corruptions, with a regime such as `all+corrupted`, at each severity and
    over all. Systems with restored predictions stand among those with the largest component kept,
    as `plain+restorer`.

    Args:
        table: Rows of `table2.csv`.

    Returns:
        The columns that name a test, then system, metric, mean, low, high (95 % bootstrap interval
        that resamples people), median, count (values that these are over), missed, cases, people,
        seeds.
    """
    rows = []
    for named, cube in cubes(compared_systems(table)):
        for system in cube.systems:
            there = cube.there(system)
            counts = {"missed": cube.missed_by(system, there), **cube.counts(there)}
            for metric in MEASURED:
                rows.append({**named, "system": system, **_mean_of(cube, system, metric), **counts})
    return pd.DataFrame(rows)


def comparisons(table: pd.DataFrame) -> pd.DataFrame:
    """Every system against the plain one, and the shape-guided ones against every rival.

    Systems with restored predictions are compared as in `summary`; `pairs_to_compare` says which
    pairs. Both sides share cases, seeds and images. `p` is of Wilcoxon's signed-rank test over one
    value per person, the mean of the differences, for the scores of one person are not independent;
    `p_pairs` takes them as if they were. `p_holm` corrects `p` for all comparisons of the table,
    `p_holm_test` for those of one test and metric.

    Args:
        table: Rows of `table2.csv`.

    Returns:
        The columns that name a test, then first, second, metric, mean_first, mean_second,
        mean_difference (first minus second, where both found the structure), low, high (95 %
        bootstrap interval that resamples people), low_over_seeds, high_over_seeds (one that
        resamples people and seeds), p, p_pairs, wins, losses, ties (people, of the first), pairs,
        cases, people, seeds, missed_first, missed_second, p_holm, p_holm_test. No rows when there
        is nothing to compare.
    """
    rows = []
    for named, cube in cubes(compared_systems(table)):
        for first, second in pairs_to_compare(cube.systems):
            both = cube.there(first, second)
            if not both.any():
                continue
            counts = {
                "pairs": int(both.sum()),
                **cube.counts(both),
                "missed_first": cube.missed_by(first, both),
                "missed_second": cube.missed_by(second, both),
            }
            for metric in MEASURED:
                compared = _compared(cube, first, second, metric)
                rows.append({**named, "first": first, "second": second, **compared, **counts})
    found = pd.DataFrame(rows)
    if found.empty:
        return found
    found["p_holm"] = holm(found["p"].to_numpy(np.float64))
    within = found.groupby([*TEST, "metric"], sort=False)["p"]
    found["p_holm_test"] = within.transform(lambda p: holm(p.to_numpy(np.float64)))
    return found


def pairs_to_compare(systems: Sequence[str]) -> list[tuple[str, str]]:
    """Which systems are compared, each pair once.

    All against the plain one; the default forms, guided and restored, against all but each other;
    the guided one without a restorer against all; every restored one against itself without; other
    segmenters that are guided, and the published one, against themselves without guidance.
    """
    defaults = [name for name in DEFAULTS if name in systems]
    rivals = [name for name in systems if name not in (PLAIN, *defaults)]
    pairs = [(name, PLAIN) for name in systems if name != PLAIN and PLAIN in systems]
    if GUIDED in systems:
        pairs += [(GUIDED, name) for name in rivals if name != GUIDED]
    pairs += [(name, rival) for name in defaults for rival in rivals]
    restored = [(name, name.partition(AND)[0]) for name in systems if AND in name]
    pairs += [(name, base) for name, base in restored if base in systems]
    for name in systems:
        system = OTHERS.get(name.partition(AND)[0])
        if system is not None and system.unguided in systems and system.unguided != name:
            pairs.append((name, system.unguided))
    return list(dict.fromkeys(pairs))


def _mean_of(cube: Cube, system: str, metric: str) -> dict[str, object]:
    values = cube.of(system, metric)
    low, high = cluster_interval(values)
    finite = values[np.isfinite(values)]
    return {
        "metric": metric,
        "mean": finite_mean(values),
        "low": low,
        "high": high,
        "median": float(np.median(finite)) if finite.size else float("nan"),
        "count": int(finite.size),
    }


def difference(
    measured: ScoresOfPeople, differences: ScoresOfPeople, seeds: NDArray[np.int64]
) -> dict[str, float]:
    """Mean difference of two sides, its intervals over people and over seeds too, and its p.

    Args:
        measured: First minus second where both found the structure, nan elsewhere, shape (people,
            scores of each).
        differences: The same with the infinite ones of structures that one side missed.
        seeds: Seed of each score of a person.
    """
    low, high = cluster_interval(measured)
    low_over_seeds, high_over_seeds = interval_over_seeds(measured, seeds)
    return {
        "mean_difference": finite_mean(measured),
        "low": low,
        "high": high,
        "low_over_seeds": low_over_seeds,
        "high_over_seeds": high_over_seeds,
        "p": signed_rank_over_people(differences),
    }


def _compared(cube: Cube, first: str, second: str, metric: str) -> dict[str, object]:
    differences = cube.differences(first, second, metric)
    measured = cube.finite_differences(first, second, metric)
    both = np.isfinite(measured)
    gains = np.nansum(np.sign(differences), axis=1) * (
        1 if METRICS[metric].higher_is_better else -1
    )
    compared = (~np.isnan(differences)).any(axis=1)
    return {
        "metric": metric,
        "mean_first": finite_mean(cube.of(first, metric)[both]),
        "mean_second": finite_mean(cube.of(second, metric)[both]),
        **difference(measured, differences, cube.seeds),
        "p_pairs": signed_rank_over_pairs(differences),
        "wins": int((gains > 0).sum()),
        "losses": int((gains < 0).sum()),
        "ties": int((compared & (gains == 0)).sum()),
    }
