from __future__ import annotations

import os
from pathlib import Path

import pytest

from shapeguide.errors import ConfigError, ShapeguideError
from shapeguide.storage.whole import write_json
from shapeguide.studies.systems.folder import seconds_of, stopwatch
from shapeguide.studies.systems.scheduler import Task, run_tasks


def writing(folder: Path, name: str, *needs: str, waits: tuple[str, ...] = ()) -> Task:
    """A task that any process can do."""
    path = folder / f"{name}.txt"
    return Task(name, Path.write_text, (path, "done"), needs, waits)


def failing(folder: Path, name: str) -> Task:
    return Task(name, Path.read_text, (folder / "nothing.txt",))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_task_comes_after_what_it_needs(tmp_path: Path, jobs: int) -> None:
    done: list[str] = []
    tasks = [
        writing(tmp_path, "score", "train"),
        writing(tmp_path, "train", "guide"),
        writing(tmp_path, "guide"),
        writing(tmp_path, "other", "was done before"),
    ]
    assert run_tasks(tasks, jobs=jobs, on_done=done.append) == {}
    assert set(done) == {"score", "train", "guide", "other"}
    assert done.index("guide") < done.index("train") < done.index("score")
    assert len(list(tmp_path.glob("*.txt"))) == 4


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failure_stops_only_what_needs_it(tmp_path: Path, jobs: int) -> None:
    done: list[str] = []
    tasks = [
        failing(tmp_path, "guide"),
        writing(tmp_path, "train", "guide"),
        writing(tmp_path, "score", "train"),
        writing(tmp_path, "plain", waits=("guide",)),
    ]
    failures = run_tasks(tasks, jobs=jobs, on_done=done.append)
    assert done == ["plain"]
    assert list(failures) == ["guide", "train", "score"]
    assert "nothing.txt" in failures["guide"]
    assert failures["score"] == "not done, for it needs train, which failed"


def test_a_process_that_dies_is_named(tmp_path: Path) -> None:
    tasks = [Task("dies", os._exit, (3,)), writing(tmp_path, "other", "dies")]
    with pytest.raises(ShapeguideError, match="a process ended while dies was running"):
        run_tasks(tasks, jobs=2, on_done=lambda _: None)


@pytest.mark.parametrize("jobs", [1, 2])
def test_nothing_to_do_is_done_at_once(jobs: int) -> None:
    assert run_tasks([], jobs=jobs, on_done=print) == {}


def test_no_job_at_all_is_an_error() -> None:
    with pytest.raises(ConfigError, match="jobs: at least 1, found 0"):
        run_tasks([], jobs=0, on_done=lambda _: None)


def test_seconds_add_up_over_restarts(tmp_path: Path) -> None:
    assert seconds_of(tmp_path, "train") == 0
    write_json(tmp_path / "seconds_train.json", {"seconds": 100.0})
    with stopwatch(tmp_path, "train"):
        pass
    assert 100 <= seconds_of(tmp_path, "train") < 101
