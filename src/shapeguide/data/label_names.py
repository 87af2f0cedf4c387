"""Names of labels from the tables that lie beside scans: `label_names.csv` and `*_dseg.tsv`."""

from __future__ import annotations

import csv
from pathlib import Path

from shapeguide.data.reach import Reach
from shapeguide.errors import DataError, reason

LABEL_NAMES_FILE = "label_names.csv"


def names_beside(reach: Reach) -> dict[str, str]:
    """Label id to name from the `label_names.csv` of a folder; nothing where it has none.

    Raises:
        DataError: If the table cannot be read, or leads out of the folder.
    """
    path = reach.folder / LABEL_NAMES_FILE
    if not path.is_file():
        return {}
    reach.check(path)
    return names_from_csv(path)


def names_from_csv(path: Path) -> dict[str, str]:
    """Label id to name from the first two columns; lines that begin with no number are passed over.

    Raises:
        DataError: If the table cannot be read.
    """
    rows = [row for row in _rows(path, ",") if len(row) > 1]
    return {row[0].strip(): row[1].strip() for row in rows if _is_id(row[0].strip())}


def names_from_dseg(path: Path) -> dict[str, str]:
    """Label id to name from the columns "index" and "name" of a table of BIDS.

    Raises:
        DataError: If the table cannot be read, lacks a column, or an index is no label id.
    """
    rows = _rows(path, "\t")
    header = rows[0] if rows else []
    if not {"index", "name"} <= set(header):
        found = ", ".join(name[:20] for name in header[:10]) or "none"
        raise DataError(f'{path}: the columns "index" and "name" expected, found {found}')
    index, name = header.index("index"), header.index("name")
    names: dict[str, str] = {}
    for row in rows[1:]:
        if len(row) <= max(index, name) or not row[index].strip():
            continue
        label_id = row[index].strip()
        if not _is_id(label_id):
            raise DataError(f'{path}: "index" holds label ids, found {label_id[:20]!r}')
        names[label_id] = row[name].strip() or label_id
    return names


def _rows(path: Path, delimiter: str) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.reader(file, delimiter=delimiter))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text ({reason(error)}); save the table as UTF-8"
        ) from error
    except (OSError, csv.Error) as error:
        raise DataError(
            f"{path}: cannot be read as a table ({reason(error)}); correct it"
        ) from error


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10
