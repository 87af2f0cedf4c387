"""BIDS: T1w images and the segmentations (`_dseg`) that derivatives hold for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shapeguide.data.description import described_as
from shapeguide.data.label_names import names_from_dseg
from shapeguide.data.reach import Reach
from shapeguide.data.scan_files import SUFFIXES, case_id_of, stated_path
from shapeguide.errors import DataError

PROCESSING = ("desc", "space", "res", "atlas", "seg", "label", "hemi", "den")
"""Entities that derivatives add; the others name the scan."""
NEAR_SUBJECTS = ("sub-*", "*/sub-*", "*/*/sub-*", "*/*/*/sub-*")
"""Where folders of subjects lie in a BIDS folder or in one that holds it and its derivatives."""
SPACES_OF_THE_SCAN = (None, "T1w", "orig")


def describe_bids(reach: Reach) -> dict[str, Any] | None:
    """Description of a BIDS folder with its derivatives, or None if it is not one.

    An image and a segmentation belong together when the entities that name the scan (subject,
    session, acquisition, run, ...) agree and both are in one space; an unprocessed image is
    preferred. The subject is the group.

    Raises:
        DataError: If there are no segmentations, or one image or segmentation fits several.
    """
    folder = reach.folder
    # A folder that is none, such as a home, is not searched to its last corner.
    if not any(next(folder.glob(near), None) for near in NEAR_SUBJECTS):
        return None
    images = _files(folder, "T1w")
    if not images:
        return None
    segmentations = _files(folder, "dseg")
    if not segmentations:
        raise DataError(
            f"{folder}: there are {len(images)} T1w images and no *_dseg label maps; put those "
            "under derivatives/ in this folder"
        )
    pairs: dict[Path, Path] = {}
    for segmentation in segmentations:
        image = _image_of(segmentation, images)
        if image in pairs:
            raise DataError(
                f"{image} has two segmentations, {pairs[image]} and {segmentation}; "
                "move those to leave out elsewhere, or write the description by hand"
            )
        pairs[image] = segmentation
    training = [
        {**_entry(folder, image), "label": stated_path(folder, segmentation)}
        for image, segmentation in sorted(pairs.items())
    ]
    shown = {_scan_entities(image) for image in pairs}
    test = [
        _entry(folder, image)
        for image in images
        if _scan_entities(image) not in shown and "desc" not in _entities(image)
    ]
    return described_as(folder.resolve().name, _label_names(reach, segmentations), training, test)


def _files(folder: Path, suffix: str) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob(f"sub-*_{suffix}.*"))
        if path.name.lower().endswith(SUFFIXES) and case_id_of(path).endswith(f"_{suffix}")
    ]


def _entities(path: Path) -> dict[str, str]:
    parts = [part.partition("-") for part in path.name.split(".")[0].split("_")]
    return {key: value for key, dash, value in parts if dash}


def _scan_entities(path: Path) -> frozenset[tuple[str, str]]:
    return frozenset(item for item in _entities(path).items() if item[0] not in PROCESSING)


def _space(path: Path) -> str | None:
    space = _entities(path).get("space")
    return None if space in SPACES_OF_THE_SCAN else space


def _image_of(segmentation: Path, images: Sequence[Path]) -> Path:
    fitting = [
        image
        for image in images
        if _scan_entities(image) == _scan_entities(segmentation)
        and _space(image) == _space(segmentation)
    ]
    raw = [image for image in fitting if "desc" not in _entities(image)]
    chosen = raw or fitting
    if len(chosen) != 1:
        found = ", ".join(map(str, chosen)) or "none"
        raise DataError(
            f"{segmentation}: one T1w image with the same entities expected, found {found}; "
            "describe the folder that holds both the raw data and the derivatives"
        )
    return chosen[0]


def _entry(folder: Path, image: Path) -> dict[str, str]:
    return {
        "id": case_id_of(image).removesuffix("_T1w"),
        "image": stated_path(folder, image),
        "group": f"sub-{_entities(image)['sub']}",
    }


def _label_names(reach: Reach, segmentations: Sequence[Path]) -> dict[str, str]:
    """Label id to name from the first *dseg.tsv that is stated for these segmentations."""
    described = {_entities(path).get("desc") for path in segmentations}
    for path in sorted(reach.folder.rglob("*dseg.tsv")):
        if _entities(path).get("desc") in {None, *described} and path.is_file():
            reach.check(path)
            return names_from_dseg(path)
    return {}
