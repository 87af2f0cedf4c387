"""The .air files of Automated Image Registration: where the voxels of one scan lie in another.

Source: the documentation of AIR 5 (R. P. Woods), on .air files, their matrix and its coordinates.
The matrix takes voxel indices of the standard scan, as if it had cubic voxels of its smallest
spacing, to voxel indices of the reslice scan. Indices count from 0 in the order of the files.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shapeguide.errors import DataError, GeometryError, reason
from shapeguide.geometry.grid import Grid

# Matrix; file name, bits, shape and spacing of the standard scan and of the reslice scan; comment;
# hashes, volumes and reserve.
LAYOUT = "16d 128s4I3d 128s4I3d 128s 2i2H116s"
BITS = (1, 8, 16, 32, 64)


@dataclass(frozen=True, eq=False)
class AirTransform:
    """Where voxels of the standard scan lie in the reslice scan."""

    standard_shape: tuple[int, int, int]
    reslice_shape: tuple[int, int, int]
    to_reslice: NDArray[np.float64]
    """Voxel index of the standard scan to voxel index of the reslice scan, shape (4, 4)."""


def read_air(path: Path) -> AirTransform:
    """Read a linear transform.

    Raises:
        DataError: If the file cannot be read, is no .air file, or holds no affine transform.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason(error)}); copy it again") from error
    for endianness in "<>":
        if len(content) != struct.calcsize(endianness + LAYOUT):
            continue
        fields = struct.unpack(endianness + LAYOUT, content)
        if fields[17] in BITS and fields[25] in BITS:
            return _transform(path, fields)
    raise DataError(
        f"{path}: not an .air file: expected {struct.calcsize('<' + LAYOUT)} bytes that describe "
        f"two scans, found {len(content)} bytes; copy it again from the download"
    )


def _transform(path: Path, fields: tuple[object, ...]) -> AirTransform:
    # The array in the file is indexed by column first.
    matrix = np.array(fields[:16], dtype=np.float64).reshape(4, 4).T
    standard, reslice = _shape(fields[18:21]), _shape(fields[26:29])
    spacing_mm = np.array(fields[21:24], dtype=np.float64)
    if not (np.isfinite(matrix).all() and np.isfinite(spacing_mm).all() and spacing_mm.min() > 0):
        raise DataError(f"{path}: holds values that are not finite; copy it again")
    with np.errstate(all="ignore"):  # what overflows is found not to be finite
        cubic = np.diag([*(spacing_mm / spacing_mm.min()), 1.0])
        to_reslice = matrix / matrix[3, 3] @ cubic
    try:
        Grid(standard, to_reslice)
    except GeometryError as error:
        raise DataError(f"{path}: no affine transform: {error}; copy it again") from error
    return AirTransform(standard, reslice, to_reslice)


def _shape(lengths: tuple[object, ...]) -> tuple[int, int, int]:
    i, j, k = np.array(lengths, dtype=np.int64).tolist()
    return i, j, k
