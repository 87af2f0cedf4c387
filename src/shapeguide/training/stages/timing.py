"""How long the steps of a stage take on this machine, and how much memory: some are taken."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from shapeguide.machine import peak_memory_bytes
from shapeguide.training.engine.fabric import to_device
from shapeguide.training.engine.loop import LoopTask, take_step
from shapeguide.training.engine.processes import on_first
from shapeguide.training.stages.stage import BegunStage, Stage, begin

logger = logging.getLogger(__name__)

WARM_UP_STEPS = 1
TIMED_STEPS = 2


@dataclass(frozen=True)
class StageTiming:
    """What a stage takes on this machine."""

    preparing_seconds: float
    """Before its first step: reading and preparing cases, unless an earlier stage did."""
    step_seconds: tuple[float, ...]
    """For one step from each iteration that was asked for."""
    peak_bytes: int | None
    """Most memory until the end of the steps: of the GPU, else of this process; None if unknown."""


def time_stage(stage: Stage[Any], *, iterations: Sequence[int] = (0,)) -> StageTiming:
    """Take a few steps of a stage with its own batches, and forget what was learnt.

    Of several processes all take the steps together, and go by the times of the first.

    Args:
        stage: Made for these cases and settings; nothing is written into a run folder.
        iterations: From where to take steps, such as the first one with and without guidance.

    Raises:
        ConfigError: If the stage refuses its settings.
        DataError: If a case cannot be used.
    """
    stage.check()
    start = _now()
    stage.cohort.check_structures_occur()
    begun = begin(stage)
    device = begun.fabric.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with TemporaryDirectory() as nowhere:
        task = stage.task(begun.wrapped, begun.state, Path(nowhere))
        preparing = _now() - start
        seconds = [_step_seconds(begun, task, stage.course.learning_rate, n) for n in iterations]
    found = on_first(lambda: [preparing, *seconds])
    return StageTiming(found[0], tuple(found[1:]), on_first(lambda: peak_memory_bytes(device)))


def _step_seconds(begun: BegunStage, task: LoopTask, rate: float, first: int) -> float:
    """Mean of a few steps, after others for what is done but once."""
    start = 0.0
    for taken in range(WARM_UP_STEPS + TIMED_STEPS):
        if taken == WARM_UP_STEPS:
            _wait_for(begun)
            start = _now()
        iteration = first + taken
        batch = to_device(task.batches[iteration], begun.fabric)
        take_step(begun.state, task, iteration, batch, rate=rate, fabric=begun.fabric)
    _wait_for(begun)
    return (_now() - start) / TIMED_STEPS


def _wait_for(begun: BegunStage) -> None:
    """Until the GPU has done what it was given."""
    if begun.fabric.device.type == "cuda":
        torch.cuda.synchronize(begun.fabric.device)


def _now() -> float:
    return time.perf_counter()
