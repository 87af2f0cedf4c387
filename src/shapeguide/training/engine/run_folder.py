"""A run folder knows its settings and its data, so that another run never continues it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from shapeguide.data.case import Case
from shapeguide.data.dataset import Dataset
from shapeguide.data.splits import SPLIT_FILE as SPLIT_FILE
from shapeguide.errors import CheckpointError, ConfigError, reason
from shapeguide.models.autoencoder_model import AUTOENCODER_FOLDER
from shapeguide.models.finder_model import FINDER_FOLDER
from shapeguide.models.members import MEMBER_FOLDERS
from shapeguide.models.model_files import MODEL_FILE, WEIGHTS_FILES
from shapeguide.models.one_per_structure import STRUCTURES_FOLDER
from shapeguide.models.restorer_model import RESTORER_FOLDER, USUAL_FILE
from shapeguide.models.shape_model import SHAPE_FOLDER
from shapeguide.storage.digest import content_digest, file_digest
from shapeguide.storage.identity import FolderKind, claim, clear, compare, read_note
from shapeguide.storage.lock import locked
from shapeguide.storage.whole import written_whole
from shapeguide.training.engine import processes
from shapeguide.training.engine.checkpoint import CHECKPOINT_FILE
from shapeguide.training.engine.log import LOG_FILE, TENSORBOARD_FOLDER
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.guidance import GUIDANCE_SETTINGS, GUIDE_GROUPS

RUN_FILE = "run.json"
BRANCH_FILE = "before_guidance.safetensors"
"""Checkpoint of the last iteration without the shape loss, where other guidance can set in."""
STAGE_RUN = FolderKind(
    what="run",
    note=RUN_FILE,
    identity=("stage", "settings", "dataset"),
    files=(
        MODEL_FILE,
        *WEIGHTS_FILES.values(),
        CHECKPOINT_FILE,
        BRANCH_FILE,
        LOG_FILE,
        SPLIT_FILE,
        USUAL_FILE,
    ),
    folders={TENSORBOARD_FOLDER: FolderKind("log", None, files=("events.out.tfevents.*",))},
)
"""What one stage writes."""
STAGES = (FINDER_FOLDER, SHAPE_FOLDER, AUTOENCODER_FOLDER, RESTORER_FOLDER)
"""Folders of the stages inside the folder of a whole training."""
RUN = replace(
    STAGE_RUN,
    folders={**STAGE_RUN.folders, **dict.fromkeys((*STAGES, *MEMBER_FOLDERS), STAGE_RUN)},
)
"""What a whole training writes: that of the segmenter, and inside it those of other stages."""
SEPARATE_RUN = replace(
    RUN,
    folders={
        **RUN.folders,
        STRUCTURES_FOLDER: FolderKind("run of each structure", None, folders={"*": RUN}),
    },
)
"""The same, or one whole training for each structure."""
UNUSED_SETTINGS: dict[str, tuple[str, ...]] = {
    "finder": (*GUIDANCE_SETTINGS, "warp", "segmentation"),
    "shape": ("guidance", "autoencoder", "restorer", "finder", *GUIDE_GROUPS.values()),
    "autoencoder": ("shape", "restorer", "finder", *GUIDE_GROUPS.values()),
    "restorer": ("guidance", "shape", "autoencoder", "finder", *GUIDE_GROUPS.values()),
    "segmentation": ("restorer",),
}
"""Settings that a stage does not depend on, by its name; between two starts they may change."""


def claim_run_folder(
    folder: Path,
    *,
    stage: str,
    settings: TrainSettings,
    train: Dataset,
    validation: Dataset | None,
    pool: Sequence[Case] = (),
) -> bool:
    """Make the folder of a run, or take up the one that the same run left.

    A run that left no checkpoint left nothing to lose, and another one may take its place.

    What the machine does (device, workers, checkpoint interval) may change between two starts, and
    so may the number of members, each of which has a folder of its own; the
    settings that decide on the result, the cases, what their files hold and the structures may not.

    Args:
        folder: The run folder.
        stage: Name of the stage that the folder is for.
        settings: Those of this start.
        train: Cases to train on.
        validation: Cases held out of them, if any.
        pool: Label maps without images that shapes are learned of, if any.

    Returns:
        Whether the run is already finished.

    Raises:
        ConfigError: If the folder holds something else, or a run of other settings or data.
        CheckpointError: If its `run.json` is damaged.
        DataError: If a file of a case cannot be read.
    """
    begun = any((folder / name).exists() for name in (CHECKPOINT_FILE, MODEL_FILE))
    begun = begun or any((folder / STRUCTURES_FOLDER).rglob(CHECKPOINT_FILE))
    identity = {
        "stage": stage,
        "settings": settings.model_dump(mode="json", exclude={"machine", "members"}),
        "dataset": dataset_identity(
            train, validation=validation, **({"pool": pool} if pool else {})
        ),
    }
    found = claim(
        folder,
        RUN,
        identity,
        ignoring=[f"settings.{name}" for name in UNUSED_SETTINGS.get(stage, ())],
        beside={"machine": settings.machine.model_dump(mode="json")},
        replace=not begun,
    )
    return found.state == "same" and (folder / MODEL_FILE).is_file()


def noted_settings(folder: Path) -> dict[str, Any] | None:
    """The settings of the run that was begun in a folder, as plain values; None if none was.

    A run notes them as soon as the first of its stages starts, in the folder of that stage.

    Raises:
        ConfigError: If the folder holds something else than a run.
        CheckpointError: If a note is damaged.
    """
    notes = (read_note(folder, RUN), *(read_note(folder / name, STAGE_RUN) for name in STAGES))
    return next((note["settings"] for note in notes if note is not None), None)


@contextmanager
def locked_run_folder(folder: Path) -> Iterator[None]:
    """Train in a folder alone; of several processes that train together, the first holds it.

    Raises:
        ConfigError: If another training works in it.
        CheckpointError: If it cannot be written.
    """
    with ExitStack() as stack:
        processes.on_first(lambda: stack.enter_context(locked(folder)))
        yield


def check_run_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than a run, before anything is written into it.

    Raises:
        ConfigError: If it does.
        CheckpointError: If its `run.json` is damaged.
    """
    compare(folder, SEPARATE_RUN, {})


