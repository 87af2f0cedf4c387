"""The results folder of table 1: where everything lies, and whose it is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapeguide
from shapeguide.data.dataset import Dataset
from shapeguide.errors import CheckpointError, ConfigError
from shapeguide.storage.identity import differences_in_words
from shapeguide.storage.whole import write_json
from shapeguide.studies.separation.design import Cell
from shapeguide.studies.systems.folder import read_json
from shapeguide.training.settings.groups import TrainSettings

CHOSEN_BY_CELL: Mapping[str, Any] = {
    "machine": True,
    "seed": True,
    "guidance": True,
    "shape": {"objective", "pose"},
}
"""Settings that may differ between two starts, or differ between the cells."""


@dataclass(frozen=True)
class Table1Files:
    """Where everything of a table lies."""

    folder: Path

    @property
    def identity(self) -> Path:
        """Settings, cases and structures: which table this is."""
        return self.folder / "table1.json"

    @property
    def cases(self) -> Path:
        """Which cases have which structure."""
        return self.folder / "cases.json"

    def cell(self, cell: Cell) -> Path:
        """Run folder of a cell."""
        return self.folder / "cells" / cell.folder_name

    def measured(self, cell: Cell) -> Path:
        """What was measured of a cell; written last, so a cell that has it is finished."""
        return self.cell(cell) / "measured.json"

    def all_measured(self) -> list[Path]:
        """The files `measured` of all finished cells."""
        return sorted((self.folder / "cells").glob("*/measured.json"))

    def cell_table(self, cell: Cell, name: str) -> Path:
        """A table of a cell: `pairs`, `warps` or `errors`."""
        return self.cell(cell) / f"{name}.csv"

    def table(self, name: str) -> Path:
        """A table over all cells: `table1`, `published`, `warps` or `errors`."""
        return self.folder / f"{name}.csv"

    @property
    def pictures(self) -> Path:
        """Folder of the pictures."""
        return self.folder / "figures"


def claim_results(
    files: Table1Files, train: Dataset, test: Dataset, settings: TrainSettings, pairs: int
) -> None:
    """Make the results folder of a table, or take up the one that the same table left.

    More objectives, poses, seeds and structures may be added to a table; settings and cases may
    not change.

    Raises:
        ConfigError: If the folder holds something else, or a table of other settings or cases.
        CheckpointError: If its description is damaged or it cannot be written.
    """
    structures = {item.name: list(item.label_ids) for item in train.structures}
    identity = {
        "dataset": _identity_of(train, test),
        "settings": settings.model_dump(mode="json", exclude=dict(CHOSEN_BY_CELL)),
        "pairs": pairs,
        "structures": structures,
    }
    if files.identity.is_file():
        was = read_json(files.identity)
        # A structure that is new to the folder is no difference.
        identity["structures"] = {**was.get("structures", {}), **structures}
        was["structures"] = {**structures, **was.get("structures", {})}
        differences = differences_in_words({name: was.get(name) for name in identity}, identity)
        if differences:
            raise ConfigError(
                f"{files.folder} holds another table 1: {'; '.join(differences[:6])}; "
                "choose another folder"
            )
    elif files.folder.exists() and (not files.folder.is_dir() or any(files.folder.iterdir())):
        raise ConfigError(
            f"{files.folder} holds something else than table 1; choose another folder"
        )
    try:
        write_json(
            files.identity, {**identity, "written_by": f"shapeguide {shapeguide.__version__}"}
        )
    except OSError as error:
        raise CheckpointError(f"cannot write to {files.folder}: {error}") from error


def _identity_of(train: Dataset, test: Dataset) -> dict[str, Any]:
    sizes = hashlib.sha256()
    for case in [*train, *test]:
        for file in (case.image, case.label_map):
            if file is not None:
                sizes.update(f"{case.id} {file.name} {file.stat().st_size}\n".encode())
    return {
        "name": train.name,
        "train": [case.id for case in train],
        "test": [case.id for case in test],
        "files": sizes.hexdigest(),
    }
