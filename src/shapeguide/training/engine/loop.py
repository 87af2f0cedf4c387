"""Iterate, validate, save, resume. Knows no task: a stage hands in its step."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from shapeguide.cells import stop_request
from shapeguide.errors import ShapeguideError
from shapeguide.progress import ProgressBar
from shapeguide.training.engine.checkpoint import (
    CHECKPOINT_FILE,
    TrainingState,
    load_checkpoint,
    save_checkpoint,
)
from shapeguide.training.engine.log import TrainingLog
from shapeguide.training.settings.groups import MachineSettings

LOG_EVERY = 10


class Terms(Protocol):
    """What a step returns: the loss, and the figures to watch."""

    @property
    def total(self) -> Tensor:
        """The loss to minimise."""
        ...

    def watched(self) -> dict[str, Tensor]:
        """Figures by name."""
        ...


class Course(Protocol):
    """What the settings of every stage hold."""

    @property
    def iterations(self) -> int:
        """All iterations of the stage."""
        ...

    @property
    def learning_rate(self) -> float:
        """Highest learning rate."""
        ...

    @property
    def decay(self) -> str:
        """Course of the learning rate: `none` or `cosine`."""
        ...


@dataclass(frozen=True)
class LoopPlan:
    """How long and how often."""

    title: str
    iterations: int
    learning_rate: Callable[[int], float]
    """Learning rate of an iteration, counted from 0."""
    checkpoint_every: int
    validate_every: int = 0
    """0 never validates."""
    num_workers: int = 0
    progress: bool = True

    @classmethod
    def of(
        cls,
        title: str,
        course: Course,
        machine: MachineSettings,
        *,
        progress: bool,
        validate_every: int = 0,
    ) -> LoopPlan:
        """The plan of a stage with these settings."""
        peak, iterations = course.learning_rate, course.iterations
        decays = course.decay == "cosine"
        return cls(
            title=title,
            iterations=iterations,
            learning_rate=cosine_decay(peak, iterations) if decays else lambda _: peak,
            checkpoint_every=machine.checkpoint_every,
            validate_every=validate_every,
            num_workers=machine.num_workers,
            progress=progress,
        )


@dataclass(frozen=True)
class LoopTask:
    """What a stage hands in."""

    batches: Dataset[Any]
    """Item n is the batch of iteration n."""
    step: Callable[[Any, int], Terms]
    """Batch and iteration to loss terms."""
    validate: Callable[[], Mapping[str, float]] | None = None
    """Figures to log; `score` among them decides on the best weights."""
    keep_best: Callable[[], None] | None = None
    """Called when the score is the highest so far."""
    milestones: Mapping[int, Path] = field(default_factory=dict)
    """Iterations after which a checkpoint is kept under a name of its own."""


class TrainingFailed(ShapeguideError, ArithmeticError):  # noqa: N818 - a finding, not a fault of the code
    """The loss is no longer a number."""


def train_loop(
    state: TrainingState, plan: LoopPlan, task: LoopTask, *, run_dir: Path, fabric: Fabric
) -> None:
    """Train from the checkpoint in the run folder, or from the start, to the last iteration.

    Randomness belongs to the batch and the step, which draw it from the seed and the iteration
    number; so a resumed training does exactly what an undisturbed one would have done. Ctrl-C and
    SIGTERM end the current iteration, save, and then raise KeyboardInterrupt.

    Args:
        state: Network and optimizer, set up by `fabric`; changed in place.
        plan: How long and how often.
        task: Batches and step of the stage.
        run_dir: Folder of checkpoint and log.
        fabric: Device and precision.

    Raises:
        TrainingFailed: If the loss is not finite; the last checkpoint stays.
        CheckpointError: If a checkpoint is damaged or cannot be written.
    """
    checkpoint = run_dir / CHECKPOINT_FILE
    if checkpoint.is_file():
        load_checkpoint(state, checkpoint)
    start = state.iteration
    means = _Means()
    with (
        TrainingLog(run_dir, done=start) as log,
        ProgressBar(plan.title, total=plan.iterations, done=start, shown=plan.progress) as bar,
        _stop_requests() as stop,
    ):
        for iteration, batch in _batches(task.batches, plan, start, fabric):
            means.add(_one_step(state, plan, task, (iteration, batch), fabric))
            state.iteration = done = iteration + 1
            last = done == plan.iterations
            if done % LOG_EVERY == 0 or last:
                figures = means.take()
                _check_finite(figures, plan.title, done)
                log.write(done, figures | {"learning_rate": plan.learning_rate(iteration)})
                bar.update(done, figures)
            bar.update(done)
            if plan.validate_every and (done % plan.validate_every == 0 or last):
                _validate(state, task, log)
            if done in task.milestones:
                # Whoever goes on from here finds a best of its own.
                start_anew = replace(state, best_score=None, best_iteration=None)
                _save(start_anew, task.milestones[done], plan.title)
            if done % plan.checkpoint_every == 0 or last or stop.is_set():
                _save(state, checkpoint, plan.title)
            if stop.is_set() and not last:
                raise KeyboardInterrupt


def _one_step(
    state: TrainingState, plan: LoopPlan, task: LoopTask, numbered: tuple[int, Any], fabric: Fabric
) -> dict[str, Tensor]:
    iteration, batch = numbered
    for group in state.optimizer.param_groups:
        group["lr"] = plan.learning_rate(iteration)
    state.network.train()
    terms = task.step(batch, iteration)
    state.optimizer.zero_grad(set_to_none=True)
    fabric.backward(terms.total)
    state.optimizer.step()
    if state.average is not None:
        state.average.update(iteration + 1)
    return terms.watched()


def _save(state: TrainingState, path: Path, title: str) -> None:
    """Save a state, unless its weights are no longer numbers: what was saved before stays."""
    weights = state.network.parameters()
    if not all(bool(torch.isfinite(weight).all()) for weight in weights):
        raise _failed(title, "weights that are not finite", state.iteration)
    save_checkpoint(state, path)


def _validate(state: TrainingState, task: LoopTask, log: TrainingLog) -> None:
    if task.validate is None:
        return
    found = task.validate()
    log.write(state.iteration, found)
    if state.best_score is None or found["score"] > state.best_score:
        state.best_score, state.best_iteration = found["score"], state.iteration
        if task.keep_best:
            task.keep_best()


def _batches(
    batches: Dataset[Any], plan: LoopPlan, start: int, fabric: Fabric
) -> Iterator[tuple[int, Any]]:
    remaining = range(start, plan.iterations)
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=remaining,
        num_workers=plan.num_workers,
        pin_memory=fabric.device.type == "cuda",
        generator=torch.Generator(),
    )
    for iteration, batch in zip(remaining, loader, strict=True):
        yield iteration, fabric.to_device(batch)


def cosine_decay(peak: float, iterations: int) -> Callable[[int], float]:
    """Learning rate that falls from `peak` to a hundredth of it along half a cosine."""
    return lambda n: peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * n / iterations)))


class _Means:
    """Running means of figures that stay on the device until they are read."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, figures: Mapping[str, Tensor]) -> None:
        for name, value in figures.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        means = {name: float(value) / self._counts[name] for name, value in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means


def _check_finite(figures: Mapping[str, float], title: str, iteration: int) -> None:
    wrong = {name: value for name, value in figures.items() if not math.isfinite(value)}
    if wrong:
        raise _failed(title, str(wrong), iteration)


def _failed(title: str, found: str, iteration: int) -> TrainingFailed:
    return TrainingFailed(
        f"{title}: {found} by iteration {iteration}; the last checkpoint is kept. "
        "Lower the learning rate or use fp32 precision, in a new run folder"
    )


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Turn Ctrl-C and SIGTERM into an event; a second one interrupts at once.

    In a thread of a worker the event comes from the process that handed out the cell.
    """
    stop = stop_request()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
