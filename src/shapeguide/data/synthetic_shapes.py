"""Curved tapering tubes with random shape: the structures and look-alikes of the synthetic cohort.

All positions are in mm. A tube is built in its own space, about its centre of mass, and a pose puts
it into the world; so what varies by shape and what varies by pose are drawn apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

SAMPLES = 96
WAVES = 4

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class TubeRanges:
    """Ranges that the shape of a tube is drawn from, each uniformly and on its own."""

    length_mm: Range
    """Length of the centreline from head to tail, without the round caps."""
    bend_deg: Range
    """How far the centreline turns upwards from head to tail."""
    hook_deg: Range = (0, 0)
    """How far the head is turned inwards."""
    lateral_deg: Range = (0, 0)
    """How far the tail is turned inwards."""
    head_radius_mm: Range
    tail_radius_mm: Range
    taper: Range = (1, 1)
    """Exponent of the radius between head and tail; below 1 the tube stays thick for longer."""
    tip_share: Range = (0, 0)
    """Share of the length, at the tail, that has the radius of the tail."""
    flatness: Range
    """Height of the cross-section over its width."""
    undulation_mm: Range
    """Size of the waves on the surface."""


STRUCTURES: dict[str, TubeRanges] = {
    "horn": TubeRanges(
        length_mm=(24, 30),
        bend_deg=(40, 100),
        hook_deg=(20, 80),
        lateral_deg=(0, 45),
        head_radius_mm=(6.0, 8.2),
        tail_radius_mm=(2.6, 4.2),
        taper=(0.6, 1.6),
        tip_share=(0.05, 0.3),
        flatness=(0.62, 0.9),
        undulation_mm=(0.2, 0.7),
    ),
    "comma": TubeRanges(
        length_mm=(34, 44),
        bend_deg=(160, 230),
        hook_deg=(-25, 25),
        lateral_deg=(-5, 35),
        head_radius_mm=(5.5, 7.5),
        tail_radius_mm=(1.8, 2.8),
        taper=(0.7, 1.7),
        tip_share=(0.1, 0.4),
        flatness=(0.65, 0.95),
        undulation_mm=(0.2, 0.6),
    ),
}
"""Structures by name: a horn like a hippocampus, a comma like a caudate."""

LOOK_ALIKES: tuple[TubeRanges, ...] = (
    TubeRanges(
        length_mm=(2, 8),
        bend_deg=(0, 30),
        head_radius_mm=(4.5, 7.5),
        tail_radius_mm=(4, 7),
        flatness=(0.7, 1),
        undulation_mm=(0.2, 0.8),
    ),
    TubeRanges(
        length_mm=(16, 30),
        bend_deg=(-20, 20),
        head_radius_mm=(3, 4.8),
        tail_radius_mm=(3, 4.8),
        flatness=(0.7, 1),
        undulation_mm=(0.2, 0.6),
    ),
    TubeRanges(
        length_mm=(18, 28),
        bend_deg=(-110, -50),
        hook_deg=(-60, 0),
        lateral_deg=(-40, 0),
        head_radius_mm=(5, 7.5),
        tail_radius_mm=(2.5, 4),
        taper=(0.6, 1.6),
        flatness=(0.6, 1),
        undulation_mm=(0, 0.6),
    ),
)
"""A blob, a straight cord and a horn bent the wrong way."""

FLUID = TubeRanges(
    length_mm=(8, 20),
    bend_deg=(-30, 30),
    lateral_deg=(0, 30),
    head_radius_mm=(2.2, 3.6),
    tail_radius_mm=(1.4, 2.4),
    flatness=(0.5, 0.9),
    undulation_mm=(0, 0.3),
)
"""A pocket of fluid beside the structure."""


@dataclass(frozen=True, eq=False)
class Tube:
    """A tube about its centre of mass; all arrays have one row per sample of the centreline."""

    centreline_mm: NDArray[np.float64]
    """Shape (N, 3)."""
    radius_mm: NDArray[np.float64]
    """Half the width, shape (N,)."""
    normals: NDArray[np.float64]
    """Unit vectors along the height of the cross-section, shape (N, 3)."""
    flatness: float
    waves: NDArray[np.float64]
    """Waves on the surface: wave vector per mm, phase and size in mm, shape (M, 5)."""

    def distance_outside_mm(self, positions_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """About how far positions (..., 3) lie outside the surface, (...); negative inside."""
        _, nearest = cKDTree(self.centreline_mm).query(positions_mm)
        offset = positions_mm - self.centreline_mm[nearest]
        height = (offset * self.normals[nearest]).sum(-1)
        plain = (offset**2).sum(-1)
        stretched = np.sqrt(plain + height**2 * (self.flatness**-2 - 1))
        slope = np.sqrt(plain) / np.maximum(stretched, 1e-9)
        distance: NDArray[np.float64] = (stretched - self.radius_mm[nearest]) * slope
        for wave in self.waves:
            distance = distance + wave[4] * np.sin(positions_mm @ wave[:3] + wave[3])
        return distance


@dataclass(frozen=True, eq=False)
class Posed:
    """A tube in the world: turned, scaled, then moved."""

    tube: Tube
    rotation: NDArray[np.float64]
    """Shape (3, 3)."""
    scale: float
    centre_mm: NDArray[np.float64]
    """Where the centre of mass of the tube lies, shape (3,)."""

    def distance_outside_mm(self, positions_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """About how far positions (..., 3) lie outside the surface, (...); negative inside."""
        own = (positions_mm - self.centre_mm) @ self.rotation / self.scale
        return self.tube.distance_outside_mm(own) * self.scale

    def centreline_mm(self) -> NDArray[np.float64]:
        """The centreline in the world, shape (N, 3)."""
        turned: NDArray[np.float64] = self.tube.centreline_mm @ self.rotation.T * self.scale
        return turned + self.centre_mm

    def bounds_mm(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corners (3,) and (3,) of an upright box that holds the tube and its waves."""
        bulge = np.abs(self.tube.waves[:, 4]).sum()
        reach = (self.tube.radius_mm + bulge)[:, None] * self.scale
        line = self.centreline_mm()
        return (line - reach).min(0), (line + reach).max(0)


