"""A progress bar with figures and a rate; lines now and then where no bar can be drawn."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, Task

SECONDS_BETWEEN_LINES = 60.0
"""Where a bar cannot be redrawn, as in the log of a batch system, a line is written this often."""

logger = logging.getLogger(__name__)


class ProgressBar(AbstractContextManager["ProgressBar"]):
    """A bar on standard error with the loss terms and the rate; silent when not shown.

    Where standard error is no terminal it writes a line now and then instead.
    """

    def __init__(self, title: str, *, total: int, done: int, shown: bool) -> None:
        self._progress = _bar(shown)
        self._task = self._progress.add_task(title, total=total, completed=done, figures="")
        self._title, self._total, self._done_before = title, total, done
        self._figures = ""
        self._in_lines = shown and not self._progress.console.is_terminal
        self._start = self._last_line = time.monotonic()

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def update(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        """Move the bar to `done` iterations; new figures replace those shown."""
        if figures is not None:
            self._figures = "  ".join(f"{name} {value:.3g}" for name, value in figures.items())
        self._progress.update(self._task, completed=done, figures=self._figures)
        now = time.monotonic()
        if self._in_lines and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            rate = (done - self._done_before) / (now - self._start)
            place = f"{self._title} {done}/{self._total}  {rate:.3g} it/s"
            logger.info("%s", f"{place}  {self._figures}".rstrip())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()


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
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.2f} it/s" if task.speed else "")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=Console(stderr=True),
        disable=not shown,
    )
