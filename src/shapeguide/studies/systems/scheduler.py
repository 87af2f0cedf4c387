"""Run tasks in the order that their needs allow, in this process or in several."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from shapeguide.errors import ConfigError, ShapeguideError

logger = logging.getLogger(__name__)

SECONDS_TO_SAVE = 60


@dataclass(frozen=True)
class Task:
    """One piece of work; its function and arguments travel to other processes."""

    name: str
    call: Callable[..., object]
    arguments: tuple[Any, ...]
    needs: tuple[str, ...] = ()
    """Names of tasks that must succeed first; those that are not in the list did so already."""
    waits: tuple[str, ...] = ()
    """Names of tasks that must end first, well or not."""


def run_tasks(
    tasks: Sequence[Task], *, jobs: int, on_done: Callable[[str], None]
) -> dict[str, str]:
    """Run all tasks; the first in the list whose needs are met comes first.

    A task that fails does not stop the others, apart from those that need it.

    Args:
        tasks: In the order that they should run in where there is a choice.
        jobs: Processes at a time; with one, everything runs in this process.
        on_done: Called with the name of each finished task.

    Returns:
        Why each failed task failed, by name.

    Raises:
        ConfigError: If there is less than one job.
        ShapeguideError: If a process was killed, for instance because memory ran out.
    """
    if jobs < 1:
        raise ConfigError(f"jobs: at least 1, found {jobs}")
    board = _Board(tasks)
    if jobs == 1 or len(tasks) <= 1:
        while (task := board.next()) is not None:
            error = _outcome(task)
            board.finish(task, error)
            if error is None:
                on_done(task.name)
        return board.failures
    _run_parallel(board, min(jobs, len(tasks)), on_done)
    return board.failures


class _Board:
    """Which tasks wait, run, are done or have failed."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.waiting = {task.name: task for task in tasks}
        self.unfinished = set(self.waiting)
        self.failures: dict[str, str] = {}

    def next(self) -> Task | None:
        """Take the first task whose needs are met; None when none is ready."""
        for name, task in list(self.waiting.items()):
            failed = [need for need in task.needs if need in self.failures]
            if failed:
                del self.waiting[name]
                self.finish(task, f"not done, for it needs {failed[0]}, which failed")
                return self.next()
            if self.unfinished.isdisjoint((*task.needs, *task.waits)):
                return self.waiting.pop(name)
        return None

    def finish(self, task: Task, error: str | None) -> None:
        self.unfinished.discard(task.name)
        if error is not None:
            self.failures[task.name] = error


def _outcome(task: Task) -> str | None:
    """Run a task; None, or why it failed."""
    try:
        task.call(*task.arguments)
    except Exception as error:
        _tell(task, error)
        return str(error) or type(error).__name__
    return None


def _tell(task: Task, error: BaseException) -> None:
    known = isinstance(error, ShapeguideError | OSError)
    logger.error("%s failed: %s", task.name, error, exc_info=None if known else error)


def _run_parallel(board: _Board, jobs: int, on_done: Callable[[str], None]) -> None:
    context = multiprocessing.get_context("spawn")
    counter = context.Value("i", 0)
    share = _Share(max(1, (os.cpu_count() or 1) // jobs), _gpu_count())
    running: dict[Future[None], Task] = {}
    executor = ProcessPoolExecutor(
        jobs, mp_context=context, initializer=_begin, initargs=(counter, share)
    )
    try:
        while True:
            while len(running) < jobs and (task := board.next()) is not None:
                running[executor.submit(_work, task)] = task
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise ShapeguideError(
                        f"a process ended while {task.name} was running, perhaps for want of "
                        "memory; the same command goes on, with fewer --jobs if need be"
                    ) from error
                if isinstance(error, KeyboardInterrupt):
                    raise error
                if error is not None:
                    _tell(task, error)
                board.finish(task, None if error is None else str(error) or type(error).__name__)
                if error is None:
                    on_done(task.name)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class _Share:
    """What a process may use."""

    threads: int
    gpus: int
    """GPUs that all processes take in turn."""


def _gpu_count() -> int:
    import torch

    return torch.cuda.device_count()


def _begin(counter: Any, share: _Share) -> None:
    """First thing in each process: its share of the cores, its GPU, and who started it."""
    with counter.get_lock():
        place = counter.value
        counter.value += 1
    if share.gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(n) for n in range(share.gpus)]
        os.environ["CUDA_VISIBLE_DEVICES"] = names[place % len(names)]
    os.environ.setdefault("OMP_NUM_THREADS", str(share.threads))
    if "torch" in sys.modules:  # a script that imports it has read the variable already
        import torch

        torch.set_num_threads(min(torch.get_num_threads(), share.threads))
    # Fabric says with every training what the log of the run says too.
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
    # Between two tasks Ctrl-C is for the process that hands them out.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _work(task: Task) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        task.call(*task.arguments)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_with_parent() -> None:
    """A killed experiment leaves no process behind: trainings save, then everything ends."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SECONDS_TO_SAVE)
    os._exit(1)
