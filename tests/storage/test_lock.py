"""Two processes never work in one folder, and a killed one holds nothing back."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shapeguide.errors import ConfigError
from shapeguide.storage import lock
from shapeguide.storage.lock import LOCK_FILE, locked

HOLD = """
import sys
from pathlib import Path
from shapeguide.storage.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that works in `tmp_path`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_in_use_names_host_process_and_time(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    place = rf"process {other.pid} on {socket.gethostname()}, since \d{{4}}-\d\d-\d\d \d\d:\d\d"
    with pytest.raises(ConfigError, match=place), locked(tmp_path):
        pass


def test_a_process_that_ends_frees_the_folder_and_leaves_no_file(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    other.communicate()
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_holds_nothing_back(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / LOCK_FILE).is_file()
    with locked(tmp_path):
        holder = json.loads((tmp_path / LOCK_FILE).read_text())
        assert holder["process"] == os.getpid()


def test_one_thread_may_take_a_folder_twice_and_another_may_not(tmp_path: Path) -> None:
    refused: list[str] = []

    def try_it() -> None:
        try:
            with locked(tmp_path):
                pass
        except ConfigError as error:
            refused.append(str(error))

    with locked(tmp_path):
        with locked(tmp_path):
            pass
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
        assert (tmp_path / LOCK_FILE).is_file()
    assert "another thread of this process" in refused[0]
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path: Path) -> None:
    with locked(tmp_path / "empty"):
        assert (tmp_path / "empty").is_dir()
    with locked(tmp_path / "used"):
        (tmp_path / "used" / "result").write_text("done")
    assert {path.name for path in tmp_path.iterdir()} == {"used"}


@pytest.mark.parametrize(
    ("host", "process", "free"),
    [
        (socket.gethostname(), 2**22 + 1, True),  # beyond the largest process number of Linux
        (socket.gethostname(), os.getppid(), False),
        ("another machine", 2**22 + 1, False),
    ],
)
def test_on_a_disk_without_locks_the_note_of_the_holder_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, process: int, free: bool
) -> None:
    def fail(handle: int) -> bool:
        raise OSError(lock.NOT_PASSED_ON[0], "No locks available")

    monkeypatch.setattr(lock, "_lock", fail)
    note = {"host": host, "process": process, "since": "2020-01-01 00:00:00"}
    (tmp_path / LOCK_FILE).write_text(json.dumps(note))
    if free:
        with locked(tmp_path):
            assert json.loads((tmp_path / LOCK_FILE).read_text())["process"] == os.getpid()
    else:
        with pytest.raises(ConfigError, match=f"process {process} on {host}"), locked(tmp_path):
            pass
