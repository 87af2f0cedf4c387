"""How the label maps of a folder were made, noted beside them: `predictions.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shapeguide.errors import ConfigError, DataError, reason
from shapeguide.geometry.volume import Structure
from shapeguide.storage.whole import read_json

ORIGIN_FILE = "predictions.json"


def structures_in(folder: Path) -> tuple[Structure, ...]:
    """The structures of the label maps in a folder; none where nothing notes them.

    Raises:
        DataError: If the note is damaged.
    """
    path = folder / ORIGIN_FILE
    if not path.is_file():
        return ()
    try:
        noted = read_origin(path)["structures"].items()
        return tuple(Structure(name, tuple(ids)) for name, ids in noted)
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise DataError(
            f"{path} is damaged ({reason(error)}); delete it and state the structures"
        ) from error


def read_origin(path: Path) -> dict[str, Any]:
    """The note.

    Raises:
        DataError: If it is damaged.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged: not an object; delete it, or choose another folder")
    return content
