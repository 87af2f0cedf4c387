"""A synthetic cohort: heads with a structure of varying shape among look-alikes of its tissue.

Shape, not intensity, tells the structure from what surrounds it: blobs, cords and horns bent the
wrong way have the same grey value, one of them touches it. Everything follows from the seed and
the number of the case, so a case is the same in a cohort of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shapeguide.data.nifti import write_label_map, write_volume
from shapeguide.data.synthetic_scene import Scene, Tissues, draw_scene, grid_axes, render_tissues
from shapeguide.data.synthetic_shapes import STRUCTURES
from shapeguide.errors import ConfigError, DataError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import LabelMap, Structure, Volume
from shapeguide.storage.whole import read_json, write_json

MARGIN_MM = 2.0
BIAS = 0.25
NOISE = 0.06


def draw_case(
    seed: int,
    index: int,
    *,
    spatial_shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    shape: str,
) -> tuple[Volume, LabelMap]:
    """Draw one case: its image and the label map of its structure (label id 1).

    The anatomy depends on the seed, the index and the name of the shape alone; another grid is
    another window onto the same head. A grid larger than the head shows zero around it.

    Args:
        seed: Seed of the cohort, 0 or more.
        index: Number of the case, 0 or more.
        spatial_shape: Voxels along each axis.
        spacing_mm: Voxel spacing along each axis.
        shape: Name of the structure, "horn" or "comma".

    Returns:
        The image, with arbitrary intensity units, and the label map on the same grid.

    Raises:
        ConfigError: If the shape is unknown, a number is out of range, or the structure does not
            fit on the grid.
    """
    _check(seed, index, spatial_shape, spacing_mm, shape)
    scene = draw_scene(seed, index, shape)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = _first_voxel(scene, spatial_shape, spacing_mm)
    grid = Grid(spatial_shape, affine)
    tissues = render_tissues(scene, grid)
    image = _image(tissues, grid, np.random.default_rng([seed, index, 1]))
    labels = tissues.structure.astype(np.uint8)
    return Volume(image, grid), LabelMap(labels, grid, (Structure(shape, (1,)),))


def write_cohort(
    folder: Path | str,
    *,
    count: int,
    seed: int = 0,
    spatial_shape: tuple[int, int, int] = (48, 48, 48),
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    shape: str = "horn",
    overwrite: bool = False,
) -> Path:
    """Write a synthetic cohort as a Decathlon folder.

    The description is written last, so a folder that has one is complete: the same cohort is not
    written again.

    Args:
        folder: Where to write; made when missing.
        count: Number of cases.
        seed: Seed of the cohort, 0 or more.
        spatial_shape: Voxels along each axis.
        spacing_mm: Voxel spacing along each axis.
        shape: Name of the structure, "horn" or "comma".
        overwrite: Replace the cohort that the folder holds; other files in it stay.

    Returns:
        Path of the `dataset.json`.

    Raises:
        ConfigError: If an argument is out of range or the structure does not fit on the grid.
        DataError: If the folder holds anything but this cohort and `overwrite` is false.
    """
    folder = Path(folder)
    if count < 1:
        raise ConfigError(f"a cohort has at least one case, found count={count}")
    _check(seed, 0, spatial_shape, spacing_mm, shape)
    for index in range(count):
        _first_voxel(draw_scene(seed, index, shape), spatial_shape, spacing_mm)
    names = [f"{shape}_{index:03d}.nii.gz" for index in range(count)]
    description, content = folder / "dataset.json", _description(shape, seed, names)
    content["grid"] = {"spatial_shape": list(spatial_shape), "spacing_mm": list(spacing_mm)}
    if not overwrite and description.is_file() and read_json(description) == content:
        return description
    _make_room(folder, overwrite=overwrite)
    for index, name in enumerate(names):
        volume, label_map = draw_case(
            seed, index, spatial_shape=spatial_shape, spacing_mm=spacing_mm, shape=shape
        )
        write_volume(volume, folder / "imagesTr" / name)
        write_label_map(label_map, folder / "labelsTr" / name)
    write_json(description, content)
    return description


def _description(shape: str, seed: int, names: Sequence[str]) -> dict[str, object]:
    return {
        "name": f"synthetic_{shape}",
        "description": f"Synthetic heads with a {shape}, seed {seed}",
        "tensorImageSize": "3D",
        "modality": {"0": "synthetic"},
        "labels": {"0": "background", "1": shape},
        "numTraining": len(names),
        "numTest": 0,
        "training": [
            {"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names
        ],
        "test": [],
    }


def _make_room(folder: Path, *, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; give a folder to write the cohort to")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise DataError(
            f"{folder} is not empty and holds another cohort or other files; give another folder, "
            "or --overwrite (overwrite=True) to replace the cohort in it"
        )
    (folder / "dataset.json").unlink(missing_ok=True)
    for part in ("imagesTr", "labelsTr"):
        for shape in STRUCTURES:
            for old in (folder / part).glob(f"{shape}_[0-9]*.nii.gz"):
                old.unlink()


def _check(
    seed: int,
    index: int,
    spatial_shape: Sequence[int],
    spacing_mm: Sequence[float],
    shape: str,
) -> None:
    if shape not in STRUCTURES:
        raise ConfigError(f"unknown shape {shape!r}; known shapes: {', '.join(STRUCTURES)}")
    if seed < 0 or index < 0:
        raise ConfigError(f"seed and index are 0 or more, found {seed} and {index}")
    if len(spatial_shape) != 3 or min(spatial_shape) < 2:
        raise ConfigError(f"spatial_shape must be three numbers above 1, found {spatial_shape}")
    if len(spacing_mm) != 3 or not all(0 < step < np.inf for step in spacing_mm):
        raise ConfigError(f"spacing_mm must be three positive numbers, found {spacing_mm}")


def _first_voxel(
    scene: Scene, spatial_shape: Sequence[int], spacing_mm: Sequence[float]
) -> NDArray[np.float64]:
    """Position of voxel (0, 0, 0): the window stays in the head and holds the structure."""
    steps = np.asarray(spacing_mm)
    half = (np.asarray(spatial_shape) - 1) / 2 * steps
    lower, upper = scene.structure.bounds_mm()
    margin = np.maximum(MARGIN_MM, 1.5 * steps)
    if (2 * half < upper - lower + 2 * margin).any():
        needed = np.ceil((upper - lower + 2 * margin) / steps).astype(int) + 1
        raise ConfigError(
            f"the structure needs {tuple(needed.tolist())} voxels of {tuple(spacing_mm)} mm, "
            f"found {tuple(spatial_shape)}; use a larger spatial_shape or spacing_mm"
        )
    room = np.maximum(scene.head_mm - half, 0)
    middle = np.clip(scene.place_mm, -room, room)
    fitted = np.clip(middle, upper + margin - half, lower - margin + half)
    first: NDArray[np.float64] = fitted - half
    return first


def _image(tissues: Tissues, grid: Grid, random: np.random.Generator) -> NDArray[np.float32]:
    """Tissue contrast, fine texture, bias field, noise and gain; zero outside the head."""
    grey, fluid = random.uniform(0.56, 0.68), random.uniform(0.15, 0.3)
    image = 1 - tissues.grey * (1 - grey)
    image += tissues.fluid * (fluid - image)
    image *= _bias_field(grid, random)
    image += NOISE * random.standard_normal(grid.spatial_shape, dtype=np.float32)
    gain = random.uniform(80, 400)
    result: NDArray[np.float32] = np.where(tissues.head, np.clip(image, 0.01, None) * gain, 0)
    return result.astype(np.float32)


def _bias_field(grid: Grid, random: np.random.Generator) -> NDArray[np.float32]:
    """Smooth gain between about 1 - BIAS and 1 + BIAS, with waves of 8 to 20 cm."""
    field = np.zeros(grid.spatial_shape, dtype=np.float32)
    i, j, k = grid_axes(grid)
    for _ in range(3):
        direction = random.normal(size=3)
        rate = direction / np.linalg.norm(direction) * 2 * np.pi / random.uniform(80, 200)
        phase = rate[0] * i[:, None, None] + rate[1] * j[None, :, None] + rate[2] * k
        field += np.sin(phase + random.uniform(0, 2 * np.pi)).astype(np.float32)
    bias: NDArray[np.float32] = np.exp(BIAS / 3 * field)
    return bias