def draw_tube(ranges: TubeRanges, random: np.random.Generator) -> Tube:
    """Draw the shape of a tube, its head to the front (+j) and its tail upwards (+k)."""
    along = np.linspace(0, 1, SAMPLES)
    bend = np.deg2rad(random.uniform(*ranges.bend_deg))
    hook = np.deg2rad(random.uniform(*ranges.hook_deg))
    lateral = np.deg2rad(random.uniform(*ranges.lateral_deg))
    elevation = bend * (along - 0.5)
    azimuth = -hook * np.clip(1 - along / 0.3, 0, 1) ** 1.5 + lateral * along**2
    tangents = np.stack(
        [
            -np.sin(azimuth) * np.cos(elevation),
            -np.cos(azimuth) * np.cos(elevation),
            np.sin(elevation),
        ],
        axis=1,
    )
    step_mm = random.uniform(*ranges.length_mm) / (SAMPLES - 1)
    line = np.cumsum(tangents, axis=0) * step_mm
    head, tail = random.uniform(*ranges.head_radius_mm), random.uniform(*ranges.tail_radius_mm)
    taper, tip = random.uniform(*ranges.taper), random.uniform(*ranges.tip_share)
    radius = tail + (head - tail) * (1 - np.clip(along / (1 - tip), 0, 1)) ** taper
    mass = radius**2
    return Tube(
        centreline_mm=line - (line * mass[:, None]).sum(0) / mass.sum(),
        radius_mm=radius,
        normals=_upright(tangents),
        flatness=float(random.uniform(*ranges.flatness)),
        waves=_draw_waves(random.uniform(*ranges.undulation_mm), random),
    )


def draw_pose(
    tube: Tube,
    centre_mm: Sequence[float] | NDArray[np.float64],
    random: np.random.Generator,
    *,
    rotation_deg: float,
    scale: Range = (0.92, 1.08),
) -> Posed:
    """Turn a tube at random about each axis, scale it, and put it at a place."""
    angles = random.uniform(-rotation_deg, rotation_deg, 3)
    return Posed(
        tube=tube,
        rotation=Rotation.from_euler("xyz", angles, degrees=True).as_matrix(),
        scale=float(random.uniform(*scale)),
        centre_mm=np.asarray(centre_mm, dtype=np.float64),
    )


def mirrored(tube: Tube) -> Tube:
    """The same tube on the other side of the plane between left and right."""
    flip = np.array([-1.0, 1.0, 1.0])
    waves = tube.waves * np.array([-1.0, 1.0, 1.0, 1.0, 1.0])
    return Tube(
        tube.centreline_mm * flip, tube.radius_mm, tube.normals * flip, tube.flatness, waves
    )


def _upright(tangents: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors (N, 3) across the tangents and the i axis; hooks stay clear of that axis."""
    normals = np.cross(tangents, [1.0, 0.0, 0.0])
    upright: NDArray[np.float64] = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    return upright


def _draw_waves(size_mm: float, random: np.random.Generator) -> NDArray[np.float64]:
    directions = random.normal(size=(WAVES, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    vectors = directions * 2 * np.pi / random.uniform(7, 16, (WAVES, 1))
    phases = random.uniform(0, 2 * np.pi, (WAVES, 1))
    sizes = random.uniform(0.3, 1, (WAVES, 1)) * size_mm / 2
    return np.concatenate([vectors, phases, sizes], axis=1)
