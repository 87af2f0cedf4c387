"""Label maps without images, from which shapes are learned: where they lie."""

from __future__ import annotations

from pathlib import Path

from shapeguide.data.case import Case
from shapeguide.data.description import cases_of
from shapeguide.data.file_choice import FileChoice, is_pattern
from shapeguide.data.layouts import Described, described
from shapeguide.data.patterns import describe_patterns
from shapeguide.data.reach import Reach
from shapeguide.data.scan_files import list_scans
from shapeguide.errors import DataError


def label_maps_at(path: Path) -> tuple[Case, ...]:
    """The label maps of a folder, a pattern, a description or a table, without their images.

    Args:
        path: A folder that holds label maps and nothing else; a path with stars, which are those of
            `--labels`; or what `read_dataset` reads.

    Raises:
        DataError: If there are none, or a file is missing.
    """
    folder, pattern = path, ""
    if is_pattern(str(path)):
        first = next(place for place, part in enumerate(path.parts) if is_pattern(part))
        folder, pattern = Path(*path.parts[:first]), "/".join(path.parts[first:])
    elif path.is_dir() and list_scans(path):
        pattern = "*"
    if not folder.exists():
        raise DataError(f"{folder}: there is no such folder of label maps")
    if pattern:
        reach = Reach(folder)
        found = Described(describe_patterns(reach, FileChoice(labels=pattern)), reach)
    else:
        found = described(folder)
    cases = cases_of(found.content, "training", found.reach)
    return tuple(case.without_image() for case in cases if case.label_map is not None)
