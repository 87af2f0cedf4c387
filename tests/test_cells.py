from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from shapeguide.cells import Cell, Ended, Workers, run_cells
from shapeguide.errors import ConfigError

TWO = Workers(jobs=2)


def writing(folder: Path, name: str, *needs: str, waits: tuple[str, ...] = ()) -> Cell:
    """A cell that any process can do."""
    return Cell(name, Path.write_text, (folder / f"{name}.txt", "done"), needs, waits)


def failing(folder: Path, name: str) -> Cell:
    return Cell(name, Path.read_text, (folder / "nothing.txt",))


@pytest.mark.parametrize("workers", [Workers(), TWO])
def test_a_cell_comes_after_what_it_needs_and_its_result_comes_back(
    tmp_path: Path, workers: Workers
) -> None:
    ended: list[Ended] = []
    cells = [
        writing(tmp_path, "guide"),
        writing(tmp_path, "train", "guide"),
        writing(tmp_path, "score", "train"),
        writing(tmp_path, "other", "was done before"),
    ]
    assert run_cells(cells, workers, on_end=ended.append) == {}
    names = [one.name for one in ended]
    assert set(names) == {"score", "train", "guide", "other"}
    assert names.index("guide") < names.index("train") < names.index("score")
    assert [one.result for one in ended] == [4, 4, 4, 4]
    assert len(list(tmp_path.glob("*.txt"))) == 4


@pytest.mark.parametrize("workers", [Workers(), TWO])
def test_a_failure_stops_only_what_needs_it(tmp_path: Path, workers: Workers) -> None:
    ended: list[Ended] = []
    cells = [
        failing(tmp_path, "guide"),
        writing(tmp_path, "train", "guide"),
        writing(tmp_path, "score", "train"),
        writing(tmp_path, "plain", waits=("guide",)),
    ]
    failures = run_cells(cells, workers, on_end=ended.append)
    assert [one.name for one in ended if one.error is None] == ["plain"]
    assert set(failures) == {"guide", "train", "score"}
    assert "nothing.txt" in failures["guide"]
    assert failures["score"] == "not done, for it needs train, which failed"
    assert not (tmp_path / "score.txt").exists()


def test_a_cell_that_kills_every_worker_is_given_up_and_named(tmp_path: Path) -> None:
    cells = [
        Cell("dies", os._exit, (3,)),
        writing(tmp_path, "other", "dies"),
        failing(tmp_path, "x"),
    ]
    failures = run_cells(cells, TWO)
    assert failures["dies"].startswith(
        "its worker died again and again, perhaps for want of memory"
    )
    assert failures["other"] == "not done, for it needs dies, which failed"
    assert "nothing.txt" in failures["x"]


@pytest.mark.parametrize("workers", [Workers(), TWO])
def test_nothing_to_do_is_done_at_once(workers: Workers) -> None:
    assert run_cells([], workers) == {}


def test_one_job_starts_no_process() -> None:
    ended: list[Ended] = []
    run_cells([Cell("who", os.getpid, ())] * 2, on_end=ended.append)
    assert {one.result for one in ended} == {os.getpid()}


def test_two_jobs_are_two_processes_that_share_the_cores() -> None:
    ended: list[Ended] = []
    sleeping = [Cell(f"sleep {n}", time.sleep, (0.5,)) for n in range(2)]
    asking = [Cell(f"who {n}", os.getpid, (), (f"sleep {n}",)) for n in range(2)]
    counting = [Cell("threads", os.getenv, ("OMP_NUM_THREADS",))]
    run_cells([*sleeping, *asking, *counting], TWO, on_end=ended.append)
    found = {one.name: one.result for one in ended}
    assert len({found["who 0"], found["who 1"], os.getpid()}) == 3
    assert found["threads"] == os.environ.get(
        "OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2))
    )


def test_threads_of_this_process_end_in_the_order_of_the_list(tmp_path: Path) -> None:
    ended: list[Ended] = []
    meeting = threading.Barrier(2, timeout=60)
    cells = [
        Cell("first", meeting.wait, ()),
        Cell("second", meeting.wait, ()),
        failing(tmp_path, "third"),
        Cell("who", os.getpid, ()),
    ]
    failures = run_cells(cells, on_end=ended.append, threads=2)
    assert [one.name for one in ended] == ["first", "second", "third", "who"]
    assert ended[-1].result == os.getpid()
    assert list(failures) == ["third"]


def test_what_interrupts_one_thread_lets_no_other_cell_begin(tmp_path: Path) -> None:
    later = [writing(tmp_path, f"{number}") for number in range(200)]
    cells = [Cell("stop", _interrupt, ()), Cell("sleep", time.sleep, (0.5,)), *later]
    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, threads=2)
    assert len(list(tmp_path.iterdir())) < len(later)


def test_threads_are_refused_to_cells_that_need_others(tmp_path: Path) -> None:
    cells = [writing(tmp_path, "first"), Cell("second", os.getpid, (), needs=("first",))]
    with pytest.raises(ConfigError, match="need no others, found second"):
        run_cells(cells, threads=2)
    assert not list(tmp_path.iterdir())


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_no_job_at_all_is_an_error() -> None:
    with pytest.raises(ConfigError, match="jobs: at least 1, found 0"):
        Workers(jobs=0)


def test_jobs_beside_a_scheduler_are_an_error() -> None:
    with pytest.raises(ConfigError, match="give one of the two"):
        Workers(jobs=2, scheduler="tcp://127.0.0.1:8786")


def test_a_scheduler_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shapeguide.cells.SECONDS_TO_CONNECT", 1)
    with pytest.raises(ConfigError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"):
        run_cells([Cell("who", os.getpid, ())], Workers(scheduler="tcp://127.0.0.1:9"))


def _address(told: Path) -> str:
    """The scheduler's address, when its file is there and written to the end."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return str(json.loads(told.read_text())["address"])
        except (FileNotFoundError, json.JSONDecodeError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@contextmanager
def dask_cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler of its own process on a free port, with one worker process."""
    told = folder / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    started = [
        subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
             "--scheduler-file", str(told)],
            stderr=subprocess.DEVNULL, cwd=folder,
        )
    ]  # fmt: skip
    started.append(
        subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(told),
             "--nthreads", "1", "--no-nanny", "--no-dashboard", "--resources", "GPU=1"],
            stderr=subprocess.DEVNULL, cwd=folder,
        )
    )  # fmt: skip
    try:
        yield _address(told), started
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()


def test_cells_go_to_the_workers_of_a_cluster_that_is_there(tmp_path: Path) -> None:
    with dask_cluster(tmp_path) as (address, (_, worker)):
        ended: list[Ended] = []
        cells = [Cell("who", os.getpid, (), gpu=True), writing(tmp_path, "after", "who")]
        assert run_cells(cells, Workers(scheduler=address), on_end=ended.append) == {}
        assert ended[0].result == worker.pid
        assert (tmp_path / "after.txt").read_text() == "done"
        assert worker.poll() is None, "the cluster of others was ended"


SCRIPT = """
import sys, time
from shapeguide.cells import Cell, Workers, run_cells

if __name__ == "__main__":
    run_cells([Cell(f"sleep {n}", time.sleep, (60,)) for n in range(2)], Workers(jobs=2))
"""


def _children(process: int) -> list[psutil.Process]:
    found = psutil.Process(process).children(recursive=True)
    return [one for one in found if "spawn_main" in " ".join(one.cmdline())]


def test_a_killed_client_leaves_no_process_behind(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    while len(workers := _children(process.pid)) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=15)
    assert alive == []
