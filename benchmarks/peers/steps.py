"""Steps of a comparison: each is a process whose seconds and memory are taken, done once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from shapeguide.storage.whole import read_json, write_json

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE_EVERY_S = 0.5
TRAINING_FILE = "training.json"
SHOWN_LOG_LINES = 20


@dataclass(frozen=True)
class Step:
    """One command of a system; a stopped one starts again, so its minutes are of one start."""

    folder: Path
    """Folder of the system: the record and the log of the step are written there."""
    name: str
    command: tuple[str, ...]
    makes: tuple[Path, ...]
    """What the command writes; what an earlier start left of it is deleted first."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def record(self) -> Path:
        """Seconds, peak memory and command of the step, once it is done."""
        return self.folder / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """What the command printed."""
        return self.folder / f"{self.name}.log"


@dataclass(frozen=True)
class Usage:
    """What a command took."""

    seconds: float
    peak_memory_gb: float
    """Most memory of the command and all its children together; shared pages count once."""


@dataclass(frozen=True)
class Training:
    """How much a training saw, as each system notes it in `training.json`."""

    iterations: int
    seconds: float
    """From the first iteration to the last."""
    batch_size: int
    patch: tuple[int, int, int]
    """What the network sees at once, in voxels."""
    parameters: int
    """Numbers that the network learns."""

    @property
    def voxels_per_second(self) -> float:
        """Voxels that went through the network and back in a second."""
        i, j, k = self.patch
        return self.iterations * self.batch_size * i * j * k / self.seconds


def module(name: str, *arguments: str) -> tuple[str, ...]:
    """Command that runs a module of this folder with the interpreter that is running now."""
    return (sys.executable, "-m", f"benchmarks.peers.{name}", *arguments)


def carry_out(step: Step) -> None:
    """Run a step unless it is done.

    Raises:
        SystemExit: If the command fails, or another command was done under this name.
    """
    if step.record.is_file():
        done = read_json(step.record)["command"]
        if done[1:] != list(step.command[1:]):
            raise SystemExit(
                f"{step.record} is of another command:\n{' '.join(done)}\n"
                f"and this one is\n{' '.join(step.command)}\nchoose another --out"
            )
        print(f"{step.folder.name} {step.name}: done before")
        return
    for path in step.makes:
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
    step.folder.mkdir(parents=True, exist_ok=True)
    print(f"{step.folder.name} {step.name}: running, output in {step.log}", flush=True)
    usage = measure(step.command, log=step.log, environment=step.environment)
    write_json(step.record, {"command": list(step.command), "cores": cores(), **asdict(usage)})
    print(f"  {usage.seconds:.0f} s, {usage.peak_memory_gb:.2f} GB")


def measure(command: tuple[str, ...], *, log: Path, environment: Mapping[str, str]) -> Usage:
    """Run a command from the root of the repository.

    Args:
        command: Program and arguments.
        log: File that takes what it prints.
        environment: What is added to the environment of this process.

    Raises:
        SystemExit: If it fails; with the last lines that it printed.
    """
    paths = [str(REPOSITORY), str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")]
    added = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
    peak, start = 0.0, time.monotonic()
    with log.open("w", encoding="utf-8") as printed:
        process = psutil.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **added, **environment},
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None:
                peak = max(peak, _memory_gb(process))
                with suppress(psutil.TimeoutExpired):
                    process.wait(SAMPLE_EVERY_S)
        finally:
            _end(process)
    seconds = time.monotonic() - start
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        shown = "\n".join(lines[-SHOWN_LOG_LINES:])
        raise SystemExit(f"{' '.join(command)}\nended with {process.returncode}:\n{shown}")
    return Usage(seconds, peak)


def cores() -> int:
    """Processor cores that a step may use."""
    return len(psutil.Process().cpu_affinity()) if psutil.LINUX else os.cpu_count() or 1


def read_usage(folder: Path, step: str) -> Usage | None:
    """What a step took; None where it is not done."""
    path = folder / f"{step}.json"
    if not path.is_file():
        return None
    content = read_json(path)
    return Usage(content["seconds"], content["peak_memory_gb"])


def write_training(training: Training, path: Path) -> None:
    """Note how much a training saw."""
    write_json(path, asdict(training))


def read_training(folder: Path) -> Training | None:
    """How much the training of a system saw; None where nobody has noted it."""
    path = folder / TRAINING_FILE
    if not path.is_file():
        return None
    content: dict[str, Any] = read_json(path)
    i, j, k = content.pop("patch")
    return Training(patch=(i, j, k), **content)


def _memory_gb(process: psutil.Process) -> float:
    """Memory of a process and its descendants now."""
    held = 0
    with suppress(psutil.Error):
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                held += _held_by(one)
    return held / 1024**3


def _held_by(process: psutil.Process) -> int:
    """Bytes of one process: a page that several processes share counts by its part where known."""
    if psutil.LINUX:
        return int(process.memory_full_info().pss)
    return int(process.memory_info().rss)


def _end(process: psutil.Popen) -> None:
    """End what is left of a command whose waiting was interrupted."""
    with suppress(psutil.Error):
        for one in (*process.children(recursive=True), process):
            with suppress(psutil.Error):
                one.terminate()
    process.wait()
