"""Studies on worker processes that are killed, interrupted, or those of another cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

import shapeguide as sg
from shapeguide.cells import Workers
from shapeguide.studies.separation.design import SeparationDesign
from shapeguide.studies.separation.study import SeparationResult, study_separation
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset

DESIGN = SeparationDesign(objectives=("pairwise",), poses=("grid",), seeds=(0, 1), pairs=4)
ITERATIONS = 60
SECONDS = 60.0


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "c"
    sg.write_cohort(folder, count=5, seed=1, spatial_shape=(24, 24, 24), spacing_mm=(2.0, 2.0, 2.0))
    return folder / "dataset.json"


def settings() -> TrainSettings:
    quick = preset("quick")
    return quick.changed(
        shape=quick.shape.changed(
            iterations=ITERATIONS, channels=(4, 8), batch_size=2, quality_pairs=4
        ),
        machine=quick.machine.changed(device="cpu", precision="fp32", checkpoint_every=6),
    )


def run(cohort: Path, out: Path, workers: Workers) -> SeparationResult:
    train, test = sg.read_dataset(cohort).split_at_random(test_count=2, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shapeguide.studies.separation.study.draw_figures", lambda *_: None)
        return study_separation(
            train, test, out=out, settings=settings(), design=DESIGN, workers=workers,
            progress=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert not run(cohort, out, Workers()).failures
    return out


def run_folder(out: Path, seed: int) -> Path:
    return out / "cells" / f"horn-pairwise-grid-seed{seed}"


def same_bits(first: Path, second: Path) -> bool:
    """Whether the networks of both seeds are equal to the bit."""
    pairs = [
        [load_file(run_folder(out, seed) / "model.safetensors") for out in (first, second)]
        for seed in (0, 1)
    ]
    return all(
        one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)
        for one, other in pairs
    )


def workers_of(process: int) -> list[psutil.Process]:
    found = psutil.Process(process).children(recursive=True)
    return [one for one in found if "spawn_main" in " ".join(one.cmdline())]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "what was waited for never came"
        time.sleep(0.005)


def in_the_middle(out: Path) -> bool:
    """Whether both trainings have left a checkpoint and neither has ended."""
    return all(
        (run_folder(out, seed) / "checkpoint.safetensors").is_file()
        and not (run_folder(out, seed) / "model.json").is_file()
        for seed in (0, 1)
    )


def test_a_worker_killed_in_the_middle_of_a_training_is_replaced_and_the_bits_are_the_same(
    cohort: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, killed = tmp_path / "out", []

    def kill() -> None:
        wait_for(lambda: in_the_middle(out))
        worker = workers_of(os.getpid())[0]
        worker.kill()
        killed.append((worker.pid, in_the_middle(out)))

    thread = threading.Thread(target=kill)
    thread.start()
    found = run(cohort, out, Workers(jobs=2))
    thread.join()
    assert [middle for _, middle in killed] == [True], "a training ended before the kill"
    assert found.failures == {}
    assert same_bits(out, undisturbed)
    iterations = [
        [json.loads(line)["iteration"] for line in (run_folder(one, 0) / "log.jsonl").open()]
        for one in (out, undisturbed)
    ]
    assert iterations[0] == iterations[1]
    assert workers_of(os.getpid()) == []


SCRIPT = """
import signal, sys
from pathlib import Path

# A shell that runs the tests in the background has Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv[1])
from test_workers import run
from shapeguide.cells import Workers

if __name__ == "__main__":
    run(Path(sys.argv[2]), Path(sys.argv[3]), Workers(jobs=2))
"""


def started(folder: Path, cohort: Path, out: Path) -> subprocess.Popen[bytes]:
    """The study in a process of its own, with two workers, in a group as a terminal makes it."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    arguments = [str(script), str(Path(__file__).parent), str(cohort), str(out)]
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *arguments],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_study_leaves_no_process_and_goes_on_to_the_same_bits(
    cohort: Path, undisturbed: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    process = started(tmp_path, cohort, out)
    wait_for(lambda: in_the_middle(out) or process.poll() is not None)
    workers = workers_of(process.pid)
    assert len(workers) == 2
    if number is signal.SIGINT:
        os.killpg(process.pid, number)  # as Ctrl-C does: to all of them
    else:
        process.kill()
    assert process.wait(timeout=SECONDS) != 0, "the study ended before it could be stopped"
    assert psutil.wait_procs(workers, timeout=15)[1] == []
    assert not (run_folder(out, 0) / "model.json").is_file()
    assert run(cohort, out, Workers()).failures == {}
    assert same_bits(out, undisturbed)
