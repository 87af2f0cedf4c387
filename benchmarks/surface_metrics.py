"""Surface metrics of one structure in a 256x256x192 grid: seconds and values beside MONAI's.

    python benchmarks/surface_metrics.py [--repeats 7]

Both sides get the two masks in memory, in the form each of them takes: boolean arrays here, float
tensors (1, 1, I, J, K) for MONAI. The three metrics together are one measurement of the surface
distances and three reads here, and three calls for MONAI, which has no other way. The repeats of
both sides alternate; the table shows medians. With SHAPEGUIDE_DATA set, label maps of
`miccai2012` are measured too, each against a copy of itself with a disturbed surface.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from shapeguide.data.nifti import read_label_map
from shapeguide.geometry.volume import Structure
from shapeguide.metrics.surface import assd_mm, hausdorff_mm, surface_distances

SPATIAL_SHAPE = (256, 256, 192)
SPACING_MM = (1.0, 1.0, 1.2)
TARGET_RATIO = 5.0
TOLERANCE_MM = 1e-4
NAMES = ("Hausdorff", "HD95", "ASSD", "all three")

Mask = NDArray[np.bool_]
Values = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Scene:
    """Two masks (I, J, K) of one structure."""

    name: str
    prediction: Mask
    reference: Mask
    spacing_mm: tuple[float, float, float]


def ellipsoid(name: str, radii: tuple[float, float, float]) -> Scene:
    """A lumpy ellipsoid in the large grid, and the same with other lumps."""
    generator = np.random.default_rng(0)
    axes = (np.arange(length) - length / 2 for length in SPATIAL_SHAPE)
    i, j, k = np.meshgrid(*axes, indexing="ij", sparse=True)
    distance = np.sqrt((i / radii[0]) ** 2 + (j / radii[1]) ** 2 + (k / radii[2]) ** 2)
    masks = [distance + lumps(SPATIAL_SHAPE, generator) < 1 for _ in range(2)]
    return Scene(name, masks[0], masks[1], SPACING_MM)


def lumps(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise of standard deviation 0.06."""
    coarse = ndimage.gaussian_filter(generator.standard_normal((32, 32, 32)), 1.5)
    zoomed = ndimage.zoom(coarse / coarse.std(), np.array(shape) / 32, order=1)
    noise: NDArray[np.float32] = (0.06 * zoomed).astype(np.float32)
    return noise


def real_scenes(folder: Path) -> Iterator[Scene]:
    """Hippocampi and caudates of three heads, padded to the large grid."""
    structures = (Structure("left hippocampus", (48,)), Structure("left caudate", (37,)))
    for path in sorted((folder / "miccai2012" / "labels").glob("*.nii.gz"))[:3]:
        label_map = read_label_map(path, structures=structures)
        for structure in structures:
            mask = label_map.mask(structure)
            padding = [(0, max(0, 256 - length)) for length in mask.shape]
            reference = np.pad(mask, padding)[tuple(slice(length) for length in SPATIAL_SHAPE)]
            soft = ndimage.gaussian_filter(reference.astype(np.float32), 1.0)
            generator = np.random.default_rng(0)
            soft = np.roll(soft, 1, axis=0)
            # Noise moves the surface, but makes no voxel of the far background foreground.
            prediction = (soft > 0.05) & (soft + 3 * lumps(SPATIAL_SHAPE, generator) > 0.5)
            name = f"{path.name.removesuffix('.nii.gz')} {structure.name}"
            yield Scene(name, prediction, reference, label_map.grid.spacing_mm)


def ours(scene: Scene) -> dict[str, Callable[[], Values]]:
    """Each metric from nothing, and all three from one measurement."""

    def measured() -> Values:
        distances = surface_distances(
            scene.prediction, scene.reference, spacing_mm=scene.spacing_mm
        )
        hd95_mm = hausdorff_mm(distances, percentile=95)
        return hausdorff_mm(distances), hd95_mm, assd_mm(distances)

    def alone(index: int) -> Callable[[], Values]:
        read = (hausdorff_mm, lambda found: hausdorff_mm(found, percentile=95), assd_mm)[index]
        return lambda: (
            read(surface_distances(scene.prediction, scene.reference, spacing_mm=scene.spacing_mm)),
        )

    return {**{name: alone(index) for index, name in enumerate(NAMES[:3])}, NAMES[3]: measured}


