"""Iterate, validate, save, resume. Knows no task: a stage hands in its step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from shapeguide.errors import ShapeguideError
from shapeguide.launch import is_first
from shapeguide.progress import ProgressBar
from shapeguide.training.engine import processes
from shapeguide.training.engine.checkpoint import (
    CHECKPOINT_FILE,
    TrainingState,
    load_checkpoint,
    save_checkpoint,
)
from shapeguide.training.engine.fabric import to_device
from shapeguide.training.engine.interruption import stop_requests
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
    """Iterations between two checkpoints."""
    checkpoint_seconds: float = math.inf
    """Seconds after which one is saved anyway, at the end of an iteration."""
    validate_every: int = 0
    """0 never validates."""
    num_workers: int = 0
    progress: bool = True

    def validates_after(self, done: int) -> bool:
        """Whether it is time to validate after so many iterations; it always is after the last."""
        if self.validate_every == 0:
            return False
        return done % self.validate_every == 0 or done == self.iterations

    def saves_after(self, done: int, *, seconds: float) -> bool:
        """Whether it is time to save after so many iterations, so long after the last time."""
        due = done % self.checkpoint_every == 0 or done == self.iterations
        return due or seconds >= self.checkpoint_seconds

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
            checkpoint_seconds=60 * machine.checkpoint_minutes,
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

    Of several processes, the first alone validates and writes.

    Randomness belongs to the batch and the step, which draw it from the seed and the iteration
    number; so a resumed training does exactly what an undisturbed one would have done. Ctrl-C and
    SIGTERM end the current iteration, save, and then raise KeyboardInterrupt; a second one raises
    it at once.

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
        load_checkpoint(state, checkpoint, iterations=plan.iterations)
    start = state.iteration
    processes.wait_for_all()  # nobody writes before everybody has read
    first = is_first()
    with (
        TrainingLog(run_dir, done=start, kept=first) as log,
        ProgressBar(plan.title, total=plan.iterations, done=start, shown=plan.progress) as bar,
    ):
        keeper = _Keeper(state, plan.title, checkpoint)
        reporter = _Reporter(plan, log, bar)
        with stop_requests(lambda: bar.say(keeper.farewell()) if first else None) as stop:
            for iteration, batch in _batches(task.batches, plan, start, fabric):
                rate = plan.learning_rate(iteration)
                terms = take_step(state, task, iteration, batch, rate=rate, fabric=fabric)
                state.iteration = done = iteration + 1
                last = done == plan.iterations
                stopping = processes.agree_on_any(stop.is_set())
                reporter.report(done, terms.watched(), rate)
                if first and plan.validates_after(done):
                    _validate(state, task, log)
                if first and done in task.milestones:
                    keeper.keep(task.milestones[done])
                if first and (stopping or plan.saves_after(done, seconds=keeper.age())):
                    keeper.save()
                if stopping and not last:
                    raise KeyboardInterrupt


def cosine_decay(peak: float, iterations: int) -> Callable[[int], float]:
    """Learning rate that falls from `peak` to a hundredth of it along half a cosine."""
    return lambda n: peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * n / iterations)))


def _batches(
    batches: Dataset[Any], plan: LoopPlan, start: int, fabric: Fabric
) -> Iterator[tuple[int, Any]]:
    """Each iteration that is left to do, with its batch on the device."""
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
        yield iteration, to_device(batch, fabric)


def take_step(
    state: TrainingState,
    task: LoopTask,
    iteration: int,
    batch: Any,
    *,
    rate: float,
    fabric: Fabric,
) -> Terms:
    """One step of the optimizer at this learning rate."""
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.network.train()
    terms = task.step(batch, iteration)
    state.optimizer.zero_grad(set_to_none=True)
    fabric.backward(terms.total)
    state.optimizer.step()
    if state.average is not None:
        state.average.update(iteration + 1)
    return terms


def _validate(state: TrainingState, task: LoopTask, log: TrainingLog) -> None:
    """Log how good the network is, and have it kept when it is the best so far."""
    if task.validate is None:
        return
    found = task.validate()
    log.write(state.iteration, found)
    if state.best_score is None or found["score"] > state.best_score:
        state.best_score, state.best_iteration = found["score"], state.iteration
        if task.keep_best:
            task.keep_best()


class _Keeper:
    """Saves the state, unless its weights are no longer numbers: what was saved before stays."""

    def __init__(self, state: TrainingState, title: str, checkpoint: Path) -> None:
        self._state, self._title, self._checkpoint = state, title, checkpoint
        self._saved_iteration, self._saved_at = state.iteration, time.monotonic()

    def age(self) -> float:
        """Seconds of work that would be lost now."""
        return time.monotonic() - self._saved_at

    def save(self) -> None:
        """Write the checkpoint that a resumed training goes on from."""
        self._write(self._state, self._checkpoint)
        self._saved_iteration, self._saved_at = self._state.iteration, time.monotonic()

    def keep(self, path: Path) -> None:
        """Write a checkpoint of its own; whoever goes on from there finds a best of its own."""
        self._write(replace(self._state, best_score=None, best_iteration=None), path)

    def farewell(self) -> str:
        """What will happen now that a stop is asked for."""
        return (
            f"stopping: finishing iteration {self._state.iteration + 1} of the {self._title}, "
            "then saving; again to stop at once and lose what was done since iteration "
            f"{self._saved_iteration}"
        )

    def _write(self, state: TrainingState, path: Path) -> None:
        weights = state.network.parameters()
        if not all(bool(torch.isfinite(weight).all()) for weight in weights):
            raise _failed(self._title, "weights that are not finite", state.iteration)
        save_checkpoint(state, path)


class _Reporter:
    """Tells log and bar the means of the figures, which stay on the device until they are read."""

    def __init__(self, plan: LoopPlan, log: TrainingLog, bar: ProgressBar) -> None:
        self._plan, self._log, self._bar = plan, log, bar
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def report(self, done: int, figures: Mapping[str, Tensor], rate: float) -> None:
        """Add the figures of an iteration; every few iterations tell the means since the last time.

        Raises:
            TrainingFailed: If a mean is not finite.
        """
        for name, value in figures.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._counts[name] = self._counts.get(name, 0) + 1
        if done % LOG_EVERY and done != self._plan.iterations:
            self._bar.update(done)
            return
        means = {name: float(value) / self._counts[name] for name, value in self._sums.items()}
        self._sums, self._counts = {}, {}
        wrong = {name: value for name, value in means.items() if not math.isfinite(value)}
        if wrong:
            raise _failed(self._plan.title, str(wrong), done)
        self._log.write(done, means | {"learning_rate": rate})
        self._bar.update(done, means)


def _failed(title: str, found: str, iteration: int) -> TrainingFailed:
    return TrainingFailed(
        f"{title}: {found} by iteration {iteration}; the last checkpoint is kept. "
        "Lower the learning rate or use fp32 precision, in a new run folder"
    )
