"""Names of files that are being written, and what is left of them when a process is killed."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from shapeguide.storage.processes import may_run

TEMPORARY = re.compile(r"\.writing-(?:(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-)?\w+-")
LITTER_AGE_S = 24 * 3600
"""A temporary file this old is litter, whoever wrote it."""
KEPT_NAME_LENGTH = 40
"""A temporary name ends like the final one, and stays within what file systems allow."""

_swept: set[tuple[int, Path]] = set()


def temporary_beside(path: Path) -> Path:
    """A new name in the same folder, with the suffixes of `path` and whose it is in it."""
    writer = f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f".writing-{writer}-{path.name[-KEPT_NAME_LENGTH:]}")


def remove_litter(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder; once per process.

    A process is asked for on the machine that wrote the file only. The files of other machines on
    a shared disk, and of earlier versions, are litter when they are older than a day.
    """
    if (os.getpid(), folder) in _swept:
        return
    _swept.add((os.getpid(), folder))
    with suppress(OSError):  # whoever may write into a folder may not always list it
        for path in folder.glob(".writing-*"):
            with suppress(OSError):
                if _is_litter(path):
                    path.unlink(missing_ok=True)


def _is_litter(path: Path) -> bool:
    name = TEMPORARY.match(path.name)
    if name is None:
        return False
    if name["machine"] == _machine() and not may_run(int(name["process"])):
        return True
    return time.time() - path.stat().st_mtime > LITTER_AGE_S


@cache
def _machine() -> str:
    """Eight digits for where a process number means something: a host, or a container on it."""
    try:
        numbering = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbering = ""
    return hashlib.sha256(f"{platform.node()} {numbering}".encode()).hexdigest()[:8]
