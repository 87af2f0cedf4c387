"""One synthetic head: where its structure and look-alikes lie, and its tissues on any grid.

The head is drawn once, in mm about its middle; a grid is a window onto it. So a case has the same
anatomy at every spacing and spatial shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shapeguide.data.synthetic_shapes import (
    FLUID,
    LOOK_ALIKES,
    STRUCTURES,
    Posed,
    draw_pose,
    draw_tube,
    mirrored,
)
from shapeguide.geometry.grid import Grid

PLACES_MM = {"horn": (27.0, -14.0, -14.0), "comma": (15.0, 8.0, 8.0)}
"""Where each structure lies, from the middle of the head."""
HEAD_MM = (66.0, 82.0, 62.0)
"""Half axes of the head."""
NEAR_COUNT, FAR_COUNT, TRIES = 3, 24, 40
LARGEST_MM = 43.0
"""No structure is longer along an axis, so all of them fit on 48 voxels of 1 mm."""
GAP_MM = 2.0
RIM_MM = 2.0
RIBBON_MM = 4.0


@dataclass(frozen=True, eq=False)
class Scene:
    """A head in mm about its middle."""

    structure: Posed
    look_alikes: tuple[Posed, ...]
    """Tubes of the tissue of the structure; the first touches it."""
    fluid: tuple[Posed, ...]
    folds: NDArray[np.float64]
    """Waves whose sum is high where grey folds are: vector per mm, phase, size; shape (M, 5)."""
    head_mm: NDArray[np.float64]
    """Half axes of the head, shape (3,)."""
    place_mm: NDArray[np.float64]
    """Where the structure usually lies, shape (3,); this head's own is a little off."""


@dataclass(frozen=True, eq=False)
class Tissues:
    """Shares of tissue per voxel, float32; white matter is what is left of the head."""

    grey: NDArray[np.float32]
    fluid: NDArray[np.float32]
    head: NDArray[np.bool_]
    structure: NDArray[np.bool_]
    look_alikes: NDArray[np.bool_]
    """Voxels in a look-alike and not in the structure."""


def draw_scene(seed: int, index: int, shape: str) -> Scene:
    """Draw the head of a case."""
    random = np.random.default_rng([seed, index, 0])
    usual = np.array(PLACES_MM[shape])
    place = usual + random.uniform(-2.5, 2.5, 3)
    tube = draw_tube(STRUCTURES[shape], random)
    structure = _shrunk_to_fit(draw_pose(tube, place, random, rotation_deg=10))
    twin = mirrored(draw_tube(STRUCTURES[shape], random))
    other_side = draw_pose(twin, place * [-1, 1, 1], random, rotation_deg=10)
    head_mm = np.array(HEAD_MM) * random.uniform(0.95, 1.05, 3)
    folds = _draw_folds(random)
    fluid = _draw_fluid(structure, random)
    touching = _draw_touching(structure, random)
    near = _draw_apart(structure, _Shell(place, 11, 26), NEAR_COUNT, random)
    far = _draw_apart(structure, _Shell(np.zeros(3), 0, 60), FAR_COUNT, random)
    return Scene(structure, (touching, *near, other_side, *far), fluid, folds, head_mm, usual)


def render_tissues(scene: Scene, grid: Grid) -> Tissues:
    """Tissue shares of a head on an upright grid, with partial volume."""
    axes = grid_axes(grid)
    depth_mm = _depth_in_head(scene.head_mm, axes)
    folds = _sum_of_waves(scene.folds, axes) + 1.6 * np.clip(1 - depth_mm / RIBBON_MM, 0, 1)
    grey = np.clip((folds - 0.55) * 2.5, 0, 1).astype(np.float32)
    fluid = np.clip((-_sum_of_waves(scene.folds[:, [1, 2, 0, 3, 4]], axes) - 1.1) * 3, 0, 1).astype(
        np.float32
    )
    for tube in (scene.structure, *scene.look_alikes):
        _clear_rim((grey, fluid), tube, axes)
    for tube in scene.fluid:
        _paint(fluid, tube, axes)
    look_alikes = np.zeros(grid.spatial_shape, dtype=bool)
    for tube in scene.look_alikes:
        share = _paint(grey, tube, axes, over=fluid)
        look_alikes |= share > 0.5
    structure = _paint(grey, scene.structure, axes, over=fluid) > 0.5
    return Tissues(grey, fluid, depth_mm > 0, structure, look_alikes & ~structure)


