"""Cells: pieces of work that need each other, in this process or on Dask workers.

A cell is a function, its arguments, and the names of the cells that must come before. A study and a
prediction of many scans hand in a list of them::

    cells = [Cell(f"segment {scan}", segment_one, (run_dir, scan)) for scan in scans]
    failures = run_cells(cells, Workers(jobs=4), on_end=lambda ended: rows.append(ended.result))

With one job everything runs here, in the order of the list, and no cluster is started; what reads
and writes much may run in a few threads. With several a `distributed.LocalCluster` lives as long as
the call; with the address of a scheduler the cells go to the workers of a cluster that is there,
which must see the same files under the same paths.

A cell whose worker dies runs again on another, so it must go on from what it left: a training does,
from its checkpoint.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shapeguide.errors import ConfigError, ShapeguideError

if TYPE_CHECKING:
    from distributed import Client, Future, Worker

logger = logging.getLogger(__name__)

SECONDS_TO_SAVE = 60
"""How long a stopped study waits for the cells that run to save what they have."""
SECONDS_TO_CONNECT = 10
DASHBOARD = "127.0.0.1:8787"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
NANNY = logging.getLogger("distributed.nanny")
"""Tells that a worker died and is replaced."""
GPU = "GPU"
"""Name of the Dask resource that a cell on a GPU asks for."""


@dataclass(frozen=True)
class Workers:
    """Where cells run.

    Raises:
        ConfigError: If there is less than one job, or a scheduler is given and jobs too.
    """

    jobs: int = 1
    """Cells at a time on this machine, each in a process of its own; one: in this process."""
    scheduler: str | None = None
    """Address of the scheduler of a Dask cluster that is there, such as `tcp://node7:8786`."""

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ConfigError(f"jobs: at least 1, found {self.jobs}")
        if self.scheduler is not None and self.jobs > 1:
            raise ConfigError(
                f"jobs {self.jobs} are processes of this machine, and the scheduler "
                f"{self.scheduler} has workers of its own; give one of the two"
            )


HERE = Workers()
"""In this process."""


@dataclass(frozen=True)
class Cell:
    """One piece of work; its function and arguments travel to other processes."""

    name: str
    call: Callable[..., object]
    """A function of a module, by whose name the workers find it."""
    arguments: tuple[Any, ...]
    needs: tuple[str, ...] = ()
    """Names of cells before it that must succeed first; those not in the list did so already."""
    waits: tuple[str, ...] = ()
    """Names of cells before it that must end first, well or not."""
    gpu: bool = False
    """Whether it takes a worker with the Dask resource `GPU`."""


@dataclass(frozen=True)
class Ended:
    """How a cell ended."""

    name: str
    result: Any = None
    """What its function returned."""
    error: str | None = None
    """Why it failed; None when it did not."""
    trace: str = ""
    """The traceback of an error that nobody foresaw."""


def run_cells(
    cells: Sequence[Cell],
    workers: Workers = HERE,
    *,
    on_end: Callable[[Ended], None] = lambda _: None,
    threads: int = 1,
) -> dict[str, str]:
    """Run all cells, each after those that it needs; of those that may run, the first in the list.

    A cell that fails does not stop the others, apart from those that need it. Ctrl-C lets the
    trainings that run save and then raises KeyboardInterrupt.

    Args:
        cells: What must come first stands first.
        workers: Where they run.
        on_end: Called in this process and thread for each cell that ends, well or not, as it ends.
        threads: Cells at a time where they run in this process. More than one is for cells that
            need nothing and of which one reads or writes while another computes; `on_end` is then
            called in the order of the list.

    Returns:
        Why each failed cell failed, by name.

    Raises:
        ConfigError: If no scheduler answers at the address, or there are threads for cells that
            need others.
    """
    failures: dict[str, str] = {}
    bound = next((cell.name for cell in cells if cell.needs or cell.waits), None)
    if threads > 1 and bound is not None:
        raise ConfigError(f"threads are for cells that need no others, found {bound}")

    def end(ended: Ended) -> None:
        if ended.error is not None:
            failures[ended.name] = ended.error
            logger.error("%s failed: %s%s", ended.name, ended.error, ended.trace)
        on_end(ended)

    if workers.scheduler is None and (workers.jobs == 1 or len(cells) <= 1):
        if threads > 1:
            _run_in_threads(cells, end, threads)
        else:
            _run_here(cells, end)
    elif cells:
        with _client(workers, len(cells)) as client:
            _run_on(client, cells, end)
    return failures


def stop_request() -> threading.Event:
    """The event that asks the cell of this thread to save and end; outside of cells a new one."""
    event: threading.Event | None = getattr(_here, "stop", None)
    return threading.Event() if event is None else event


def _run_here(cells: Sequence[Cell], end: Callable[[Ended], None]) -> None:
    done: dict[str, Ended] = {}
    for cell in cells:
        needed, waited = (
            [done[name] for name in names if name in done] for names in (cell.needs, cell.waits)
        )
        done[cell.name] = _work(cell, needed, waited)
        end(done[cell.name])


def _run_in_threads(cells: Sequence[Cell], end: Callable[[Ended], None], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(_work, cell, (), ()) for cell in cells]
        try:
            for future in running:
                end(future.result())
        except BaseException:
            # Those that run end by themselves, and soon; none of the others begins.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _work(cell: Cell, needed: Sequence[Ended], _waited: Sequence[Ended]) -> Ended:
    """Do a cell, unless something that it needs has failed."""
    lacking = [one.name for one in needed if one.error is not None]
    if lacking:
        return Ended(cell.name, error=_lacking(lacking[0]))
    try:
        return Ended(cell.name, cell.call(*cell.arguments))
    except Exception as error:
        if isinstance(error, ShapeguideError | OSError) and str(error):
            return Ended(cell.name, error=str(error))
        told = f"{type(error).__name__}: {error}".removesuffix(": ")
        return Ended(cell.name, error=told, trace="\n" + traceback.format_exc())


_here = threading.local()
_stops: dict[str, threading.Event] = {}
"""In a worker: the event of each call of `run_cells` of which a cell has run."""


def _work_on_worker(
    cell: Cell, call_id: str, needed: Sequence[Ended], waited: Sequence[Ended]
) -> Ended:
    """Do a cell in a thread of a worker, which Ctrl-C does not reach."""
    _here.stop = _stops.setdefault(call_id, threading.Event())
    try:
        if _here.stop.is_set():
            raise KeyboardInterrupt
        return _work(cell, needed, waited)
    except KeyboardInterrupt:
        return Ended(cell.name, error="stopped")
    finally:
        del _here.stop


def _ask_to_stop(call_id: str) -> None:
    _stops.setdefault(call_id, threading.Event()).set()


def _run_on(client: Client, cells: Sequence[Cell], end: Callable[[Ended], None]) -> None:
    from distributed import as_completed, wait

    futures: dict[str, Future[Ended]] = {}
    for place, cell in enumerate(cells):
        needed, waited = (
            [futures[name] for name in names if name in futures]
            for names in (cell.needs, cell.waits)
        )
        futures[cell.name] = client.submit(
            _work_on_worker, cell, client.id, needed, waited,
            key=f"{cell.name} ({client.id})", priority=-place, pure=False,
            resources={GPU: 1} if cell.gpu else None,
        )  # fmt: skip
    by_key = {futures[cell.name].key: cell for cell in cells}
    died: set[str] = set()
    try:
        for future in as_completed(list(futures.values())):
            error = future.exception()
            if error is None:
                end(future.result())
                continue
            cell = by_key[future.key]
            first = next((need for need in (*cell.needs, *cell.waits) if need in died), None)
            died.add(cell.name)
            end(Ended(cell.name, error=_died(error) if first is None else _lacking(first)))
    except KeyboardInterrupt:
        logger.warning("stopping: the cells that run save first; Ctrl-C again does not wait")
        client.run(_ask_to_stop, client.id)
        wait(list(futures.values()), timeout=SECONDS_TO_SAVE)
        raise


def _lacking(need: str) -> str:
    return f"not done, for it needs {need}, which failed"


def _died(error: BaseException) -> str:
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return (
            "its worker died again and again, perhaps for want of memory; the same command goes "
            "on, with fewer jobs if need be"
        )
    return str(error) or type(error).__name__


@contextmanager
def _client(workers: Workers, count: int) -> Iterator[Client]:
    """A client of the scheduler that is named, or of a cluster that lives as long as the block."""
    if workers.scheduler is not None:
        with _connected(workers.scheduler) as client:
            yield client
        return
    from dask import config
    from distributed import Client, LocalCluster

    jobs = min(workers.jobs, count)
    share = _Share(_threads_of_each(jobs), _gpu_count())
    environment = {name: str(share.threads) for name in THREADS if name not in os.environ}
    settings = {
        # Before the process starts: torch and NumPy read them when they are loaded.
        "distributed.nanny.pre-spawn-environ": environment,
        # The loader of a training has processes of its own, which those of a daemon may not have.
        "distributed.worker.daemon": False,
    }
    with ExitStack() as stack:
        stack.enter_context(config.set(settings))
        stack.callback(_set_level, NANNY, NANNY.level)
        cluster = stack.enter_context(
            LocalCluster(
                n_workers=jobs,
                threads_per_worker=1,
                dashboard_address=DASHBOARD,
                # No limit to the memory of a worker: the cells of one study need unequal shares.
                memory_limit=None,
                resources={GPU: 1} if share.gpus else None,
            )
        )
        client = stack.enter_context(Client(cluster))
        # Everything is done when the workers end; some are slow to, and that is no news.
        stack.callback(_set_level, NANNY, logging.ERROR)
        client.register_plugin(_begin(share))
        _tell_dashboard(client)
        yield client


def _set_level(log: logging.Logger, level: int) -> None:
    log.setLevel(level)


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    from distributed import Client

    try:
        client = Client(address, timeout=SECONDS_TO_CONNECT)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no Dask scheduler answers at {address} ({error}); start one by `dask scheduler`, or "
            "leave --scheduler out"
        ) from error
    with client:
        _tell_dashboard(client)
        known = client.scheduler_info(n_workers=-1)["workers"]
        if not known:
            logger.warning("%s has no workers yet; the cells wait for some", address)
        elif not any(GPU in worker["resources"] for worker in known.values()):
            logger.info("no worker of %s offers a GPU; start one by --resources GPU=1", address)
        yield client


def _tell_dashboard(client: Client) -> None:
    from importlib.util import find_spec

    if find_spec("bokeh") is None:
        logger.info("for a dashboard of the workers: pip install bokeh")
    else:
        logger.info("dashboard of the workers: %s", client.dashboard_link)


@dataclass(frozen=True)
class _Share:
    """What a process may use."""

    threads: int
    gpus: int
    """GPUs that the processes take in turn."""


def _threads_of_each(jobs: int) -> int:
    return max(1, (os.cpu_count() or 1) // jobs)


def _gpu_count() -> int:
    import torch

    return torch.cuda.device_count()


def _begin(share: _Share) -> Any:
    """The first thing that a process of this machine does: its GPU, its threads, its log."""
    from distributed import WorkerPlugin

    class Begin(WorkerPlugin):
        def setup(self, worker: Worker) -> None:
            _set_up(share, int(worker.name))

    return Begin()


def _set_up(share: _Share, place: int) -> None:
    import signal

    if share.gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(n) for n in range(share.gpus)]
        os.environ["CUDA_VISIBLE_DEVICES"] = names[place % len(names)]
    if "torch" in sys.modules:  # a script that imports it has read the variables already
        import torch

        torch.set_num_threads(min(torch.get_num_threads(), share.threads))
    # Fabric says with every training what the log of the run says too.
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
    # A terminal sends Ctrl-C to all processes; it is for the one that hands out the cells.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
