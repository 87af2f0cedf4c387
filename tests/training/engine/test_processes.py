"""Two real processes train what one trains, and only the first of them writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

import shapeguide as sg
from shapeguide.cli import main
from shapeguide.training.engine.checkpoint import CHECKPOINT_FILE, read_tensors
from shapeguide.training.engine.log import LOG_FILE, read_log

TINY = (
    "--structure horn=1 --preset quick --device cpu --precision fp32 --batch-size 2 --channels 4 8 "
    "--dice-iterations 6 --guided-iterations 4 --accept-collapsed --validation-cases 1 "
    "--validate-every 5 --checkpoint-every 2 "
    "--shape.iterations 10 --shape.channels 4 8 --shape.quality-pairs 4 "
    "--restorer.iterations 10 --restorer.channels 4 8 --restorer.batch-size 2 "
    "--autoencoder.iterations 10 --autoencoder.channels 4 8 --autoencoder.batch-size 2"
)
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "c"
    sg.write_cohort(folder, count=4, spatial_shape=(24, 24, 24), spacing_mm=(2.0, 2.0, 2.0))
    return folder


def words(cohort: Path, out: Path, *options: str) -> list[str]:
    return ["train", str(cohort), "--out", str(out), *TINY.split(), *options]


def start(cohort: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """A training in two processes."""
    return subprocess.Popen(
        [sys.executable, *TWO, "-m", "shapeguide", *words(cohort, out, *options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def train(cohort: Path, out: Path, *options: str) -> str:
    process = start(cohort, out, *options)
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    return told


@pytest.fixture(scope="module")
def guided(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("guided") / "run"
    told = train(cohort, out)
    assert told.count("trained on") == 1
    return out


def check_same_course(one: Path, two: Path, stages: Iterable[str]) -> None:
    """Equal losses and validations. Weights say less: where a gradient is but rounding, as that of
    a bias which a distance takes out, Adam makes a step of it all the same."""
    for stage in stages:
        alone, together = (read_log(run / stage / LOG_FILE) for run in (one, two))
        assert len(alone) == len(together) > 0
        for row, other in zip(alone, together, strict=True):
            assert other == pytest.approx(row, rel=1e-4, abs=1e-4)


def test_shape_restorer_and_guided_segmenter_train_as_in_one_process(
    cohort: Path, guided: Path, tmp_path: Path
) -> None:
    assert main(words(cohort, tmp_path / "one")) == 0
    check_same_course(tmp_path / "one", guided, ("shape", "restorer", "."))
    names = [{str(path.relative_to(run)) for path in run.rglob("*") if "tfevents" not in path.name}
             for run in (tmp_path / "one", guided)]  # fmt: skip
    assert names[0] == names[1]


@pytest.mark.slow
def test_losses_that_are_no_means_over_items_are_those_of_the_whole_batch(
    cohort: Path, tmp_path: Path
) -> None:
    objectives = ("contrastive", "vicreg", "reconstruction")
    script = tmp_path / "train.py"
    script.write_text(
        "import sys; import shapeguide as sg\n"
        "from shapeguide.training.settings.presets import preset\n"
        "q = preset('quick')\n"
        f"for objective in {objectives}:\n"
        "  sg.train_shape(sg.read_dataset(sys.argv[1]), run_dir=f'{sys.argv[2]}/{objective}',\n"
        "    progress=False, settings=q.changed(shape=q.shape.changed(objective=objective,\n"
        "    iterations=10, batch_size=4, channels=(4, 8), quality_pairs=4),\n"
        "    machine=q.machine.changed(device='cpu', precision='fp32')))\n"
    )
    for name, processes in (("one", ()), ("two", TWO)):
        command = [sys.executable, *processes, str(script), str(cohort), str(tmp_path / name)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    check_same_course(tmp_path / "one", tmp_path / "two", objectives)


def test_autoencoder_and_what_it_guides_train_as_in_one_process(
    cohort: Path, tmp_path: Path
) -> None:
    assert main(words(cohort, tmp_path / "one", "--guidance", "acnn")) == 0
    train(cohort, tmp_path / "two", "--guidance", "acnn")
    check_same_course(tmp_path / "one", tmp_path / "two", ("autoencoder", "."))


def test_two_processes_killed_at_once_resume_to_the_same_bits(
    cohort: Path, guided: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(cohort, out)
    wait_for_checkpoint(process, out / CHECKPOINT_FILE)
    for child in children_of(process.pid):
        os.kill(child, signal.SIGKILL)
    process.kill()
    process.communicate()
    assert not (out / "model.json").exists()
    train(cohort, out)
    for name, value in read_tensors(guided / "model.safetensors")[0].items():
        assert torch.equal(read_tensors(out / "model.safetensors")[0][name], value)
    done = [row["iteration"] for row in read_log(out / LOG_FILE)]
    assert done == [row["iteration"] for row in read_log(guided / LOG_FILE)]


def test_an_error_of_all_processes_is_told_by_the_first_alone(tmp_path: Path) -> None:
    process = start(tmp_path / "nowhere", tmp_path / "run")
    told, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "error (process 0): " in told
    assert told.count("there is no such dataset") == 1


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_out_is_refused(cohort: Path, tmp_path: Path) -> None:
    process = start(cohort, tmp_path / "run", "--guidance", "none", "--batch-size", "3")
    told, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "a batch of 3 cannot be shared out to 2 processes" in told.replace("\n", " ")


def wait_for_checkpoint(process: subprocess.Popen[str], path: Path) -> None:
    for _ in range(30_000):
        if path.exists() and json.loads(read_tensors(path)[1]["progress"])["iteration"] >= 2:
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    pytest.fail("no checkpoint within five minutes")


def children_of(process: int) -> list[int]:
    """Processes that a process has started, as Linux lists them."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]
