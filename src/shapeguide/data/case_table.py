"""A table of cases: one a row, or one channel of a case."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from shapeguide.data.description import SIDES, described_as
from shapeguide.data.label_names import names_beside
from shapeguide.data.reach import Reach
from shapeguide.errors import DataError
from shapeguide.storage.names import few, shown
from shapeguide.storage.whole import read_rows

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""Suffix of a table to what stands between its cells."""
_Row: TypeAlias = tuple[int, dict[str, str]]
"""Number of a row and its cells by column."""
COLUMNS = {
    "image": "path of the scan; empty where there is a label map alone",
    "label": "path of its label map; empty where there is none",
    "person": "whom the scan shows; empty where it is the only one of a person",
    "case": "case id; empty where it is the name of the scan",
    "split": "train or test",
    "channel": "which channel of its case this row is; then each case has a row for each of them",
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
    rows_of_cases, channels = _cases(path, list(enumerate(rows, start=1)), header)
    entries = [_entry(path, numbered_rows) for numbered_rows in rows_of_cases]
    training = [entry for entry in entries if "label" in entry]
    if not training:
        raise DataError(f"{path}: no row has a label; give the paths of label maps there")
    test = [entry for entry in entries if "label" not in entry]
    return described_as(path.stem, names_beside(reach), training, test, channels=channels)


def _cases(path: Path, rows: list[_Row], header: list[str]) -> tuple[list[list[_Row]], list[str]]:
    """The rows of each case, in the order of the channels, and the channels."""
    if "channel" not in header:
        return [[row] for row in rows], []
    if "case" not in header:
        raise DataError(f'{path}: rows of channels are put together by a column "case"; add one')
    channels = list(dict.fromkeys(row["channel"] for _, row in rows))
    cases: dict[str, dict[str, _Row]] = {}
    for number, row in rows:
        if not row["case"] or not row["channel"]:
            raise DataError(f'{path}: row {number} needs a "case" and a "channel"; fill them in')
        channels_of_case = cases.setdefault(row["case"], {})
        if row["channel"] in channels_of_case:
            raise DataError(
                f"{path}: row {number}: {shown(row['case'])} has the channel "
                f"{shown(row['channel'])} twice; leave one out"
            )
        channels_of_case[row["channel"]] = (number, row)
    for case_id, found in cases.items():
        lacking = [name for name in channels if name not in found]
        if lacking:
            raise DataError(
                f"{path}: {shown(case_id)} has no row of the channel {shown(lacking[0])}; add it, "
                "or leave the case out"
            )
    return [[found[name] for name in channels] for found in cases.values()], channels


def _entry(path: Path, rows: list[_Row]) -> dict[str, Any]:
    """One case as a description states it; empty cells state nothing."""
    number, row = _joined(path, rows)
    images = [one["image"] for _, one in rows]
    if not all(images) and (len(images) > 1 or not row["label"]):
        raise DataError(
            f"{path}: row {number} has no image; give the path of a scan, or of a label map alone"
        )
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
    entry: dict[str, Any] = {key: row[name] for name, key in keys.items() if row.get(name)}
    if len(images) > 1:
        entry["image"] = images
    if "label" not in entry:
        entry.pop("split", None)
    return entry


def _joined(path: Path, rows: list[_Row]) -> _Row:
    """One row for those of a case, which may state a thing once or each time alike."""
    number, first = rows[0]
    joined = dict(first)
    for other_number, row in rows[1:]:
        for name in set(joined) - {"image", "channel"}:
            joined[name] = joined[name] or row[name]
            if row[name] not in ("", joined[name]):
                raise DataError(
                    f"{path}: rows {number} and {other_number} are of one case and differ in "
                    f'"{name}": {shown(joined[name])} and {shown(row[name])}; correct one'
                )
    return number, joined
