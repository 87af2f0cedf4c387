"""Files appear whole or not at all, whatever happens in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shapeguide.storage import litter, processes, whole
from shapeguide.storage.litter import remove_litter, temporary_beside
from shapeguide.storage.whole import write_text, written_whole


@pytest.fixture(autouse=True)
def _nothing_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litter, "_swept", set())


def test_file_appears_whole_with_all_its_suffixes_kept_while_writing(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.nii.gz"
    with written_whole(target) as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert os.listdir(target.parent) == ["a.nii.gz"]


def test_failed_write_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def fail_halfway() -> None:
        with written_whole(target) as temporary:
            temporary.write_text("new")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail_halfway()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_written_file_has_the_permissions_that_the_user_gives_new_files(tmp_path: Path) -> None:
    write_text(tmp_path / "ours", "")
    (tmp_path / "theirs").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "theirs").stat().st_mode


def test_text_has_plain_line_ends_on_every_platform(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "ä\nb\n")
    assert (tmp_path / "a.txt").read_bytes() == "ä\nb\n".encode()


def test_the_longest_name_that_a_file_system_allows_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 248 + ".nii.gz")
    write_text(target, "")
    assert target.is_file()


def test_the_content_and_then_the_folder_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = []
    real = os.fsync

    def fsync(handle: int) -> None:
        flushed.append(os.fstat(handle).st_ino)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a.txt", "text")
    assert flushed == [(tmp_path / "a.txt").stat().st_ino, tmp_path.stat().st_ino]


WRITES_AND_WAITS = """
import pathlib, sys, time
from shapeguide.storage.whole import written_whole
with written_whole(pathlib.Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    time.sleep(60)
"""


def test_the_litter_of_a_killed_process_is_removed_by_the_next_write(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    words = [sys.executable, "-c", WRITES_AND_WAITS, str(target)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        left = Path(child.stdout.readline().strip())
        remove_litter(tmp_path)
        assert left.read_text() == "half"  # its writer still runs
        child.send_signal(signal.SIGKILL)
        child.wait()
    litter._swept.clear()
    assert left.is_file()
    write_text(tmp_path / "b.txt", "")
    assert os.listdir(tmp_path) == ["b.txt"]


@pytest.mark.parametrize(
    "name",
    [
        ".writing-0123abcd-1-ab12cd34-a.txt",  # another machine
        ".writing-8731-k3_x9abc-a.txt",  # without the machine
        ".writing-k3_x9abc-a.txt",  # without the process
    ],
)
def test_what_another_machine_or_version_left_is_litter_after_a_day(
    tmp_path: Path, name: str
) -> None:
    young, old = tmp_path / name, tmp_path / "sub" / name
    old.parent.mkdir()
    young.touch()
    old.touch()
    long_ago = time.time() - litter.LITTER_AGE_S - 60
    os.utime(old, (long_ago, long_ago))
    remove_litter(young.parent)
    remove_litter(old.parent)
    assert young.is_file()
    assert not old.exists()


def test_files_with_other_names_are_never_litter(tmp_path: Path) -> None:
    names = [".writing-", ".writing-notes.txt", "writing-k3_x9abc-a.txt"]
    for name in names:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    remove_litter(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(names)


def test_no_process_is_asked_for_on_windows_where_asking_would_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = temporary_beside(tmp_path / "a.txt")
    mine.touch()
    monkeypatch.setattr(processes, "WINDOWS", True)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a process was sent a signal"))
    assert not litter._is_litter(mine)


def test_windows_is_asked_again_while_another_program_holds_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = os.replace, [True, True, False]

    def replace(source: Path, target: Path) -> None:
        if refused.pop(0):
            raise PermissionError("used by another process")
        real(source, target)

    (tmp_path / "new").write_text("text")
    monkeypatch.setattr(whole, "WAITS_S", (0, 0, 0))
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(whole, "WINDOWS", True)
    whole._rename(tmp_path / "new", tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "text"
