"""Scans and label maps from and to files: NIfTI, Analyze and MGH in, NIfTI out."""

from __future__ import annotations

import gzip
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from numpy.typing import NDArray

from shapeguide.data.headers import (
    StoredVoxels,
    read_header,
)
from shapeguide.data.scan_files import opened
from shapeguide.errors import DataError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import LabelMap, Placement, Structure, Volume
from shapeguide.storage.whole import written_whole

__all__ = [
    "read_grid",
    "read_label_map",
    "read_volume",
    "write_label_map",
    "write_volume",
]

LARGEST_ARRAY_BYTES = 8 * 2**30
"""A header that asks for more memory than this is not believed."""
LARGEST_PACKING = 1100
"""Deflate cannot pack better than about 1032 to 1."""
CHUNK_BYTES = 16 * 2**20
PACKING_LEVEL = 3
LARGEST_NIFTI1_LENGTH = 32767
LARGEST_LABEL_ID = 2**31 - 1
LABEL_TYPES = (np.uint8, np.uint16, np.int32)


def read_volume(path: str | PathLike[str], *, orientation: str | None = None) -> Volume:
    """Intensities of a scan, on the grid that its header states.

    Args:
        path: .nii, .nii.gz, .hdr/.img (also .img.gz), .mgz or .mgh.
        orientation: Directions of the voxel axes such as "RAS", for files that state none; where
            given it replaces what the header states, and the middle of the grid is the origin.

    Raises:
        DataError: If the file is missing, damaged or not one 3D volume, claims an absurd size, or
            holds voxels that are not finite.
        GeometryError: If it states no usable grid.
        ConfigError: If the orientation is not one.
    """
    header = read_header(Path(path), orientation=orientation)
    return Volume(_finite_values(header.voxels), header.grid, header.placement)


def read_label_map(
    path: str | PathLike[str],
    *,
    structures: tuple[Structure, ...] = (),
    orientation: str | None = None,
) -> LabelMap:
    """Label ids of a file; ids stored as whole floating-point numbers are accepted.

    Args:
        path: As for `read_volume`.
        structures: What the label ids stand for.
        orientation: As for `read_volume`.

    Raises:
        DataError: As `read_volume`, and if a label id is fractional, negative or above 2^31 - 1.
        GeometryError: If it states no usable grid.
        ConfigError: If the orientation is not one, or the structures contradict each other.
    """
    header = read_header(Path(path), orientation=orientation)
    ids = _label_ids(header.voxels)
    return LabelMap(ids, header.grid, structures, header.placement)


def read_grid(path: str | PathLike[str], *, orientation: str | None = None) -> Grid:
    """Grid of a scan, from its header alone.

    Raises:
        DataError: If the file is missing or damaged, or does not claim to be one 3D volume.
        GeometryError: If it states no usable grid.
        ConfigError: If the orientation is not one.
    """
    return read_header(Path(path), orientation=orientation).grid


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


def _read_voxels(voxels: StoredVoxels) -> NDArray[np.generic]:
    """Raw voxels, shape (I, J, K), after checking that the file can hold what it claims."""
    count = prod(voxels.spatial_shape)
    size = count * voxels.dtype.itemsize
    claim = f"{voxels.path}: the header claims {voxels.spatial_shape} voxels of {voxels.dtype}"
    if max(size, count * 4) > LARGEST_ARRAY_BYTES:
        raise DataError(
            f"{claim}, {size / 2**30:.0f} GiB, and at most {LARGEST_ARRAY_BYTES // 2**30} GiB are "
            "read; crop the scan or repair its header"
        )
    with opened(voxels.path) as file:
        held = voxels.path.stat().st_size
        possible = held * LARGEST_PACKING if isinstance(file, gzip.GzipFile) else held
        if voxels.offset + size > possible:
            raise DataError(
                f"{claim}, which a file of {held} bytes cannot hold: it is cut short, or its "
                "header is wrong; copy or export it again"
            )
        file.seek(voxels.offset)
        buffer = bytearray(size)
        filled = 0
        while filled < size and (chunk := file.read(min(CHUNK_BYTES, size - filled))):
            buffer[filled : filled + len(chunk)] = chunk
            filled += len(chunk)
        file.read(CHUNK_BYTES)  # the checksum of a gzipped file is checked at its end
    if filled < size:
        raise DataError(f"{claim}, {size} bytes, but holds {filled}; copy or export it again")
    raw: NDArray[np.generic] = np.frombuffer(buffer, dtype=voxels.dtype)
    return raw.reshape(voxels.spatial_shape, order="F")


