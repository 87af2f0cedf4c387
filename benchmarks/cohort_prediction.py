"""Predicting a cohort: one scan after another against two at a time, in turn in one process.

    python benchmarks/cohort_prediction.py RUN DATASET --split FILE

RUN is a finished training; segmented are the test scans of the split. Of two scans at a time one is
in the networks while the other is read, prepared, brought back to its grid or written.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from statistics import median

import tyro
from rich.console import Console
from rich.table import Table

import shapeguide as sg
from shapeguide.inference import prediction_files


def main(
    run: tyro.conf.Positional[Path],
    dataset: tyro.conf.Positional[Path],
    *,
    split: str,
    repeats: int = 3,
    most: int | None = None,
) -> None:
    """Print seconds without start-up.

    Args:
        run: Folder of a finished training.
        dataset: Any dataset that `shapeguide predict` takes.
        split: Split file; the scans are those of its test side.
        repeats: How often each way is timed; printed are the median and all.
        most: Segment so many scans at most.
    """
    _, test = sg.read_dataset(dataset).split(split)
    cases = list(test)[:most]
    loaded = sg.load_run(run)
    table = Table("scans at a time", "seconds", "a scan", "each time", title=f"{len(cases)} scans")
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):
        for at_once, taken in seconds.items():
            prediction_files.SCANS_AT_ONCE = at_once
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                report = sg.predict_files(loaded, cases, out_dir=folder, progress=False)
                taken.append(time.perf_counter() - start)
                if not report.complete:
                    raise SystemExit(f"{len(report.failed)} scans failed: {report.failed[0]}")
    for at_once, taken in seconds.items():
        each = ", ".join(f"{one:.1f}" for one in taken)
        mean = median(taken) / len(cases)
        table.add_row(str(at_once), f"{median(taken):.1f}", f"{mean:.2f}", each)
    Console().print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"ratio {median(seconds[1]) / median(seconds[2]):.2f}; peak memory {peak:.2f} GB")


if __name__ == "__main__":
    tyro.cli(main)
