"""What a training tells while it runs: a line per interval, TensorBoard, a progress bar."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from shapeguide.files import write_text

if TYPE_CHECKING:
    from rich.progress import Progress, Task
    from torch.utils.tensorboard import SummaryWriter

LOG_FILE = "log.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
SECONDS_BETWEEN_LINES = 60.0
"""Where a bar cannot be redrawn, as in the log of a batch system, a line is written this often."""

logger = logging.getLogger(__name__)


class TrainingLog(AbstractContextManager["TrainingLog"]):
    """Figures of a training, by iteration: one JSON object a line in `log.jsonl`, and TensorBoard.

    A resumed training passes the iteration it goes on from: what a killed one wrote after its last
    checkpoint is dropped, so that every iteration stands there once.

    Args:
        folder: The run folder.
        done: Iterations done before this start.
    """

    def __init__(self, folder: Path, *, done: int) -> None:
        self.path = folder / LOG_FILE
        kept = [row for row in read_log(self.path) if row["iteration"] <= done]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self._board = _open_board(folder / TENSORBOARD_FOLDER, done)

    def write(self, iteration: int, figures: Mapping[str, float]) -> None:
        """Add the figures of an iteration."""
        with self.path.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps({"iteration": iteration, **figures}) + "\n")
        for name, value in figures.items():
            self._board.add_scalar(name, value, iteration)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._board.close()


def read_log(path: Path) -> list[dict[str, float]]:
    """Rows of a log file in order; none without the file. A last line cut by a kill is dropped."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            logger.warning("%s: dropped an incomplete line", path)
    return rows


def _open_board(folder: Path, done: int) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=done + 1 if done else None)


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
