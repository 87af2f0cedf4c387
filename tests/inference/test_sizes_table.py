"""The table of volumes: what it holds, what stays of earlier calls, what it is read back as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shapeguide.errors import DataError
from shapeguide.inference.sizes_table import COLUMNS, SizesTable


def rows(table: SizesTable) -> list[list[object]]:
    found = table.table()
    assert list(found.columns) == COLUMNS
    return [[None if value != value else value for value in row] for row in found.to_numpy()]


def test_an_empty_table_has_its_columns_and_no_row(tmp_path: Path) -> None:
    found = SizesTable(tmp_path / "v.csv").table()
    assert list(found.columns) == COLUMNS
    assert found.empty
    assert found.dtypes[["volume_mm3", "restored_mm3"]].tolist() == [np.float64] * 2


def test_what_is_written_is_read_back_and_other_cases_stay(tmp_path: Path) -> None:
    first = SizesTable(tmp_path / "v.csv")
    first.put("001", {"horn": 12.34567, "body": 3.0}, {"horn": 0.5, "body": 0.0}, "m1")
    first.put("NA", {"horn": 1.0}, {}, "m1")
    first.write()
    again = SizesTable(tmp_path / "v.csv")
    kept = [
        ["001", "horn", 12.346, True, 0.5, "m1"],
        ["001", "body", 3.0, True, 0.0, "m1"],
        ["NA", "horn", 1.0, True, None, "m1"],
    ]
    assert rows(again) == kept
    # A structure whose change is not told keeps the one that was told before.
    again.put("001", {"horn": 20.0}, {}, "m2")
    again.drop("NA")
    again.drop("nobody")
    assert rows(again) == [["001", "horn", 20.0, True, 0.5, "m2"]]
    assert rows(SizesTable(tmp_path / "v.csv")) == kept


def test_a_table_with_words_for_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    path.write_text("case,structure,volume_mm3\na,horn,large\n")
    with pytest.raises(DataError, match="volume_mm3 holds something that is no number"):
        SizesTable(path)
