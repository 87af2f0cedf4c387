"""Prediction of a whole head: seconds, memory, and where the time goes.

    python benchmarks/whole_head.py RUN SCAN

RUN is a finished training. Its `predict` stands against MONAI's `sliding_window_inference` of the
same network over the whole head, each in a process of its own that reads the scan, segments it and
writes the label map. Target: at least 10 times as fast, with a quarter of the memory.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal, TypeAlias

import torch
import tyro
from monai.inferers import sliding_window_inference
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import shapeguide as sg
from shapeguide.data.prepare import prepare_volume
from shapeguide.geometry.resample import resample_channels
from shapeguide.geometry.volume import LabelMap, Volume
from shapeguide.inference.prediction import label_map_from, predict_shown
from shapeguide.inference.run import TrainedRun
from shapeguide.inference.shown import shown_to
from shapeguide.machine import autocast, choose_precision
from shapeguide.models.segmenter import Segmenter
from shapeguide.vocabulary import Device

Shape: TypeAlias = tuple[int, int, int]
System = Literal["predict", "monai"]

OVERLAP = 0.25
"""MONAI's own."""
PARTS = (
    "reading", "finding and preparing", "of it the finder's network", "segmenting",
    "of it the network", "restoring", "to its grid", "writing", "all of a scan",
)  # fmt: skip
PEAK = "peak memory, GB"


def main(
    run: tyro.conf.Positional[Path],
    scan: tyro.conf.Positional[Path],
    *,
    repeats: int = 3,
    window: Shape | None = None,
    device: Device = "auto",
    only: System | None = None,
) -> None:
    """Print a table of both.

    Args:
        run: Folder of a finished training.
        scan: The head.
        repeats: Predictions in each process; seconds are their medians.
        window: Window of MONAI's inference, in voxels; that of the segmenter when not given.
        device: Where to compute.
        only: Print the figures of this one as JSON; the command calls itself so.
    """
    if only is not None:
        print(json.dumps(_figures(only, run, scan, repeats=repeats, window=window, device=device)))
        return
    words = [str(run), str(scan), "--repeats", str(repeats), "--device", device]
    if window is not None:
        words += ["--window", *map(str, window)]
    found: dict[System, dict[str, float]] = {}
    for system in ("predict", "monai"):
        command = [sys.executable, __file__, *words, "--only", system]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[system] = json.loads(done.stdout.splitlines()[-1])
    _show(found, scan)


def _show(found: dict[System, dict[str, float]], scan: Path) -> None:
    ours, monai = found["predict"], found["monai"]
    title = f"{scan.name}, {torch.get_num_threads()} threads"
    table = Table("seconds", "predict", "sliding windows", "ratio", title=title)
    for name in ours:
        ratio = f"{monai[name] / ours[name]:.1f}" if ours[name] else ""
        table.add_row(name, f"{ours[name]:.2f}", f"{monai[name]:.2f}", ratio)
    Console().print(table)


@dataclass
class Clock:
    """Seconds of each part of a prediction, by name; of several predictions, all of them."""

    device: torch.device
    seconds: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def taking(self, name: str) -> Iterator[None]:
        """Take the seconds of the block."""
        start = self._now()
        yield
        self.seconds.setdefault(name, []).append(self._now() - start)

    @contextmanager
    def taking_calls(self, network: nn.Module, name: str) -> Iterator[None]:
        """Take the seconds of all calls of a network in the block, together."""
        starts: list[float] = []
        total = 0.0

        def begin(*_: object) -> None:
            starts.append(self._now())

        def end(*_: object) -> None:
            nonlocal total
            total += self._now() - starts.pop()

        hooks = [network.register_forward_pre_hook(begin), network.register_forward_hook(end)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        self.seconds.setdefault(name, []).append(total)

    def median(self, name: str) -> float:
        """Seconds of a part, the median of all times; 0 for one that never was."""
        return median(self.seconds.get(name, [0.0]))

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def _figures(
    system: System, run: Path, scan: Path, *, repeats: int, window: Shape | None, device: Device
) -> dict[str, float]:
    start = time.perf_counter()
    trained = sg.load_run(run, device=device)
    loading = time.perf_counter() - start
    clock = Clock(trained.segmenter.device)
    shape = window or trained.segmenter.space.spatial_shape
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            with clock.taking("all of a scan"):
                with clock.taking("reading"):
                    volume = sg.read_volume(scan)
                if system == "predict":
                    labels = _predict(trained, volume, clock)
                else:
                    labels = _slide(trained.segmenter, volume, shape, clock)
                with clock.taking("writing"):
                    sg.write_label_map(labels, Path(folder) / "labels.nii.gz")
    return {
        "loading the run, once": loading,
        **{name: clock.median(name) for name in PARTS},
        PEAK: _peak_gb(clock.device),
    }


def _predict(trained: TrainedRun, volume: Volume, clock: Clock) -> LabelMap:
    """What `shapeguide predict` does between reading and writing."""
    segmenter = trained.segmenter
    with ExitStack() as stack:
        stack.enter_context(clock.taking("finding and preparing"))
        if segmenter.finder is not None:
            finding = clock.taking_calls(segmenter.finder.network, "of it the finder's network")
            stack.enter_context(finding)
        shown = shown_to(segmenter, (volume,))
    with clock.taking("segmenting"), clock.taking_calls(segmenter.network, "of it the network"):
        prediction = predict_shown(segmenter, shown, (volume,))
    if trained.restorer is not None:
        with clock.taking("restoring"):
            prediction = prediction.restored_by(trained.restorer)
    with clock.taking("to its grid"):
        return prediction.label_map()


def _slide(segmenter: Segmenter, volume: Volume, window: Shape, clock: Clock) -> LabelMap:
    """The same network over all of the head in windows, by MONAI alone."""
    device = segmenter.device
    with clock.taking("finding and preparing"):
        prepared = prepare_volume(volume, segmenter.space)
    with clock.taking("segmenting"), clock.taking_calls(segmenter.network, "of it the network"):
        images = torch.from_numpy(prepared.data).to(device)[None, None]
        with torch.inference_mode(), autocast(device, choose_precision("auto", device)):
            logits = sliding_window_inference(
                images, window, 1, segmenter.network, overlap=OVERLAP, mode="gaussian"
            )
        if not isinstance(logits, Tensor):
            raise SystemExit("the network gives more than logits")
        probabilities = logits.float().softmax(dim=1)[0].cpu().numpy()
    with clock.taking("to its grid"):
        found = resample_channels(probabilities, prepared.grid, volume.grid)
        return label_map_from(found, segmenter.structures, volume)


def _peak_gb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 1024**3
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (1024**3 if sys.platform == "darwin" else 1024**2)


if __name__ == "__main__":
    tyro.cli(main)
