"""Which grid a header states: sform or qform, or an orientation that the user states."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.nifti1 import Nifti1Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from shapeguide.errors import ConfigError, DataError, GeometryError
from shapeguide.geometry.grid import Grid
from shapeguide.geometry.volume import MM_PER_UNIT, LengthUnit, Placement, scaled_to_mm

logger = logging.getLogger(__name__)

DISAGREEMENT_MM = 1.0
LARGEST_CODE, ALIGNED = 5, 2
"""A form with a code that the format does not define counts, and is restated as aligned."""
UNITS: dict[int, LengthUnit] = {0: "mm", 1: "meter", 2: "mm", 3: "micron"}
"""Codes of NIfTI for the unit of lengths; what is not stated is taken for mm."""
DIRECTIONS = {
    "R": (1, 0, 0),
    "L": (-1, 0, 0),
    "A": (0, 1, 0),
    "P": (0, -1, 0),
    "S": (0, 0, 1),
    "I": (0, 0, -1),
}


def stated_grid(path: Path, header: Any, shape: tuple[int, int, int]) -> tuple[Grid, Placement]:
    """Grid that the header states, in mm, and the placement to write with outputs.

    The sform counts when its code is positive, else the qform; an unusable one gives way to the
    other. When both are usable and more than 1 mm apart, a warning says which one counts.

    Args:
        path: The scan, for messages.
        header: One of nibabel's headers, which carry no types.
        shape: Spatial shape of the scan.

    Raises:
        DataError: If the header states no orientation (Analyze, or both codes 0).
        GeometryError: If no stated affine is usable.
    """
    is_mgh, is_nifti = isinstance(header, MGHHeader), isinstance(header, Nifti1Header)
    if is_mgh:
        grid = _grid_or_problem(shape, header.get_affine())
        if not isinstance(grid, Grid):
            raise GeometryError(f"{path}: {grid}")
        return grid, Placement(grid.affine, 1, grid.affine, 1)
    codes = {"sform": 0, "qform": 0}
    if is_nifti:
        codes = {form: int(header[f"{form}_code"]) for form in codes}
    if max(codes.values()) <= 0:
        raise DataError(
            f"{path}: the header does not say where left and right are; state it with an "
            'orientation such as "RAS" (the first index grows to the right), as the argument '
            '`orientation` or as "orientation" of the case in the dataset description'
        )
    unit = _unit(path, header)
    affines: dict[str, Any] = {"sform": header.get_sform(), "qform": _qform(header)}
    usable: dict[str, Grid] = {}
    problems = []
    for form in (form for form, code in codes.items() if code > 0):
        grid = _grid_or_problem(shape, affines[form], unit)
        if isinstance(grid, Grid):
            usable[form] = grid
        else:
            problems.append(f"{form}: {grid}")
    if not usable:
        raise GeometryError(f"{path}: no usable affine; " + "; ".join(problems))
    chosen = next(iter(usable))
    _report(path, usable, problems)
    sform, qform = (affines[form if form in usable else chosen] for form in codes)
    codes = {form: code if code <= LARGEST_CODE else ALIGNED for form, code in codes.items()}
    codes = {form: code if form in usable else 0 for form, code in codes.items()}
    return usable[chosen], Placement(sform, codes["sform"], qform, codes["qform"], unit)


def oriented_grid(path: Path, orientation: str, header: Any, shape: tuple[int, int, int]) -> Grid:
    """Grid with the spacing of the header and stated directions, its middle at the world's origin.

    Args:
        path: The scan, for messages.
        orientation: Directions of the voxel axes such as "LAS".
        header: One of nibabel's headers, which carry no types.
        shape: Spatial shape of the scan.

    Raises:
        ConfigError: If the orientation is not three letters, one of each of RL, AP, SI.
        GeometryError: If a spacing is not positive.
    """
    check_orientation(orientation)
    scale = MM_PER_UNIT[_unit(path, header)]
    spacing_mm = [float(length) * scale for length in header.get_zooms()[:3]]
    if not np.isfinite(spacing_mm).all() or min(spacing_mm) <= 0:
        raise GeometryError(
            f"{path}: voxel spacing must be positive, the header states {tuple(spacing_mm)} mm; "
            "correct it there"
        )
    affine = np.eye(4)
    directions = np.array([DIRECTIONS[letter] for letter in orientation.upper()], dtype=np.float64)
    affine[:3, :3] = directions.T * np.array(spacing_mm)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    grid = _grid_or_problem(shape, affine)
    if not isinstance(grid, Grid):
        raise GeometryError(f"{path}: {grid}")
    return grid


def check_orientation(orientation: str) -> None:
    """Refuse what is not an orientation such as "RAS".

    Raises:
        ConfigError: If the orientation is not three letters, one of each of RL, AP, SI.
    """
    letters = orientation.upper()
    pairs = ("RL", "AP", "SI")
    if len(letters) != 3 or any(sum(letter in pair for letter in letters) != 1 for pair in pairs):
        raise ConfigError(
            f'orientation {orientation!r}: three letters such as "RAS" expected, '
            "one of each of R or L, A or P, S or I"
        )


def _unit(path: Path, header: Any) -> LengthUnit:
    if not isinstance(header, Nifti1Header):
        return "mm"
    code = int(header["xyzt_units"]) & 7
    if code not in UNITS:
        logger.warning("%s: the header states the unknown unit %d; mm are taken", path, code)
    return UNITS.get(code, "mm")


def _qform(header: Any) -> NDArray[np.float64] | str:
    spacing_mm = np.array(header["pixdim"][1:4], dtype=np.float64)
    if not np.isfinite(spacing_mm).all() or spacing_mm.min() <= 0:
        return f"voxel spacing must be positive, found {spacing_mm} mm"
    try:
        affine: NDArray[np.float64] = header.get_qform(coded=False)
    except (HeaderDataError, ValueError) as error:
        return str(error)
    return affine


def _grid_or_problem(
    shape: tuple[int, int, int], affine: NDArray[np.float64] | str, unit: LengthUnit = "mm"
) -> Grid | str:
    if isinstance(affine, str):
        return affine
    try:
        return Grid(shape, scaled_to_mm(affine, unit))
    except GeometryError as error:
        return str(error)


def _report(path: Path, usable: dict[str, Grid], problems: list[str]) -> None:
    for problem in problems:
        logger.warning("%s: using the other affine, since %s", path, problem)
    if len(usable) == 2:
        corners = [grid.corners_mm() for grid in usable.values()]
        apart_mm = np.linalg.norm(corners[0] - corners[1], axis=1).max()
        if apart_mm > DISAGREEMENT_MM:
            logger.warning(
                "%s: sform and qform are up to %.1f mm apart; the sform counts", path, apart_mm
            )
