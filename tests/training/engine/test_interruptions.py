"""Real processes, killed, interrupted and starved of disk: nothing is lost, and resuming exact."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import shapeguide as sg
from shapeguide.training.engine.checkpoint import CHECKPOINT_FILE, read_tensors
from shapeguide.training.settings.presets import preset

SCRIPT = """
import resource, signal, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from shapeguide.errors import ShapeguideError
from test_interruptions import train

description, out, limit = Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
if limit:
    # A write beyond the limit fails like one on a full disk.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    train(description, out)
except ShapeguideError as error:
    print(error)
    sys.exit(2)
"""


def train(description: Path, out: Path) -> None:
    quick = preset("quick")
    settings = quick.changed(
        guidance="none",
        segmentation=quick.segmentation.changed(
            channels=(8, 16), dice_iterations=40, guided_iterations=20
        ),
        machine=quick.machine.changed(device="cpu", checkpoint_every=3),
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sg.train(sg.read_dataset(description), out=out, settings=settings, progress=False)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "c"
    return sg.write_cohort(folder, count=3, spatial_shape=(24, 24, 24), spacing_mm=(2.0, 2.0, 2.0))


@pytest.fixture(scope="module")
def undisturbed(description: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    train(description, out)
    return out


@pytest.fixture(scope="module")
def killed(description: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed after its first iterations."""
    out = tmp_path_factory.mktemp("killed") / "run"
    code, _ = stopped(description, out, signal.SIGKILL, iterations=3)
    assert code == -signal.SIGKILL, "the run ended before it could be killed"
    return out


def start(description: Path, out: Path, *, limit: int = 0) -> subprocess.Popen[str]:
    """A training in a process of its own."""
    arguments = [str(Path(__file__).parent), str(description), str(out), str(limit)]
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, *arguments]
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


def stopped(
    description: Path, out: Path, sent: signal.Signals, *, iterations: int
) -> tuple[int, str]:
    """Exit code and words of a training that got a signal after so many iterations."""
    process = start(description, out)
    wait_for(process, out, iterations=iterations)
    process.send_signal(sent)
    told, _ = process.communicate()
    return process.returncode, told


def weights(out: Path) -> dict[str, torch.Tensor]:
    return read_tensors(out / "model.safetensors")[0]


def same_weights(first: Path, second: Path) -> bool:
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_run_killed_several_times_ends_with_the_same_bits(
    description: Path, undisturbed: Path, killed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(killed, out)
    code, _ = stopped(description, out, signal.SIGKILL, iterations=24)
    assert code == -signal.SIGKILL, "the run ended before it could be killed"
    train(description, out)
    assert same_weights(out, undisturbed)


def test_interrupted_run_saves_where_it_is_and_resumes(
    description: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, told = stopped(description, out, signal.SIGINT, iterations=6)
    assert code != 0
    assert "KeyboardInterrupt" in told
    assert "finishing iteration" in told
    assert 6 <= iterations_done(out) < 60
    train(description, out)
    assert same_weights(out, undisturbed)


def test_full_disk_is_an_error_that_loses_nothing(
    description: Path, undisturbed: Path, killed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(killed, out)
    before = (out / CHECKPOINT_FILE).read_bytes()
    starved = start(description, out, limit=20_000)
    told, _ = starved.communicate()
    assert starved.returncode == 2, told
    assert "cannot write" in told
    assert "resume" in told
    assert (out / CHECKPOINT_FILE).read_bytes() == before
    assert not [path for path in out.iterdir() if path.name.startswith(".writing")]
    train(description, out)
    assert same_weights(out, undisturbed)
