"""The tidy table of a study: a row per score; and the scores of one test as arrays.

A row says of which case, structure, condition, image, post-processing and weights it is. Restored
predictions count as systems of their own, so that everything is compared in one test:
`plain+restorer` is `plain` with its predictions restored. So what a restorer gives and what the
guidance gives stand apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapeguide.metrics.statistics import paired_differences

COLUMNS = (
    *("dataset", "structure", "regime", "severity", "system", "guidance", "seed", "case"),
    *("postprocess", "dice", "hausdorff_mm", "hd95_mm", "assd_mm", "missed", "weights"),
)
"""Columns of the tidy table; `person` follows them where it says whom a case shows."""
TEXT = ("dataset", "structure", "regime", "system", "guidance", "case", "postprocess", "weights")
"""Those of text: a case may be called NA."""
MEASURED = ("dice", "hausdorff_mm", "hd95_mm", "assd_mm")
TEST = ["dataset", "structure", "regime", "severity", "postprocess", "weights"]
"""What two systems have in common when they are compared."""
CORRUPTED = "corrupted"
ANY_SEVERITY = "all"

AS_PREDICTED = "none"
LARGEST = "largest"
RESTORED = "restored"
RESTORED_ALL_MAPS = "restored_all_maps"
RESTORED_BY_SRN = "srn"
RESTORERS = {
    RESTORED: "restorer",
    RESTORED_ALL_MAPS: "restorer_all_maps",
    RESTORED_BY_SRN: "srn",
}
"""Post-processing of a row to what restored its prediction; then its largest component is kept."""
AND = "+"
"""Between the name of a system and that of what restores its predictions."""

Mask = NDArray[np.bool_]
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cube:
    """Scores of all systems in one test: of each person one for each seed, image and scan."""

    systems: tuple[str, ...]
    values: dict[str, Values]
    """Metric to shape (systems, people, scores of each); nan where there is none, infinite where a
    structure was missed."""
    missed: Mask
    """Same shape."""
    present: Mask
    """Where there is a score, same shape."""
    seeds: NDArray[np.int64]
    """Seed of each score of a person."""
    scans: NDArray[np.int64]
    """Number, within the person, of the scan of each score."""

    def of(self, system: str, metric: str) -> Values:
        """Scores of one system, shape (people, scores of each)."""
        found: Values = self.values[metric][self.systems.index(system)]
        return found

    def there(self, *systems: str) -> Mask:
        """Where all of these systems have a score, shape (people, scores of each)."""
        places = [self.systems.index(system) for system in systems]
        found: Mask = np.logical_and.reduce(self.present[places])
        return found

    def missed_by(self, system: str, where: Mask) -> int:
        """How often a system missed the structure, among the scores in the mask."""
        return int((self.missed[self.systems.index(system)] & where).sum())

    def counts(self, where: Mask) -> dict[str, int]:
        """How many cases, people and seeds the scores in the mask (people, scores) are of."""
        cases = [where[:, self.scans == scan].any(axis=1).sum() for scan in np.unique(self.scans)]
        return {
            "cases": int(sum(cases)),
            "people": int(where.any(axis=1).sum()),
            "seeds": len(np.unique(self.seeds[where.any(axis=0)])),
        }

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
    `image` tells the images of a case apart. Without a column `person` each case is a person.
    """
    if "person" not in table.columns:
        table = table.assign(person=table["case"])
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
    person, people = pd.factorize(rows["person"], sort=True)
    scan = _numbered_within(rows)
    image, images = pd.factorize(rows["image"], sort=True)
    seed, seeds = pd.factorize(rows["seed"], sort=True)
    scans = int(scan.max()) + 1
    score = (seed * len(images) + image) * scans + scan
    each = len(images) * scans
    shape = (len(names), len(people), len(seeds) * each)
    place = (system, person, score)
    values = {}
    for metric in MEASURED:
        values[metric] = np.full(shape, np.nan)
        values[metric][place] = rows[metric].to_numpy(np.float64)
    missed, present = np.zeros((2, *shape), dtype=np.bool_)
    missed[place] = rows["missed"].to_numpy(np.bool_)
    present[place] = True
    numbers = np.tile(np.arange(scans), len(seeds) * len(images))
    return Cube(names, values, missed, present, np.repeat(np.asarray(seeds), each), numbers)


def _numbered_within(rows: pd.DataFrame) -> NDArray[np.int64]:
    """Number of the case of each row among the cases of its person."""
    cases = rows[["person", "case"]].drop_duplicates().sort_values(["person", "case"])
    number = pd.Series(cases.groupby("person").cumcount().to_numpy(), index=cases["case"])
    found: NDArray[np.int64] = rows["case"].map(number).to_numpy(np.int64)
    return found


def compared_systems(table: pd.DataFrame) -> pd.DataFrame:
    """The rows, with a restored prediction as the prediction of another system.

    `restored` of `plain` becomes `largest` of `plain+restorer`, for the largest component of a
    restored prediction is kept too.

    Args:
        table: Rows of `table2.csv`; they stay as they are.
    """
    restorer = table["postprocess"].map(RESTORERS)
    restored = restorer.notna()
    named = table["system"] + AND + restorer.astype(str)
    return table.assign(
        system=table["system"].where(~restored, named),
        postprocess=table["postprocess"].where(~restored, LARGEST),
    )


def in_order(systems: Iterable[str]) -> list[str]:
    """Each name once, systems as they come, each followed by its restored variants."""
    names = list(dict.fromkeys(systems))
    first = {base: place for place, base in enumerate(dict.fromkeys(map(_base, names)))}
    variants = list(RESTORERS.values())

    def place(name: str) -> tuple[int, int]:
        restorer = name.partition(AND)[2]
        return first[_base(name)], variants.index(restorer) if restorer in variants else -1

    return sorted(names, key=place)


def _base(name: str) -> str:
    return name.partition(AND)[0]
