"""The scores of one test as arrays: systems by cases by the scores of each case."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapeguide.experiments.table2.compared import in_order
from shapeguide.metrics.summary import paired_differences

METRICS = ("dice", "hausdorff_mm", "hd95_mm", "assd_mm")
TEST = ["dataset", "structure", "regime", "severity", "postprocess", "weights"]
"""What two systems have in common when they are compared."""
CORRUPTED = "corrupted"
ANY_SEVERITY = "all"

Mask = NDArray[np.bool_]
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cube:
    """Scores of all systems in one test; a case has one score for each seed and image."""

    systems: tuple[str, ...]
    values: dict[str, Values]
    """Metric to shape (systems, cases, scores of each); nan where there is none, infinite where a
    structure was missed."""
    missed: Mask
    """Same shape."""
    present: Mask
    """Where there is a score, same shape."""
    seeds: NDArray[np.int64]
    """Seed of each score of a case."""

    def of(self, system: str, metric: str) -> Values:
        """Scores of one system, shape (cases, scores of each)."""
        found: Values = self.values[metric][self.systems.index(system)]
        return found

    def there(self, *systems: str) -> Mask:
        """Where all of these systems have a score, shape (cases, scores of each)."""
        places = [self.systems.index(system) for system in systems]
        found: Mask = np.logical_and.reduce(self.present[places])
        return found

    def missed_by(self, system: str, where: Mask) -> int:
        """How often a system missed the structure, among the scores in the mask."""
        return int((self.missed[self.systems.index(system)] & where).sum())

    def differences(self, first: str, second: str, metric: str) -> Values:
        """First minus second: infinite where one side missed, 0 where both did, nan for no pair."""
        both = self.there(first, second)
        found = paired_differences(self.of(first, metric), self.of(second, metric))
        return np.where(both, found, np.nan)

    def finite_differences(self, first: str, second: str, metric: str) -> Values:
        """First minus second where both found the structure, nan elsewhere."""
        one, other = self.of(first, metric), self.of(second, metric)
        both = np.isfinite(one) & np.isfinite(other)
        found = np.full(one.shape, np.nan)
        np.subtract(one, other, out=found, where=both)
        return found


def cubes(table: pd.DataFrame) -> Iterator[tuple[dict[str, object], Cube]]:
    """Every test of a table, and its scores.

    Args:
        table: Rows of `table2.csv`.

    Yields:
        The values of the columns `TEST`, and the scores.
    """
    pooled = with_pooled(table)
    for key, rows in pooled.groupby(TEST, sort=False):
        yield dict(zip(TEST, key, strict=True)), _cube(rows)


def with_pooled(table: pd.DataFrame) -> pd.DataFrame:
    """The rows, and the degraded ones again: over severities, and over all corruptions.

    The regime of the latter is `all+corrupted` for `all`. Over severities the severity is `all`;
    where there are several, all corruptions are put together at each of them too. The column
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
    regime = trained[degraded] + f"+{CORRUPTED}"
    pooled = [per_corruption, per_corruption.assign(regime=regime)]
    if steps[degraded].nunique() > 1:
        pooled.append(rows[degraded].assign(regime=regime))
    return pd.concat([rows, *pooled], ignore_index=True)


def _cube(rows: pd.DataFrame) -> Cube:
    names = tuple(in_order(rows["system"].astype(str)))
    system = pd.Index(names).get_indexer(pd.Index(rows["system"]))
    case, cases = pd.factorize(rows["case"], sort=True)
    image, images = pd.factorize(rows["image"], sort=True)
    seed, seeds = pd.factorize(rows["seed"], sort=True)
    score = seed * len(images) + image
    shape = (len(names), len(cases), len(seeds) * len(images))
    place = (system, case, score)
    values = {}
    for metric in METRICS:
        values[metric] = np.full(shape, np.nan)
        values[metric][place] = rows[metric].to_numpy(np.float64)
    missed, present = np.zeros((2, *shape), dtype=np.bool_)
    missed[place] = rows["missed"].to_numpy(np.bool_)
    present[place] = True
    return Cube(names, values, missed, present, np.repeat(np.asarray(seeds), len(images)))
