"""Scans and label maps found by patterns such as `T1_*.nii.gz` and `*_seg.nii.gz`.

An image and a label map belong together when the stars stand for the same in both.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from shapeguide.data.description import described_as, numbered
from shapeguide.data.file_choice import PERSON, FileChoice
from shapeguide.data.label_names import names_beside
from shapeguide.data.reach import Reach
from shapeguide.data.scan_files import (
    PAIR_HEADERS,
    PAIR_VOXELS,
    SUFFIXES,
    scan_suffix,
    scans_among,
    stated_image,
    stated_path,
    stem_of,
)
from shapeguide.data.splits import people_beside
from shapeguide.errors import ConfigError, DataError
from shapeguide.storage.names import few, shown_path

logger = logging.getLogger(__name__)

WILD = re.compile(r"\*\*/|\*|\{person\}")
"""Whole folders, any number of them; part of a name; the name of a person."""
OPEN_SUFFIX = re.compile(r"(\.nii|\.)[.a-z]*\*$")
"""How the last name of a pattern ends that leaves the suffix open, such as `T1_*.nii*`."""
MOST_SHOWN = 3

Key: TypeAlias = tuple[str, ...]
"""What the stars stand for: an image and a label map of one key belong together."""


@dataclass(frozen=True)
class Found:
    """A scan that fits a pattern."""

    path: Path
    key: Key
    person: str | None
    """Whom it shows, as far as the pattern or its folder tells."""


@dataclass(frozen=True)
class Pattern:
    """A path with stars, relative to a folder.

    `*` stands for part of a name, as short as it can be, `**` for whole folders, none or several,
    and `{person}` for the name of a person. The suffix may be left out.

    Raises:
        ConfigError: If it leads out of the folder, or `**` is part of a name.
    """

    text: str
    option: str
    """What it is called on the command line, for messages."""

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.text).parts
        if not parts or parts[0] == "/" or ".." in parts or "\\" in self.text or "\0" in self.text:
            raise ConfigError(
                f"{self}: a pattern is relative to the folder of the dataset and has / between "
                "names; name the folder that holds both images and label maps"
            )
        if any("**" in part and part != "**" for part in parts) or parts[-1] == "**":
            raise ConfigError(
                f"{self}: ** stands for whole folders, as in **/T1.nii.gz; part of a name is one *"
            )
        if self.text.count(PERSON) > 1:
            raise ConfigError(f"{self}: {PERSON} stands once in a pattern")

    def __str__(self) -> str:
        return f"{self.option} {shown_path(self.text)!r}"

    @property
    def letters(self) -> int:
        """How much of it is no star."""
        return len(WILD.sub("", self._stem))

    def search(self, folder: Path) -> list[Found]:
        """The scans of a folder that it fits, in order; hidden files and folders are passed over.

        Raises:
            DataError: If two have one key.
        """
        stem = self._stem.replace(PERSON, "*").replace("[", "[[]").replace("?", "[?]")
        paths = folder.glob(stem if stem.endswith("*") else f"{stem}*")
        seen = [path for path in paths if not _hidden(path.relative_to(folder)) and path.is_file()]
        by_key: dict[Key, Found] = {}
        for path in scans_among(seen):
            found = self._fit(path, folder)
            if found is None:
                continue
            other = by_key.setdefault(found.key, found)
            if other is not found:
                raise DataError(
                    f"{self} fits both {other.path} and {path}, and the stars stand for "
                    f"{_words(found.key)} in both; write a longer pattern that fits one of them"
                )
        return sorted(by_key.values(), key=lambda found: found.path)

    def _fit(self, path: Path, folder: Path) -> Found | None:
        if not self._takes_suffix(scan_suffix(path)):
            return None
        match = self._regex.fullmatch(stem_of(path).relative_to(folder).as_posix())
        if match is None:
            return None
        values = match.groups()
        return Found(path, _key(values), self._person(values))

    def _person(self, values: tuple[str, ...]) -> str | None:
        """What stands for the person, or the first folder that a star stands for."""
        wild = [found.group() for found in WILD.finditer(self._stem)]
        if PERSON in wild:
            return values[wild.index(PERSON)]
        last_folder = self._stem.rfind("/")
        for found, value in zip(WILD.finditer(self._stem), values, strict=True):
            if found.start() <= last_folder and value:
                return value.split("/")[0]
        return None

    def _takes_suffix(self, suffix: str) -> bool:
        pair = PAIR_HEADERS + PAIR_VOXELS
        return self._suffix in ("", suffix) or (self._suffix in pair and suffix in pair)

    @cached_property
    def _suffix(self) -> str:
        name = self.text.lower()
        return max((one for one in SUFFIXES if name.endswith(one)), key=len, default="")

    @cached_property
    def _stem(self) -> str:
        """The pattern without a suffix."""
        if self._suffix:
            return self.text[: -len(self._suffix)]
        return OPEN_SUFFIX.sub("", self.text)

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        meanings = {"**/": "((?:[^/]+/)*)", "*": "([^/]*?)", PERSON: "([^/]+?)"}
        parts, start = [], 0
        for wild in WILD.finditer(self._stem):
            parts += [re.escape(self._stem[start : wild.start()]), meanings[wild.group()]]
            start = wild.end()
        return re.compile("".join(parts) + re.escape(self._stem[start:]))


def describe_patterns(reach: Reach, choice: FileChoice) -> dict[str, Any]:
    """Description of the images and label maps that patterns fit.

    What fits both is what the pattern with more letters says. Images without label maps are
    described as such, with a line in the log. Scans of one person have one value for `{person}` or
    lie in one folder that a star stands for; each other scan is of a person of its own. With a
    pattern of label maps alone they are described without images.

    Args:
        reach: The folder that the patterns start from.
        choice: The pattern of each channel of the images and, unless they have none, that of the
            label maps.

    Raises:
        ConfigError: If the pattern of the images is missing, or one is unusable.
        DataError: If no scan fits, several fit one place, a label map has no image, or an image
            lacks a channel.
    """
    folder = reach.folder
    if choice.label_maps_alone:
        (found,) = _search(folder, [Pattern(str(choice.labels), "--labels")])
        return _description(reach, [], found)
    if not choice.images:
        raise ConfigError(f"{folder}: {choice.stated} alone; give a pattern of the images too")
    patterns = [Pattern(word, "--images") for word in choice.channels.values()]
    if choice.labels is None:
        channels, label_maps = _search(folder, patterns), {}
    else:
        labels = Pattern(choice.labels, "--labels")
        *channels, label_maps = _search(folder, [*patterns, labels])
    images = channels[0]
    lone = sorted(label_maps.keys() - images.keys())
    if lone:
        raise DataError(
            f"{label_maps[lone[0]].path}: no image fits {patterns[0]} with {_words(lone[0])} for "
            "the stars, as in this label map; in images they stand for "
            f"{_some(sorted(map(_words, images))) or 'nothing'}; change one of the patterns so "
            "that the stars stand for the same in both"
        )
    for pattern, found in zip(patterns, channels, strict=True):
        lacking = sorted(images.keys() - found.keys())
        if lacking:
            raise DataError(
                f"{images[lacking[0]].path}: no other channel of this image fits {pattern} with "
                f"{_words(lacking[0])} for the stars; add it, or move the image elsewhere"
            )
    if label_maps:
        _tell_unlabelled([images[key].path for key in sorted(images.keys() - label_maps.keys())])
    content = _description(reach, channels, label_maps)
    return {**content, "modality": numbered(choice.channels)}


def _search(folder: Path, patterns: Sequence[Pattern]) -> list[dict[Key, Found]]:
    """What fits each pattern, by key; what fits several is left to the one with most letters."""
    searched = [pattern.search(folder) for pattern in patterns]
    for pattern, found in zip(patterns, searched, strict=True):
        if not found:
            raise DataError(f"{folder}: nothing fits {pattern}; {_some_scans(folder)}")
    taken: dict[Path, int] = {}
    for number in sorted(range(len(patterns)), key=lambda number: patterns[number].letters):
        taken |= {found.path: number for found in searched[number]}
    return [
        {one.key: one for one in found if taken[one.path] == number}
        for number, found in enumerate(searched)
    ]


def _description(
    reach: Reach, channels: Sequence[Mapping[Key, Found]], label_maps: Mapping[Key, Found]
) -> dict[str, Any]:
    folder, people = reach.folder, people_beside(reach)
    scans = channels[0] if channels else label_maps
    persons = Counter(found.person for found in scans.values())
    if len(persons) > 1 and max(persons.values()) > 1:
        count = persons.total()
        logger.info("%d scans of %d persons, told apart by their names", count, len(persons))
    training: list[dict[str, Any]] = []
    test: list[dict[str, Any]] = []
    for key, found in sorted(scans.items()):
        case_id = "_".join(key).replace("/", "_") or stem_of(found.path).name
        entry: dict[str, Any] = {"id": case_id}
        if channels:
            entry["image"] = stated_image(folder, [channel[key].path for channel in channels])
        person = found.person or people.get(case_id)
        if person is not None:
            entry["group"] = person
        if key in label_maps:
            entry["label"] = stated_path(folder, label_maps[key].path)
        (training if key in label_maps else test).append(entry)
    return described_as(folder.resolve().name, names_beside(reach), training, test)


def _key(values: tuple[str, ...]) -> Key:
    """What stars stand for, without what repeats: `P01/P01_T1` and `P01_seg` have one key."""
    parts = [part for part in (value.strip("/") for value in values) if part]
    return tuple(dict.fromkeys(parts))


def _words(key: Key) -> str:
    return ", ".join(map(shown_path, key)) or "nothing"


def _some(texts: list[str]) -> str:
    more = f" and {len(texts) - MOST_SHOWN} more" if len(texts) > MOST_SHOWN else ""
    return "; ".join(texts[:MOST_SHOWN]) + more


def _some_scans(folder: Path) -> str:
    """A few scans that are there, for a message."""
    ending = tuple(SUFFIXES)
    scans = (path for path in folder.rglob("*.*") if path.name.lower().endswith(ending))
    shown = [path.relative_to(folder) for path in islice(scans, 200)]
    names = [shown_path(path.as_posix()) for path in sorted(shown) if not _hidden(path)]
    return f"there are scans such as {_some(names)}" if names else "there are no scans at all"


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _tell_unlabelled(paths: list[Path]) -> None:
    if paths:
        logger.warning(
            "%d images have no label map and are not trained on: %s",
            len(paths), few([path.name for path in paths]),
        )  # fmt: skip
