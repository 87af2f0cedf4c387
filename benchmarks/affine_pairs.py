"""Affine pairs per second as training makes them: ours, batched grid_sample, TorchIO and MONAI.

A pair is one label map warped twice at random (rotation 8 degrees, scale 0.85 to 1.15, translation
4 mm). Ours is the batch of an iteration of the shape stage, drawing and all: once with a binary
edge, as printed in the paper, and once with an interpolated one. The others take the same label
maps, with nearest neighbour and with linear interpolation. The repeats are interleaved, so a slow
moment of the machine hits all of them alike.

    python benchmarks/affine_pairs.py --repeats 9 --batch 4
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from rich.console import Console
from rich.table import Table
from torch import Tensor

from shapeguide.geometry.warp import draw_affine_warps
from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.training.shape.mask_bank import MaskBank
from shapeguide.training.shape.pairs import Drawing, TwoViews

LIMITS = WarpLimits()
SPACING_MM = (1.0, 1.0, 1.0)
OURS = "shapeguide, the shape stage's batch"
SETTINGS = {"crop": (48, 64, 48), "whole head": (256, 256, 128)}
TARGETS = {"crop": 5.0, "whole head": 20.0}

Edge = Literal["nearest", "linear"]
"""How the others interpolate."""
MAPS: dict[Edge, Literal["binary", "clean"]] = {"nearest": "binary", "linear": "clean"}
"""The maps of ours that correspond."""
Contender = Callable[[], object]
"""Makes one pair of each label map of a batch."""


def hippocampus_like(spatial_shape: tuple[int, int, int]) -> Tensor:
    """A tilted ellipsoid of the extent and volume of a hippocampus (about 3,400 mm3 at 1 mm)."""
    axes = [np.arange(length) - (length - 1) / 2 for length in spatial_shape]
    i, j, k = np.meshgrid(*axes, indexing="ij")
    along, across = (j + 0.4 * k) / 1.08, (k - 0.4 * j) / 1.08
    mask = (i / 7) ** 2 + (along / 19) ** 2 + (across / 6) ** 2 < 1
    return torch.from_numpy(mask.astype(np.uint8))


def ours(classes: Tensor, edge: Edge) -> Contender:
    """The package itself: the batches of the first iterations."""
    bank = MaskBank(classes[:, None], SPACING_MM, LIMITS)
    batches = TwoViews(Drawing(bank, batch_size=len(classes), maps=MAPS[edge], seed=0))
    iterations = itertools.count()
    return lambda: batches[next(iterations)]


def plain_grid_sample(classes: Tensor, edge: Edge) -> Contender:
    """What one writes in PyTorch: affine_grid and grid_sample of the whole batch."""
    generator = torch.Generator().manual_seed(0)
    mode = "nearest" if edge == "nearest" else "bilinear"

    def warp() -> Tensor:
        warps = draw_affine_warps(LIMITS, count=len(classes), generator=generator)
        linear = torch.linalg.inv(warps[:, :, :3])
        inverse = torch.cat([linear, -linear @ warps[:, :, 3:]], dim=2).flip(1)
        inverse = torch.cat([inverse[:, :, :3].flip(2), inverse[:, :, 3:]], dim=2)
        half = torch.tensor(classes.shape[:0:-1], dtype=torch.float64) / 2
        scale = torch.cat([half, torch.ones(1, dtype=torch.float64)])
        theta = (inverse * scale / half[:, None]).float()
        images = classes[:, None].float()
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode=mode, align_corners=False)

    return lambda: (warp(), warp())


def torchio_random_affine(classes: Tensor, edge: Edge) -> Contender:
    """TorchIO, one label map at a time as its API has it."""
    import torchio as tio

    transform = tio.RandomAffine(
        scales=LIMITS.scale,
        degrees=LIMITS.rotation_deg,
        translation=LIMITS.translation_mm,
        isotropic=True,
        label_interpolation=edge,
    )
    maps = classes if edge == "nearest" else classes.float()

    def make() -> object:
        subjects = [tio.Subject(map=tio.LabelMap(tensor=single[None])) for single in maps]
        return [(transform(subject), transform(subject)) for subject in subjects]

    return make


def monai_rand_affine(classes: Tensor, edge: Edge) -> Contender:
    """MONAI, one label map at a time as its API has it, its grid cached."""
    from monai.transforms import RandAffine

    transform = RandAffine(
        prob=1.0,
        rotate_range=(math.radians(LIMITS.rotation_deg),) * 3,
        scale_range=(LIMITS.scale[1] - 1,) * 3,
        translate_range=(LIMITS.translation_mm,) * 3,
        spatial_size=tuple(classes.shape[1:]),
        mode="nearest" if edge == "nearest" else "bilinear",
        padding_mode="zeros",
        cache_grid=True,
    )
    return lambda: [(transform(single[None]), transform(single[None])) for single in classes]


CONTENDERS: dict[str, Callable[[Tensor, Edge], Contender]] = {
    OURS: ours,
    "grid_sample, whole batch": plain_grid_sample,
    "TorchIO RandomAffine": torchio_random_affine,
    "MONAI RandAffine": monai_rand_affine,
}


def seconds(make: Contender) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    make()
    return time.perf_counter() - start


def median_seconds(contenders: dict[str, Contender], repeats: int) -> dict[str, float]:
    """Median time of each contender, repeats interleaved, one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, make in contenders.items():
            elapsed = seconds(make)
            if repeat > 0:
                times[name].append(elapsed)
    return {name: statistics.median(spent) for name, spent in times.items()}


def main() -> None:
    """Print one table of both sizes and both edges."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore")
    table = Table(
        "grid", "interpolation", "contender", "pairs/s", "ours is faster by", "target",
        title=f"{torch.get_num_threads()} threads, batch {arguments.batch}, "
        f"median of {arguments.repeats}",
    )  # fmt: skip
    edges: tuple[Edge, ...] = ("nearest", "linear")
    for (setting, shape), edge in itertools.product(SETTINGS.items(), edges):
        classes = hippocampus_like(shape).expand(arguments.batch, *shape).contiguous()
        contenders = {name: build(classes, edge) for name, build in CONTENDERS.items()}
        spent = median_seconds(contenders, arguments.repeats)
        for name, each in spent.items():
            target = f"{TARGETS[setting]:.0f}x" if "Rand" in name else ""
            ratio = f"{each / spent[OURS]:.1f}x"
            rate = f"{arguments.batch / each:.1f}"
            table.add_row(f"{setting} {shape}", edge, name, rate, ratio, target)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
