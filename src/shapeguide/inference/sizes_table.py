"""The table of volumes beside predictions: how large, how much a restorer changed, who made it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shapeguide.errors import DataError
from shapeguide.storage.whole import read_table, write_table

if TYPE_CHECKING:
    import pandas as pd

VOLUMES_FILE = "volumes.csv"
COLUMNS = ["case", "structure", "volume_mm3", "found", "restored_mm3", "model"]
STORED = [name for name in COLUMNS if name != "found"]
"""What rows hold; the rest follows from it."""
TEXT = ["case", "structure", "model"]


class SizesTable:
    """Rows of cases and structures; those of earlier calls stay.

    Args:
        path: The table; an earlier one is read.

    Raises:
        DataError: If it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, dict[str, dict[str, Any]]] = {}
        earlier = _read(path)
        for values in zip(*(earlier[name] for name in STORED), strict=True):
            row = dict(zip(STORED, values, strict=True))
            self._rows.setdefault(row["case"], {})[row["structure"]] = row

    def put(
        self,
        case: str,
        volumes_mm3: Mapping[str, float],
        changed_mm3: Mapping[str, float],
        model: str,
    ) -> None:
        """Replace the rows of a case.

        Args:
            case: Its id.
            volumes_mm3: Volume of each structure, by name.
            changed_mm3: Volume of the voxels that a restorer added or took away; where a structure
                is not among them, what the earlier row states stays.
            model: What made the label map, as `predictions.json` names it.
        """
        earlier = self._rows.get(case, {})
        self._rows[case] = {
            name: {
                "case": case,
                "structure": name,
                "volume_mm3": round(volume_mm3, 3),
                "restored_mm3": (
                    round(changed_mm3[name], 3)
                    if name in changed_mm3
                    else earlier.get(name, {}).get("restored_mm3")
                ),
                "model": model,
            }
            for name, volume_mm3 in volumes_mm3.items()
        }

    def drop(self, case: str) -> None:
        """Remove the rows of a case."""
        self._rows.pop(case, None)

    def table(self) -> pd.DataFrame:
        """All rows."""
        import pandas as pd

        rows = [row for structures in self._rows.values() for row in structures.values()]
        table = pd.DataFrame(rows, columns=STORED)
        table = table.astype({"volume_mm3": float, "restored_mm3": float})
        return table.assign(found=table["volume_mm3"] > 0)[COLUMNS]

    def write(self) -> None:
        """Write the table whole."""
        write_table(self.path, self.table())


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    if not path.is_file():
        return pd.DataFrame(columns=STORED)
    # Tables of older versions lack the last columns.
    table = read_table(path, STORED[:3], text=TEXT).reindex(columns=STORED)
    for name in ("volume_mm3", "restored_mm3"):
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise DataError(
                f"{path} cannot be read as a table: {name} holds something that is no number; "
                "delete it, or restore it from a copy"
            )
    return table
