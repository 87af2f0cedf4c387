"""Folders of scans and label maps, described as a Decathlon `dataset.json` describes them.

Known are Decathlon folders, nnU-Net v2 raw folders, BIDS derivatives, LPBA40, subjects of
FreeSurfer, plain folders with `images/` and `labels/`, and one folder per person. Any other is
described by patterns or a table of cases.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from shapeguide.data.bids import describe_bids
from shapeguide.data.case_ids import by_id, scans_by_case
from shapeguide.data.case_table import describe_table, is_table
from shapeguide.data.description import channels_of, cut, described_as, numbered, root_of
from shapeguide.data.file_choice import NO_CHOICE, FileChoice, as_texts
from shapeguide.data.freesurfer import describe_freesurfer
from shapeguide.data.label_names import names_beside
from shapeguide.data.lpba40 import describe_lpba40
from shapeguide.data.patterns import describe_patterns
from shapeguide.data.person_folders import describe_person_folders
from shapeguide.data.reach import Reach
from shapeguide.data.scan_files import case_id_of, list_scans, stated_image, stated_path
from shapeguide.data.splits import people_beside
from shapeguide.errors import ConfigError, DataError, reason
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


def described(
    path: Path, choice: FileChoice = NO_CHOICE, *, allow_outside: bool = False
) -> Described:
    """A description file as it is, or a table or a folder described on the fly.

    Args:
        path: A description file, a table of cases or a folder.
        choice: Which files of a folder are images and which label maps. Patterns are followed
            whatever else the folder holds.
        allow_outside: Let it name files, or a root, outside its folder.

    Raises:
        DataError: If it is unusable, or what it states leads outside.
        ConfigError: If files are chosen where a description, a table or the layout states them.
    """
    folder = path if path.is_dir() else path.parent
    file = folder / DESCRIPTION_FILE if path.is_dir() else path
    reach = Reach(folder, allow_outside)
    if path.is_dir() and choice.by_patterns:
        return Described(describe_patterns(reach, choice), reach)
    if path.is_dir() and not file.is_file():
        content = _describe_layout(reach, choice)
        # The root is ours: the folder that holds the one of a space of LPBA40.
        return Described(content, Reach(folder / content.get("root", "."), allow_outside))
    choice.require_none(str(file))
    if is_table(file):
        return Described(describe_table(reach, file), reach)
    reach.check(file)
    content = read_description(file)
    if is_nnunet(content):
        return Described(describe_nnunet(reach, content), reach)
    return Described(content, Reach(root_of(content, reach), allow_outside))


def is_description(path: Path) -> bool:
    """Whether a path is named like a description or a table of cases, and is no folder."""
    return not path.is_dir() and (path.suffix == ".json" or is_table(path))


def describe(
    source: str | PathLike[str],
    out: str | PathLike[str],
    *,
    images: str | Iterable[str] = (),
    labels: str | None = None,
    allow_outside: bool = False,
) -> None:
    """Write the description of a folder or of a table of cases.

    Beside the files that it describes it states relative paths only. Anywhere else it also states
    their folder as its "root", which is read with `allow_outside=True` only.

    Args:
        source: A folder of scans and label maps in one of the known layouts, or in any with
            `images` and `labels`; or a table of cases.
        out: The description to write, such as dataset.json.
        images: Which files are images, see `read_dataset`.
        labels: Which files are label maps.
        allow_outside: Let tables and links in the folder lead outside.

    Raises:
        DataError: If the folder does not exist, has no known layout, or is not complete, or the
            description cannot be written.
        ConfigError: If `images` or `labels` do not suit the folder.
    """
    source, out = Path(source), Path(out)
    if not source.exists():
        raise DataError(f"{source}: there is no such folder or table")
    found = described(source, FileChoice(as_texts(images), labels), allow_outside=allow_outside)
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


def _describe_layout(reach: Reach, choice: FileChoice) -> dict[str, Any]:
    folder = reach.folder
    for images, labels in (("imagesTr", "labelsTr"), ("images", "labels")):
        if (folder / images).is_dir() and (folder / labels).is_dir():
            choice.require_none(f"{folder}, by the names in {images}/ and {labels}/,")
            return _describe_plain(reach, images, labels)
    lpba40 = describe_lpba40(reach)
    if lpba40 is not None:
        choice.require_none(f"{folder}, a folder of LPBA40,")
        return lpba40
    for describe_one in (describe_bids, describe_freesurfer, describe_person_folders):
        found = describe_one(reach, choice)
        if found is not None:
            return found
    if choice.label_maps_alone:
        return describe_patterns(reach, choice)
    problem = DataError if not choice.stated else ConfigError
    raise problem(
        f"{folder}: no known layout; expected a dataset.json, imagesTr/ and labelsTr/, images/ "
        "and labels/, delineation_space/ or native_space/ (LPBA40), sub-*/ with *_T1w and "
        "*_dseg files (BIDS), */mri/ (FreeSurfer), or one folder per person; for any other give "
        "patterns, such as --images 'T1_*.nii.gz' --labels '*_seg.nii.gz', or a table with the "
        "columns image and label"
    )


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
        DataError: If a case lacks a channel, or images and label maps do not pair up, or some
            voxels are to be ignored.
    """
    channels, ending = channels_of(stated, "channel_names"), stated.get("file_ending", "")
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
    content["modality"] = numbered(channels)
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
    people = people_beside(reach)
    training = [
        {
            "id": case_id,
            "image": stated_image(folder, image_files[case_id]),
            "label": stated_path(folder, label_files[case_id]),
            **({"group": people[case_id]} if case_id in people else {}),
        }
        for case_id in sorted(label_files)
    ]
    tests = {name: paths for name, paths in image_files.items() if name not in label_files}
    if images == "imagesTr" and (folder / "imagesTs").is_dir():
        tests |= scans_by_case(folder / "imagesTs", ending=ending)
    test = [
        {"id": case_id, "image": stated_image(folder, paths)}
        for case_id, paths in sorted(tests.items())
    ]
    return described_as(folder.name, names_beside(reach), training, test)
