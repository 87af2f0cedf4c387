"""From the scores of every case to the summary and the paired comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapeguide.experiments.table2.statistics import (
    cluster_interval,
    finite_mean,
    holm,
    signed_rank_over_cases,
    signed_rank_over_pairs,
)
from shapeguide.experiments.table2.systems import PLAIN
from shapeguide.metrics.summary import HIGHER_IS_BETTER, paired_differences

METRICS = ("dice", "hausdorff_mm", "hd95_mm", "assd_mm")
TEST = ["dataset", "structure", "regime", "severity", "postprocess", "weights"]
"""What two systems have in common when they are compared."""
CORRUPTED = "corrupted"
ANY_SEVERITY = "all"
GUIDED = "shape"
SCORE = ["seed", "image"]
"""What tells the scores of one case under one system apart."""


def with_pooled(table: pd.DataFrame) -> pd.DataFrame:
    """The rows, and the degraded ones twice more: over severities, and over all corruptions.

    The regime of the latter is `all+corrupted` for `all`; the severity of both is `all`. The column
    `image` tells the images of a case apart.
    """
    parts = table["regime"].str.partition("+")
    trained, corruption = parts[0], parts[2]
    steps = table["severity"].astype(str)
    rows = table.assign(severity=steps, image=corruption + steps)
    degraded = corruption != ""
    if not degraded.any():
        return rows
    per_corruption = rows[degraded].assign(severity=ANY_SEVERITY)
    pooled = per_corruption.assign(regime=trained[degraded] + f"+{CORRUPTED}")
    return pd.concat([rows, per_corruption, pooled], ignore_index=True)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over cases, seeds and images, per test, system and metric.

    A missed structure has Dice 0, which enters the mean, and infinite distances, which do not: they
    are counted in `missed`.

    Args:
        table: Rows of `table2.csv`.

    Returns:
        The columns that name a test, then system, metric, mean, low, high (95 % bootstrap interval
        that resamples cases), median, count (values that these are over), missed, cases, seeds.
    """
    rows = []
    for named, group in _groups(with_pooled(table), [*TEST, "system"]):
        for metric in METRICS:
            values = _by_case(group, metric)
            low, high = cluster_interval(values)
            finite = values[np.isfinite(values)]
            rows.append(
                {
                    **named,
                    "metric": metric,
                    "mean": finite_mean(values),
                    "low": low,
                    "high": high,
                    "median": float(np.median(finite)) if finite.size else float("nan"),
                    "count": int(finite.size),
                    "missed": int(group["missed"].sum()),
                    "cases": int(group["case"].nunique()),
                    "seeds": int(group["seed"].nunique()),
                }
            )
    return pd.DataFrame(rows)


def comparisons(table: pd.DataFrame) -> pd.DataFrame:
    """Every system against the plain one, and the shape-guided one against every rival.

    Both sides share cases, seeds and images. `p` is of Wilcoxon's signed-rank test over one value
    per case, the mean of its differences, for the scores of one case are not independent; `p_pairs`
    takes them as if they were. `p_holm` corrects `p` for all comparisons of the table,
    `p_holm_test` for those of one test and metric.

    Args:
        table: Rows of `table2.csv`.

    Returns:
        The columns that name a test, then first, second, metric, mean_first, mean_second,
        mean_difference (first minus second, where both found the structure), low, high (95 %
        bootstrap interval that resamples cases), p, p_holm, p_holm_test, p_pairs, wins, losses,
        ties (cases, of the first), pairs, cases, seeds, missed_first, missed_second. No rows when
        there is nothing to compare.
    """
    rows = []
    for named, group in _groups(with_pooled(table), TEST):
        systems = {str(name): rows for name, rows in group.groupby("system", sort=False)}
        for first, second in pairs_to_compare(list(systems)):
            joined = joined_pairs(systems[first], systems[second])
            if joined.empty:
                continue
            for metric in METRICS:
                compared = _compared(joined, metric)
                rows.append({**named, "first": first, "second": second, **compared})
    found = pd.DataFrame(rows)
    if found.empty:
        return found
    found["p_holm"] = holm(found["p"].to_numpy(np.float64))
    within = found.groupby([*TEST, "metric"], sort=False)["p"]
    found["p_holm_test"] = within.transform(lambda p: holm(p.to_numpy(np.float64)))
    return found


