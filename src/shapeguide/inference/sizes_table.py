"""The table of volumes beside predictions: how large, and how much of it a prior changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shapeguide.geometry.volume import LabelMap
from shapeguide.storage.whole import written_whole

if TYPE_CHECKING:
    import pandas as pd

VOLUMES_FILE = "volumes.csv"
COLUMNS = ["case", "structure", "volume_mm3", "restored_mm3"]


@dataclass(frozen=True)
class StructureVolume:
    """Volumes of one structure of one case."""

    volume_mm3: float
    restored_mm3: float | None
    """Of voxels that the shape restorer added or removed; none when that is not known."""


def restored_volumes_mm3(before: LabelMap, after: LabelMap) -> dict[str, float]:
    """Volume of the voxels that each structure won or lost, by its name.

    Args:
        before: Label map of a prediction.
        after: The same one restored, on the same grid and of the same structures.
    """
    return {
        structure.name: int(
            np.count_nonzero(
                np.isin(before.data, structure.label_ids)
                != np.isin(after.data, structure.label_ids)
            )
        )
        * after.grid.voxel_volume_mm3
        for structure in after.structures
    }


def write_volumes(volumes: Mapping[str, Mapping[str, StructureVolume]], path: Path) -> pd.DataFrame:
    """Write the table of volumes; rows of cases that an earlier call predicted stay in it.

    Args:
        volumes: By case and structure. A restored volume that is not known is taken from the
            earlier table, and missing where that has none either.
        path: Of the table; an earlier one may be without the column of restored volumes.
    """
    import pandas as pd

    rows = [
        (case, name, round(found.volume_mm3, 3), found.restored_mm3)
        for case, structures in volumes.items()
        for name, found in structures.items()
    ]
    table = pd.DataFrame(rows, columns=COLUMNS).astype({"restored_mm3": float})
    if path.is_file():
        earlier = pd.read_csv(path, dtype={"case": str}).reindex(columns=COLUMNS)
        known = earlier.set_index(["case", "structure"])["restored_mm3"].to_dict()
        places = list(zip(table["case"], table["structure"], strict=True))
        stated = pd.Series([known.get(place) for place in places], index=table.index, dtype=float)
        table["restored_mm3"] = table["restored_mm3"].fillna(stated)
        others = earlier[~earlier["case"].isin(table["case"])]
        table = pd.concat([others, table], ignore_index=True) if len(others) else table
    table["restored_mm3"] = table["restored_mm3"].round(3)
    with written_whole(path) as temporary:
        table.to_csv(temporary, index=False)
    return table
