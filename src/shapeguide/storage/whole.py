"""Files appear whole or not at all: written under a temporary name, then renamed.

What a killed process left behind is removed by the next one that writes into the same folder.
"""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from shapeguide.errors import DataError, reason
from shapeguide.storage.litter import remove_litter, temporary_beside
from shapeguide.storage.processes import WINDOWS

if TYPE_CHECKING:
    import pandas as pd

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\n")
"""What a spreadsheet program takes for the start of a formula."""
WAITS_S = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Pauses before Windows is asked again to rename onto a file that another program holds open."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; rename it to `path` on success.

    The temporary name keeps all suffixes of `path`, for writers that look at them. Its content is
    on the disk before it takes the final name. When the block raises, the temporary file is removed
    and an older `path` stays untouched.

    Args:
        path: Final path; missing parent folders are made.

    Yields:
        The temporary path, in the same folder.

    Raises:
        OSError: If it cannot be written; on Windows also while another program has `path` open.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_litter(path.parent)
    temporary = temporary_beside(path)
    temporary.open("xb").close()
    try:
        yield temporary
        _to_disk(temporary)
        _rename(temporary, path)
        _folder_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with plain line ends to `path`, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON to `path`, whole or not at all.

    Raises:
        DataError: If it holds what `read_json` refuses: a number that is not finite, or half a
            character.
    """
    try:
        text = json.dumps(content, indent=2, allow_nan=False)
        json.dumps(content, ensure_ascii=False).encode("utf-8")  # finds lone surrogates
    except ValueError as error:
        raise DataError(f"{path} cannot be written as JSON: {reason(error)}") from error
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Content of a JSON file; a byte order mark in front is passed by.

    Raises:
        DataError: If it cannot be read, or as `parse_json`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {reason(error)}") from error
    return parse_json(text, path)


def parse_json(text: str, source: Path | str) -> Any:
    """Content of JSON text, stricter than Python's own reader.

    Args:
        text: The text.
        source: Where it comes from, for messages.

    Raises:
        DataError: If it is no JSON, is nested too deeply, states a name twice in one object, or
            holds half a character, NaN, Infinity, a whole number of more than 64 bits or another
            number beyond what a float64 holds.
    """
    try:
        content = json.loads(
            text,
            parse_int=_whole_number,
            parse_float=_finite_number,
            parse_constant=_no_number,
            object_pairs_hook=_object,
        )
        json.dumps(content, ensure_ascii=False).encode("utf-8")  # finds lone surrogates
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source} cannot be read as JSON: {reason(error)}") from error
    return content


def write_table(path: Path, table: pd.DataFrame, *, digits: int | None = None) -> None:
    """Write a table as CSV, whole or not at all, without the index.

    Missing values become empty cells. Text that a spreadsheet program would run as a formula gets
    an apostrophe in front, which `read_table` takes away again; line ends in text become plain.

    Args:
        path: The file.
        table: The table; its index is left out.
        digits: Significant digits of numbers that are not whole; all that they have when not given.
    """
    shown = None if digits is None else f"%.{digits}g"
    safe = table.copy()
    for name in safe.columns:
        if not _is_number(safe[name]):
            safe[name] = safe[name].map(_as_text)
    with written_whole(path) as temporary:
        safe.to_csv(
            temporary, index=False, lineterminator="\n", encoding="utf-8", float_format=shown
        )


def read_table(path: Path, columns: Sequence[str], *, text: Sequence[str]) -> pd.DataFrame:
    """A table that `write_table` wrote.

    Columns of numbers and of truth values come back as such where every filled cell is one, with
    empty cells as missing values; every other column is text with missing values.

    Args:
        path: The CSV file; a byte order mark in front is passed by.
        columns: Columns that must be there.
        text: Columns that hold text: `NA`, `nan` or `null` in them are names and not missing
            values, numbers stay as they are written, and an empty cell is an empty text.

    Raises:
        DataError: If it is damaged or lacks a column.
    """
    import pandas as pd

    try:
        header, *rows = _cells(path, columns, ",")
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read as a table: {reason(error)}; delete it, or restore it "
            "from a copy"
        ) from error
    table = pd.DataFrame(rows, columns=header, dtype=object)
    for name in header:
        table[name] = table[name].map(_from_text)
        if name not in text:
            table[name] = _typed(table[name])
    return table


def read_rows(
    path: Path, columns: Sequence[str], *, delimiter: str = ","
) -> tuple[list[str], list[dict[str, str]]]:
    """The columns and the rows of a table that someone else wrote, all of it text.

    Text is understood as in `read_table`, spaces around it are taken away, and rows without any are
    passed over.

    Args:
        path: The table, in UTF-8; a byte order mark in front is passed by.
        columns: Columns that must be there.
        delimiter: What stands between cells.

    Raises:
        DataError: If it cannot be read, rows have unequal lengths, or a column is missing or there
            twice.
    """
    try:
        header, *rows = _cells(path, columns, delimiter)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text ({reason(error)}); save the table as UTF-8"
        ) from error
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table: {reason(error)}; correct it") from error
    texts = ([_from_text(cell).strip() for cell in row] for row in rows)
    return header, [dict(zip(header, row, strict=True)) for row in texts if any(row)]


def _cells(path: Path, columns: Sequence[str], delimiter: str) -> list[list[str]]:
    """The header and the rows; raises ValueError where they are not what was written."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        cells = [row for row in csv.reader(file, delimiter=delimiter, strict=True) if row]
    header = cells[0] if cells else []
    missing = [name for name in columns if name not in header]
    if missing:
        hint = (
            " (cells are separated by semicolons: save it with commas)"
            if (len(header) == 1 and ";" in header[0])
            else ""
        )
        raise ValueError(f"no column {', '.join(missing)}, found {', '.join(header)}{hint}")
    if len(set(header)) != len(header):
        raise ValueError(f"two columns have one name: {', '.join(header)}")
    for number, row in enumerate(cells):
        if len(row) != len(header):
            raise ValueError(f"row {number} has {len(row)} cells, expected {len(header)}")
    return cells or [[]]


