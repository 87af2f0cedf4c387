"""What the commands print: results on standard output, the log and complaints on standard error."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from shapeguide.launch import is_first


def show_log() -> None:
    """Let the library's log appear on standard error."""
    handler = RichHandler(console=Console(stderr=True), show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("shapeguide").setLevel(logging.INFO if is_first() else logging.WARNING)
    # Fabric says by itself what the stages say in their own words.
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)


def tell(text: str) -> None:
    """Print a line of the result; of several processes, the first does."""
    if is_first():
        Console().print(text, highlight=False, markup=False, soft_wrap=True)


def complain(text: str) -> None:
    """Print what went wrong with one case."""
    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)


def print_table(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Print a table, as wide as it must be; the first row holds the headings.

    A name that repeats the one above it in the first column is left out.
    """
    console = Console()
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    for heading in rows[0]:
        table.add_column(heading, no_wrap=True)
    above = ""
    for name, *values in rows[1:]:
        table.add_row("" if name == above else name, *values)
        above = name
    width = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    console.width = max(console.width, width)
    console.print(table, highlight=False)
