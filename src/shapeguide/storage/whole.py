"""Files appear whole or not at all: written under a temporary name, then renamed.

A temporary name holds the process that writes it. What a killed process left behind is removed by
the next one that writes into the same folder.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shapeguide.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

TEMPORARY = re.compile(r"\.writing-(\d+)-")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet program takes for the start of a formula."""

_swept: set[tuple[int, Path]] = set()
_sweeping = threading.Lock()


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
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_litter(path.parent)
    handle, name = tempfile.mkstemp(
        prefix=f".writing-{os.getpid()}-", suffix="-" + path.name, dir=path.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        _to_disk(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_litter(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder; once per process."""
    with _sweeping:
        if (os.getpid(), folder) in _swept:
            return
        _swept.add((os.getpid(), folder))
    for path in folder.glob(".writing-*"):
        match = TEMPORARY.match(path.name)
        if match and not _runs(int(match.group(1))):
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with plain line ends to `path`, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON to `path`, whole or not at all; NaN is refused."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        DataError: If it cannot be read, is not UTF-8, is no JSON, or holds half a character or a
            number that no computer holds.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(content, ensure_ascii=False).encode("utf-8")  # finds lone surrogates
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {_first_line(error)}") from error
    return content


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all, without the index.

    Text that a spreadsheet program would run as a formula gets an apostrophe in front, which
    `read_table` takes away again.
    """
    safe = table.copy()
    for name in safe.columns:
        if not pd_is_number(safe[name]):
            safe[name] = safe[name].map(_as_text)
    with written_whole(path) as temporary:
        safe.to_csv(temporary, index=False, lineterminator="\n")


def read_table(path: Path, columns: Sequence[str], *, text: Sequence[str]) -> pd.DataFrame:
    """A table that `write_table` wrote.

    Args:
        path: The CSV file.
        columns: Columns that must be there.
        text: Columns that hold text: `NA`, `nan` or `null` in them are names and not missing
            values, and numbers stay as they are written.

    Raises:
        DataError: If it is damaged or lacks a column.
    """
    import pandas as pd

    try:
        raw = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
        missing = [name for name in columns if name not in raw.columns]
        if missing:
            raise ValueError(f"no column {', '.join(missing)}, found {', '.join(raw.columns)}")
        for name in raw.columns:
            if name in text:
                raw[name] = raw[name].map(_from_text)
                continue
            values = raw[name].where(raw[name] != "")
            try:
                raw[name] = pd.to_numeric(values)
            except ValueError:
                raw[name] = values.map({"True": True, "False": False}).fillna(values)
    except (OSError, ValueError, UnicodeError) as error:
        raise DataError(
            f"{path} cannot be read as a table: {_first_line(error)}; delete it, or restore it "
            "from a copy"
        ) from error
    return raw


def pd_is_number(column: pd.Series[Any]) -> bool:
    """Whether a column holds numbers or truth values only."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return bool(is_numeric_dtype(column) or is_bool_dtype(column))


def _as_text(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip("'").startswith(FORMULA_STARTS):
        return "'" + value
    return value


def _from_text(value: str) -> str:
    stripped = value[1:] if value.startswith("'") else value
    return stripped if stripped.lstrip("'").startswith(FORMULA_STARTS) else value


def _first_line(error: Exception) -> str:
    text = (str(error) or type(error).__name__).splitlines()[0]
    return text if len(text) <= 200 else text[:197] + "..."


def _to_disk(path: Path) -> None:
    """Have the content on the disk, so that a rename never outlives it."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
