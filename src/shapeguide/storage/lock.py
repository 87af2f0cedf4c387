"""One process at a time works in a folder; a killed one holds nothing back.

The lock is one of the operating system on a file in the folder: it goes with the process that holds
it, however that ends, also with a crash of the machine. On network disks it holds between machines
where the disk passes locks on (NFS 4, NFS 3 with its lock service, SMB, Lustre mounted with
`flock`). Where it does not, the file itself says who works there: on the same machine a process
that no longer runs holds nothing; of a process on another machine nothing can be known, and the
message says which file to delete.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shapeguide.errors import CheckpointError, ConfigError, reason
from shapeguide.storage.processes import may_run

LOCK_FILE = ".shapeguide.lock"
PATIENCE_SECONDS = 3.0
"""How long a process that is being ended may take to let go."""
NOT_PASSED_ON = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What disks without locks answer."""

_held: dict[Path, tuple[int, int]] = {}
"""Which thread of this process holds which folder, and how many times."""
_guard = threading.Lock()


@dataclass(frozen=True)
class Holder:
    """Who works in a folder."""

    host: str
    process: int
    since: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Work in a folder alone.

    The folder is made when it is missing, and goes again if nothing was written into it. A thread
    that holds it may take it again.

    Raises:
        ConfigError: If another process or thread works in it; the message names host, process and
            since when.
        CheckpointError: If the folder cannot be written.
    """
    place, thread = folder.resolve(), threading.get_ident()
    with _guard:
        owner, count = _held.get(place, (thread, 0))
        if owner != thread:
            raise ConfigError(_refusal(folder, "another thread of this process"))
        made = not folder.exists()
        handle = _take(folder) if count == 0 else None
        _held[place] = (thread, count + 1)
    try:
        yield
    finally:
        with _guard:
            if handle is None:
                _held[place] = (thread, _held[place][1] - 1)
            else:
                del _held[place]
                _release(folder / LOCK_FILE, handle)
                if made and not any(folder.iterdir()):
                    folder.rmdir()


def _take(folder: Path) -> int:
    """Lock the file, and note the holder in it."""
    path = folder / LOCK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock_or_refuse(handle, folder)
                if _is_the_file(handle, path):
                    _note_holder(handle)
                    return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)  # the one who held it has removed the file meanwhile
    except FileExistsError as error:
        raise ConfigError(f"{folder} is a file; name a folder") from error
    except OSError as error:
        raise CheckpointError(
            f"cannot write to {folder}: {reason(error)}; choose another folder"
        ) from error


def _lock_or_refuse(handle: int, folder: Path) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not _is_free(handle):
        if time.monotonic() > until:
            raise ConfigError(_refusal(folder, str(_read_holder(handle) or "another process")))
        time.sleep(0.1)


def _is_free(handle: int) -> bool:
    """Whether the lock could be had, or is void."""
    try:
        return _lock(handle)
    except OSError as error:
        if error.errno not in NOT_PASSED_ON:
            raise
        holder = _read_holder(handle)
        return holder is None or _is_gone(holder)


def _refusal(folder: Path, holder: str) -> str:
    return (
        f"{folder} is in use: {holder} works in it. Wait for it to end or stop it, or choose "
        f"another folder; if it is known to be gone, delete {folder / LOCK_FILE}"
    )


if sys.platform == "win32":
    import msvcrt

    FAR = 2**30
    """The locked byte lies behind the text, which others may then read."""

    def _lock(handle: int) -> bool:
        os.lseek(handle, FAR, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True
else:
    import fcntl

    def _lock(handle: int) -> bool:
        """Whether the lock could be had. It is not passed on to child processes."""
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True


def _is_the_file(handle: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _note_holder(handle: int) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    content = {"host": socket.gethostname(), "process": os.getpid(), "since": since}
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, json.dumps(content).encode())


def _read_holder(handle: int) -> Holder | None:
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        content = json.loads(os.read(handle, 4096))
        return Holder(str(content["host"]), int(content["process"]), str(content["since"]))
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _is_gone(holder: Holder) -> bool:
    """Whether a process of this machine no longer runs; this one would know that it holds it."""
    here = holder.host == socket.gethostname()
    return here and (holder.process == os.getpid() or not may_run(holder.process))


def _release(path: Path, handle: int) -> None:
    if sys.platform == "win32":  # an open file cannot be removed there
        os.close(handle)
        path.unlink(missing_ok=True)
        return
    path.unlink(missing_ok=True)  # before the lock goes, so that nobody else's file is removed
    os.close(handle)
