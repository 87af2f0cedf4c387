"""A progress bar with figures and a rate; lines now and then where no bar can be drawn."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shapeguide.launch import is_first

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.progress import Progress, Task
    from rich.text import Text

SECONDS_BETWEEN_LINES = 60.0
"""Where a bar cannot be redrawn, as in the log of a batch system, a line is written this often."""
SECONDS_OF_RATE = 300.0
"""The rate is that of the last minutes, which must hold some of the slowest iterations."""

logger = logging.getLogger(__name__)


class ProgressBar(AbstractContextManager["ProgressBar"]):
    """A bar on standard error with the loss terms and the rate; silent when not shown.

    Title, bar, count, rate and time left are always there; the figures get the room that is left on
    the line. Where standard error is no terminal it writes a line now and then instead.
    """

    def __init__(self, title: str, *, total: int, done: int, shown: bool) -> None:
        shown = shown and is_first()
        self._progress = _bar(shown)
        self._task = self._progress.add_task(title, total=total, completed=done, figures=Figures())
        self._title, self._total, self._done_before = title, total, done
        self._done = done
        self._figures = Figures()
        self._in_lines = shown and not self._progress.console.is_terminal
        self._start = self._last_line = time.monotonic()

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def update(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        """Move the bar to `done` iterations; new figures replace those shown."""
        self._done = done
        if figures is not None:
            self._figures = Figures(tuple(f"{name} {v:.3g}" for name, v in figures.items()))
        self._progress.update(self._task, completed=done, figures=self._figures)
        now = time.monotonic()
        if self._in_lines and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            rate = (done - self._done_before) / (now - self._start)
            place = f"{self._title} {done}/{self._total}  {rate:.3g} it/s"
            logger.info("%s", "  ".join((place, *self._figures.words)))

    def advance(self) -> None:
        """Move the bar by one."""
        self.update(self._done + 1)

    def say(self, text: str) -> None:
        """Print a line above the bar, or in the log where there is none."""
        if self._progress.disable or self._in_lines:
            logger.warning("%s", text)
        else:
            self._progress.console.print(text, highlight=False, markup=False)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


@dataclass(frozen=True)
class Figures:
    """Names with their values, of which as many are shown as fit on the line."""

    words: tuple[str, ...] = ()

    def fitting(self, width: int) -> str:
        """The first of them, whole, in at most so many characters."""
        shown = ""
        for word in self.words:
            longer = f"{shown}  {word}" if shown else word
            if len(longer) > width:
                break
            shown = longer
        return shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Text]:
        from rich.text import Text

        yield Text(self.fitting(options.max_width), no_wrap=True, end="")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.measure import Measurement

        return Measurement(0, min(len("  ".join(self.words)), options.max_width))


def _bar(shown: bool) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.2f} it/s" if task.speed else "")

    class FiguresColumn(ProgressColumn):
        def render(self, task: Task) -> Figures:
            found: Figures = task.fields["figures"]
            return found

    # A table takes room from the columns that may wrap before it takes any from the others.
    whole = Column(no_wrap=True)
    return Progress(
        TextColumn("{task.description}", table_column=whole),
        BarColumn(bar_width=15, table_column=whole),
        MofNCompleteColumn(table_column=whole),
        RateColumn(table_column=whole),
        TimeRemainingColumn(table_column=whole),
        FiguresColumn(table_column=Column()),
        console=Console(stderr=True),
        disable=not shown,
        speed_estimate_period=SECONDS_OF_RATE,
    )
