"""What a folder of predictions holds: which model made which label map, and how large it is.

`predictions.json` notes for every case that was asked for which model made its label map, and what
that model was; `volumes.csv` says the same of each row. Both are written before a label map appears
under its name, so a folder never holds one of ours that they do not know, whenever it is killed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shapeguide
from shapeguide.errors import CheckpointError, ConfigError, DataError, reason
from shapeguide.geometry.volume import Structure
from shapeguide.inference.run import TrainedRun
from shapeguide.inference.sizes_table import VOLUMES_FILE, SizesTable
from shapeguide.models.model_files import fingerprint
from shapeguide.storage.digest import content_digest
from shapeguide.storage.identity import (
    FolderKind,
    differences_in_words,
    read_note,
    refuse_foreign,
)
from shapeguide.storage.whole import write_json

if TYPE_CHECKING:
    import pandas as pd

PREDICTIONS_FILE = "predictions.json"
STAGE_FOLDER = ".made"
PREDICTIONS = FolderKind(
    what="prediction",
    note=PREDICTIONS_FILE,
    identity=("structures",),
    files=("*.nii.gz", VOLUMES_FILE),
)


def label_map_name(case: str) -> str:
    """Name of the label map of a case."""
    return f"{case}.nii.gz"


def probability_name(case: str, structure: str) -> str:
    """Name of the file with the probability of a structure."""
    return f"{case}_{structure}_probability.nii.gz"


def origin_of(run: TrainedRun, *, largest_component: bool) -> dict[str, Any]:
    """What decides on label maps, as plain values."""
    return {
        "segmenter": fingerprint(run.segmenter.network),
        "restorer": run.restorer and run.restorer.identity,
        "largest_component": largest_component,
    }


class PredictionFolder:
    """A folder of predictions, its note and its table."""

    def __init__(
        self, folder: Path, structures: tuple[Structure, ...], origin: dict[str, Any]
    ) -> None:
        """Read what the folder holds; nothing is written.

        Args:
            folder: The folder; it need not exist.
            structures: What will be predicted.
            origin: What decides on the label maps to come, see `origin_of`.

        Raises:
            ConfigError: If the folder is a file, or holds something and no note of ours.
            CheckpointError: If the note is damaged.
            DataError: If the table is damaged.
        """
        self.folder = folder
        self.model = content_digest(origin)[:12]
        noted = read_note(folder, PREDICTIONS)
        if noted is None:
            refuse_foreign(folder, PREDICTIONS)
        self._structures = {item.name: list(item.label_ids) for item in structures}
        self._origin = origin
        self._noted = noted_in(folder) if noted else {"structures": {}, "models": {}, "cases": {}}
        self._sizes = SizesTable(folder / VOLUMES_FILE)
        self.stage = folder / STAGE_FOLDER
        """Where label maps lie until it is noted which model made them."""

    def claim(self, cases: Iterable[str], *, overwrite: bool) -> None:
        """Note which cases are asked for.

        Args:
            cases: Ids of the cases.
            overwrite: Their label maps are to be made anew, whatever made them.

        Raises:
            ConfigError: If label maps in the folder were made by another model or with other
                options and are not to be replaced, or are of other structures and would stay.
            CheckpointError: If the folder cannot be written.
        """
        asked, known = list(cases), self._noted["cases"]
        staying = {
            case: model
            for case, model in known.items()
            if model and (case not in asked or not overwrite) and self.label_map(case).exists()
        }
        differences = []
        if staying and self._noted["structures"] != self._structures:
            differences = differences_in_words(
                {"structures": self._noted["structures"]}, {"structures": self._structures}
            )
        elif not overwrite:
            for model in dict.fromkeys(staying.values()):
                differences += differences_in_words(self._noted["models"][model], self._origin)
        if differences:
            raise ConfigError(
                f"{self.folder} holds label maps of another model or other options: "
                f"{'; '.join(differences)}. Choose another folder, or add --overwrite "
                "(overwrite=True) to make them again"
            )
        self._noted["structures"] = self._structures
        self._noted["cases"] = {**known, **{case: known.get(case) for case in asked}}
        self._write()
        self._clear_stage()

    def label_map(self, case: str) -> Path:
        """File of the label map of a case."""
        return self.folder / label_map_name(case)

    def maker(self, case: str) -> str | None:
        """Which model made the label map of a case; None where none of ours did."""
        made: str | None = self._noted["cases"].get(case)
        return made

    def take(
        self, case: str, volumes_mm3: Mapping[str, float], changed_mm3: Mapping[str, float]
    ) -> None:
        """Take what lies on the stage for a case: note which model made it, then give it its name.

        Args:
            case: The case.
            volumes_mm3: Volume of each structure.
            changed_mm3: How much of each a restorer changed.

        Raises:
            CheckpointError: If the folder cannot be written.
        """
        # An older label map goes before the note says that this model made it.
        self.label_map(case).unlink(missing_ok=True)
        self._noted["cases"][case] = self.model
        self._noted["models"][self.model] = self._origin
        self._sizes.put(case, volumes_mm3, changed_mm3, self.model)
        self._write()
        names = [probability_name(case, structure) for structure in self._structures]
        for name in (*names, label_map_name(case)):
            if (self.stage / name).exists():
                os.replace(self.stage / name, self.folder / name)

    def note_kept(self, case: str, volumes_mm3: Mapping[str, float]) -> None:
        """State the volumes of a label map that stays; what is known of its changes stays too."""
        self._sizes.put(case, volumes_mm3, {}, self.maker(case) or "")

    def note_absent(self, case: str) -> None:
        """Note that a case has no label map."""
        self._noted["cases"][case] = None
        self._sizes.drop(case)

    def finish(self) -> pd.DataFrame:
        """Write what is noted, and clear the stage; the table of volumes."""
        self._write()
        self._clear_stage()
        return self._sizes.table()

    def _clear_stage(self) -> None:
        """Remove what lies there: this process holds the folder, so nobody is at work."""
        if self.stage.is_dir() and not self.stage.is_symlink():
            for path in self.stage.iterdir():
                path.unlink()
            self.stage.rmdir()

    def _write(self) -> None:
        used = {model for model in self._noted["cases"].values() if model}
        content = {
            "structures": self._noted["structures"],
            "models": {name: self._noted["models"][name] for name in sorted(used)},
            "cases": self._noted["cases"],
            "written_by": f"shapeguide {shapeguide.__version__}",
        }
        try:
            write_json(self.folder / PREDICTIONS_FILE, content)
            self._sizes.write()
        except OSError as error:
            raise CheckpointError(
                f"cannot write to {self.folder}: {reason(error)}; choose another folder"
            ) from error


def noted_in(folder: Path) -> dict[str, Any]:
    """What a folder of predictions notes: `structures`, `models` and `cases`; empty without a note.

    Raises:
        ConfigError: If the note is not ours.
        CheckpointError: If it is damaged.
    """
    noted = read_note(folder, PREDICTIONS)
    if noted is None:
        return {}
    path = folder / PREDICTIONS_FILE
    # Notes of older versions state neither models nor cases: their label maps are left alone.
    found = {name: noted.get(name, {}) for name in ("structures", "models", "cases")}
    models = found["models"]
    if not all(isinstance(part, dict) for part in found.values()) or not all(
        isinstance(origin, dict) for origin in models.values()
    ):
        raise CheckpointError(f"{path} is damaged: not objects; choose another folder")
    unknown = [one for one in found["cases"].values() if one is not None and one not in [*models]]
    if unknown:
        raise CheckpointError(f"{path} is damaged: it states no model {unknown[0]}")
    return found


def structures_in(folder: Path) -> tuple[Structure, ...]:
    """The structures of the label maps in a folder; none where nothing notes them.

    Raises:
        DataError: If the note is damaged.
        ConfigError: If it is not ours.
        CheckpointError: If it is damaged.
    """
    noted = noted_in(folder).get("structures", {})
    try:
        return tuple(Structure(name, tuple(ids)) for name, ids in noted.items())
    except (TypeError, ConfigError) as error:
        raise DataError(
            f"{folder / PREDICTIONS_FILE} is damaged ({error}); delete it and state the structures"
        ) from error


def cases_in(folder: Path) -> tuple[str, ...]:
    """Ids of the cases that were asked of a folder of predictions; none without a note.

    Raises:
        ConfigError: If the note is not ours.
        CheckpointError: If it is damaged.
    """
    return tuple(noted_in(folder).get("cases", {}))