def clear_run_folder(folder: Path, dataset: Iterable[Case] = ()) -> None:
    """Delete what a run has written into a folder, if there is one; all else stays.

    Raises:
        ConfigError: If the folder is not one of a run, or a scan or label map of the dataset lies
            in it; nothing is deleted.
        CheckpointError: If its `run.json` is damaged.
    """
    clear(folder, SEPARATE_RUN, keep=[file for case in dataset for file in case.files])


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
    now = read_note(folder, RUN) or {}
    identity = {name: now.get(name) for name in RUN.identity}
    free = [f"settings.{name}" for name in GUIDANCE_SETTINGS]
    found = compare(source, RUN, identity, ignoring=free)
    if found.differences:
        raise ConfigError(f"cannot branch from {source}: {found.told}")
    try:
        for file, name in ((BRANCH_FILE, CHECKPOINT_FILE), (LOG_FILE, LOG_FILE)):
            with written_whole(folder / name) as temporary:
                shutil.copyfile(source / file, temporary)
    except OSError as error:
        raise CheckpointError(f"cannot branch from {source}: {reason(error)}") from error


def dataset_identity(train: Dataset, **others: Iterable[Case] | None) -> dict[str, Any]:
    """What decides on everything that is made from some cases: which they are, what they hold.

    Args:
        train: The cases to train on; their structures count.
        others: Further groups of cases by name, such as `validation`; None is an empty one.

    Raises:
        DataError: If a file of a case cannot be read.
    """
    groups = {"train": train, **others}
    cases = [case for group in groups.values() for case in group or ()]
    return {
        "name": train.name,
        "structures": {item.name: list(item.label_ids) for item in train.all_structures},
        "order_of_structures": [item.name for item in train.all_structures],  # class indices
        **{name: [case.id for case in group or ()] for name, group in groups.items()},
        "contents": content_digest([_contents_of(case) for case in cases]),
    }


def _contents_of(case: Case) -> list[Any]:
    """What a case holds, whatever its files are called and wherever they lie."""
    return [case.id, case.orientation, *(file_digest(file) for file in case.files)]
