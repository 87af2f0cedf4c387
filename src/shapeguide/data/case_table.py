"""A table of cases: one a row, with the columns image, label, person, case and split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shapeguide.data.description import SIDES, described_as
from shapeguide.data.label_names import names_beside
from shapeguide.data.reach import Reach
from shapeguide.errors import DataError
from shapeguide.storage.names import few, shown
from shapeguide.storage.whole import read_rows

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""Suffix of a table to what stands between its cells."""
COLUMNS = {
    "image": "path of the scan",
    "label": "path of its label map; empty where there is none",
    "person": "whom the scan shows; empty where it is the only one of a person",
    "case": "case id; empty where it is the name of the scan",
    "split": "train or test",
}


def is_table(path: Path) -> bool:
    """Whether a path is named like a table of cases."""
    return path.suffix.lower() in DELIMITERS


def describe_table(reach: Reach, path: Path) -> dict[str, Any]:
    """Description of the cases of a table; label names are those of a `label_names.csv` beside it.

    Args:
        reach: The folder of the table, which its paths start from.
        path: The table, with commas or, as .tsv, tabs between cells.

    Raises:
        DataError: If it cannot be read, has an unknown column or no label map, or a row has no
            image or another split.
    """
    reach.check(path)
    header, rows = read_rows(path, ["image", "label"], delimiter=DELIMITERS[path.suffix.lower()])
    unknown = [name for name in header if name not in COLUMNS]
    if unknown:
        raise DataError(
            f"{path}: unknown columns {few(list(map(shown, unknown)))}; known are "
            f"{', '.join(f'{name} ({meaning})' for name, meaning in COLUMNS.items())}; rename "
            "them or leave them out"
        )
    entries = [_entry(path, number, row) for number, row in enumerate(rows, start=1)]
    training = [entry for entry in entries if "label" in entry]
    if not training:
        raise DataError(f"{path}: no row has a label; give the paths of label maps there")
    test = [entry for entry in entries if "label" not in entry]
    return described_as(path.stem, names_beside(reach), training, test)


def _entry(path: Path, number: int, row: dict[str, str]) -> dict[str, Any]:
    """One case as a description states it; empty cells state nothing."""
    if not row["image"]:
        raise DataError(f"{path}: row {number} has no image; give the path of a scan")
    if "split" in row and row["split"] not in SIDES:
        raise DataError(
            f'{path}: row {number} has the split {shown(row["split"])}; expected "train" or "test"'
        )
    if row.get("split") == "train" and not row["label"]:
        raise DataError(
            f"{path}: row {number} is for training and has no label; give the path of its label "
            "map, or leave the row out"
        )
    keys = {"image": "image", "label": "label", "person": "group", "case": "id", "split": "split"}
    entry = {key: row[name] for name, key in keys.items() if row.get(name)}
    if "label" not in entry:
        entry.pop("split", None)
    return entry
