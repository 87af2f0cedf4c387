"""Shaded pictures of the surface of a mask, by casting a ray for every pixel.

Rays run in parallel through the smoothed mask to its first crossing of one half, where the gradient
gives the light. This needs no mesh and looks smooth at any size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray
from scipy import ndimage

SMOOTHING_VOXELS = 0.8
"""Standard deviation of the smoothing, for the display alone."""
SPECK_VOXELS = 0.35
"""That of parts too small to survive it: a stray voxel must not vanish from the picture."""
ERROR_COLOURS = LinearSegmentedColormap.from_list(
    "distance", ["#ece5d8", "#f0c987", "#ec8a4b", "#d1395a", "#7d1d72"]
)
"""From on the surface to far from it."""
LIGHTS = ((0.35, 0.75, 0.85, 0.62), (-0.8, 0.1, 0.45, 0.28))
"""Direction to the right, up and to the viewer, and strength of each lamp."""
AMBIENT = 0.24


@dataclass(frozen=True, eq=False)
class View:
    """Where one looks from, and the square of the world that a picture shows."""

    centre_mm: NDArray[np.float64]
    """Middle of the picture, shape (3,), in mm along the axes of the array."""
    radius_mm: float
    """Half the edge of the square, and how far the rays run in front of and behind the middle."""
    azimuth_deg: float = 25.0
    """Direction to the viewer: angle from the first axis towards the second."""
    elevation_deg: float = 18.0
    """Direction to the viewer: angle above the plane of the first two axes."""
    pixels: int = 260

    def axes(self) -> NDArray[np.float64]:
        """Unit vectors to the right, up and to the viewer, shape (3, 3), one a row."""
        azimuth, elevation = np.deg2rad([self.azimuth_deg, self.elevation_deg])
        viewer = np.array(
            [
                np.cos(elevation) * np.cos(azimuth),
                np.cos(elevation) * np.sin(azimuth),
                np.sin(elevation),
            ]
        )
        right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
        return np.stack([right, np.cross(viewer, right), viewer])


def view_of(
    masks: list[NDArray[np.bool_]], *, spacing_mm: tuple[float, float, float], pixels: int = 260
) -> View:
    """The view that just holds all masks (I, J, K), so that their pictures have one scale.

    Args:
        masks: At least one; when all are empty the view holds the whole array.
        spacing_mm: Voxel spacing.
        pixels: Edge length of the pictures.
    """
    places = np.argwhere(np.logical_or.reduce(masks))
    if len(places) == 0:
        places = np.array([[0, 0, 0], masks[0].shape])
    positions_mm = places * np.asarray(spacing_mm)
    centre_mm = (positions_mm.min(0) + positions_mm.max(0)) / 2
    seen = (positions_mm - centre_mm) @ View(centre_mm, 1.0).axes()[:2].T
    radius_mm = float(np.abs(seen).max()) + 2 * max(spacing_mm)
    return View(centre_mm, radius_mm, pixels=pixels)


def render(
    mask: NDArray[np.bool_],
    view: View,
    *,
    spacing_mm: tuple[float, float, float],
    distance_mm: NDArray[np.floating] | None = None,
    highest_mm: float = 4.0,
) -> NDArray[np.float64]:
    """Picture of the surface of a mask.

    Args:
        mask: Shape (I, J, K).
        view: Where from.
        spacing_mm: Voxel spacing.
        distance_mm: Signed distance of every voxel to another surface, finite, shape (I, J, K): its
            size colours this surface. The colour of 0 everywhere when not given.
        highest_mm: Distance of the last colour.

    Returns:
        Red, green, blue and opacity in [0, 1], shape (pixels, pixels, 4), first row at the top.
    """
    picture = np.zeros((view.pixels, view.pixels, 4))
    field = smoothed(mask)
    hit, places = _first_crossing(field, view, spacing_mm)
    if not hit.any():
        return picture
    far = np.zeros(places.shape[1]) if distance_mm is None else np.abs(_at(distance_mm, places))
    colours = ERROR_COLOURS(np.clip(far / highest_mm, 0, 1))[:, :3]
    picture[hit, :3] = _lit(colours, _normals(field, places, view, spacing_mm))
    picture[hit, 3] = 1
    return picture


def smoothed(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """A mask (I, J, K) as a smooth field whose surface is where it is one half.

    Parts that the smoothing would swallow are smoothed less.
    """
    field: NDArray[np.float32] = ndimage.gaussian_filter(mask.astype(np.float32), SMOOTHING_VOXELS)
    parts, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count == 0:
        return field
    strongest = ndimage.maximum(field, parts, index=np.arange(1, count + 1))
    small = 1 + np.flatnonzero(np.asarray(strongest) < 0.6)
    specks = np.isin(parts, small).astype(np.float32)
    return np.maximum(field, ndimage.gaussian_filter(specks, SPECK_VOXELS))


def _first_crossing(
    field: NDArray[np.float32], view: View, spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which pixels see the surface, (P, P), and the fractional indices (3, N) where they do."""
    steps = int(np.ceil(4 * view.radius_mm / min(spacing_mm)))
    across = np.linspace(-view.radius_mm, view.radius_mm, view.pixels)
    reach = view.radius_mm * 1.75
    along = np.linspace(reach, -reach, steps)
    right, up, viewer = view.axes()
    spacing = np.asarray(spacing_mm)
    matrix = np.stack(
        [
            -up * (across[1] - across[0]),
            right * (across[1] - across[0]),
            viewer * (along[1] - along[0]),
        ],
        axis=1,
    )
    start = view.centre_mm - up * across[0] + right * across[0] + viewer * along[0]
    values = ndimage.affine_transform(
        field,
        matrix / spacing[:, None],
        offset=start / spacing,
        output_shape=(view.pixels, view.pixels, steps),
        order=1,
    )
    inside = values > 0.5
    hit = inside.any(-1) & ~inside[..., 0]
    rows, columns = np.nonzero(hit)
    depth = inside[rows, columns].argmax(-1)
    before, after = values[rows, columns, depth - 1], values[rows, columns, depth]
    exact = depth - (after - 0.5) / np.maximum(after - before, 1e-6)
    places = (matrix @ np.stack([rows, columns, exact]) + start[:, None]) / spacing[:, None]
    return hit, places


