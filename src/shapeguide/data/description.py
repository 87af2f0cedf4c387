"""The dataset description: the Decathlon `dataset.json`, with a few optional additions.

Beside the Decathlon's own keys, the description may have "root" (the folder that paths start
from, instead of its own), "structures" ({name: [label ids]}), and for a case "id" (instead of the
stem of the image), "group" (the person), "orientation" (of files that state none) and
"label_to_image" (voxel index of the label map to voxel index of the image, four rows of four, for
files whose headers do not say how they lie).
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shapeguide.data.case import Case, Rows
from shapeguide.data.placement import check_orientation
from shapeguide.data.scan_files import case_id_of, stored_files
from shapeguide.errors import DataError
from shapeguide.geometry.volume import Structure, check_structures
from shapeguide.storage.names import name_fault

logger = logging.getLogger(__name__)


def root_of(description: Mapping[str, Any], folder: Path) -> Path:
    """Folder that the paths of a description start from.

    Args:
        description: May state a "root", relative to `folder` or absolute.
        folder: Folder of the description file.

    Raises:
        DataError: If the stated root is not a folder.
    """
    stated = description.get("root")
    if stated is None:
        return folder
    if not isinstance(stated, str) or not (_exists(folder / stated) and (folder / stated).is_dir()):
        raise DataError(f'{folder}: the description states the root "{stated}", which is no folder')
    logger.info("files of the dataset are read from %s, as its description states", stated)
    return folder / stated


def labels_of(description: Mapping[str, Any]) -> dict[int, str]:
    """Label id to name, without the background; {"1": "horn"} or nnU-Net's {"horn": 1}.

    Raises:
        DataError: If the labels have another form.
    """
    stated = description.get("labels", {})
    form = 'expected {"0": "background", "1": name, ...}'
    if not isinstance(stated, dict):
        raise DataError(f'"labels" of the description is {stated!r}; {form}')
    labels: dict[int, str] = {}
    for key, value in stated.items():
        if isinstance(value, list):  # a region of nnU-Net: it names ids that are stated elsewhere
            pairs = [(label_id, f"{key}_{label_id}") for label_id in value]
        else:
            pairs = [(key, value) if isinstance(value, str) else (value, key)]
        for label_id, name in pairs:
            if not re.fullmatch(r"\d+", str(label_id)) or not isinstance(name, str):
                raise DataError(f'"labels" of the description holds {key!r}: {value!r}; {form}')
            labels.setdefault(int(label_id), name)
    labels.pop(0, None)
    return labels


def structures_of(
    description: Mapping[str, Any], labels: Mapping[int, str]
) -> tuple[Structure, ...]:
    """Structures that the description states, else one for each label.

    Raises:
        DataError: If the stated structures have another form.
        ConfigError: If they contradict each other.
    """
    stated = description.get("structures")
    if stated is None:
        return _one_for_each(labels)
    if not isinstance(stated, dict):
        raise DataError(f'"structures" of the description is {stated!r}; expected names to ids')
    structures = []
    for name, ids in stated.items():
        ids = ids if isinstance(ids, list) else [ids]
        if not all(isinstance(label_id, int) for label_id in ids):
            raise DataError(f'"structures" of the description: {name} has ids {ids}, not integers')
        structures.append(Structure(name, tuple(ids)))
    check_structures(tuple(structures))
    return tuple(structures)


def cases_of(
    description: Mapping[str, Any], key: str, root: Path, *, allow_outside: bool
) -> tuple[Case, ...]:
    """Cases that a description lists under "training" or "test", their files checked to be there.

    Args:
        description: The description.
        key: "training" or "test".
        root: Folder that paths start from.
        allow_outside: Whether paths may leave that folder.

    Raises:
        DataError: If an entry has another form, a file is missing or outside, or ids repeat.
        ConfigError: If an orientation is not one.
    """
    entries = description.get(key, [])
    if not isinstance(entries, list):
        raise DataError(f'"{key}" of the description is not a list of cases')
    cases = tuple(_case(entry, root, allow_outside=allow_outside) for entry in entries)
    repeated = [case_id for case_id, count in Counter(c.id for c in cases).items() if count > 1]
    if repeated:
        raise DataError(
            f"case ids must differ, found more than once: {', '.join(repeated[:5])}; "
            'rename the images or give the cases an "id"'
        )
    return cases


def with_present_tests(description: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """The description without test images that are not there: many downloads leave them out."""
    entries = description.get("test", [])
    if not isinstance(entries, list):
        raise DataError('"test" of the description is not a list of images')
    images = [entry.get("image") if isinstance(entry, dict) else entry for entry in entries]
    present = [
        entry
        for entry, image in zip(entries, images, strict=True)
        if isinstance(image, str) and _exists(root / image)
    ]
    if len(present) < len(entries):
        logger.info("%d test images are not there", len(entries) - len(present))
    return {**description, "test": present}


def described_as(
    name: str, labels: dict[str, str], training: list[dict[str, Any]], test: list[dict[str, Any]]
) -> dict[str, Any]:
    """A description in the form of the Decathlon.

    Args:
        name: Name of the dataset.
        labels: Label id to name, without the background.
        training: Cases with "image", "label" and the optional additions.
        test: Cases without label map.
    """
    return {
        "name": name,
        "tensorImageSize": "3D",
        "labels": {"0": "background", **labels} if labels else {},
        "numTraining": len(training),
        "numTest": len(test),
        "training": training,
        "test": test,
    }


def slug(name: str) -> str:
    """A name for a structure: lower case, digits and underscores."""
    return re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")


def _one_for_each(labels: Mapping[int, str]) -> tuple[Structure, ...]:
    if len(labels) > 255:
        return ()
    slugs = {label_id: slug(name) for label_id, name in labels.items()}
    names = {id_: f"label_{id_}" if name_fault(name) else name for id_, name in slugs.items()}
    counts = Counter(names.values())
    return tuple(
        Structure(name if counts[name] == 1 else f"{name}_{label_id}", (label_id,))
        for label_id, name in sorted(names.items())
    )


def _case(entry: object, root: Path, *, allow_outside: bool) -> Case:
    if isinstance(entry, str):
        entry = {"image": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        raise DataError(f'a case of the description is {entry!r}; expected {{"image": path, ...}}')
    texts = {key: entry.get(key) for key in ("image", "label", "id", "group", "orientation")}
    for key, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise DataError(f'{entry["image"]}: "{key}" is {value!r}; expected a text')
    image = _file(entry["image"], root, allow_outside=allow_outside)
    case_id = texts["id"] or case_id_of(image)
    if texts["orientation"] is not None:
        check_orientation(texts["orientation"])
    label_map = None
    if texts["label"] is not None:
        label_map = _file(texts["label"], root, allow_outside=allow_outside)
    return Case(
        case_id,
        image,
        label_map,
        texts["group"] or None,
        orientation=texts["orientation"],
        label_to_image=_affine(case_id, entry.get("label_to_image")),
    )


def _affine(case_id: str, stated: object) -> Rows | None:
    if stated is None:
        return None
    try:
        rows = np.array(stated, dtype=np.float64)
    except (TypeError, ValueError):
        rows = np.empty(0)
    if (
        rows.shape != (4, 4)
        or not np.isfinite(rows).all()
        or not np.array_equal(rows[3], (0, 0, 0, 1))
        or np.linalg.det(rows) == 0
    ):
        raise DataError(
            f'{case_id}: "label_to_image" is {stated!r}; expected four rows of four numbers, the '
            "last one 0, 0, 0, 1"
        )
    return tuple(tuple(row) for row in rows.tolist())


def _file(text: str, root: Path, *, allow_outside: bool) -> Path:
    path = root / text
    try:
        if not allow_outside:
            _check_inside((path,), root, text)
            _check_inside(stored_files(path), root, text)
        stored_files(path)
    except OSError as error:
        raise DataError(f"{text!r}: not a usable path ({error})") from error
    return path


def _check_inside(files: Iterable[Path], root: Path, text: str) -> None:
    folder = root.resolve()
    if "\0" in text or not all(file.resolve().is_relative_to(folder) for file in files):
        raise DataError(
            f"{text!r}: this path leaves the folder of the dataset, {root}; move the file there, "
            "or read the dataset with allow_outside=True if you trust it"
        )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