def _finite_values(voxels: StoredVoxels) -> NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):
        values = _read_voxels(voxels).astype(np.float32, order="C")
        if (voxels.slope, voxels.intercept) != (1.0, 0.0):
            values *= np.float32(voxels.slope)
            values += np.float32(voxels.intercept)
    finite = np.isfinite(values)
    if not finite.all():
        raise DataError(
            f"{voxels.path}: {finite.size - finite.sum()} of {finite.size} voxels are NaN, "
            "infinite or too large; replace them, for instance with numpy.nan_to_num, and save "
            "the file again"
        )
    return values


def _label_ids(voxels: StoredVoxels) -> NDArray[np.integer]:
    if voxels.dtype.kind in "iu" and (voxels.slope, voxels.intercept) == (1.0, 0.0):
        raw = _read_voxels(voxels)
        whole: NDArray[np.integer] = raw.astype(voxels.dtype.newbyteorder("="), order="C")
    else:
        values = _finite_values(voxels)
        fractional = values[values != np.rint(values)]
        if fractional.size:
            examples = ", ".join(f"{value:g}" for value in np.unique(fractional)[:3])
            raise DataError(
                f"{voxels.path}: a label map holds whole numbers, found {fractional.size} others "
                f"such as {examples}; if these are probabilities, threshold them first"
            )
        whole = values.astype(np.int64)
    lowest, highest = int(whole.min()), int(whole.max())
    if lowest < 0 or highest > LARGEST_LABEL_ID:
        raise DataError(
            f"{voxels.path}: label ids go from 0 to {LARGEST_LABEL_ID}, found {lowest} to "
            f"{highest}; is this an image instead of a label map?"
        )
    return _in_smallest_type(whole)


def _in_smallest_type(ids: NDArray[np.integer]) -> NDArray[np.integer]:
    largest = int(ids.max(initial=0))
    smallest = next(kind for kind in LABEL_TYPES if largest <= np.iinfo(kind).max)
    return ids.astype(smallest, copy=False)


def _write(data: NDArray[np.generic], grid: Grid, placement: Placement | None, path: Path) -> None:
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise DataError(f"{path}: files are written as .nii or .nii.gz; choose such a name")
    header = _header(data, grid, placement)
    try:
        with written_whole(path) as temporary, temporary.open("wb") as raw:
            if path.name.lower().endswith(".nii"):
                _write_parts(raw, header, data)
                return
            with gzip.GzipFile("", "wb", PACKING_LEVEL, raw, mtime=0) as packed:
                _write_parts(packed, header, data)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error}); nothing was left there. "
            "Free some space or choose another folder"
        ) from error


def _write_parts(file: BinaryIO | gzip.GzipFile, header: bytes, data: NDArray[np.generic]) -> None:
    no_extensions = b"\0\0\0\0"
    file.write(header + no_extensions)
    for slab in np.moveaxis(data, -1, 0):
        file.write(slab.tobytes(order="F"))


def _header(data: NDArray[np.generic], grid: Grid, placement: Placement | None) -> bytes:
    large = max(data.shape) > LARGEST_NIFTI1_LENGTH
    new_header: Any = Nifti2Header if large else Nifti1Header  # nibabel gives it no types
    header = new_header()
    header.set_data_shape(data.shape)
    header.set_data_dtype(data.dtype)
    header.set_xyzt_units("mm")
    header.set_slope_inter(1.0, 0.0)
    header["vox_offset"] = len(header.binaryblock) + 4
    if placement is None or not _places(placement, grid):
        directions = grid.affine[:3, :3] / np.array(grid.spacing_mm)
        orthogonal = np.allclose(directions.T @ directions, np.eye(3), atol=1e-5)
        placement = Placement(grid.affine, 1, grid.affine, int(orthogonal))
    # The qform is set first: it also sets the spacing, from the grid when it does not count.
    header.set_qform(placement.qform if placement.qform_code else grid.affine, placement.qform_code)
    header.set_sform(placement.sform, placement.sform_code)
    binary: bytes = header.binaryblock
    return binary


def _places(placement: Placement, grid: Grid) -> bool:
    affine = placement.sform if placement.sform_code > 0 else placement.qform
    return bool(np.allclose(affine, grid.affine, atol=1e-4))
