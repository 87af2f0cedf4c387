"""Renew the tables of the findings page: prose by hand, tables from result files.

    python docs/build/findings.py docs/results/* --out docs/findings.md

A page is ordinary Markdown with marked blocks, each on lines of its own:

    <!-- table2:task04 regime=few3 postprocess=largest -->
    ...
    <!-- end -->

What stands between the marks is replaced by the table `table2` of the results folder named
`task04`, of which the words that follow choose rows: `column=value`, several values with commas.
Marks inside fenced code are left alone.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from findings_tables import TABLES, Table
from shapeguide.errors import ConfigError, DataError, ShapeguideError
from shapeguide.storage.whole import write_text

OPENING = re.compile(r"^<!--\s*(?P<kind>\w+):(?P<words>\S.*?)\s*-->\s*$")
CLOSING = re.compile(r"^<!--\s*end\s*-->\s*$")
CLOSE_IT = "close it with <!-- end -->"
FENCE = re.compile(r"^\s*(```|~~~)")


@dataclass(frozen=True)
class Block:
    """What the opening mark of a block asks for."""

    place: str
    """Page and line, for messages."""
    kind: str
    folder: str
    """Name of the results folder."""
    rows: Mapping[str, tuple[str, ...]]
    """Values to keep, by column."""


def renew_findings(page: str | PathLike[str], results: Sequence[str | PathLike[str]]) -> int:
    """Renew the tables of a page from results folders; a second call changes nothing.

    Args:
        page: The Markdown page.
        results: Results folders of studies; blocks name them by the folders' names.

    Returns:
        How many tables the page has.

    Raises:
        DataError: If the page or a result file is missing, or a table has no such column or rows.
        ConfigError: If a block is unknown or not closed, or names a folder that was not given.
    """
    path = Path(page)
    try:
        before = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); write the page with its blocks first"
        ) from error
    folders = _by_name([Path(folder) for folder in results])
    count = 0
    lines: list[str] = []
    for part in _parts(path, before.split("\n")):
        if isinstance(part, str):
            lines.append(part)
        else:
            lines += ["", *_rendered(part, folders), ""]
            count += 1
    after = "\n".join(lines)
    if after != before:
        write_text(path, after)
    return count


def _parts(path: Path, lines: Sequence[str]) -> Iterator[str | Block]:
    """The lines outside of blocks and the marks, with a block in place of what is to be renewed."""
    fence = ""
    opened: Block | None = None
    for number, line in enumerate(lines, start=1):
        place = f"{path}, line {number}"
        mark = FENCE.match(line)
        if mark and opened is None and fence in ("", mark[1]):
            fence = "" if fence else mark[1]
        opening = None if fence else OPENING.match(line)
        closing = not fence and CLOSING.match(line)
        if opened and opening:
            raise ConfigError(
                f"{opened.place}: the block is not closed before the next; {CLOSE_IT}"
            )
        if closing and not opened:
            raise ConfigError(f"{place}: an end without a block; remove it or open a block")
        if opening:
            opened = _block(place, opening["kind"], opening["words"])
            yield line
            yield opened
        elif closing:
            opened = None
            yield line
        elif not opened:
            yield line
    if opened:
        raise ConfigError(f"{opened.place}: the block is not closed; {CLOSE_IT}")


def _block(place: str, kind: str, words: str) -> Block:
    if kind not in TABLES:
        raise ConfigError(f"{place}: unknown block {kind!r}; known are {', '.join(TABLES)}")
    try:
        folder, *filters = shlex.split(words)
    except ValueError as error:
        raise ConfigError(f"{place}: {words!r} cannot be read ({error}); close the quotes") from (
            error
        )
    rows = {}
    for word in filters:
        column, equals, values = word.partition("=")
        if not (column and equals and values) or column in rows:
            raise ConfigError(
                f"{place}: {word!r} does not choose rows; write column=value once for each column"
            )
        rows[column] = tuple(values.split(","))
    return Block(place, kind, folder, rows)


def _by_name(results: Sequence[Path]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for folder in results:
        name = folder.resolve().name
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such results folder; run the study first")
        if name in folders and folders[name].resolve() != folder.resolve():
            raise ConfigError(
                f"{folders[name]} and {folder} have the same name, and blocks name folders by it; "
                "rename one"
            )
        folders[name] = folder
    return folders


def _rendered(block: Block, folders: Mapping[str, Path]) -> list[str]:
    """Lines of the block's table."""
    if block.folder not in folders:
        raise ConfigError(
            f"{block.place}: no results folder {block.folder} was given; "
            f"given are {', '.join(folders) or 'none'}"
        )
    table = TABLES[block.kind]
    tables = [_read(block, folders[block.folder], table)]
    for name in table.beside:
        path = folders[block.folder] / name
        tables.append(_read_csv(block, path) if path.is_file() else pd.DataFrame())
    return table.render(*tables)


def _read(block: Block, folder: Path, table: Table) -> pd.DataFrame:
    """The chosen rows of the table that a block asks for."""
    path = folder / table.file
    if not path.is_file():
        raise DataError(f"{block.place}: {path} is missing; finish the study first")
    content = _read_csv(block, path)
    for column, values in block.rows.items():
        if column not in content.columns:
            raise DataError(
                f"{block.place}: {path} has no column {column}; "
                f"it has {', '.join(map(str, content.columns))}"
            )
        kept = content[_among(content[column], values)]
        if kept.empty:
            there = ", ".join(str(value) for value in content[column].unique()[:10])
            raise DataError(
                f"{block.place}: no row of {path} has {column}={','.join(values)}; there: {there}"
            )
        content = kept
    if content.empty:
        raise DataError(f"{block.place}: {path} has no rows; finish the study first")
    return content


def _read_csv(block: Block, path: Path) -> pd.DataFrame:
    try:
        # A system may be called "none"; only an empty field is no value.
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise DataError(f"{block.place}: {path} cannot be read ({error})") from error


def _among(column: pd.Series[Any], values: Sequence[str]) -> pd.Series[bool]:
    """Which entries are one of the values; numbers are compared as numbers."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        numbers = pd.to_numeric(pd.Series(values), errors="coerce")
        return column.isin(numbers.dropna())
    return column.astype(str).isin(values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Renew a page from the command line; 0 done, 2 refused with a message."""
    parser = argparse.ArgumentParser(description="Renew the tables of a findings page.")
    parser.add_argument("results", nargs="+", type=Path, help="results folders of studies")
    parser.add_argument("--out", type=Path, default=Path("docs/findings.md"), help="the page")
    given = parser.parse_args(arguments)
    try:
        count = renew_findings(given.out, given.results)
    except ShapeguideError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{count} tables of {given.out} stand as the results say")
    return 0


if __name__ == "__main__":
    sys.exit(main())
