"""The results folder of an experiment: where everything lies, whose it is, what it took."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapeguide
from shapeguide.errors import CheckpointError, ConfigError
from shapeguide.storage.identity import differences_in_words
from shapeguide.storage.whole import write_json
from shapeguide.studies.systems.design import Cell

IDENTITY_FILE = "experiment.json"
HEARTBEAT_SECONDS = 5.0
LATER_SETTINGS = ("restorer",)
"""Groups that earlier versions did not know; what they trained does not depend on them."""


@dataclass(frozen=True)
class ResultFiles:
    """Where everything of an experiment lies."""

    folder: Path

    @property
    def identity(self) -> Path:
        """Settings, data, and what the cases hold: which experiment this is."""
        return self.folder / IDENTITY_FILE

    def cell(self, cell: Cell) -> Path:
        """Folder of one cell."""
        return self.folder / "cells" / cell.regime / f"seed{cell.seed}" / cell.system.name

    def run(self, cell: Cell) -> Path:
        """Run folder of the segmenter of a cell."""
        return self.cell(cell) / "run"

    def system(self, cell: Cell) -> Path:
        """What the system of a cell was when it was trained."""
        return self.cell(cell) / "system.json"

    def scores(self, cell: Cell) -> Path:
        """Scores of a cell, written whole at its end."""
        return self.cell(cell) / "scores.csv"

    def predictions(self, cell: Cell) -> Path:
        """Label maps of a cell, where they are kept."""
        return self.cell(cell) / "predictions"

    def guide(self, regime: str, seed: int, name: str) -> Path:
        """Folder of a guide: its run and its seconds."""
        return self.folder / "guides" / regime / f"seed{seed}" / name

    def table(self, name: str) -> Path:
        """A table of the results."""
        return self.folder / f"{name}.csv"

    def figure(self, name: str) -> Path:
        """A picture; `name` has its suffix."""
        return self.folder / "figures" / name


def claim_folder(files: ResultFiles, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Make sure that the folder is empty or holds this experiment.

    Systems, seeds, regimes and corruptions are no part of an experiment's identity: more of them
    may be asked for later, and what is there is kept.

    Args:
        files: Of the folder.
        identity: Settings and data, as plain values.

    Returns:
        What an earlier start wrote beside its identity; None when this is the first.

    Raises:
        ConfigError: If it holds another experiment or something else.
        CheckpointError: If its description is damaged.
    """
    folder, path = files.folder, files.identity
    if path.is_file():
        found = read_json(path)
        now = _plain_values(identity)
        was = _with_later_settings({name: found.get(name) for name in identity}, now)
        differences = differences_in_words(was, now)
        if differences:
            raise ConfigError(
                f"{folder} holds the results of another experiment: {'; '.join(differences[:6])}. "
                "Choose another folder, or delete this one"
            )
        return found
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} holds something else than an experiment ({IDENTITY_FILE} is missing); "
            "choose another folder"
        )
    return None


def write_identity(files: ResultFiles, content: dict[str, Any]) -> None:
    """Write the description of the experiment.

    Raises:
        CheckpointError: If the folder cannot be written.
    """
    written_by = f"shapeguide {shapeguide.__version__}"
    try:
        write_json(files.identity, {**content, "written_by": written_by})
    except OSError as error:
        raise CheckpointError(f"cannot write to {files.folder}: {error}") from error


def check_cell(files: ResultFiles, cell: Cell) -> None:
    """Refuse the folder of a cell whose system was something else when it was trained.

    Raises:
        ConfigError: If it was.
        CheckpointError: If its description is damaged.
    """
    path = files.system(cell)
    if not path.is_file():
        return
    differences = differences_in_words(read_json(path), _plain_values(cell.system.described()))
    if differences:
        raise ConfigError(
            f"{files.cell(cell)} holds another system of that name: {'; '.join(differences[:6])}. "
            "Choose another results folder, or delete this one"
        )


def claim_cell(files: ResultFiles, cell: Cell) -> None:
    """Note which system a cell is, unless it is noted; raises as `check_cell`."""
    check_cell(files, cell)
    write_json(files.system(cell), cell.system.described())


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: If it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); use another folder") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is damaged: not an object; use another folder")
    return content


def seconds_of(folder: Path, step: str) -> float:
    """Seconds that a step took, over all its starts; 0 when it never ran."""
    path = folder / f"seconds_{step}.json"
    return float(read_json(path)["seconds"]) if path.is_file() else 0.0


@contextmanager
def stopwatch(folder: Path, step: str) -> Iterator[None]:
    """Add the seconds of the block to those of earlier starts.

    They are written every few seconds, so that a killed start counts too.
    """
    before, start = seconds_of(folder, step), time.perf_counter()
    path, ended = folder / f"seconds_{step}.json", threading.Event()

    def write() -> None:
        write_json(path, {"seconds": round(before + time.perf_counter() - start, 2)})

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            write()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        write()


def _with_later_settings(was: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """An earlier identity, where it lacks a group of settings with the group as it is now."""
    known = was.get("settings")
    if not isinstance(known, dict):
        return was
    later = {name: now["settings"][name] for name in LATER_SETTINGS if name in now["settings"]}
    return {**was, "settings": {**later, **known}}


def _plain_values(content: dict[str, Any]) -> Any:
    """As it comes back from a file: tuples as lists."""
    return json.loads(json.dumps(content))
