"""The dataset description: the Decathlon `dataset.json`, with a few optional additions.

An "image" is one path, or a list of one for each channel, as "modality" names them; one path where
"modality" names several is a file that holds them along its fourth axis, as in the Decathlon. A
case without "image" is a label map alone.

Beside the Decathlon's own keys, the description may have "root" (the folder that paths start
from, instead of its own), "structures" ({name: [label ids]}), "other_labels" (true where label maps
may hold ids that "labels" does not name), and for a case "id" (instead of the stem of the image),
"group" (the person), "split" ("train" or "test"), "orientation" (of files that state none) and
"label_to_image" (voxel index of the label map to voxel index of the image, four rows of four, for
files whose headers do not say how they lie).
"""

from __future__ import annotations

import logging
import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np

from shapeguide.data.case import Case, Rows
from shapeguide.data.placement import check_orientation
from shapeguide.data.reach import Reach
from shapeguide.data.scan_files import case_id_of, stored_files
from shapeguide.errors import DataError, reason
from shapeguide.geometry.volume import LARGEST_LABEL_ID, Structure
from shapeguide.storage.names import few, name_fault, shown_path

logger = logging.getLogger(__name__)

Side: TypeAlias = Literal["train", "test"]
SIDES: tuple[Side, ...] = get_args(Side)
OTHER_LABELS = "other_labels"
MOST_CHANNELS, LONGEST_CHANNEL = 32, 100


def root_of(description: Mapping[str, Any], reach: Reach) -> Path:
    """Folder that the paths of a description start from.

    Args:
        description: May state a "root", relative to the folder of the description or absolute.
        reach: The folder of the description, and whether the root may lead out of it.

    Raises:
        DataError: If the stated root is no folder or leads outside.
    """
    stated = description.get("root")
    if stated is None:
        return reach.folder
    if not isinstance(stated, str) or "\0" in stated:
        raise DataError(f'"root" of the description is {cut(stated)}; expected a folder')
    root = reach.folder / stated
    try:
        reach.check(root)
    except DataError as error:
        raise DataError(f'"root" of the description: {error}') from error
    if not _exists(root) or not root.is_dir():
        raise DataError(
            f'the description states the root "{shown_path(stated)}", which is no folder'
        )
    logger.info("files of the dataset are read from %s, as its description states", root)
    return root


@dataclass(frozen=True)
class Label:
    """A name and the label ids that a description gives it; several where it is a region."""

    name: str
    ids: tuple[int, ...]


def labels_of(description: Mapping[str, Any]) -> tuple[Label, ...]:
    """The labels, without the background.

    Known are {"1": "horn"}, nnU-Net's {"horn": 1}, and its regions {"whole": [1, 2]}, whatever
    "regions_class_order" says: that is about files that hold regions, and label maps hold ids.

    Raises:
        DataError: If the labels have another form.
    """
    stated = description.get("labels", {})
    form = 'expected {"1": name, ...} or {name: 1, other name: [2, 3], ...}'
    if not isinstance(stated, dict):
        raise DataError(f'"labels" of the description is {cut(stated)}; {form}')
    labels = []
    for key, value in stated.items():
        # Which of the two is the name: {"1": "horn"} of the Decathlon, or {"horn": 1} of nnU-Net.
        name, given = (value, [key]) if isinstance(value, str) else (key, value)
        given = given if isinstance(given, list) else [given]
        ids = tuple(label_id for one in given if (label_id := _label_id(one)) is not None)
        if not ids or len(ids) < len(given) or len(set(ids)) < len(ids):
            raise DataError(f'"labels" of the description holds {cut(key)}: {cut(value)}; {form}')
        if 0 in ids and len(ids) > 1:
            raise DataError(
                f'"labels" of the description: the region {cut(name)} holds 0, the background'
            )
        if 0 not in ids:
            labels.append(Label(name, ids))
    return tuple(labels)


def names_of(labels: Iterable[Label]) -> dict[int, str]:
    """Label id to its name, by id; one that only regions hold is named by the smallest of them."""
    names: dict[int, str] = {}
    for label in sorted(labels, key=lambda label: len(label.ids)):
        for label_id in label.ids:
            own = label.name if len(label.ids) == 1 else f"{label.name} {label_id}"
            names.setdefault(label_id, own)
    return dict(sorted(names.items()))


