"""What the commands print: results on standard output, the log and complaints on standard error."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table


def show_log() -> None:
    """Let the library's log appear on standard error."""
    handler = RichHandler(console=Console(stderr=True), show_path=False, show_level=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("shapeguide").setLevel(logging.INFO)


def tell(text: str) -> None:
    """Print a line of the result."""
    Console().print(text, highlight=False, markup=False, soft_wrap=True)


def complain(text: str) -> None:
    """Print what went wrong with one case."""
    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)


def print_table(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first row holds the headings."""
    table = Table(*rows[0], title=title)
    for row in rows[1:]:
        table.add_row(*row)
    Console().print(table)
