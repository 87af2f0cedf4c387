"""Affine pairs of label maps per second: ours, batched grid_sample, TorchIO and MONAI.

A pair is one label map warped twice at random (rotation 8 degrees, scale 0.85 to 1.15, translation
10 mm). All contenders take the same uint8 label map and return label maps on the same grid. The
repeats are interleaved, so a slow moment of the machine hits all of them alike.

    python benchmarks/affine_pairs.py --repeats 9 --batch 4
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from rich.console import Console
from rich.table import Table
from torch import Tensor

from shapeguide.geometry.warp import affine_pairs, draw_affine_warps
from shapeguide.geometry.warp_limits import WarpLimits

LIMITS = WarpLimits()
SPACING_MM = (1.0, 1.0, 1.0)
OURS = "shapeguide affine_pairs"
SETTINGS = {"crop": (48, 64, 48), "whole head": (256, 256, 128)}
TARGETS = {"crop": 5.0, "whole head": 20.0}

Contender = Callable[[Tensor], object]
"""Makes one pair of each label map of a batch (B, I, J, K), uint8."""


def hippocampus_like(spatial_shape: tuple[int, int, int], device: str) -> Tensor:
    """A tilted ellipsoid of the extent and volume of a hippocampus (about 3,400 mm3 at 1 mm)."""
    axes = [np.arange(length) - (length - 1) / 2 for length in spatial_shape]
    i, j, k = np.meshgrid(*axes, indexing="ij")
    along, across = (j + 0.4 * k) / 1.08, (k - 0.4 * j) / 1.08
    mask = (i / 7) ** 2 + (along / 19) ** 2 + (across / 6) ** 2 < 1
    return torch.from_numpy(mask.astype(np.uint8)).to(device)


def ours(generator: torch.Generator) -> Contender:
    """The package itself: linear weights, thresholded at 0.5."""

    def make(classes: Tensor) -> object:
        return affine_pairs(classes, LIMITS, spacing_mm=SPACING_MM, generator=generator)

    return make


def plain_grid_sample(generator: torch.Generator) -> Contender:
    """What one writes in PyTorch: affine_grid and nearest grid_sample of the whole batch."""

    def warp(classes: Tensor) -> Tensor:
        warps = draw_affine_warps(LIMITS, count=len(classes), generator=generator)
        linear = torch.linalg.inv(warps[:, :, :3])
        inverse = torch.cat([linear, -linear @ warps[:, :, 3:]], dim=2).flip(1)
        inverse = torch.cat([inverse[:, :, :3].flip(2), inverse[:, :, 3:]], dim=2)
        half = torch.tensor(classes.shape[:0:-1], dtype=torch.float64) / 2
        scale = torch.cat([half, torch.ones(1, dtype=torch.float64)])
        theta = (inverse * scale / half[:, None]).float().to(classes.device)
        images = classes[:, None].float()
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="nearest", align_corners=False).byte()

    return lambda classes: (warp(classes), warp(classes))


def torchio_random_affine() -> Contender:
    """TorchIO, one label map at a time as its API has it, nearest neighbour."""
    import torchio as tio

    transform = tio.RandomAffine(
        scales=LIMITS.scale,
        degrees=LIMITS.rotation_deg,
        translation=LIMITS.translation_mm,
        isotropic=True,
        label_interpolation="nearest",
    )

    def make(classes: Tensor) -> object:
        subjects = [tio.Subject(map=tio.LabelMap(tensor=single[None])) for single in classes.cpu()]
        return [(transform(subject), transform(subject)) for subject in subjects]

    return make


def monai_rand_affine() -> Contender:
    """MONAI, one label map at a time as its API has it, nearest neighbour, its grid cached."""
    from monai.transforms import RandAffine

    transforms: dict[tuple[int, ...], Callable[[Tensor], object]] = {}

    def make(classes: Tensor) -> object:
        shape = tuple(classes.shape[1:])
        if shape not in transforms:
            transforms[shape] = RandAffine(
                prob=1.0,
                rotate_range=(math.radians(LIMITS.rotation_deg),) * 3,
                scale_range=(LIMITS.scale[1] - 1,) * 3,
                translate_range=(LIMITS.translation_mm,) * 3,
                spatial_size=shape,
                mode="nearest",
                padding_mode="zeros",
                cache_grid=True,
                device=classes.device,
            )
        transform = transforms[shape]
        return [(transform(single[None]), transform(single[None])) for single in classes]

    return make


def seconds(make: Contender, classes: Tensor) -> float:
    """Wall time of one call, the device drained before and after."""
    if classes.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    make(classes)
    if classes.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(contenders: dict[str, Contender], classes: Tensor, repeats: int) -> dict[str, float]:
    """Median pairs per second of each contender, repeats interleaved, one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, make in contenders.items():
            elapsed = seconds(make, classes)
            if repeat > 0:
                times[name].append(elapsed)
    return {name: len(classes) / statistics.median(spent) for name, spent in times.items()}


def main() -> None:
    """Print one table of both sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore")
    generator = torch.Generator().manual_seed(0)
    contenders = {
        OURS: ours(generator),
        "grid_sample, whole batch": plain_grid_sample(generator),
        "TorchIO RandomAffine": torchio_random_affine(),
        "MONAI RandAffine": monai_rand_affine(),
    }
    table = Table(
        "grid", "contender", "pairs/s", "ours is faster by", "target",
        title=f"{arguments.device}, {torch.get_num_threads()} threads, batch {arguments.batch}, "
        f"median of {arguments.repeats}",
    )  # fmt: skip
    for setting, shape in SETTINGS.items():
        classes = hippocampus_like(shape, arguments.device).expand(arguments.batch, *shape)
        rates = compare(contenders, classes.contiguous(), arguments.repeats)
        for name, rate in rates.items():
            target = f"{TARGETS[setting]:.0f}x" if "Rand" in name else ""
            ratio = f"{rates[OURS] / rate:.1f}x"
            table.add_row(f"{setting} {shape}", name, f"{rate:.1f}", ratio, target)
    Console().print(table)


if __name__ == "__main__":
    main()
