"""BIDS: T1w images and the segmentations (`_dseg`) that derivatives hold for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shapeguide.data.description import described_as
from shapeguide.data.file_choice import FileChoice, is_pattern
from shapeguide.data.label_names import names_from_dseg
from shapeguide.data.patterns import Pattern
from shapeguide.data.reach import Reach
from shapeguide.data.scan_files import (
    case_id_of,
    has_scan_name,
    scans_among,
    stated_image,
    stated_path,
)
from shapeguide.errors import DataError

PROCESSING = ("desc", "space", "res", "atlas", "seg", "label", "hemi", "den")
"""Entities that derivatives add; the others name the scan."""
NEAR_SUBJECTS = ("sub-*", "*/sub-*", "*/*/sub-*", "*/*/*/sub-*")
"""Where folders of subjects lie in a BIDS folder or in one that holds it and its derivatives."""
SPACES_OF_THE_SCAN = (None, "T1w", "orig")


@dataclass(frozen=True)
class _Wanted:
    """Which files are looked for: `desc-manual_dseg` are those of this entity and this suffix."""

    suffix: str
    entities: Mapping[str, str]
    pattern: Pattern | None = None
    """Or those that fit a pattern, and have the usual suffix."""

    def search(self, folder: Path) -> list[Path]:
        """The files below a folder, in order."""
        if self.pattern is not None:
            return [found.path for found in self.pattern.search(folder)]
        found = scans_among(folder.rglob(f"sub-*_{self.suffix}.*"))
        wanted = self.entities.items()
        return [
            path
            for path in found
            if case_id_of(path).endswith(f"_{self.suffix}") and wanted <= _entities(path).items()
        ]


def describe_bids(reach: Reach, choice: FileChoice) -> dict[str, Any] | None:
    """Description of a BIDS folder with its derivatives, or None if it is not one.

    An image and a segmentation belong together when the entities that name the scan (subject,
    session, acquisition, run, ...) agree and both are in one space; an unprocessed image is
    preferred. The subject is the group.

    Args:
        reach: Its folder holds the raw data, the derivatives, or both.
        choice: May state suffix and entities, such as `T2w` and `desc-manual`, or a pattern for
            the segmentations.

    Raises:
        DataError: If there are no segmentations, or one image or segmentation fits several.
        ConfigError: If the choice is no suffix and no entities.
    """
    folder = reach.folder
    # A folder that is none, such as a home, is not searched to its last corner.
    if not any(next(folder.glob(near), None) for near in NEAR_SUBJECTS):
        return None
    channels = choice.channels or {"T1w": "T1w"}
    wanted, *others = [_wanted(word, "T1w", "--images") for word in channels.values()]
    images = wanted.search(folder)
    if not images:
        return None
    segmentations = _wanted(choice.labels, "dseg", "--labels").search(folder)
    if not segmentations:
        raise DataError(
            f"{folder}: there are {len(images)} {wanted.suffix} images and no "
            f"{choice.labels or '*_dseg'} label maps; put those under derivatives/ in this folder"
        )
    pairs: dict[Path, list[Path]] = {}
    for segmentation in segmentations:
        pairs.setdefault(_image_of(segmentation, images, wanted.suffix), []).append(segmentation)
    several = next(((image, found) for image, found in pairs.items() if len(found) > 1), None)
    if several is not None:
        raise DataError(_several(folder, *several))
    further = [(other.suffix, other.search(folder)) for other in others]
    training = [
        {**_entry(folder, image, further), "label": stated_path(folder, found[0])}
        for image, found in sorted(pairs.items())
    ]
    shown = {_scan_entities(image) for image in pairs}
    test = [
        _entry(folder, image, further)
        for image in images
        if _scan_entities(image) not in shown and _is_raw(image, wanted)
    ]
    names = _label_names(reach, segmentations)
    return described_as(folder.resolve().name, names, training, test, channels=channels)


def _wanted(given: str | None, usual: str, option: str) -> _Wanted:
    if given is None:
        return _Wanted(usual, {})
    if is_pattern(given):
        return _Wanted(usual, {}, Pattern(given, option))
    stem = case_id_of(Path(given)) if has_scan_name(Path(given)) else given
    *entities, last = stem.split("_")
    if "-" in last:
        entities, last = [*entities, last], usual
    return _Wanted(last, dict(_pairs(entities)))


def _entities(path: Path) -> dict[str, str]:
    return dict(_pairs(path.name.split(".")[0].split("_")))


def _pairs(parts: Iterable[str]) -> list[tuple[str, str]]:
    found = [part.partition("-") for part in parts]
    return [(key, value) for key, dash, value in found if dash]


def _scan_entities(path: Path) -> frozenset[tuple[str, str]]:
    return frozenset(item for item in _entities(path).items() if item[0] not in PROCESSING)


def _space(path: Path) -> str | None:
    space = _entities(path).get("space")
    return None if space in SPACES_OF_THE_SCAN else space


def _is_raw(image: Path, wanted: _Wanted) -> bool:
    return "desc" not in _entities(image) or "desc" in wanted.entities


def _image_of(segmentation: Path, images: Sequence[Path], suffix: str) -> Path:
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
            f"{segmentation}: one {suffix} image with the same entities expected, found {found}; "
            "describe the folder that holds both the raw data and the derivatives"
        )
    return chosen[0]


def _channel_of(image: Path, images: Sequence[Path], suffix: str) -> Path:
    """The image of another channel: with the same entities, or else the only one of the session."""
    near = [one for one in images if _space(one) == _space(image)]
    session = {item for item in _scan_entities(image) if item[0] in ("sub", "ses")}
    alike = [one for one in near if _scan_entities(one) == _scan_entities(image)]
    of_session = [
        one
        for one in near
        if {item for item in _scan_entities(one) if item[0] in ("sub", "ses")} == session
    ]
    for fitting in (alike, of_session):
        raw = [one for one in fitting if "desc" not in _entities(one)]
        if len(raw or fitting) == 1:
            return (raw or fitting)[0]
    found = ", ".join(map(str, of_session)) or "none"
    raise DataError(
        f"{image}: one {suffix} image of the same session expected as another channel, found "
        f"{found}; add it or move the others elsewhere"
    )


def _several(folder: Path, image: Path, segmentations: Sequence[Path]) -> str:
    """What to say of a scan with several segmentations: which there are, and how to choose."""
    names = [path.relative_to(folder).as_posix() for path in segmentations]
    entities = [_entities(path) for path in segmentations]
    common = {item for item in entities[0].items() if all(item in one.items() for one in entities)}
    apart = [[f"{k}-{v}" for k, v in one.items() if (k, v) not in common] for one in entities]
    words = ["_".join(parts) for parts in apart]
    if all(words) and len(set(words)) == len(words):
        ways = " or ".join(f"--labels {word}" for word in words)
    else:
        ways = f"--labels '{Path(names[0]).parts[0]}/**/*_dseg.nii.gz'"
        if names[0].startswith("derivatives/"):
            ways = f"--labels '{'/'.join(Path(names[0]).parts[:2])}/**/*_dseg.nii.gz'"
    listed = "".join(f"\n  {name}" for name in names)
    return f"{image} has {len(names)} segmentations; choose by {ways}:{listed}"


def _entry(
    folder: Path, image: Path, further: Sequence[tuple[str, Sequence[Path]]]
) -> dict[str, Any]:
    """One case, its further channels found by their suffixes among those images."""
    channels = [image, *(_channel_of(image, found, suffix) for suffix, found in further)]
    return {
        "id": case_id_of(image).rpartition("_")[0],
        "image": stated_image(folder, channels),
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
