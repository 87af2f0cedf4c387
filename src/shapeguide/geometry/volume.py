"""Arrays that know their grid: volumes of intensities and label maps of structures."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shapeguide.errors import ConfigError, DataError, GeometryError
from shapeguide.geometry.grid import Grid
from shapeguide.storage.names import name_fault, shown

LARGEST_LABEL_ID = 2**31 - 1
MOST_STRUCTURES = 255
"""Class indices are stored as uint8, with 0 for the background."""
LARGEST_TABLED_ID = 65535
"""Up to it a table has a place for each label id, and one pass over the voxels is enough."""


LengthUnit: TypeAlias = Literal["meter", "mm", "micron"]
MM_PER_UNIT: dict[LengthUnit, float] = {"meter": 1000.0, "mm": 1.0, "micron": 0.001}


@dataclass(frozen=True)
class Structure:
    """A named anatomical structure: the set of label ids that stand for it in files.

    Raises:
        ConfigError: If the name cannot be that of a file, see `name_fault`, or the label ids are
            not different whole numbers from 1 to 2^31 - 1.
    """

    name: str
    label_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        fault = name_fault(self.name)
        if fault:
            raise ConfigError(
                f"a structure cannot be named {shown(self.name)}: {fault}; files are named after "
                "structures, so choose another name"
            )
        ids = self.label_ids
        if not ids or not all(map(_is_label_id, ids)) or len(set(ids)) < len(ids):
            raise ConfigError(
                f"structure {self.name}: expected one or more different label ids from 1 to "
                f"{LARGEST_LABEL_ID}, found {reprlib.repr(ids)}; 0 is the background"
            )


@dataclass(frozen=True, eq=False)
class Placement:
    """How the header of a file stated the grid; kept so that an output can state it the same way.

    qform and sform may disagree; both are kept as they were, in the unit of the file.
    """

    sform: NDArray[np.float64]
    sform_code: int
    qform: NDArray[np.float64]
    qform_code: int
    unit: LengthUnit = "mm"

    def in_mm(self) -> NDArray[np.float64]:
        """Voxel index to world position in mm by the affine that counts, shape (4, 4)."""
        return scaled_to_mm(self.sform if self.sform_code > 0 else self.qform, self.unit)


@dataclass(frozen=True, eq=False)
class Volume:
    """Intensities on a grid.

    Raises:
        GeometryError: If the array does not have the shape of the grid.
    """

    data: NDArray[np.float32]
    """Shape (I, J, K)."""
    grid: Grid
    placement: Placement | None = None

    def __post_init__(self) -> None:
        _check_shape(self.data, self.grid)


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Label ids on a grid, with the structures that they stand for; some may hold others.

    Raises:
        GeometryError: If the array does not have the shape of the grid.
        DataError: If the array does not hold integers.
        ConfigError: If two structures share a name or some of their label ids.
    """

    data: NDArray[np.integer]
    """Label id of each voxel, shape (I, J, K); 0 is the background."""
    grid: Grid
    structures: tuple[Structure, ...] = ()
    placement: Placement | None = None

    def __post_init__(self) -> None:
        _check_shape(self.data, self.grid)
        if not np.issubdtype(self.data.dtype, np.integer):
            raise DataError(f"a label map holds integers, found {self.data.dtype}")
        check_structures(self.structures, nested=True)

    def mask(self, structure: str | Structure) -> NDArray[np.bool_]:
        """Where a structure is, shape (I, J, K).

        Raises:
            ConfigError: If no structure of this label map has that name.
        """
        if isinstance(structure, str):
            structure = find_structure(self.structures, structure)
        found: NDArray[np.bool_] = self.data == structure.label_ids[0]
        # For the few ids that a structure has, comparing is several times as fast as np.isin.
        for label_id in structure.label_ids[1:]:
            found |= self.data == label_id
        return found

    def voxels_of_ids(self) -> dict[int, int]:
        """Label id to its number of voxels, for the ids that occur, in ascending order."""
        data = self.data
        if data.min(initial=0) >= 0 and data.max(initial=0) <= LARGEST_TABLED_ID:
            counts = np.zeros(1 + int(data.max(initial=0)), dtype=np.int64)
            for slab in data:  # counting takes eight bytes for each voxel
                counts += np.bincount(slab.ravel(), minlength=len(counts))
            return {int(label_id): int(counts[label_id]) for label_id in np.flatnonzero(counts)}
        ids, voxels = np.unique(data, return_counts=True)  # sorts, which is far slower
        return dict(zip(ids.tolist(), voxels.tolist(), strict=True))

    def class_indices(self) -> NDArray[np.uint8]:
        """Class index of each voxel, (I, J, K): 0 background, n for the n-th structure.

        Raises:
            ConfigError: If a structure holds another: a voxel has one class.
        """
        check_structures(self.structures)
        largest = int(self.data.max(initial=0))
        if self.data.min(initial=0) >= 0 and largest <= LARGEST_TABLED_ID:
            table = np.zeros(largest + 1, dtype=np.uint8)
            for index, structure in enumerate(self.structures, start=1):
                table[[one for one in structure.label_ids if one <= largest]] = index
            classes: NDArray[np.uint8] = table[self.data]
            return classes
        classes = np.zeros(self.data.shape, dtype=np.uint8)
        for index, structure in enumerate(self.structures, start=1):
            classes[self.mask(structure)] = index
        return classes


