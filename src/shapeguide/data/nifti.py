"""Scans and label maps from and to files: NIfTI, Analyze and MGH in, NIfTI out."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Image
from nibabel.volumeutils import array_from_file
from numpy.typing import NDArray

from shapeguide.data.headers import StoredVoxels, read_header
from shapeguide.data.scan_files import opened
from shapeguide.errors import DataError, reason
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import LARGEST_LABEL_ID, LabelMap, Placement, Structure, Volume
from shapeguide.storage.whole import written_whole

__all__ = [
    "read_grid",
    "read_label_map",
    "read_volume",
    "read_volumes",
    "write_label_map",
    "write_volume",
]

LARGEST_PACKING = 1100
"""Deflate cannot pack better than about 1032 to 1."""
LARGEST_REST_BYTES = 2**20
"""What may follow the last voxel: padding, and what FreeSurfer notes there."""
RUN_VOXELS = 2**24
"""Voxels that are read at a time: of large scans, what is stored is never in memory whole."""
LARGEST_NIFTI1_LENGTH = 32767
LABEL_TYPES = (np.uint8, np.uint16, np.int32)
Converter: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]


def read_volume(path: str | PathLike[str], *, orientation: str | None = None) -> Volume:
    """Intensities of a scan, on the grid that its header states.

    Args:
        path: .nii, .nii.gz, .hdr/.img (also .img.gz), .mgz or .mgh.
        orientation: Directions of the voxel axes such as "RAS", for files that state none; where
            given it replaces what the header states, and the middle of the grid is the origin.

    Raises:
        DataError: If the file is missing, damaged or not one 3D volume, claims more than 2^28
            voxels, or holds voxels that are not finite.
        GeometryError: If it states no usable grid.
        ConfigError: If the orientation is not one.
    """
    return read_volumes(path, count=1, orientation=orientation)[0]


def read_volumes(
    path: str | PathLike[str], *, count: int, orientation: str | None = None
) -> tuple[Volume, ...]:
    """Intensities of a file that holds several volumes along its fourth axis, such as channels.

    Args:
        path: The file, as for `read_volume`.
        count: How many there are.
        orientation: Directions of its axes, as for `read_volume`.

    Raises:
        DataError: As `read_volume`, and if there are more or fewer.
        GeometryError: If it states no usable grid.
        ConfigError: If the orientation is not one.
    """
    header = read_header(Path(path), orientation=orientation, count=count)
    values = _read_voxels(header.voxels, partial(_intensities, header.voxels))
    _check_finite(header.voxels.path, values)
    parts = map(np.ascontiguousarray, np.split(values, count, axis=2))
    return tuple(Volume(part, header.grid, header.placement) for part in parts)


def read_label_map(
    path: str | PathLike[str],
    *,
    structures: tuple[Structure, ...] = (),
    orientation: str | None = None,
) -> LabelMap:
    """Label ids of a file; ids stored as whole floating-point numbers are accepted.

    Args:
        path: The file, as for `read_volume`.
        structures: What the label ids stand for.
        orientation: Directions of its axes, as for `read_volume`.

    Raises:
        DataError: As `read_volume`, and if a label id is fractional, negative or above 2^31 - 1.
        GeometryError: If it states no usable grid.
        ConfigError: If the orientation is not one, or the structures contradict each other.
    """
    header = read_header(Path(path), orientation=orientation)
    ids = _read_voxels(header.voxels, partial(_label_ids, header.voxels))
    return LabelMap(ids, header.grid, structures, header.placement)


def read_grid(path: str | PathLike[str], *, orientation: str | None = None, count: int = 1) -> Grid:
    """Grid of a scan, from its header alone.

    Args:
        path: The file, as for `read_volume`.
        orientation: Directions of its axes, as for `read_volume`.
        count: How many volumes it holds, as for `read_volumes`.

    Raises:
        DataError: If the file is missing or damaged, or does not claim to be one 3D volume.
        GeometryError: If it states no usable grid.
        ConfigError: If the orientation is not one.
    """
    return read_header(Path(path), orientation=orientation, count=count).grid


def write_volume(volume: Volume, path: str | PathLike[str]) -> None:
    """Write intensities as float32 to .nii or .nii.gz, whole or not at all.

    The same volume always gives the same bytes. The placement is restated as it was read.

    Raises:
        DataError: If the name is not that of a NIfTI file, or the file cannot be written.
    """
    _write(volume.data.astype(np.float32, copy=False), volume.grid, volume.placement, Path(path))


def write_label_map(label_map: LabelMap, path: str | PathLike[str]) -> None:
    """Write label ids in the smallest integer type to .nii or .nii.gz, whole or not at all.

    The same label map always gives the same bytes. The placement is restated as it was read.

    Raises:
        DataError: If the name is not that of a NIfTI file, or the file cannot be written.
    """
    _write(_in_smallest_type(label_map.data), label_map.grid, label_map.placement, Path(path))


def _read_voxels(voxels: StoredVoxels, convert: Converter) -> NDArray[Any]:
    """All voxels in one array, shape (I, J, K); several volumes follow each other along K.

    No more of the file is unpacked than the header announces and a little behind it.

    Args:
        voxels: Where they lie.
        convert: What is stored to what is wanted, a run of voxels at a time.

    Raises:
        DataError: If the file is damaged, or holds fewer voxels than it claims or far more.
    """
    i, j, k = voxels.spatial_shape
    shape = (i, j, k * voxels.count)
    count, width = prod(shape), voxels.dtype.itemsize
    claim = f"{voxels.path}: the header claims {shape} voxels of {voxels.dtype}"
    with opened(voxels.path) as file:
        held = voxels.path.stat().st_size
        possible = held * LARGEST_PACKING if isinstance(file, gzip.GzipFile) else held
        if voxels.offset + count * width > possible:
            raise DataError(
                f"{claim}, which a file of {held} bytes cannot hold: it is cut short, or its "
                "header is wrong; copy or export it again"
            )
        runs = []
        for first in range(0, count, RUN_VOXELS):
            length = min(RUN_VOXELS, count - first)
            start = voxels.offset + first * width
            stored = array_from_file((length,), voxels.dtype, file, start, mmap=False)
            runs.append(convert(stored))
        behind = file.read(LARGEST_REST_BYTES + 1)  # a gzipped file ends with its checksum
    if len(behind) > LARGEST_REST_BYTES:
        raise DataError(
            f"{claim} and more than {LARGEST_REST_BYTES} bytes follow the last of them: several "
            "volumes, or a wrong header; store one volume per file, or export it again"
        )
    values = runs.pop() if len(runs) == 1 else np.concatenate(runs)
    runs.clear()  # of a large scan, two copies are enough
    return np.ascontiguousarray(values.reshape(shape, order="F"))


def _intensities(voxels: StoredVoxels, stored: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):
        values: NDArray[np.float32] = stored.astype(np.float32)
        if _is_scaled(voxels):
            values *= np.float32(voxels.slope)
            values += np.float32(voxels.intercept)
    return values


def _label_ids(voxels: StoredVoxels, stored: NDArray[Any]) -> NDArray[np.integer]:
    """Label ids in the smallest type that holds these."""
    values = _intensities(voxels, stored) if _is_scaled(voxels) else stored
    if values.dtype.kind == "f":
        _check_finite(voxels.path, values)
        fractional = values[values != np.rint(values)]
        if fractional.size:
            examples = ", ".join(f"{value:g}" for value in np.unique(fractional)[:3])
            raise DataError(
                f"{voxels.path}: a label map holds whole numbers, found others such as "
                f"{examples}; if these are probabilities, threshold them first"
            )
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > LARGEST_LABEL_ID:
        raise DataError(
            f"{voxels.path}: label ids go from 0 to {LARGEST_LABEL_ID}, found {lowest} to "
            f"{highest}; is this an image instead of a label map?"
        )
    return _in_smallest_type(values)


def _is_scaled(voxels: StoredVoxels) -> bool:
    return (voxels.slope, voxels.intercept) != (1.0, 0.0)


def _check_finite(path: Path, values: NDArray[Any]) -> None:
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        raise DataError(
            f"{path}: {bad} of {values.size} voxels are NaN, infinite or beyond float32; set "
            "them, for instance with numpy.nan_to_num, and save the file again"
        )


def _in_smallest_type(ids: NDArray[Any]) -> NDArray[np.integer]:
    largest = int(ids.max(initial=0))
    smallest = next(kind for kind in LABEL_TYPES if largest <= np.iinfo(kind).max)
    return ids.astype(smallest, copy=False)


def _write(data: NDArray[np.generic], grid: Grid, placement: Placement | None, path: Path) -> None:
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise DataError(f"{path}: files are written as .nii or .nii.gz; choose such a name")
    image_class: Any = Nifti2Image if max(data.shape) > LARGEST_NIFTI1_LENGTH else Nifti1Image
    header = image_class.header_class()
    header.set_data_shape(data.shape)
    header.set_data_dtype(data.dtype)
    if placement is None or not np.allclose(placement.in_mm(), grid.affine, atol=1e-4):
        directions = grid.affine[:3, :3] / np.array(grid.spacing_mm)
        orthogonal = np.allclose(directions.T @ directions, np.eye(3), atol=1e-5)
        placement = Placement(grid.affine, 1, grid.affine, int(orthogonal))
    header.set_xyzt_units(placement.unit)
    # The qform is set first: it also sets the spacing, from the sform when it does not count.
    header.set_qform(placement.qform if placement.qform_code else placement.sform)
    header.set_sform(placement.sform)
    header["qform_code"], header["sform_code"] = placement.qform_code, placement.sform_code
    try:
        with written_whole(path) as temporary:
            image_class(data, None, header).to_filename(temporary)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({reason(error)}); nothing was left there. "
            "Free some space or choose another folder"
        ) from error
