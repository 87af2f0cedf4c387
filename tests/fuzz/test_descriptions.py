"""Foreign descriptions of datasets: whatever they hold, they give a dataset or an error.

A folder in each known layout is written once; each round spoils one of its text files and reads
it. `SHAPEGUIDE_FUZZ_ROUNDS` says how many rounds there are, `SHAPEGUIDE_FUZZ_SEED` where they
start.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shapeguide.data.dataset import Dataset, read_dataset
from shapeguide.data.nifti import write_label_map, write_volume
from shapeguide.errors import ShapeguideError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import LabelMap, Volume
from shapeguide.storage.names import name_fault

ROUNDS = int(os.environ.get("SHAPEGUIDE_FUZZ_ROUNDS", "1000"))
SEED = int(os.environ.get("SHAPEGUIDE_FUZZ_SEED", "0"))
SHAPE = (3, 4, 5)
GRID = Grid(SHAPE, np.eye(4))
STEMS = ("a", "b", "c", "d")

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 255, 2**31, 10**400, 0.5, 1e308, -0.0),
    *("", "a", "1", "0", "-1", "1.0", "9" * 5000, "NA", "nan", "CON", "..", ".", "/", "\\", "~"),
    *("/etc/passwd", "../secret.nii.gz", "x/../../secret.nii.gz", "./link.nii.gz", "loop.nii.gz"),
    *("imagesTr", "imagesTr/a.nii.gz", "./labelsTr/a.nii.gz", "file:///etc/passwd", "a" * 5000),
    *("a\0b", "a\nb", "\u202eabc", "é" * 60, "海馬", "=1+1", "{}", "RAS", "LPI", "up", "_0000"),
    *([], {}, [[]], [1, 2], [1, [2]], {"a": 1}, {"1": "a"}, {"a": [1, 2], "b": 2}, [None]),
    *([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], [["1"] * 4] * 4, [[0] * 4] * 4),
)
ODD_TEXTS = (
    *(b"", b"\0", b"\xff\xfe", b"\xe9", b'"\\ud800"', b"NaN", b"1e999", b"\xef\xbb\xbf", b"{}"),
    *(b"[]", b"null", b'{"a":', b"\t\t\t\n", b'"', b",", b"\n" * 50, b"9" * 5000, b"a" * 200_000),
    b"[" * 100_000,
)
KEYS = (
    *("root", "labels", "structures", "training", "test", "name", "channel_names", "file_ending"),
    *("image", "label", "id", "group", "orientation", "label_to_image", "train", "val"),
    *("same_person", "regions_class_order", "modality", "split", "other_labels"),
)


def put_case(folder: Path, image: str, label: str) -> None:
    voxels = np.arange(60, dtype=np.float32).reshape(SHAPE)
    write_volume(Volume(voxels, GRID), folder / image)
    ids = np.zeros(SHAPE, dtype=np.uint8)
    ids[1, 1, 1], ids[2, 2, 2] = 1, 2
    write_label_map(LabelMap(ids, GRID), folder / label)


def put_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def decathlon(folder: Path) -> None:
    for stem in STEMS:
        put_case(folder, f"imagesTr/{stem}.nii.gz", f"labelsTr/{stem}.nii.gz")
    pairs: list[dict[str, Any]] = [
        {"image": f"./imagesTr/{stem}.nii.gz", "label": f"./labelsTr/{stem}.nii.gz", "id": stem}
        for stem in STEMS
    ]
    pairs[0] |= {"group": "Ann", "orientation": "RAS", "label_to_image": np.eye(4).tolist()}
    labels = {"0": "background", "1": "Front", "2": "Back"}
    put_json(
        folder / "dataset.json",
        {
            "name": "Toy",
            "root": ".",
            "labels": labels,
            "structures": {"whole": [1, 2]},
            "training": pairs[:3],
            "test": ["./imagesTr/d.nii.gz"],
        },
    )


def nnunet(folder: Path) -> None:
    for stem in STEMS:
        put_case(folder, f"imagesTr/{stem}_0000.nii.gz", f"labelsTr/{stem}.nii.gz")
    labels = {"background": 0, "front": [1], "back": 2}
    stated = {"channel_names": {"0": "T1"}, "labels": labels, "file_ending": ".nii.gz"}
    put_json(folder / "dataset.json", {**stated, "numTraining": 4, "regions_class_order": [1, 2]})


def bids(folder: Path) -> None:
    for stem in STEMS:
        inner = f"sub-{stem}/anat/sub-{stem}"
        put_case(folder, f"{inner}_T1w.nii.gz", f"derivatives/m/{inner}_desc-m_dseg.nii.gz")
    table = "index\tname\n1\tFront\n2\tBack\n"
    (folder / "derivatives/m/desc-m_dseg.tsv").write_text(table)


def plain(folder: Path) -> None:
    for stem in STEMS:
        put_case(folder, f"images/{stem}.nii.gz", f"labels/{stem}.nii.gz")
    (folder / "label_names.csv").write_text("Number,Name\n1,Front\n2,Back\n")
    split = {"train": ["a", "b"], "test": ["c", "d"], "same_person": [["a", "b"]]}
    put_json(folder / "split.json", split)


def table(folder: Path) -> None:
    rows = ["image,label,person,case,split"]
    for stem in STEMS:
        put_case(folder, f"scans/{stem}.nii.gz", f"{stem}/seg.nii.gz")
        side = "test" if stem == "d" else "train"
        rows.append(f"scans/{stem}.nii.gz,{stem}/seg.nii.gz,Ann {stem},{stem},{side}")
    (folder / "cases.csv").write_text("\n".join(rows))


SPOILT: dict[Callable[[Path], None], tuple[str, ...]] = {
    decathlon: ("dataset.json",),
    nnunet: ("dataset.json",),
    bids: ("derivatives/m/desc-m_dseg.tsv",),
    plain: ("label_names.csv", "split.json"),
    table: ("cases.csv",),
}


def spoilt_value(value: Any, draw: random.Random) -> Any:
    """The value with one thing in it, at any depth, put in the place of another."""
    if isinstance(value, dict) and value and draw.random() < 0.8:
        key = draw.choice([*value])
        changed = dict(value)
        kind = draw.random()
        if kind < 0.6:
            changed[key] = spoilt_value(value[key], draw)
        elif kind < 0.7:
            del changed[key]
        elif kind < 0.85:
            changed[draw.choice(KEYS)] = draw.choice(ODD_VALUES)
        else:
            changed[draw.choice([str(draw.choice(ODD_VALUES)), f"{key}/.."])] = value[key]
        return changed
    if isinstance(value, list) and value and draw.random() < 0.8:
        place = draw.randrange(len(value))
        changed_list = list(value)
        if draw.random() < 0.2:
            changed_list *= draw.choice([0, 2, 100])
        else:
            changed_list[place] = spoilt_value(value[place], draw)
        return changed_list
    return draw.choice(ODD_VALUES)


def spoilt_bytes(content: bytes, draw: random.Random) -> bytes:
    """The text cut, overwritten or with something odd put into it."""
    place = draw.randrange(len(content) + 1)
    kind = draw.random()
    if kind < 0.2:
        return content[:place]
    if kind < 0.5:
        return content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]
    if kind < 0.6:
        return draw.choice(ODD_TEXTS)
    return content[:place] + draw.choice(ODD_TEXTS) + content[place:]


def spoil(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    if path.suffix == ".json" and draw.random() < 0.75:
        value = json.loads(content)
        for _ in range(draw.choice([1, 1, 2, 4])):
            value = spoilt_value(value, draw)
        content = json.dumps(value, ensure_ascii=draw.random() < 0.8).encode("utf-8")
    else:
        content = spoilt_bytes(content, draw)
    path.write_bytes(content)


_WATCHED: list[Path] | None = None


def _note_open(event: str, arguments: tuple[Any, ...]) -> None:
    if _WATCHED is None or event != "open":
        return
    if isinstance(arguments[0], str | bytes | os.PathLike):
        _WATCHED.append(Path(os.fsdecode(arguments[0])))


sys.addaudithook(_note_open)


@contextmanager
def opened_paths() -> Iterator[list[Path]]:
    """What the block opens."""
    global _WATCHED
    opened: list[Path] = []
    _WATCHED = opened
    try:
        yield opened
    finally:
        _WATCHED = None


def use(dataset: Dataset) -> None:
    """What every caller does with a dataset first."""
    assert len(dataset) > 0
    for case in (*dataset.cases, *dataset.unlabelled):
        assert name_fault(case.id) is None
    for structure in dataset.structures:
        assert name_fault(structure.name) is None
    assert dataset.name.isprintable()
    for action in (
        dataset.require_structures,
        dataset[0].read_label_map,
        lambda: dataset.with_structures(whole=(1, 2)),
        lambda: dataset.split(dataset.path / "split.json"),
        lambda: dataset.fold(0, count=2),
    ):
        allow(action)


def read_and_use(path: Path) -> None:
    use(read_dataset(path))


def allow(action: Callable[[], object]) -> None:
    """Do it; an error of ours is all that may come, and it says something readable."""
    message = message_of(action)
    assert message is None or 0 < len(message) < 3000


def message_of(action: Callable[[], object]) -> str | None:
    """What the error of ours says that an action gives, or None when it gives none."""
    try:
        action()
    except ShapeguideError as error:
        return str(error)
    return None


def leads_outside(path: Path, folder: Path) -> bool:
    """Whether a path that was opened is one of the secrets beside the folder, or of the system."""
    resolved = path.resolve()
    return resolved.parent == folder.parent.resolve() or resolved.is_relative_to("/etc")


@pytest.mark.parametrize("layout", SPOILT)
def test_a_spoilt_description_gives_a_dataset_or_an_error_and_opens_nothing_outside(
    tmp_path: Path, layout: Callable[[Path], None]
) -> None:
    folder = tmp_path / "data"
    layout(folder)
    put_case(tmp_path, "secret.nii.gz", "secret_labels.nii.gz")
    (folder / "link.nii.gz").symlink_to(tmp_path / "secret.nii.gz")
    (folder / "loop.nii.gz").symlink_to(folder / "loop.nii.gz")
    read = 0
    for round_number in range(SEED, SEED + ROUNDS // len(SPOILT)):
        draw = random.Random(f"{layout.__name__} {round_number}")
        name = draw.choice(SPOILT[layout])
        whole = (folder / name).read_bytes()
        spoil(folder / name, draw)
        by_name = name == "cases.csv" or (name == "dataset.json" and draw.random() < 0.5)
        target = folder / name if by_name else folder
        with opened_paths() as opened:
            try:
                message = message_of(partial(read_and_use, target))
            except Exception as error:
                shutil.copy(folder / name, tmp_path / "spoilt")
                raise AssertionError(f"round {round_number}: {tmp_path / 'spoilt'}") from error
        if message is not None:
            assert str(folder) in message, f"round {round_number} names no file: {message}"
            assert len(message) < 3000, f"round {round_number}: {message[:500]}"
        outside = [path for path in opened if leads_outside(path, folder)]
        assert not outside, f"round {round_number} opened {outside}"
        read += message is None
        (folder / name).write_bytes(whole)
    assert read > 0