def _typed(column: pd.Series[Any]) -> pd.Series[Any]:
    """Cells as numbers or truth values where every filled one is one; empty cells are missing."""
    import pandas as pd

    filled = column.where(column != "")
    with suppress(ValueError, OverflowError):
        return pd.to_numeric(filled)
    truths = filled.map({"True": True, "False": False})
    return truths if truths.isna().equals(filled.isna()) else filled


def _is_number(column: pd.Series[Any]) -> bool:
    """Whether a column holds numbers or truth values only."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return bool(is_numeric_dtype(column) or is_bool_dtype(column))


def _as_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    return "'" + text if text.lstrip("'").startswith(FORMULA_STARTS) else text


def _from_text(value: str) -> str:
    stripped = value.removeprefix("'")
    return stripped if stripped.lstrip("'").startswith(FORMULA_STARTS) else value


def _whole_number(digits: str) -> int:
    number = int(digits)
    if not -(2**63) <= number < 2**64:
        raise ValueError(f"{digits[:20]}... is a whole number of more than 64 bits")
    return number


def _finite_number(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:20]} is larger than any float64")
    return number


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON; write null")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name!r} stands twice in one object")
        found[name] = value
    return found


def _rename(temporary: Path, path: Path) -> None:
    for wait_s in WAITS_S if WINDOWS else ():
        with suppress(PermissionError):
            os.replace(temporary, path)
            return
        time.sleep(wait_s)
    os.replace(temporary, path)


def _to_disk(path: Path) -> None:
    """Have the content on the disk, so that a rename never outlives it."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _folder_to_disk(folder: Path) -> None:
    """Have the rename on the disk too, where the platform lets a folder be opened."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
