"""One folder per person, each with a scan and a label map: `P01/T1.nii.gz` and `P01/seg.nii.gz`."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from shapeguide.data.file_choice import FileChoice, is_pattern
from shapeguide.data.patterns import describe_patterns
from shapeguide.data.reach import Reach
from shapeguide.data.scan_files import list_scans, stem_of
from shapeguide.errors import DataError
from shapeguide.storage.names import few, shown_path

logger = logging.getLogger(__name__)

LABEL_WORDS = re.compile(
    r"(?:^|[^a-z])(?:[da]?seg|segmentations?|labels?|label_?maps?|masks?|roi|parcellation|aparc)"
    r"(?:[^a-z]|$)"
)
"""What the name of a label map says of itself."""
MOST_KINDS = 12
"""A folder whose folders hold more kinds of files than this is not one of persons."""


def describe_person_folders(reach: Reach, choice: FileChoice) -> dict[str, Any] | None:
    """Description of a folder of persons, or None if it is not one.

    The files of a person may repeat the name of the folder, as in `P01/P01_T1.nii.gz`. One kind of
    file must be that of the label maps, by its name or by choice, and one that of the images.

    Raises:
        DataError: If it is not clear which files are images and which label maps, or what is
            chosen is not there.
        ConfigError: If a choice cannot be a pattern.
    """
    folder = reach.folder
    if choice.label_maps_alone or list_scans(folder):
        return None
    persons = [path for path in sorted(folder.iterdir()) if _may_be_person(path)]
    kinds = sorted({kind for person in persons for kind in _kinds(person)})
    if not kinds or (len(kinds) > MOST_KINDS and not choice.stated):
        return None
    labels = [kind for kind in kinds if LABEL_WORDS.search(kind.lower())]
    if choice.labels is not None:
        labels = [_in_each(choice.labels)]
    chosen = {name: _in_each(word) for name, word in choice.channels.items()}
    images = [*chosen.values()] or [kind for kind in kinds if kind not in labels]
    if len(labels) != 1 or (len(images) != 1 and not chosen):
        raise DataError(
            f"{folder}: its folders hold {few([shown_path(kind) for kind in kinds])}, and it is "
            "not clear which of them are the images and which the label maps; say so by patterns, "
            f"such as --images '{shown_path(images[0] if images else '*/T1')}' "
            f"--labels '{shown_path(labels[0] if labels else '*/seg')}'"
        )
    logger.info("%s: images are %s, label maps %s", folder, " and ".join(images), labels[0])
    named = [f"{name}={word}" for name, word in chosen.items()]
    return describe_patterns(reach, FileChoice(tuple(named or images), labels[0]))


def _may_be_person(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_dir()


def _kinds(person: Path) -> set[str]:
    """The files of a person as patterns, with a star in place of the name of the folder."""
    return {f"*/{stem_of(scan).name.replace(person.name, '*')}" for scan in list_scans(person)}


def _in_each(word: str) -> str:
    """What is chosen, as a pattern: a name of a file is looked for in every folder."""
    return word if is_pattern(word) else f"*/{word}"
