"""What the header of a scan states: its grid, and how its voxels lie on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from nibabel.analyze import AnalyzeHeader
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from shapeguide.data.placement import oriented_grid, stated_grid
from shapeguide.data.scan_files import PAIR_HEADERS, PAIR_VOXELS, opened, scan_suffix, stored_files
from shapeguide.errors import DataError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import Placement

MGH_VOXELS_START = 284
NIFTI_CLASSES: dict[bytes, Any] = {
    b"n+1\0": Nifti1Header,
    b"ni1\0": Nifti1PairHeader,
    b"n+2\0": Nifti2Header,
    b"ni2\0": Nifti2PairHeader,
}
AnyHeader: TypeAlias = Any
"""One of nibabel's headers, which carry no types."""
MGH_CLASS: Any = MGHHeader


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


@dataclass(frozen=True, eq=False)
class ScanHeader:
    """The header of one scan, checked as far as it goes without reading voxels."""

    grid: Grid
    placement: Placement | None
    voxels: StoredVoxels


def read_header(path: Path, *, orientation: str | None = None) -> ScanHeader:
    """Header of a NIfTI-1, NIfTI-2, Analyze 7.5 or MGH scan.

    Args:
        path: The scan; either file of a pair.
        orientation: Directions of the voxel axes such as "LAS" (the first index grows to the
            left). Needed where the header states none; replaces what any header states.

    Raises:
        DataError: If a file is missing or damaged, or does not hold one 3D volume.
        GeometryError: If the header states no usable grid.
        ConfigError: If the orientation is not one.
    """
    files = stored_files(path)
    header = _parse(path, files[0])
    try:
        shape = _spatial_shape(path, header)
        voxels = _stored_voxels(files[-1], header, shape)
        if orientation is None:
            grid, placement = stated_grid(path, header, shape)
            return ScanHeader(grid, placement, voxels)
        spacing_mm = [float(length) for length in header.get_zooms()[:3]]
        return ScanHeader(oriented_grid(path, orientation, spacing_mm, shape), None, voxels)
    except (HeaderDataError, KeyError, OverflowError, TypeError) as error:
        raise DataError(
            f"{path}: the header is damaged ({error}); export the scan again"
        ) from error


def _parse(path: Path, header_file: Path) -> AnyHeader:
    with opened(header_file) as file:
        start = file.read(540)
    if scan_suffix(path) in (".mgz", ".mgh", ".mgh.gz"):
        if len(start) < MGH_VOXELS_START or start[:4] != b"\0\0\0\1":
            raise _foreign(path, start, "MGH")
        return MGH_CLASS(start[:MGH_VOXELS_START], check=False)
    for endianness in "<>":
        size = int.from_bytes(start[:4], "little" if endianness == "<" else "big")
        if size not in (348, 540) or len(start) < size:
            continue
        magic = start[344:348] if size == 348 else start[4:8]
        header_class = NIFTI_CLASSES.get(magic)
        if header_class is None and size == 348 and scan_suffix(path) in PAIR_HEADERS + PAIR_VOXELS:
            header_class = AnalyzeHeader
        if header_class is not None:
            return header_class(start[:size], endianness=endianness, check=False)
    raise _foreign(path, start, "NIfTI or Analyze")


def _foreign(path: Path, start: bytes, format_name: str) -> DataError:
    return DataError(
        f"{path}: not a {format_name} file, it begins with {start[:12]!r}; "
        "export the scan again, or correct the file name"
    )


def _spatial_shape(path: Path, header: AnyHeader) -> tuple[int, int, int]:
    is_mgh = isinstance(header, MGHHeader)
    if not is_mgh and not 1 <= int(header["dim"][0]) <= 7:
        raise DataError(f"{path}: the header claims {header['dim'][0]} axes; export the scan again")
    shape = [int(length) for length in header.get_data_shape()]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) != 3:
        raise DataError(
            f"{path}: one 3D volume expected, found {len(shape)} axes of lengths {tuple(shape)}; "
            "store one volume per file"
        )
    if min(shape) < 1:
        raise DataError(f"{path}: the header claims the shape {tuple(shape)}; export it again")
    return shape[0], shape[1], shape[2]


def _stored_voxels(file: Path, header: AnyHeader, shape: tuple[int, int, int]) -> StoredVoxels:
    dtype = np.dtype(header.get_data_dtype())
    is_mgh, is_nifti = isinstance(header, MGHHeader), isinstance(header, Nifti1Header)
    if dtype.kind not in "iuf":
        raise DataError(f"{file}: voxels are {dtype}, one real number each expected")
    if is_mgh:
        return StoredVoxels(file, shape, dtype, MGH_VOXELS_START, 1.0, 0.0)
    scale: NDArray[np.float64] = np.array([1.0, 0.0])
    if is_nifti:
        stored = np.array([header["scl_slope"], header["scl_inter"]], dtype=np.float64)
        scale = stored if np.isfinite(stored).all() and stored[0] != 0 else scale
    offset = int(header.get_data_offset())
    if offset < 0:
        raise DataError(f"{file}: the header puts the voxels at byte {offset}; export it again")
    if is_nifti and header["magic"].item().startswith(b"n+"):
        offset = max(offset, int(header["sizeof_hdr"]) + 4)  # some writers leave it at 0
    return StoredVoxels(file, shape, dtype, offset, float(scale[0]), float(scale[1]))