def channels_of(description: Mapping[str, Any], key: str = "modality") -> tuple[str, ...]:
    """Names of the channels in their order; nothing where the description names none.

    Known are {"0": "T1", "1": "T2"} and the text that some write for one channel.

    Raises:
        DataError: If they have another form.
    """
    stated = description.get(key)
    if stated is None:
        return ()
    if isinstance(stated, str):
        stated = {"0": stated}
    form = 'expected {"0": name, "1": other name, ...}'
    if not isinstance(stated, dict):
        raise DataError(f'"{key}" of the description is {cut(stated)}; {form}')
    numbers = [_label_id(number) for number in stated]
    if sorted(map(str, numbers)) != sorted(map(str, range(len(stated)))) or not all(
        isinstance(name, str) for name in stated.values()
    ):
        raise DataError(f'"{key}" of the description is {cut(stated)}; {form}')
    by_number = dict(zip(numbers, stated.values(), strict=True))
    names = tuple(by_number[number] for number in range(len(stated)))
    odd = [name for name in names if not (name.isprintable() and 0 < len(name) <= LONGEST_CHANNEL)]
    if odd or len(names) > MOST_CHANNELS:
        raise DataError(
            f'"{key}" of the description is {cut(stated)}; expected at most {MOST_CHANNELS} names '
            f"of 1 to {LONGEST_CHANNEL} characters"
        )
    return names


def numbered(channels: Iterable[str]) -> dict[str, str]:
    """Names of channels as a description states them."""
    return {str(number): name for number, name in enumerate(channels)}


def stated_structures(description: Mapping[str, Any]) -> tuple[Label, ...]:
    """What stands under "structures"; nothing when the description states none.

    Raises:
        DataError: If they have another form.
    """
    stated = description.get("structures")
    if stated is None:
        return ()
    form = "expected {name: [label ids], ...}"
    if not isinstance(stated, dict):
        raise DataError(f'"structures" of the description is {cut(stated)}; {form}')
    structures = []
    for name, given in stated.items():
        ids = tuple(given) if isinstance(given, list) else (given,)
        if not ids or not all(isinstance(one, int) for one in ids):
            raise DataError(f'"structures" of the description: {cut(name)} is {cut(given)}; {form}')
        structures.append(Label(name, ids))
    return tuple(structures)


def structures_named(labels: Iterable[Label]) -> tuple[Structure, ...]:
    """One structure for each label, by id, named by its `slug`, or `label_1` where that is none."""
    ordered = sorted(labels, key=lambda label: label.ids)
    names = [slug(label.name) for label in ordered]
    counts = Counter(names)
    named = []
    for label, name in zip(ordered, names, strict=True):
        number = label.ids[0]
        if name_fault(name):
            name = f"label_{number}"
        elif counts[name] > 1:
            name = f"{name}_{number}"
        named.append(Structure(name, label.ids))
    return tuple(named)


def cases_of(description: Mapping[str, Any], key: str, reach: Reach) -> tuple[Case, ...]:
    """Cases that a description lists under "training" or "test", their files checked to be there.

    Args:
        description: The description.
        key: "training" or "test".
        reach: Folder that paths start from, and whether they may lead out of it.

    Raises:
        DataError: If an entry has another form, a file is missing or outside, a case has not as
            many channels as the others, or ids repeat.
        ConfigError: If an orientation is not one.
    """
    entries = description.get(key, [])
    if not isinstance(entries, list):
        raise DataError(f'"{key}" of the description is no list of cases')
    names = channels_of(description)
    cases = tuple(_case(entry, reach, names) for entry in entries)
    counts = {case.channel_count: case.id for case in cases if case.has_image}
    if len(counts) > 1:
        listed = ", ".join(f"{case_id} has {count}" for count, case_id in sorted(counts.items()))
        raise DataError(f"cases must have the same channels, and {listed}; complete them")
    repeated = [case_id for case_id, count in Counter(c.id for c in cases).items() if count > 1]
    if repeated:
        raise DataError(
            f"case ids must differ, found more than once: {few(repeated)}; "
            'rename the images or give the cases an "id"'
        )
    return cases


def sides_of(description: Mapping[str, Any], cases: Iterable[Case]) -> dict[str, Side]:
    """Case id to the side that the description states for it; nothing when it states none.

    Args:
        description: The description.
        cases: Its training cases, from `cases_of`.

    Raises:
        DataError: If a side is another word, or stated for some cases only.
    """
    entries = description.get("training", [])
    sides = [entry.get("split") if isinstance(entry, dict) else None for entry in entries]
    if all(side is None for side in sides):
        return {}
    for case, side in zip(cases, sides, strict=True):
        if side not in SIDES:
            found = "none" if side is None else cut(side)
            raise DataError(
                f'{case.id}: "split" is {found}; where it is stated, it is "train" or "test" for '
                "every case"
            )
    return {case.id: cast(Side, side) for case, side in zip(cases, sides, strict=True)}


