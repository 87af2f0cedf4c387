"""Heads of the young made to look like heads of the old, by the ventricles in their label maps.

The ventricles grow as they do with age: their surfaces move outwards by some millimetres, and what
lies beside them moves along, less and less with the distance. Image and label map move together.
What is ventricle then is as dark as the darkest of it was; drawn out alone, a slit would stay grey.
The training heads of MICCAI 2012 have narrow ventricles, and so have those that a recipe is chosen
on: this shows how far the choice may carry.

    python benchmarks/aged_heads.py FOLDER

prints the volumes of the lateral ventricles in label maps of such heads, before and after.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import tyro
from numpy.typing import NDArray
from scipy import ndimage

LATERAL, OTHERS = (51, 52), (4, 49, 50)
"""Lateral ventricles of MICCAI 2012; third ventricle and inferior horns, which grow a third."""
OTHERS_SHARE = 1 / 3
REACH_MM = 12.0
SMOOTH_MM = 1.5
FLUID_PERCENTILE = 5
STEPS = 8
Floats = NDArray[np.float64]


def main(
    label_maps: tyro.conf.Positional[Path], *, amounts_mm: tuple[float, ...] = (3.0, 6.0)
) -> None:
    """Print how large the lateral ventricles are, and become.

    Args:
        label_maps: Folder of label maps at 1 mm.
        amounts_mm: How far their surface moves.
    """
    for path in sorted(label_maps.glob("*.nii.gz")):
        labels = nib.nifti1.load(path)
        volumes = [
            np.count_nonzero(aged(labels, labels, amount_mm=amount_mm, kept=LATERAL)[1].dataobj)
            for amount_mm in (0.0, *amounts_mm)
        ]
        print(path.name, *(f"{volume / 1000:.1f} ml" for volume in volumes))


def aged(
    image: nib.Nifti1Image, labels: nib.Nifti1Image, *, amount_mm: float, kept: tuple[int, ...]
) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """A head with larger ventricles.

    Args:
        image: A scan at 1 mm.
        labels: Its label map, on the same grid, with the ventricles.
        amount_mm: How far the surface of the lateral ventricles moves.
        kept: Label ids that the label map of the result has.

    Returns:
        Image and label map on the same grids.
    """
    ids = np.asarray(labels.dataobj)
    places = grown(ids, amount_mm)
    seen = ndimage.map_coordinates(
        image.get_fdata(dtype=np.float32), places, order=1, mode="nearest"
    )
    ventricles = np.isin(ids, LATERAL + OTHERS)
    fluid = np.percentile(image.get_fdata(dtype=np.float32)[ventricles], FLUID_PERCENTILE)
    share = ndimage.map_coordinates(ventricles.astype(np.float32), places, order=1, mode="nearest")
    seen = np.minimum(seen, seen + share * (fluid - seen))
    found = np.zeros(ids.shape, np.uint8)
    most = np.full(ids.shape, 0.5, np.float32)
    for label_id in kept:
        mask = (ids == label_id).astype(np.float32)
        share = ndimage.map_coordinates(mask, places, order=1, mode="nearest")
        found[share >= most] = label_id
        most = np.maximum(most, share)
    return nib.Nifti1Image(seen, image.affine), nib.Nifti1Image(found, labels.affine)


def grown(ids: NDArray[np.generic], amount_mm: float) -> Floats:
    """Where each voxel of the aged head is read, in voxels of 1 mm, shape (3, I, J, K)."""
    ventricles = np.isin(ids, LATERAL + OTHERS)
    outside, nearest = ndimage.distance_transform_edt(~ventricles, return_indices=True)
    distance = outside - ndimage.distance_transform_edt(ventricles)
    normals = np.stack(np.gradient(ndimage.gaussian_filter(distance, SMOOTH_MM)))
    normals /= np.maximum(np.linalg.norm(normals, axis=0), 0.3)
    share = np.where(np.isin(ids, OTHERS), OTHERS_SHARE, 1.0)[tuple(nearest)]
    speed = amount_mm * share * np.exp(-(outside**2) / (2 * REACH_MM**2))
    flow = [ndimage.gaussian_filter(axis * speed, SMOOTH_MM) for axis in normals]
    places: Floats = np.indices(ids.shape, dtype=np.float64)
    for _ in range(STEPS):
        moved = [ndimage.map_coordinates(axis, places, order=1, mode="nearest") for axis in flow]
        places = places - np.stack(moved) / STEPS
    return places


if __name__ == "__main__":
    tyro.cli(main)
