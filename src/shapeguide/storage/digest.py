"""Digests of contents: what a file or a description holds, whatever its name, size and time say."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from shapeguide.errors import DataError, reason


def file_digest(path: Path) -> str:
    """SHA-256 of the content of a file, in hexadecimal.

    In one process, a file is read once for each size and time that it has.

    Raises:
        DataError: If it is missing or cannot be read.
    """
    try:
        state = path.stat()
        return _file_digest(path, (state.st_size, state.st_mtime_ns, state.st_ctime_ns))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason(error)})") from error


def content_digest(content: Any) -> str:
    """SHA-256 of plain values, in hexadecimal; the order of names does not count."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def digest_now(path: Path) -> str:
    """SHA-256 of the content of a file as it is now, in hexadecimal; raises as `open`."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@lru_cache(maxsize=65_536)
def _file_digest(path: Path, _: tuple[int, int, int]) -> str:
    return digest_now(path)
