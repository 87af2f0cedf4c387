"""What a training tells while it runs: a line per interval, and TensorBoard."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from shapeguide.storage.whole import write_text

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
