"""What a training tells while it runs: a line per interval, and TensorBoard."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from shapeguide.errors import CheckpointError, DataError, reason
from shapeguide.storage.whole import parse_json, write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG_FILE = "log.jsonl"
TENSORBOARD_FOLDER = "tensorboard"

logger = logging.getLogger(__name__)


class TrainingLog(AbstractContextManager["TrainingLog"]):
    """Figures of a training, by iteration: one JSON object a line in `log.jsonl`, and TensorBoard.

    A resumed training passes the iteration it goes on from: what a killed one wrote after its last
    checkpoint is dropped, so that every iteration stands there once.

    Args:
        folder: The run folder.
        done: Iterations done before this start.
        kept: Whether anything is written; of several processes, the first alone keeps a log.

    Raises:
        CheckpointError: If it cannot be written.
    """

    def __init__(self, folder: Path, *, done: int, kept: bool = True) -> None:
        self.path = folder / LOG_FILE
        self._board: SummaryWriter | None = None
        if not kept:
            return
        rows = [row for row in read_log(self.path) if row["iteration"] <= done]
        try:
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
            self._board = _open_board(folder / TENSORBOARD_FOLDER, done)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def write(self, iteration: int, figures: Mapping[str, float]) -> None:
        """Add the figures of an iteration.

        Raises:
            CheckpointError: If they cannot be written.
        """
        if self._board is None:
            return
        try:
            with self.path.open("a", encoding="utf-8", newline="\n") as opened:
                opened.write(json.dumps({"iteration": iteration, **figures}) + "\n")
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        for name, value in figures.items():
            self._board.add_scalar(name, value, iteration)

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()


def read_log(path: Path) -> list[dict[str, float]]:
    """Rows of a log file in order; none without the file.

    Lines that are cut by a kill or otherwise damaged are dropped, with a warning: nothing but
    pictures is made of a log.

    Raises:
        CheckpointError: If it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {reason(error)}; move it away") from error
    lines = text.splitlines()
    rows = [row for row in map(_row, lines) if row is not None]
    if len(rows) < len(lines):
        logger.warning("%s: dropped %d damaged lines", path, len(lines) - len(rows))
    return rows


def _row(line: str) -> dict[str, float] | None:
    """The figures of a line; None unless it is an object of numbers with an iteration."""
    try:
        row = parse_json(line, "a line")
    except DataError:
        return None
    if not isinstance(row, dict) or type(row.get("iteration")) is not int:
        return None
    return row if all(type(value) in (int, float) for value in row.values()) else None


def _open_board(folder: Path, done: int) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=done + 1 if done else None)


def _cannot_write(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"cannot write {error.filename or path}: {reason(error)}; make room or permission, then "
        "run the same command again to resume"
    )
