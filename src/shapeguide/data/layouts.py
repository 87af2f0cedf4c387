"""Folders of scans and label maps, described as a Decathlon `dataset.json` describes them.

Known are Decathlon folders, nnU-Net v2 raw folders, BIDS derivatives, LPBA40, and plain folders
with `images/` and `labels/`.
"""

from __future__ import annotations

import csv
import re
from os import PathLike
from pathlib import Path
from typing import Any

from shapeguide.data.bids import describe_bids
from shapeguide.data.description import described_as
from shapeguide.data.lpba40 import describe_lpba40
from shapeguide.data.scan_files import case_id_of, list_scans
from shapeguide.data.splits import read_json, read_split
from shapeguide.errors import DataError
from shapeguide.storage.whole import write_json

DESCRIPTION_FILE = "dataset.json"


def describe(folder: str | PathLike[str], out: str | PathLike[str]) -> None:
    """Write the description of a folder.

    Beside the folder's own files it states relative paths only; anywhere else it also states the
    folder as its "root".

    Args:
        folder: A folder of scans and label maps in one of the known layouts.
        out: The description to write, such as dataset.json.

    Raises:
        DataError: If the folder has no known layout, or the description cannot be written.
    """
    folder, out = Path(folder), Path(out)
    description = describe_folder(folder)
    root = (folder / description.pop("root", ".")).resolve()
    if root != out.parent.resolve():
        description["root"] = str(root)
    try:
        write_json(out, description)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error}); choose another place") from error


def describe_folder(folder: str | PathLike[str]) -> dict[str, Any]:
    """Description of a folder, with paths relative to it.

    Returns:
        What a Decathlon `dataset.json` holds: "name", "labels" ({"1": name}), "training"
        ([{"image": path, "label": path}]), "test" (images without label map), and for a case an
        "id", a "group" (the person) and an "orientation" where the layout knows them.

    Raises:
        DataError: If the folder does not exist, has no known layout, or is not complete.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    if (folder / DESCRIPTION_FILE).is_file():
        content = read_description(folder / DESCRIPTION_FILE)
        return describe_nnunet(folder, content) if is_nnunet(content) else content
    for images, labels in (("imagesTr", "labelsTr"), ("images", "labels")):
        if (folder / images).is_dir() and (folder / labels).is_dir():
            return _describe_plain(folder, images, labels)
    described = describe_lpba40(folder) or describe_bids(folder)
    if described is None:
        raise DataError(
            f"{folder}: no known layout; expected a dataset.json, imagesTr/ and labelsTr/, images/ "
            "and labels/, delineation_space/ or native_space/ (LPBA40), or sub-*/ with *_T1w and "
            "*_dseg files (BIDS)"
        )
    return described


def read_description(path: Path) -> dict[str, Any]:
    """Content of a description file.

    Raises:
        DataError: If it is missing, not JSON, or describes no dataset.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not ("training" in content or is_nnunet(content)):
        raise DataError(
            f'{path}: not a dataset description; expected "training": [{{"image": path, "label": '
            "path}, ...], or a dataset.json of nnU-Net v2"
        )
    return content


def is_nnunet(description: dict[str, Any]) -> bool:
    """Whether a description is one of nnU-Net v2, which names no files."""
    return "training" not in description and "channel_names" in description


def describe_nnunet(folder: Path, stated: dict[str, Any]) -> dict[str, Any]:
    """Description of an nnU-Net v2 raw folder: imagesTr/case_0000.nii.gz and labelsTr/case.nii.gz.

    Raises:
        DataError: If there is more than one channel, or images and label maps do not pair up.
    """
    channels = stated["channel_names"]
    if not isinstance(channels, dict) or len(channels) != 1:
        raise DataError(
            f"{folder}: one channel expected, the description names {channels}; "
            "make a dataset of the channel to segment"
        )
    ending = stated.get("file_ending", ".nii.gz")
    described = _describe_plain(folder, "imagesTr", "labelsTr", channel="_0000", ending=str(ending))
    return {
        **described,
        "name": stated.get("name", folder.name),
        "labels": stated.get("labels", {}),
    }


def _describe_plain(
    folder: Path, images: str, labels: str, *, channel: str = "", ending: str = ""
) -> dict[str, Any]:
    """Images and label maps of equal names in two folders."""
    image_files = _scans_by_id(folder / images, ending, channel)
    label_files = _scans_by_id(folder / labels, ending, "")
    lone = sorted(label_files.keys() - image_files.keys())
    if lone or not label_files:
        found = f"label map {lone[0]} has no image of that name" if lone else "no label maps"
        raise DataError(f"{folder}: {found} in {images}/ and {labels}/; give both the same name")
    people = _people(folder)
    training = [
        {
            "id": case_id,
            "image": f"./{images}/{image_files[case_id].name}",
            "label": f"./{labels}/{label_files[case_id].name}",
            **({"group": people[case_id]} if case_id in people else {}),
        }
        for case_id in sorted(label_files)
    ]
    tests = {case_id: path for case_id, path in image_files.items() if case_id not in label_files}
    if images == "imagesTr" and (folder / "imagesTs").is_dir():
        tests |= _scans_by_id(folder / "imagesTs", ending, channel)
    test = [
        {"id": case_id, "image": f"./{path.parent.name}/{path.name}"}
        for case_id, path in sorted(tests.items())
    ]
    return described_as(folder.name, _label_names(folder), training, test)


def _scans_by_id(folder: Path, ending: str, channel: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    scans: dict[str, Path] = {}
    for path in list_scans(folder):
        case_id = case_id_of(path)
        if not path.name.endswith(ending) or not case_id.endswith(channel):
            found = re.search(r"_\d{4}$", case_id)
            raise DataError(
                f"{path}: expected names that end in {channel}{ending}"
                + ("; only one channel can be read" if found and channel else "")
            )
        case_id = case_id.removesuffix(channel)
        if case_id in scans:
            raise DataError(f"case ids must differ: {scans[case_id]} and {path}; remove one")
        scans[case_id] = path
    return scans


def _people(folder: Path) -> dict[str, str]:
    """Case id to the first case id of the same person, from a split.json that says so."""
    if not (folder / "split.json").is_file():
        return {}
    same_person = read_split(folder / "split.json").same_person
    return {case_id: group[0] for group in same_person for case_id in group}


def _label_names(folder: Path) -> dict[str, str]:
    """Label id to name from a label_names.csv: the first two columns, a header line is skipped."""
    path = folder / "label_names.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if len(row) > 1]
    return {row[0].strip(): row[1].strip() for row in rows if row[0].strip().isdecimal()}