def scaled_to_mm(affine: NDArray[np.float64], unit: LengthUnit) -> NDArray[np.float64]:
    """An affine whose world is in `unit`, with its world in mm; shape (4, 4)."""
    scaled = np.array(affine, dtype=np.float64)
    scaled[:3] *= MM_PER_UNIT[unit]
    return scaled


def find_structure(structures: tuple[Structure, ...], name: str) -> Structure:
    """The structure with that name.

    Raises:
        ConfigError: If there is none.
    """
    for structure in structures:
        if structure.name == name:
            return structure
    known = ", ".join(structure.name for structure in structures) or "none"
    raise ConfigError(f"unknown structure {name!r}; known structures: {known}")


def check_structures(structures: tuple[Structure, ...], *, nested: bool = False) -> None:
    """Refuse structures that share a name or a label id.

    Args:
        structures: What is to be told apart.
        nested: Whether a structure may hold another.

    Raises:
        ConfigError: If they do, or if there are more than 255.
    """
    if len(structures) > MOST_STRUCTURES:
        raise ConfigError(f"at most {MOST_STRUCTURES} structures, found {len(structures)}")
    named: dict[str, Structure] = {}
    owners: dict[int, Structure] = {}
    for structure in structures:
        if structure.name in named:
            raise ConfigError(
                f"two structures share the name {structure.name}: label ids "
                f"{named[structure.name].label_ids} and {structure.label_ids}; rename one of them"
            )
        named[structure.name] = structure
        if nested:
            own = set(structure.label_ids)
            for other in named.values():
                ids = set(other.label_ids)
                if other is not structure and ids & own and not (ids < own or own < ids):
                    raise ConfigError(_overlap_of(other, structure))
            continue
        for label_id in structure.label_ids:
            if label_id in owners:
                raise ConfigError(_overlap_of(owners[label_id], structure))
            owners[label_id] = structure


def _overlap_of(first: Structure, second: Structure) -> str:
    shared = sorted({*first.label_ids} & {*second.label_ids})
    ids = ", ".join(map(str, shared[:10]))
    return (
        f"structures {first.name} {first.label_ids} and {second.name} {second.label_ids} share "
        f"label {'ids' if len(shared) > 1 else 'id'} {ids}, and structures may not overlap unless "
        "one holds all of the other: give each id to one of them, or train them in two runs"
    )


def _is_label_id(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return False
    return 1 <= int(value) <= LARGEST_LABEL_ID


def _check_shape(data: NDArray[np.generic], grid: Grid) -> None:
    if data.shape != grid.spatial_shape:
        raise GeometryError(f"array of shape {data.shape} on a grid of shape {grid.spatial_shape}")