def with_present_tests(description: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """The description without test images that are not there: many downloads leave them out."""
    entries = description.get("test", [])
    if not isinstance(entries, list):
        raise DataError('"test" of the description is no list of images')
    images = [entry.get("image") if isinstance(entry, dict) else entry for entry in entries]
    present = [
        entry
        for entry, image in zip(entries, images, strict=True)
        if all(isinstance(one, str) and _exists(root / one) for one in _each(image))
    ]
    if len(present) < len(entries):
        logger.info("%d test images are not there", len(entries) - len(present))
    return {**description, "test": present}


def described_as(
    name: str,
    labels: dict[str, str],
    training: list[dict[str, Any]],
    test: list[dict[str, Any]],
    *,
    channels: Iterable[str] = (),
) -> dict[str, Any]:
    """A description in the form of the Decathlon.

    Args:
        name: Name of the dataset.
        labels: Label id to name, without the background.
        training: Cases with "image", "label" and the optional additions.
        test: Cases without label map.
        channels: Names of the channels of their images, as far as known.
    """
    named = numbered(channels)
    return {
        "name": name,
        "tensorImageSize": "3D",
        **({"modality": named} if named else {}),
        "labels": {"0": "background", **labels} if labels else {},
        "numTraining": len(training),
        "numTest": len(test),
        "training": training,
        "test": test,
    }


def slug(name: str) -> str:
    """A name for a structure: lower case, digits and underscores."""
    return re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")


def cut(value: object) -> str:
    """A stated value as an error message may show it, cut if it is long or deep."""
    return reprlib.repr(value)


def _label_id(stated: object) -> int | None:
    """A label id, 0 or more, or None for what is none."""
    if isinstance(stated, str):
        if not (stated.isascii() and stated.isdecimal() and len(stated) <= 10):
            return None
        stated = int(stated)
    if isinstance(stated, bool) or not isinstance(stated, int):
        return None
    return stated if 0 <= stated <= LARGEST_LABEL_ID else None


def _each(image: object) -> list[object]:
    """The paths of an image, or what stands in their place."""
    return image if isinstance(image, list) and image else [image]


def _case(entry: object, reach: Reach, channels: Sequence[str]) -> Case:
    if isinstance(entry, str):
        entry = {"image": entry}
    if isinstance(entry, dict) and "image" not in entry and isinstance(entry.get("label"), str):
        entry, channels = {**entry, "image": entry["label"]}, ()
    paths = _each(entry.get("image")) if isinstance(entry, dict) else []
    if not isinstance(entry, dict) or not all(isinstance(path, str) for path in paths):
        raise DataError(f'a case of the description is {cut(entry)}; expected {{"image": path}}')
    texts = {key: entry.get(key) for key in ("label", "id", "group", "orientation")}
    for key, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise DataError(f'{shown_path(paths[0])}: "{key}" is {cut(value)}; expected a text')
    if len(paths) > 1 and channels and len(paths) != len(channels):
        raise DataError(
            f'{shown_path(paths[0])}: the case has {len(paths)} images and "modality" names the '
            f"channels {few(channels)}; give one image for each"
        )
    image, *further = (_file(str(path), reach) for path in paths)
    label_map = None if texts["label"] is None else _file(texts["label"], reach)
    if texts["orientation"] is not None:
        check_orientation(texts["orientation"])
    case = Case(
        texts["id"] or case_id_of(image),
        image,
        label_map,
        texts["group"] or None,
        orientation=texts["orientation"],
    )
    return replace(
        case,
        label_to_image=_affine(case.id, entry.get("label_to_image")),
        further_channels=tuple(further),
        channel_names=tuple(channels),
        stacked=len(channels) if channels and not further else 1,
    )


def _affine(case_id: str, stated: object) -> Rows | None:
    if stated is None:
        return None
    try:
        rows = np.array(stated, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        rows = np.empty(0)
    if (
        rows.shape != (4, 4)
        or not np.isfinite(rows).all()
        or not np.array_equal(rows[3], (0, 0, 0, 1))
        or np.linalg.det(rows) == 0
    ):
        raise DataError(
            f'{case_id}: "label_to_image" is {cut(stated)}; expected four rows of four numbers, '
            "the last one 0, 0, 0, 1"
        )
    return tuple(tuple(row) for row in rows.tolist())


def _file(text: str, reach: Reach) -> Path:
    path = reach.folder / text
    reach.check(path)
    try:
        reach.check(*stored_files(path))
    except OSError as error:
        raise DataError(f"{shown_path(text)}: not a usable path ({reason(error)})") from error
    return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
