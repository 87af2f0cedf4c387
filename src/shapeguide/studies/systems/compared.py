"""Restored predictions as systems of their own, so that everything is compared in one test.

`plain+restorer` is `plain` with its predictions restored. So what a restorer gives and what the
guidance gives stand apart.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

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