def theirs(scene: Scene) -> dict[str, Callable[[], Values]]:
    """The same values from MONAI."""
    pair = [
        torch.from_numpy(mask)[None, None].float() for mask in (scene.prediction, scene.reference)
    ]
    same = {"include_background": True, "spacing": list(scene.spacing_mm)}

    def hausdorff() -> Values:
        return (float(compute_hausdorff_distance(*pair, **same)),)

    def hd95() -> Values:
        return (float(compute_hausdorff_distance(*pair, percentile=95, **same)),)

    def assd() -> Values:
        return (float(compute_average_surface_distance(*pair, symmetric=True, **same)),)

    def measured() -> Values:
        return hausdorff() + hd95() + assd()

    return dict(zip(NAMES, (hausdorff, hd95, assd, measured), strict=True))


def seconds(action: Callable[[], Values]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def compare_scene(scene: Scene, table: Table, *, repeats: int) -> tuple[list[float], float]:
    """Add one row per metric; returns the ratio of each and the largest difference in mm."""
    mine, other = ours(scene), theirs(scene)
    ratios, differences = [], []
    for name in NAMES:
        difference = max(
            abs(a - b) for a, b in zip(mine[name](), other[name](), strict=True)
        )  # also warms both up
        times = [(seconds(mine[name]), seconds(other[name])) for _ in range(repeats)]
        here = statistics.median(pair[0] for pair in times)
        there = statistics.median(pair[1] for pair in times)
        ratios.append(there / here)
        differences.append(difference)
        table.add_row(
            scene.name if name == NAMES[0] else "",
            f"{int(scene.reference.sum()):,}" if name == NAMES[0] else "",
            name,
            f"{here * 1e3:.1f}",
            f"{there * 1e3:.1f}",
            f"{there / here:.1f}",
            f"{difference:.1e}",
        )
    table.add_section()
    return ratios, max(differences)


def mesh_rows(scenes: list[Scene]) -> Table | None:
    """Values and times of pymeshmetrics, which measures between meshes; none without it."""
    try:
        mesh_metrics = importlib.import_module("meshmetrics")
    except ImportError:
        return None
    table = Table("scene", "metric", "ours, mm", "meshes, mm", "ours, ms", "meshes, ms")
    for scene in scenes:
        mine = ours(scene)[NAMES[3]]
        metrics = mesh_metrics.DistanceMetrics(verbose=False)

        def measured(scene: Scene = scene, metrics: object = metrics) -> Values:
            metrics.set_input(  # type: ignore[attr-defined]
                ref=scene.reference, pred=scene.prediction, spacing=scene.spacing_mm
            )
            return metrics.hd(), metrics.hd(percentile=95), metrics.assd()  # type: ignore[attr-defined]

        values, mesh_values = mine(), measured()
        here, there = seconds(mine), seconds(measured)
        for name, value, mesh_value in zip(NAMES[:3], values, mesh_values, strict=True):
            first = name == NAMES[0]
            table.add_row(
                scene.name if first else "",
                name,
                f"{value:.3f}",
                f"{mesh_value:.3f}",
                f"{here * 1e3:.1f}" if first else "",
                f"{there * 1e3:.1f}" if first else "",
            )
    return table


def main() -> None:
    """Measure, print the table, and say whether the targets are reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    warnings.filterwarnings("ignore", category=FutureWarning)
    console = Console()
    scenes = [
        ellipsoid("small, as a hippocampus", (8, 22, 9)),
        ellipsoid("medium, as a kidney", (25, 40, 25)),
        ellipsoid("large, as a brain", (70, 85, 60)),
    ]
    data = os.environ.get("SHAPEGUIDE_DATA")
    if data:
        scenes += real_scenes(Path(data))
    table = Table("scene", "voxels", "metric", "ours, ms", "MONAI, ms", "ratio", "difference, mm")
    found = [compare_scene(scene, table, repeats=repeats) for scene in scenes]
    console.print(table)
    console.print(f"CPU threads: torch {torch.get_num_threads()}, of {os.cpu_count()} cores")
    together = min(ratios[-1] for ratios, _ in found)
    apart = min(min(ratios[:-1]) for ratios, _ in found)
    console.print(f"smallest ratio of all three {together:.1f}; target {TARGET_RATIO:.0f}")
    console.print(f"smallest ratio of one metric that is measured alone {apart:.1f}")
    largest = max(difference for _, difference in found)
    console.print(f"largest difference {largest:.1e} mm; allowed {TOLERANCE_MM:.0e} mm")
    if not data:
        console.print("SHAPEGUIDE_DATA is not set: no real label maps measured")
    meshes = mesh_rows(scenes)
    console.print(meshes or "pymeshmetrics is not installed: not compared")


if __name__ == "__main__":
    main()
