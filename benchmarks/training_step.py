"""What data, augmentation and guidance add to a training step, as ratios within one run.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --spatial-shape 96 112 96 --batch-size 1

The three steps take turns, so that a noisy machine slows all of them alike; medians are compared.
Targets (design, section 6): with data at most 1.10 times the bare step, guided at most 1.15 times
the step on Dice alone.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import tyro
from lightning_fabric import Fabric
from rich.console import Console
from rich.table import Table
from torch import nn

import shapeguide as sg
from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.data.working_space import choose_working_space
from shapeguide.losses import LossTerms, ShapeLoss
from shapeguide.models.deep_supervision import deeply_supervised
from shapeguide.models.segmenter import build_segmenter
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.training.engine.fabric import start_fabric
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset
from shapeguide.training.stages.segmentation_batches import LabelledImages, SegmentationBatches
from shapeguide.training.stages.segmentation_step import SegmentationStep


def main(
    spatial_shape: tuple[int, int, int] = (48, 64, 48),
    batch_size: int = 2,
    repeats: int = 15,
    swelling_mm: float = 0.0,
) -> None:
    """Time the steps.

    Args:
        spatial_shape: Working shape.
        batch_size: Volumes in a batch.
        repeats: Rounds; the first is dropped.
        swelling_mm: With it, two more steps: every image is warped, and every one swells too, by up
            to so much.
    """
    settings = preset("default")
    chosen = settings.segmentation.changed(batch_size=batch_size, dice_iterations=0)
    settings = settings.changed(segmentation=chosen)
    fabric = start_fabric(settings.machine)
    network, optimizer = _network(settings, fabric, spatial_shape)
    loss = ShapeLoss(ShapeNetwork(["horn"]), spacing_mm=(1.0, 1.0, 1.0)).to(fabric.device)
    plain = SegmentationStep(network, (1.0, 1.0, 1.0), settings)
    guided = SegmentationStep(network, (1.0, 1.0, 1.0), settings, loss)
    with tempfile.TemporaryDirectory() as folder:
        batches = _batches(Path(folder), spatial_shape, settings)
        first = _on(fabric, batches[0])
        images, classes = first.images, first.classes

        def update(terms: LossTerms) -> None:
            optimizer.zero_grad(set_to_none=True)
            fabric.backward(terms.total)
            optimizer.step()

        def with_data(step: SegmentationStep, own: SegmentationBatches, n: int) -> None:
            update(step(_on(fabric, own[n]), n))

        steps: dict[str, Callable[[int], None]] = {
            "bare network step": lambda n: update(plain.on(images, classes, n)),
            "with data and augmentation": partial(with_data, plain, batches),
            "guided, with data": partial(with_data, guided, batches),
        }
        if swelling_mm:
            for name, most_mm in (("all warped", 0.0), ("all warped and swollen", swelling_mm)):
                every = chosen.changed(warped_share=1.0, swollen_share=1.0, swelling_mm=most_mm)
                changed = settings.changed(segmentation=every)
                own = _batches(Path(folder) / name, spatial_shape, changed)
                steps[name] = partial(with_data, plain, own)
        seconds = _take_turns(steps, repeats, fabric.device)
    _show(seconds, fabric, spatial_shape, batch_size)


def _network(
    settings: TrainSettings, fabric: Fabric, spatial_shape: tuple[int, int, int]
) -> tuple[nn.Module, torch.optim.Optimizer]:
    chosen = settings.segmentation
    segmenter = chosen.suited(spatial_shape).segmenter
    network: nn.Module = build_segmenter(segmenter, chosen.channels, classes=2)
    if chosen.deep_supervision:
        network = deeply_supervised(network)
    network_and_optimizer = fabric.setup(network, torch.optim.Adam(network.parameters()))
    return network_and_optimizer[0], network_and_optimizer[1]


def _batches(
    folder: Path, spatial_shape: tuple[int, int, int], settings: TrainSettings
) -> SegmentationBatches:
    description = sg.write_cohort(folder / "cohort", count=4, spatial_shape=spatial_shape)
    dataset = sg.read_dataset(description)
    space = choose_working_space(dataset, spatial_shape=spatial_shape)
    cases = PreparedCases(tuple(dataset), space, cache_dir=folder / "cache")
    return SegmentationBatches(cases, settings)


def _on(fabric: Fabric, batch: LabelledImages) -> LabelledImages:
    moved: LabelledImages = fabric.to_device(batch)
    return moved


def _take_turns(
    steps: dict[str, Callable[[int], None]], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step(turn)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _show(
    seconds: dict[str, list[float]],
    fabric: Fabric,
    spatial_shape: tuple[int, int, int],
    batch_size: int,
) -> None:
    title = (
        f"{fabric.device}, batch {batch_size} of {spatial_shape}, {torch.get_num_threads()} threads"
    )
    table = Table("step", "median s", "ratio", "to", "target", title=title)
    names = list(seconds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    against: dict[str, tuple[str, float | None]] = {
        names[1]: (names[0], 1.10),
        names[2]: (names[1], 1.15),
    }
    if len(names) > 3:
        against |= {names[3]: (names[0], None), names[4]: (names[3], None)}
    table.add_row(names[0], f"{medians[names[0]]:.3f}", "", "", "")
    for name, (other, target) in against.items():
        # Ratios within a round, so that a slow moment of the machine counts for both.
        ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds[other], strict=True))
        table.add_row(
            name,
            f"{medians[name]:.3f}",
            f"{ratio:.3f}",
            other,
            "" if target is None else f"{target:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    tyro.cli(main)
