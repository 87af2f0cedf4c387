"""Real processes, killed, interrupted and starved of disk: nothing is lost, and resuming exact."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import shapeguide as sg
from shapeguide.training.engine.checkpoint import CHECKPOINT_FILE, read_tensors

SCRIPT = """
import resource, sys
import torch
import shapeguide as sg
from shapeguide.training.settings.presets import preset

description, out, limit = sys.argv[1:]
torch.set_num_threads(1)
if int(limit):
    # A write beyond the limit fails like one on a full disk.
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
quick = preset("quick")
settings = quick.changed(
    guidance="none",
    segmentation=quick.segmentation.changed(
        channels=(8, 16), dice_iterations=40, guided_iterations=20
    ),
    machine=quick.machine.changed(device="cpu", checkpoint_every=3),
)
try:
    sg.train(sg.read_dataset(description), out=out, settings=settings, progress=False)
except sg.ShapeguideError as error:
    print(error)
    sys.exit(2)
"""


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "c"
    return sg.write_cohort(folder, count=3, spatial_shape=(24, 24, 24), spacing_mm=(2.0, 2.0, 2.0))


@pytest.fixture(scope="module")
def undisturbed(description: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert start(description, out).wait() == 0
    return out


def start(description: Path, out: Path, *, limit: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(description), str(out), str(limit)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def iterations_done(out: Path) -> int:
    path = out / CHECKPOINT_FILE
    return (
        int(read_tensors(path)[1]["progress"].split('"iteration": ')[1].split(",")[0])
        if path.exists()
        else 0
    )


def wait_for(process: subprocess.Popen[str], out: Path, *, iterations: int) -> None:
    for _ in range(12_000):
        if iterations_done(out) >= iterations or process.poll() is not None:
            return
        time.sleep(0.01)
    pytest.fail(f"no {iterations} iterations within two minutes")


def weights(out: Path) -> dict[str, torch.Tensor]:
    return read_tensors(out / "model.safetensors")[0]


def same_weights(first: Path, second: Path) -> bool:
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_run_killed_several_times_ends_with_the_same_bits(
    description: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    kills = 0
    for iterations in (3, 18, 36):
        process = start(description, out)
        wait_for(process, out, iterations=iterations)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 2, "the run ended before it could be killed"
    assert start(description, out).wait() == 0
    assert same_weights(out, undisturbed)


def test_interrupted_run_saves_where_it_is_and_resumes(
    description: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(description, out)
    wait_for(process, out, iterations=6)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode != 0
    assert "KeyboardInterrupt" in output
    assert "finishing iteration" in output
    assert 6 <= iterations_done(out) < 60
    assert start(description, out).wait() == 0
    assert same_weights(out, undisturbed)


def test_full_disk_is_an_error_that_loses_nothing(
    description: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(description, out)
    wait_for(process, out, iterations=6)
    process.kill()
    process.wait()
    before = (out / CHECKPOINT_FILE).read_bytes()
    starved = start(description, out, limit=20_000)
    output, _ = starved.communicate()
    assert starved.returncode == 2, output
    assert "cannot write" in output
    assert "resume" in output
    assert (out / CHECKPOINT_FILE).read_bytes() == before
    assert not [path for path in out.iterdir() if path.name.startswith(".writing")]
    assert start(description, out).wait() == 0
    assert same_weights(out, undisturbed)