def grid_axes(grid: Grid) -> list[NDArray[np.float64]]:
    """World positions in mm along each axis of an upright grid."""
    origin, steps = grid.affine[:3, 3], np.diag(grid.affine)[:3]
    return [
        first + step * np.arange(length)
        for first, step, length in zip(origin, steps, grid.spatial_shape, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Shell:
    """Where look-alikes may lie: between two distances from a place, in mm."""

    place_mm: NDArray[np.float64]
    inner_mm: float
    outer_mm: float

    def draw(self, random: np.random.Generator) -> NDArray[np.float64]:
        direction = random.normal(size=3)
        distance = random.uniform(self.inner_mm, self.outer_mm)
        placed: NDArray[np.float64] = direction / np.linalg.norm(direction) * distance
        return placed + self.place_mm


def _shrunk_to_fit(structure: Posed) -> Posed:
    lower, upper = structure.bounds_mm()
    share = min(1.0, LARGEST_MM / float((upper - lower).max()))
    return replace(structure, scale=structure.scale * share)


def _draw_apart(
    structure: Posed, shell: _Shell, count: int, random: np.random.Generator
) -> list[Posed]:
    """Look-alikes that leave a gap to the structure; those that find no place are left out."""
    placed = []
    for number in range(count):
        tube = draw_tube(LOOK_ALIKES[number % len(LOOK_ALIKES)], random)
        for _ in range(TRIES):
            posed = draw_pose(tube, shell.draw(random), random, rotation_deg=180)
            gap = (
                structure.distance_outside_mm(posed.centreline_mm()) - tube.radius_mm * posed.scale
            )
            if gap.min() > GAP_MM:
                placed.append(posed)
                break
    return placed


def _draw_touching(structure: Posed, random: np.random.Generator) -> Posed:
    """A blob that leans on the structure, somewhere in its thicker half."""
    tube = draw_tube(LOOK_ALIKES[0], random)
    at = int(random.integers(0, len(structure.tube.radius_mm) // 2))
    direction = random.normal(size=3)
    direction /= np.linalg.norm(direction)
    start = structure.centreline_mm()[at]
    reach = np.linspace(0, 20, 81)
    outside = structure.distance_outside_mm(start + reach[:, None] * direction)
    surface = reach[int(np.argmax(outside > 0))]
    centre = start + direction * (surface + tube.radius_mm.mean() - 0.5)
    return draw_pose(tube, centre, random, rotation_deg=180, scale=(1, 1))


def _draw_fluid(structure: Posed, random: np.random.Generator) -> tuple[Posed, ...]:
    """Pockets of fluid along the structure and about it."""
    line, radius = structure.centreline_mm(), structure.tube.radius_mm
    tubes = []
    for _ in range(4):
        at = int(random.integers(0, len(line)))
        direction = random.normal((0.6, 0.0, 0.8), 1.0)
        direction /= np.linalg.norm(direction)
        away = radius[at] + random.uniform(0.5, 2.5)
        tube = draw_tube(FLUID, random)
        tubes.append(draw_pose(tube, line[at] + away * direction, random, rotation_deg=25))
    return tuple(tubes)


def _draw_folds(random: np.random.Generator) -> NDArray[np.float64]:
    directions = random.normal(size=(9, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    vectors = directions * 2 * np.pi / random.uniform(13, 34, (9, 1))
    phases = random.uniform(0, 2 * np.pi, (9, 1))
    return np.concatenate([vectors, phases, np.full((9, 1), 0.4)], axis=1)


def _sum_of_waves(
    waves: NDArray[np.float64], axes: list[NDArray[np.float64]]
) -> NDArray[np.float32]:
    """Sum of sines on a grid, each the product of one factor per axis; shape (I, J, K)."""
    total = np.zeros([len(axis) for axis in axes], dtype=np.float32)
    for wave in waves:
        i, j, k = (
            np.exp(1j * rate * axis).astype(np.complex64)
            for rate, axis in zip(wave[:3], axes, strict=True)
        )
        plane = (wave[4] * np.exp(1j * wave[3]) * i)[:, None] * j
        total += (plane[:, :, None] * k).imag
    return total


def _depth_in_head(
    head_mm: NDArray[np.float64], axes: list[NDArray[np.float64]]
) -> NDArray[np.float32]:
    """Approximate distance to the surface of the head, positive inside; shape (I, J, K)."""
    i, j, k = ((axis / half) ** 2 for axis, half in zip(axes, head_mm, strict=True))
    share = np.sqrt(i[:, None, None] + j[None, :, None] + k[None, None, :])
    depth: NDArray[np.float32] = ((1 - share) * head_mm.min()).astype(np.float32)
    return depth


def _clear_rim(
    tissues: Sequence[NDArray[np.float32]], tube: Posed, axes: list[NDArray[np.float64]]
) -> None:
    """Leave white matter around a tube, as the tracts about a hippocampus are."""
    window = _window(tube, axes, margin_mm=RIM_MM)
    distance = tube.distance_outside_mm(_positions(axes, window))
    for tissue in tissues:
        tissue[window] *= np.clip(distance / RIM_MM, 0, 1).astype(np.float32) ** 2


def _paint(
    tissue: NDArray[np.float32],
    tube: Posed,
    axes: list[NDArray[np.float64]],
    *,
    over: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Fill a tube with a tissue, in place, and empty it of another; returns its share per voxel.

    A voxel at distance d from the surface holds 0.5 - d / w of the tube, where w is the change of
    the distance from one voxel to the next along the surface's normal.
    """
    share = np.zeros(tissue.shape, dtype=np.float32)
    window = _window(tube, axes, margin_mm=0.0)
    if min(part.stop - part.start for part in window) < 2:
        return share
    distance = tube.distance_outside_mm(_positions(axes, window))
    width = np.sqrt(sum(slope**2 for slope in np.gradient(distance)))
    share[window] = np.clip(0.5 - distance / np.maximum(width, 1e-6), 0, 1)
    tissue[window] += share[window] * (1 - tissue[window])
    if over is not None:
        over[window] *= 1 - share[window]
    return share


def _window(
    tube: Posed, axes: list[NDArray[np.float64]], *, margin_mm: float
) -> tuple[slice, slice, slice]:
    """Voxels that a tube can reach, with two more around them where the grid has them."""
    lower, upper = tube.bounds_mm()
    ends = [
        (
            max(int(np.searchsorted(axis, low - margin_mm)) - 2, 0),
            min(int(np.searchsorted(axis, high + margin_mm)) + 2, len(axis)),
        )
        for axis, low, high in zip(axes, lower, upper, strict=True)
    ]
    i, j, k = (slice(min(first, last), last) for first, last in ends)
    return i, j, k


def _positions(
    axes: list[NDArray[np.float64]], window: tuple[slice, slice, slice]
) -> NDArray[np.float64]:
    parts = [axis[part] for axis, part in zip(axes, window, strict=True)]
    return np.stack(np.meshgrid(*parts, indexing="ij"), axis=-1)