def pairs_to_compare(systems: Sequence[str]) -> list[tuple[str, str]]:
    """Which systems are compared: all against the plain one, the shape-guided one against all."""
    against_plain = [(name, PLAIN) for name in systems if name != PLAIN and PLAIN in systems]
    against_rivals = [
        (GUIDED, name) for name in systems if name not in (GUIDED, PLAIN) and GUIDED in systems
    ]
    return against_plain + against_rivals


def joined_pairs(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Rows of the same case, seed and image side by side, suffixed `_first` and `_second`."""
    columns = ["case", *SCORE, *METRICS, "missed"]
    return first[columns].merge(
        second[columns], on=["case", *SCORE], suffixes=("_first", "_second"), validate="1:1"
    )


def differences(joined: pd.DataFrame, metric: str) -> NDArray[np.float64]:
    """First minus second by case, shape (cases, scores of each); nan where there is no pair."""
    found = paired_differences(
        joined[f"{metric}_first"].to_numpy(np.float64),
        joined[f"{metric}_second"].to_numpy(np.float64),
    )
    return _by_case(joined.assign(difference=found), "difference")


def finite_differences(joined: pd.DataFrame, metric: str) -> NDArray[np.float64]:
    """First minus second where both found the structure, shape as `differences`; nan elsewhere."""
    first = joined[f"{metric}_first"].to_numpy(np.float64)
    second = joined[f"{metric}_second"].to_numpy(np.float64)
    both = np.isfinite(first) & np.isfinite(second)
    found = np.subtract(first, second, out=np.full(len(joined), np.nan), where=both)
    return _by_case(joined.assign(difference=found), "difference")


def _compared(joined: pd.DataFrame, metric: str) -> dict[str, object]:
    found = differences(joined, metric)
    first = joined[f"{metric}_first"].to_numpy(np.float64)
    second = joined[f"{metric}_second"].to_numpy(np.float64)
    both = np.isfinite(first) & np.isfinite(second)
    measured = finite_differences(joined, metric)
    low, high = cluster_interval(measured)
    gains = np.nansum(np.sign(found), axis=1) * (1 if metric in HIGHER_IS_BETTER else -1)
    return {
        "metric": metric,
        "mean_first": finite_mean(first[both]),
        "mean_second": finite_mean(second[both]),
        "mean_difference": finite_mean(measured),
        "low": low,
        "high": high,
        "p": signed_rank_over_cases(found),
        "p_pairs": signed_rank_over_pairs(found),
        "wins": int((gains > 0).sum()),
        "losses": int((gains < 0).sum()),
        "ties": int((gains == 0).sum()),
        "pairs": len(joined),
        "cases": int(joined["case"].nunique()),
        "seeds": int(joined["seed"].nunique()),
        "missed_first": int(joined["missed_first"].sum()),
        "missed_second": int(joined["missed_second"].sum()),
    }


def _groups(
    table: pd.DataFrame, columns: list[str]
) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    for key, group in table.groupby(columns, sort=False):
        yield dict(zip(columns, key, strict=True)), group


def _by_case(group: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """Values of a column, shape (cases, scores of each), cases in order of their ids."""
    cases, case_ids = pd.factorize(group["case"], sort=True)
    places = group.groupby(cases).cumcount().to_numpy()
    values = np.full((len(case_ids), int(places.max()) + 1), np.nan)
    values[cases, places] = group[column].to_numpy(np.float64)
    return values
