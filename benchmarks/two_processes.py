"""Seconds of a training in one process and in two, each with one thread, on a synthetic cohort.

Run it on cores that are free: with fewer than two, two processes cannot be faster.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import shapeguide as sg
from shapeguide.training.engine.log import LOG_FILE, read_log

ITERATIONS = (2, 12)
"""A short and a longer training: their difference is free of what starting takes."""
OPTIONS = (
    "--structure horn=1 --preset quick --guidance none --device cpu --precision fp32 "
    "--batch-size 4 --channels 16 32 64 --guided-iterations 0 --validation-cases 0"
)
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def main() -> None:
    """Print seconds an iteration, and the last losses of both."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sg.write_cohort(folder / "c", count=4, spatial_shape=(48, 48, 48))
        alone, together = (measure(folder, processes) for processes in ((), TWO))
        losses = [read_log(run / LOG_FILE)[-1]["dice"] for run in (alone[1], together[1])]
    print(f"cores: {os.cpu_count()}, load: {os.getloadavg()[0]:.1f}")
    print(f"one process    {alone[0]:.3f} s an iteration, Dice loss {losses[0]:.5f}")
    print(f"two processes  {together[0]:.3f} s an iteration, Dice loss {losses[1]:.5f}")
    print(f"speed-up       {alone[0] / together[0]:.2f}")


def measure(folder: Path, processes: tuple[str, ...]) -> tuple[float, Path]:
    """Seconds an iteration, and the run folder of the longer training."""
    seconds = []
    for iterations in ITERATIONS:
        out = folder / f"{len(processes)}_{iterations}"
        command = [sys.executable, *processes, "-m", "shapeguide", "train", str(folder / "c")]
        command += ["--out", str(out), *OPTIONS.split(), "--dice-iterations", str(iterations)]
        start = time.perf_counter()
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        seconds.append(time.perf_counter() - start)
    return (seconds[1] - seconds[0]) / (ITERATIONS[1] - ITERATIONS[0]), out


if __name__ == "__main__":
    main()
