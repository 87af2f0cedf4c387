"""A run folder knows its settings and its data, so that another run never continues it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import shapeguide
from shapeguide.data.dataset import Dataset
from shapeguide.errors import CheckpointError, ConfigError
from shapeguide.models.model_files import MODEL_FILE
from shapeguide.storage.identity import differences_in_words
from shapeguide.storage.whole import write_json, written_whole
from shapeguide.training.engine.checkpoint import CHECKPOINT_FILE
from shapeguide.training.engine.log import LOG_FILE
from shapeguide.training.settings.groups import TrainSettings

RUN_FILE = "run.json"
BRANCH_FILE = "before_guidance.safetensors"
"""Checkpoint of the last iteration without the shape loss, where other guidance can set in."""
GUIDANCE_SETTINGS = ("guidance", "shape", "autoencoder", "restorer", "shape_loss")
"""Settings that the iterations before the guidance do not depend on."""
UNUSED_SETTINGS: dict[str, tuple[str, ...]] = {
    "shape": ("guidance", "autoencoder", "restorer", "shape_loss"),
    "autoencoder": ("shape", "restorer", "shape_loss"),
    "restorer": ("guidance", "shape", "autoencoder", "shape_loss"),
    "segmentation": ("restorer",),
}
"""Settings that a stage does not depend on, by its name; between two starts they may change."""


def claim_run_folder(
    folder: Path, *, stage: str, settings: TrainSettings, train: Dataset, validation: Dataset | None
) -> bool:
    """Make the folder of a run, or take up the one that the same run left.

    A run that left no checkpoint left nothing to lose, and another one may take its place.

    What the machine does (device, workers, checkpoint interval) may change between two starts; the
    settings that decide on the result, the cases and the structures may not.

    Args:
        folder: The run folder.
        stage: Name of the stage that the folder is for.
        settings: Of this start.
        train: Cases to train on.
        validation: Cases held out of them, if any.

    Returns:
        Whether the run is already finished.

    Raises:
        ConfigError: If the folder holds something else, or a run of other settings or data.
        CheckpointError: If its `run.json` is damaged.
    """
    identity = {
        "stage": stage,
        "settings": settings.model_dump(mode="json", exclude={"machine"}),
        "dataset": _identity_of(train, validation),
    }
    path = folder / RUN_FILE
    if path.is_file():
        unused = UNUSED_SETTINGS.get(stage, ())
        was, now = (_without(known, unused) for known in (_read_identity(path), identity))
        differences = differences_in_words(was, now)
        begun = (folder / CHECKPOINT_FILE).exists() or (folder / MODEL_FILE).exists()
        if not differences:
            return (folder / MODEL_FILE).is_file()
        if begun:
            raise ConfigError(
                f"{folder} holds another run: {'; '.join(differences[:6])}. Choose another "
                "folder, or replace what is there (--overwrite)"
            )
    foreign = [f for f in (CHECKPOINT_FILE, MODEL_FILE) if (folder / f).exists()]
    if foreign:
        raise ConfigError(f"{folder} holds {', '.join(foreign)} but no {RUN_FILE}; choose another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written_by = f"shapeguide {shapeguide.__version__}"
        machine = settings.machine.model_dump(mode="json")
        write_json(path, {**identity, "machine": machine, "written_by": written_by})
    except OSError as error:
        raise CheckpointError(f"cannot write to the run folder {folder}: {error}") from error
    return False


def branch(source: Path, folder: Path) -> None:
    """Start the run in `folder` from the iterations that `source` did before its guidance set in.

    Does nothing when `folder` has a checkpoint already.

    Raises:
        ConfigError: If the two runs differ in more than their guidance, or the source is too young.
        CheckpointError: If a file is damaged or cannot be written.
    """
    if (folder / CHECKPOINT_FILE).exists():
        return
    if not (source / BRANCH_FILE).is_file():
        raise ConfigError(
            f"{source} has no {BRANCH_FILE}: it is not a segmentation run, or has not yet done "
            "its Dice iterations"
        )
    was, now = (
        _without(_read_identity(path / RUN_FILE), GUIDANCE_SETTINGS) for path in (source, folder)
    )
    differences = differences_in_words(was, now)
    if differences:
        raise ConfigError(f"cannot branch from {source}: {'; '.join(differences[:6])}")
    with written_whole(folder / CHECKPOINT_FILE) as temporary:
        shutil.copyfile(source / BRANCH_FILE, temporary)
    shutil.copyfile(source / LOG_FILE, folder / LOG_FILE)


def clear_run_folder(folder: Path) -> None:
    """Delete a run folder as a whole, if there is one.

    Raises:
        ConfigError: If the folder is not one of a run, so that nothing else is ever deleted.
    """
    if not folder.exists():
        return
    if not (folder / RUN_FILE).is_file() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not a run folder ({RUN_FILE} is missing): not deleted")
    shutil.rmtree(folder)


def _identity_of(train: Dataset, validation: Dataset | None) -> dict[str, Any]:
    held_out = list(validation) if validation else []
    sizes = hashlib.sha256()
    for case in [*train, *held_out]:
        files = [case.image] if case.label_map is None else [case.image, case.label_map]
        for file in files:
            sizes.update(f"{case.id} {file.name} {file.stat().st_size}\n".encode())
    return {
        "name": train.name,
        "structures": {item.name: list(item.label_ids) for item in train.structures},
        "train": [case.id for case in train],
        "validation": [case.id for case in held_out],
        "files": sizes.hexdigest(),
    }


def _read_identity(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: content[name] for name in ("stage", "settings", "dataset")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); use another run folder") from error


def _without(identity: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    kept = {name: value for name, value in identity["settings"].items() if name not in names}
    return {**identity, "settings": kept}
