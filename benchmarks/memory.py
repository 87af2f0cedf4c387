"""Peak memory of training and prediction, each in a process of its own.

    python benchmarks/memory.py
    python benchmarks/memory.py predict --spacing-mm 1 --spatial-shape 160 192 160

Targets: training on whole heads at 2 mm, and prediction of a 256 x 256 x 256 head, each under
6 GB.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from rich.console import Console

import shapeguide as sg
from shapeguide.data.preprocess import WorkingSpace
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import Structure, Volume
from shapeguide.models.segmenter import Segmenter, build_segmenter
from shapeguide.training.config import preset


def main(
    job: tyro.conf.Positional[Literal["all", "train", "predict"]] = "all",
    *,
    spatial_shape: tuple[int, int, int] = (96, 112, 96),
    spacing_mm: float = 2.0,
    edge: int = 256,
) -> None:
    """Run the job once and print the most memory that its process ever held.

    Args:
        job: Guided training for a few iterations, prediction of one volume, or all: both, and
            the prediction at 1 mm.
        spatial_shape: Working shape of network and training.
        spacing_mm: Working spacing.
        edge: Edge of the volume to predict, in voxels of 1 mm.
    """
    if job == "all":
        fine = ["predict", "--spacing-mm", "1", "--spatial-shape", "160", "192", "160"]
        for words in (["train"], ["predict"], fine):
            subprocess.run([sys.executable, __file__, *words], check=True)
        return
    before = _peak_gb()
    if job == "train":
        _train(spatial_shape, spacing_mm)
    else:
        _predict(spatial_shape, spacing_mm, edge)
    Console().print(
        f"{job} at {spacing_mm:g} mm, working shape {spatial_shape}: peak {_peak_gb():.2f} GB "
        f"resident, {before:.2f} GB of it before the job began"
    )


def _train(spatial_shape: tuple[int, int, int], spacing_mm: float) -> None:
    settings = preset("default")
    settings = settings.changed(
        data=settings.data.changed(spatial_shape=spatial_shape),
        shape=settings.shape.changed(iterations=5),
        shape_loss=settings.shape_loss.changed(accept_collapsed=True),
        segmentation=settings.segmentation.changed(
            batch_size=1, dice_iterations=2, guided_iterations=3
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        description = sg.write_cohort(
            Path(folder) / "cohort",
            count=15,
            spatial_shape=spatial_shape,
            spacing_mm=(spacing_mm,) * 3,
        )
        sg.train(sg.read_dataset(description), out=Path(folder) / "run", settings=settings)


def _predict(spatial_shape: tuple[int, int, int], spacing_mm: float, edge: int) -> None:
    network = build_segmenter("unet3d", preset("default").segmentation.channels, classes=3).eval()
    structures = (Structure("first", (1,)), Structure("second", (2,)))
    space = WorkingSpace((spacing_mm,) * 3, spatial_shape, "volume", "foreground")
    data = np.random.default_rng(0).random((edge, edge, edge), dtype=np.float32)
    volume = Volume(data, Grid((edge, edge, edge), np.eye(4)))
    sg.predict(Segmenter(network.requires_grad_(False), structures, space), volume)


def _peak_gb() -> float:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts in bytes.
    return kilobytes / (1024**3 if sys.platform == "darwin" else 1024**2)


if __name__ == "__main__":
    tyro.cli(main)
