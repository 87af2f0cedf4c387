"""Peak memory of training and prediction, each in a process of its own.

    python benchmarks/memory.py
    python benchmarks/memory.py predict --spacing-mm 1 --spatial-shape 160 192 160
    python benchmarks/memory.py step --spatial-shape 256 256 128

Targets: training on whole heads at 2 mm, and prediction of a 256 x 256 x 256 head, each under
6 GB; a guided step of the preset `paper` at 256 x 256 x 128 in bf16 under 24 GB of a GPU.
"""

from __future__ import annotations

import multiprocessing
import resource
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from math import prod
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

import shapeguide as sg
from shapeguide.data.working_space import WorkingSpace
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import Structure, Volume
from shapeguide.losses import ShapeLoss
from shapeguide.models.segmenter import Segmenter, build_segmenter
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.training.engine.fabric import start_fabric
from shapeguide.training.settings.presets import preset
from shapeguide.training.stages.segmentation_batches import LabelledImages
from shapeguide.training.stages.segmentation_step import SegmentationStep
from shapeguide.training.stages.variation import draw_warps

Shape: TypeAlias = tuple[int, int, int]

FULL_SHAPE: Shape = (256, 256, 128)
"""The paper's crop."""
SPACING_MM = (1.0, 1.0, 1.0)
SMALLEST_VOXELS = 2**18
"""Below it the libraries take more memory while they load than the step does."""


def main(
    job: tyro.conf.Positional[Literal["all", "train", "predict", "step"]] = "all",
    *,
    spatial_shape: Shape | None = None,
    spacing_mm: float = 2.0,
    edge: int = 256,
) -> None:
    """Run the job once and print the most memory that its process ever held.

    Args:
        job: Guided training for a few iterations, prediction of one volume, one guided step at the
            paper's full size, or all: each, and the prediction at 1 mm.
        spatial_shape: Working shape of network and training; by default 96 x 112 x 96, and for the
            step what the machine can: the full size on a GPU, 64 x 128 x 64 on a CPU.
        spacing_mm: Working spacing.
        edge: Edge of the volume to predict, in voxels of 1 mm.
    """
    if job == "all":
        fine = ["predict", "--spacing-mm", "1", "--spatial-shape", "160", "192", "160"]
        for words in (["train"], ["predict"], fine, ["step"]):
            subprocess.run([sys.executable, __file__, *words], check=True)
        return
    if job == "step":
        _show_steps(spatial_shape or (FULL_SHAPE if torch.cuda.is_available() else (64, 128, 64)))
        return
    shape = spatial_shape or (96, 112, 96)
    before = _peak_gb()
    if job == "train":
        _train(shape, spacing_mm)
    else:
        _predict(shape, spacing_mm, edge)
    Console().print(
        f"{job} at {spacing_mm:g} mm, working shape {shape}: peak {_peak_gb():.2f} GB "
        f"resident, {before:.2f} GB of it before the job began"
    )


def _train(spatial_shape: Shape, spacing_mm: float) -> None:
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


def _predict(spatial_shape: Shape, spacing_mm: float, edge: int) -> None:
    channels = preset("default").segmentation.channels
    network = build_segmenter("unet3d", channels, classes=3).eval()
    structures = (Structure("first", (1,)), Structure("second", (2,)))
    space = WorkingSpace((spacing_mm,) * 3, spatial_shape, "volume", "foreground")
    data = np.random.default_rng(0).random((edge, edge, edge), dtype=np.float32)
    volume = Volume(data, Grid((edge, edge, edge), np.eye(4)))
    sg.predict(Segmenter(network.requires_grad_(False), structures, space), volume)


def _show_steps(spatial_shape: Shape) -> None:
    """Peak memory of a step with and without activation checkpoints, and of one of full size.

    Activations grow with the voxels and weights do not, so a line through the peaks at this shape
    and at half of it gives the peak at full size. On a GPU the full size is measured instead.
    """
    half = (spatial_shape[0] // 2, *spatial_shape[1:])
    if prod(half) < SMALLEST_VOXELS:
        raise SystemExit(
            f"{spatial_shape} is too small to extrapolate from; take 64 128 64 or more"
        )
    growth = (prod(FULL_SHAPE) - prod(half)) / (prod(spatial_shape) - prod(half))
    how = "measured" if spatial_shape == FULL_SHAPE else "extrapolated linearly in voxels"
    table = Table(
        "checkpoints",
        *(f"{'x'.join(map(str, shape))}, GB" for shape in (half, spatial_shape, FULL_SHAPE)),
        title=f"guided step, preset paper, bf16, batch 1, {_place()}",
        caption=f"{'x'.join(map(str, FULL_SHAPE))} is {how}",
    )
    for again in (False, True):
        small, large = (_in_fresh_process(shape, again) for shape in (half, spatial_shape))
        full = small + growth * (large - small)
        table.add_row("yes" if again else "no", f"{small:.2f}", f"{large:.2f}", f"{full:.1f}")
    Console().print(table)


def _in_fresh_process(spatial_shape: Shape, again: bool) -> float:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(_step, spatial_shape, again).result()


def _step(spatial_shape: Shape, again: bool) -> float:
    """Peak memory in GB of one guided step of the preset `paper`, batch 1, in bf16."""
    settings = preset("paper")
    machine = settings.machine.changed(precision="bf16", activation_checkpoints=again)
    settings = settings.changed(machine=machine)
    chosen, fabric = settings.segmentation, start_fabric(settings.machine)
    unwrapped = build_segmenter(
        chosen.suited(spatial_shape).segmenter,
        chosen.channels,
        classes=2,
        activation_checkpoints=again,
    )
    network, optimizer = fabric.setup(unwrapped, torch.optim.Adam(unwrapped.parameters()))
    shape_network = ShapeNetwork(["structure"], channels=settings.shape.channels, pose="grid")
    guide = ShapeLoss(shape_network, spacing_mm=SPACING_MM, cap_form="hard", distance="raw")
    step = SegmentationStep(network, SPACING_MM, settings, guide.to(fabric.device))
    images = torch.randn((1, 1, *spatial_shape), device=fabric.device)
    classes = (images[:, 0] > 2).to(torch.uint8)
    generator = torch.Generator().manual_seed(0)
    warps = draw_warps(
        settings.warp, classes, spacing_mm=SPACING_MM, share=1.0, generator=generator
    )
    batch = fabric.to_device(LabelledImages(images, classes, warps))
    fabric.backward(step(batch, chosen.suited().dice_iterations).total)
    optimizer.step()
    return _gpu_peak_gb() if fabric.device.type == "cuda" else _peak_gb()


def _place() -> str:
    if torch.cuda.is_available():
        return f"reserved on {torch.cuda.get_device_name()}"
    return f"resident on a CPU, {torch.get_num_threads()} threads"


def _gpu_peak_gb() -> float:
    torch.cuda.synchronize()
    return torch.cuda.max_memory_reserved() / 1024**3


def _peak_gb() -> float:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts in bytes.
    return kilobytes / (1024**3 if sys.platform == "darwin" else 1024**2)


if __name__ == "__main__":
    tyro.cli(main)