def _normals(
    field: NDArray[np.float32],
    places: NDArray[np.float64],
    view: View,
    spacing_mm: tuple[float, float, float],
) -> NDArray[np.float64]:
    """Unit vectors out of the surface, in the axes of the view, shape (N, 3)."""
    # A little more smoothing for the light than for the surface hides the steps of the voxels.
    soft = ndimage.gaussian_filter(field, 0.6)
    gradients = np.stack(
        [_at(np.gradient(soft, spacing_mm[a], axis=a), places) for a in range(3)], axis=1
    )
    facing: NDArray[np.float64] = -gradients @ view.axes().T
    facing /= np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-9)
    return facing


def _lit(colours: NDArray[np.float64], normals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours (N, 3) under the lamps, with a soft highlight and darker rims."""
    light = np.full(len(normals), AMBIENT)
    shine = np.zeros(len(normals))
    for *direction, strength in LIGHTS:
        lamp = np.asarray(direction) / np.linalg.norm(direction)
        light += strength * np.clip(normals @ lamp, 0, None)
        halfway = lamp + np.array([0.0, 0.0, 1.0])
        halfway /= np.linalg.norm(halfway)
        shine += 0.22 * strength * np.clip(normals @ halfway, 0, None) ** 28
    rim = 0.72 + 0.28 * np.clip(normals[:, 2], 0, 1) ** 0.6
    return np.clip(colours * (light * rim)[:, None] + shine[:, None], 0, 1)


def _at(field: NDArray[np.floating], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of a field (I, J, K) at fractional indices (3, N), linear between voxels."""
    found: NDArray[np.float64] = ndimage.map_coordinates(field, places, order=1, mode="nearest")
    return found
