"""What the header of a scan states: its grid, and how its voxels lie on disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from nibabel.analyze import AnalyzeHeader
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from shapeguide.data.placement import oriented_grid, stated_grid
from shapeguide.data.scan_files import PAIR_HEADERS, PAIR_VOXELS, opened, scan_suffix, stored_files
from shapeguide.errors import DataError, ShapeguideError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import Placement

LARGEST_SCAN_VOXELS = 2**28
"""A header that announces more, 645^3 or 512 x 512 x 1024, is refused: 1 GiB in memory."""
LARGEST_OFFSET_BYTES = 2**28
"""What may lie before the first voxel: the header and what programs add to it."""
LARGEST_HEADER_BYTES = 540
MGH_VOXELS_START = 284
AnyHeader: TypeAlias = Any
"""One of nibabel's headers, which carry no types."""
NIFTI_CLASSES: tuple[AnyHeader, ...] = (Nifti1Header, Nifti2Header)
MGH_CLASS: AnyHeader = MGHHeader


@dataclass(frozen=True, eq=False)
class StoredVoxels:
    """Where the voxels of a scan lie on disk, and how to read them."""

    path: Path
    spatial_shape: tuple[int, int, int]
    dtype: np.dtype[np.generic]
    offset: int
    """Bytes before the first voxel."""
    slope: float
    intercept: float
    count: int = 1
    """How many volumes of this shape follow each other."""


@dataclass(frozen=True, eq=False)
class ScanHeader:
    """The header of one scan, checked as far as it goes without reading voxels."""

    grid: Grid
    placement: Placement | None
    voxels: StoredVoxels


def read_header(path: Path, *, orientation: str | None = None, count: int = 1) -> ScanHeader:
    """Header of a NIfTI-1, NIfTI-2, Analyze 7.5 or MGH scan.

    Args:
        path: The scan; either file of a pair.
        orientation: Directions of the voxel axes such as "LAS" (the first index grows to the
            left). Needed where the header states none; replaces what any header states.
        count: How many volumes the file holds, along its fourth axis.

    Raises:
        DataError: If a file is missing or damaged, does not hold so many 3D volumes, or announces
            more than 2^28 voxels.
        GeometryError: If the header states no usable grid.
        ConfigError: If the orientation is not one.
    """
    files = stored_files(path)
    header = _parse(path, files[0])
    try:
        with np.errstate(all="ignore"):  # what overflows is found not to be finite
            shape = _spatial_shape(path, header, count)
            voxels = replace(_stored_voxels(files, header, shape), count=count)
            if orientation is not None:
                return ScanHeader(oriented_grid(path, orientation, header, shape), None, voxels)
            grid, placement = stated_grid(path, header, shape)
            return ScanHeader(grid, placement, voxels)
    except ShapeguideError:
        raise
    except (HeaderDataError, LookupError, ArithmeticError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: the header is damaged ({error}); export the scan again"
        ) from error


def _parse(path: Path, header_file: Path) -> AnyHeader:
    with opened(header_file) as file:
        start = file.read(LARGEST_HEADER_BYTES)
    suffix = scan_suffix(path)
    if suffix in (".mgz", ".mgh", ".mgh.gz"):
        if len(start) < MGH_VOXELS_START or start[:4] != b"\0\0\0\1":
            raise _foreign(path, start, "MGH")
        return MGH_CLASS(start[:MGH_VOXELS_START], check=False)
    classes = NIFTI_CLASSES + ((AnalyzeHeader,) if suffix in PAIR_HEADERS + PAIR_VOXELS else ())
    for header_class in classes:
        if header_class.may_contain_header(start):
            header = header_class(start[: header_class.sizeof_hdr], check=False)
            if header["sizeof_hdr"] == header_class.sizeof_hdr:
                return header
    raise _foreign(path, start, "NIfTI or Analyze")


def _foreign(path: Path, start: bytes, format_name: str) -> DataError:
    return DataError(
        f"{path}: not a {format_name} file, it begins with {start[:12]!r}; "
        "export the scan again, or correct the file name"
    )


def _spatial_shape(path: Path, header: AnyHeader, count: int) -> tuple[int, int, int]:
    is_mgh = isinstance(header, MGHHeader)
    if not is_mgh and not 1 <= int(header["dim"][0]) <= 7:
        raise DataError(f"{path}: the header claims {header['dim'][0]} axes; export the scan again")
    shape = [int(length) for length in header.get_data_shape()]
    shape = [*shape[:3], *(length for length in shape[3:] if length != 1)]
    if shape[3:] != [count] * (count > 1) or len(shape) < 3:
        wanted = "one 3D volume" if count == 1 else f"{count} channels along a fourth axis"
        raise DataError(
            f"{path}: {wanted} expected, found {len(shape)} axes of lengths {tuple(shape)}; "
            "store one volume per file"
        )
    if min(shape) < 1:
        raise DataError(f"{path}: the header claims the shape {tuple(shape)}; export it again")
    if prod(shape) > LARGEST_SCAN_VOXELS:
        raise DataError(
            f"{path}: the header claims {tuple(shape)} voxels, {prod(shape):,}, and at most "
            f"{LARGEST_SCAN_VOXELS:,} are read; crop or resample the scan, or repair its header"
        )
    return shape[0], shape[1], shape[2]


def _stored_voxels(
    files: tuple[Path, ...], header: AnyHeader, shape: tuple[int, int, int]
) -> StoredVoxels:
    file = files[-1]
    dtype = np.dtype(header.get_data_dtype())
    if dtype.kind not in "iuf":
        raise DataError(f"{file}: voxels are {dtype}, one real number each expected")
    if isinstance(header, MGHHeader):
        return StoredVoxels(file, shape, dtype, MGH_VOXELS_START, 1.0, 0.0)
    scale: NDArray[np.float64] = np.array([1.0, 0.0])
    if isinstance(header, Nifti1Header):
        stored = np.array([header["scl_slope"], header["scl_inter"]], dtype=np.float64)
        scale = stored if np.isfinite(stored).all() and stored[0] != 0 else scale
    stated = float(header["vox_offset"])
    if not 0 <= stated <= LARGEST_OFFSET_BYTES:
        raise DataError(f"{file}: the header puts the voxels at byte {stated:g}; export it again")
    offset = int(stated)
    if len(files) == 1:
        offset = max(offset, int(header["sizeof_hdr"]) + 4)  # some writers leave it at 0
    return StoredVoxels(file, shape, dtype, offset, float(scale[0]), float(scale[1]))
