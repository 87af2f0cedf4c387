"""Folders of scans and label maps, described as a Decathlon `dataset.json` describes them.

Known are Decathlon folders, nnU-Net v2 raw folders, BIDS derivatives, LPBA40, and plain folders
with `images/` and `labels/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from shapeguide.data.bids import describe_bids
from shapeguide.data.case_ids import by_id, scans_by_case
from shapeguide.data.description import cut, described_as, root_of
from shapeguide.data.label_names import names_from_csv
from shapeguide.data.lpba40 import describe_lpba40
from shapeguide.data.reach import Reach
from shapeguide.data.scan_files import case_id_of, list_scans
from shapeguide.data.splits import read_split
from shapeguide.errors import DataError, reason
from shapeguide.storage.whole import read_json, write_json

DESCRIPTION_FILE = "dataset.json"
IGNORED = "ignore"
"""What nnU-Net calls the label of voxels of which nobody says what they are."""


@dataclass(frozen=True)
class Described:
    """What a description holds, and where its files lie."""

    content: dict[str, Any]
    reach: Reach
    """Its folder is the one that paths of the description start from."""


def described(path: Path, *, allow_outside: bool = False) -> Described:
    """A description file as it is, or a folder in a known layout described on the fly.

    Args:
        path: A description file or a folder.
        allow_outside: Let it name files, or a root, outside its folder.

    Raises:
        DataError: If it is unusable, or what it states leads outside.
    """
    folder = path if path.is_dir() else path.parent
    file = folder / DESCRIPTION_FILE if path.is_dir() else path
    reach = Reach(folder, allow_outside)
    if not file.is_file():
        content = _describe_layout(reach)
        # The root is ours: the folder that holds the one of a space of LPBA40.
        return Described(content, Reach(folder / content.get("root", "."), allow_outside))
    reach.check(file)
    content = read_description(file)
    if is_nnunet(content):
        return Described(describe_nnunet(reach, content), reach)
    return Described(content, Reach(root_of(content, reach), allow_outside))


def describe(
    folder: str | PathLike[str], out: str | PathLike[str], *, allow_outside: bool = False
) -> None:
    """Write the description of a folder.

    Beside the folder's own files it states relative paths only. Anywhere else it also states the
    folder as its "root", which is read with `allow_outside=True` only.

    Args:
        folder: A folder of scans and label maps in one of the known layouts.
        out: The description to write, such as dataset.json.
        allow_outside: Let tables and links in the folder lead outside.

    Raises:
        DataError: If the folder does not exist, has no known layout, or is not complete, or the
            description cannot be written.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    found = described(folder, allow_outside=allow_outside)
    content = {key: value for key, value in found.content.items() if key != "root"}
    root = found.reach.folder.resolve()
    if root != out.parent.resolve():
        content["root"] = str(root)
    try:
        write_json(out, content)
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written ({reason(error)}); choose another place"
        ) from error


def _describe_layout(reach: Reach) -> dict[str, Any]:
    folder = reach.folder
    for images, labels in (("imagesTr", "labelsTr"), ("images", "labels")):
        if (folder / images).is_dir() and (folder / labels).is_dir():
            return _describe_plain(reach, images, labels)
    found = describe_lpba40(reach) or describe_bids(reach)
    if found is None:
        raise DataError(
            f"{folder}: no known layout; expected a dataset.json, imagesTr/ and labelsTr/, images/ "
            "and labels/, delineation_space/ or native_space/ (LPBA40), or sub-*/ with *_T1w and "
            "*_dseg files (BIDS)"
        )
    return found


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


def describe_nnunet(reach: Reach, stated: dict[str, Any]) -> dict[str, Any]:
    """Description of an nnU-Net v2 raw folder: imagesTr/case_0000.nii.gz and labelsTr/case.nii.gz.

    Raises:
        DataError: If there is more than one channel, or images and label maps do not pair up, or
            some voxels are to be ignored.
    """
    channels, ending = stated["channel_names"], stated.get("file_ending", "")
    if not isinstance(channels, dict) or len(channels) != 1:
        raise DataError(
            f'{reach.folder}: one channel expected, the description has "channel_names" '
            f"{cut(channels)}; make a dataset of the channel to segment"
        )
    if not isinstance(ending, str):
        raise DataError(f'{reach.folder}: "file_ending" is {cut(ending)}; expected a text')
    content = _describe_plain(reach, "imagesTr", "labelsTr", ending=ending)
    content["labels"] = stated.get("labels", {})
    if isinstance(content["labels"], dict) and IGNORED in content["labels"]:
        raise DataError(
            f'{reach.folder}: "labels" has the label "{IGNORED}" ({cut(content["labels"][IGNORED])}'
            "): voxels that a training must pass over, and this is not yet possible; give them to "
            f'the background or to a structure in the label maps, and take "{IGNORED}" out of '
            '"labels", or make a dataset of the cases that have none'
        )
    content["name"] = stated.get("name", content["name"])
    return content


def _describe_plain(reach: Reach, images: str, labels: str, *, ending: str = "") -> dict[str, Any]:
    """Images and label maps of equal names in two folders."""
    folder = reach.folder
    for part in (images, labels):
        if not (folder / part).is_dir():
            raise DataError(f"{folder / part}: there is no such folder")
    image_files = scans_by_case(folder / images, ending=ending)
    label_files = by_id(list_scans(folder / labels), case_id_of, ending=ending)
    lone = sorted(label_files.keys() - image_files.keys())
    if not label_files:
        raise DataError(f"{folder / labels}: there are no label maps; put some there")
    if lone:
        raise DataError(
            f"{folder}: the label map {lone[0]} in {labels}/ has no image of that name in "
            f"{images}/; give both the same name"
        )
    people = _people(reach)
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
        tests |= scans_by_case(folder / "imagesTs", ending=ending)
    test = [
        {"id": case_id, "image": f"./{path.parent.name}/{path.name}"}
        for case_id, path in sorted(tests.items())
    ]
    return described_as(folder.name, _label_names(reach), training, test)


def _people(reach: Reach) -> dict[str, str]:
    """Case id to the first case id of the same person, from a split.json that says so."""
    path = reach.folder / "split.json"
    if not path.is_file():
        return {}
    reach.check(path)
    same_person = read_split(path).same_person
    return {case_id: group[0] for group in same_person for case_id in group}


def _label_names(reach: Reach) -> dict[str, str]:
    path = reach.folder / "label_names.csv"
    if not path.is_file():
        return {}
    reach.check(path)
    return names_from_csv(path)
