"""Prepared cases on disk, keyed by what they were made from; safe to delete at any time."""

from __future__ import annotations

import logging
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapeguide.data.case import Case
from shapeguide.data.prepare import PreparedCase
from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import DataError, GeometryError, reason
from shapeguide.geometry.grid import Grid
from shapeguide.storage.digest import content_digest, file_digest
from shapeguide.storage.whole import read_json, write_json, written_whole

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "SHAPEGUIDE_CACHE"
FORMAT = 3
"""Raised whenever preparation changes, so that older entries are not used."""


def default_cache_dir() -> Path:
    """Where prepared cases go: SHAPEGUIDE_CACHE, or the platform's folder for caches."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "shapeguide"
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    base = os.environ.get(variable)
    return (Path(base) if base else Path.home() / ".cache") / "shapeguide"


def entry_key(case: Case, space: WorkingSpace, middle_mm: NDArray[np.float64] | None = None) -> str:
    """Key of a prepared case: the content, size and time of its files, and all settings.

    Args:
        case: The case.
        space: The working space.
        middle_mm: Where the crop lies, if not by the centre rule of the space.

    Raises:
        DataError: If a file is missing or cannot be read.
    """
    facts = {
        "format": FORMAT,
        "id": case.id,
        "files": [_file_facts(file) for file in case.files],
        "structures": [asdict(structure) for structure in case.structures],
        "named_ids": sorted(case.named_ids),
        "orientation": case.orientation,
        "space": asdict(space),
    }
    if middle_mm is not None:
        facts["middle_mm"] = middle_mm.tolist()
    if case.stacked > 1:
        facts["stacked"] = case.stacked
    if case.label_to_image is not None:
        facts["label_to_image"] = case.label_to_image
    return content_digest(facts)[:32]


def load_entry(folder: Path, key: str, space: WorkingSpace, channels: int) -> PreparedCase | None:
    """A stored case, its arrays memory-mapped; None if there is none or it is damaged."""
    description = folder / f"{key}.json"
    if not description.is_file():
        return None
    try:
        facts = read_json(description)
        shape = space.spatial_shape
        image = _mapped(folder / f"{key}.image.npy", np.float32, (channels, *shape), facts["image"])
        classes = _mapped(folder / f"{key}.classes.npy", np.uint8, shape, facts["classes"])
        grid = Grid(space.spatial_shape, np.array(facts["affine"]))
        volumes_mm3 = tuple(float(volume) for volume in facts["volumes_mm3"])
        return PreparedCase(facts["id"], classes, grid, volumes_mm3, image)
    except (OSError, EOFError, ValueError, TypeError, KeyError, GeometryError) as error:
        logger.warning("cached case %s is damaged and made again (%s)", description, error)
        return None


def store_entry(folder: Path, key: str, prepared: PreparedCase) -> None:
    """Store a prepared case; a reader sees all of it or nothing.

    Raises:
        DataError: If it cannot be written, for instance on a full disk.
    """
    arrays: dict[str, NDArray[Any]] = {"image": prepared.image, "classes": prepared.classes}
    facts: dict[str, Any] = {
        "id": prepared.id,
        "affine": prepared.grid.affine.tolist(),
        "volumes_mm3": prepared.volumes_mm3,
    }
    try:
        for name, array in arrays.items():
            path = folder / f"{key}.{name}.npy"
            with _kept_if_mapped(path), written_whole(path) as temporary:
                np.save(temporary, array, allow_pickle=False)
            facts[name] = _checksum(array)
        write_json(folder / f"{key}.json", facts)  # last: it says that the entry is complete
    except OSError as error:
        raise DataError(
            f"{folder}: prepared cases cannot be stored ({reason(error)}); free some space, name "
            f"another folder in {CACHE_VARIABLE}, or raise the memory limit"
        ) from error


@contextmanager
def _kept_if_mapped(path: Path) -> Iterator[None]:
    """Windows refuses to replace what another process has mapped; the checksum then decides."""
    try:
        yield
    except PermissionError:
        if not path.is_file():
            raise


def _mapped(path: Path, dtype: type, shape: tuple[int, ...], checksum: int) -> NDArray[Any]:
    # Copy on write: training code may treat the arrays as its own, the file stays as it is.
    array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{path.name} holds {array.dtype} {array.shape}")
    if _checksum(array) != checksum:
        raise ValueError(f"{path.name} has another checksum")
    return array


def _checksum(array: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)


def _file_facts(path: Path) -> dict[str, Any]:
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason(error)})") from error
    return {"size": state.st_size, "mtime_ns": state.st_mtime_ns, "content": file_digest(path)}
