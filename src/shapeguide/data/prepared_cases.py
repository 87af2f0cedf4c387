"""Cases in the working space, prepared when first asked for and kept."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from shapeguide.data.cache import default_cache_dir, entry_key, load_entry, store_entry
from shapeguide.data.case import Case, naming
from shapeguide.data.prepare import (
    PreparedCase,
    PreparedLabelMap,
    add_image,
    prepare_case,
    prepare_label_map,
    prepare_volume,
)
from shapeguide.data.working_space import WorkingSpace, lengths_at
from shapeguide.geometry.resample import ras_grid

logger = logging.getLogger(__name__)


class LabelMapSource(Protocol):
    """Prepared label maps in one space."""

    @property
    def cases(self) -> tuple[Case, ...]:
        """The cases that they are of."""
        ...

    @property
    def space(self) -> WorkingSpace:
        """The space: its spacing and shape hold for all of them, its centre for most."""
        ...

    def __len__(self) -> int: ...

    def label_maps(self) -> Iterator[PreparedLabelMap]:
        """The label map of every case, in turn."""
        ...


@dataclass(frozen=True, eq=False)
class JoinedLabelMaps:
    """Prepared label maps of several sources, as one."""

    parts: tuple[LabelMapSource, ...]

    @property
    def cases(self) -> tuple[Case, ...]:
        """Those of all sources."""
        return tuple(case for part in self.parts for case in part.cases)

    @property
    def space(self) -> WorkingSpace:
        """That of the first."""
        return self.parts[0].space

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def label_maps(self) -> Iterator[PreparedLabelMap]:
        """The label map of every case, in turn."""
        return (label_map for part in self.parts for label_map in part.label_maps())


BYTES_PER_VOXEL = 5  # float32 image, uint8 classes; the latter alone take one
MEMORY_LIMIT_BYTES = 2 * 2**30


class PreparedCases(Sequence[PreparedCase]):
    """Prepared cases, each made when it is first asked for.

    They are kept in memory when all of them fit, and otherwise in memory-mapped files of the
    cache folder, from where a later run takes them too; a changed file or setting makes them new.
    Nothing is written to the folder of the dataset.

    `label_map` gives what does not need images; each file is read once, whatever is asked for
    first.
    """

    def __init__(
        self,
        cases: Iterable[Case],
        space: WorkingSpace,
        cache_dir: Path | None = None,
        memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
    ) -> None:
        """Prepare nothing yet.

        Args:
            cases: Labelled cases with structures.
            space: The working space.
            cache_dir: Folder for prepared cases that do not fit in memory; see
                `default_cache_dir`.
            memory_limit_bytes: What all prepared cases together may take in memory.
        """
        self.cases = tuple(cases)
        self.space = space
        self.cache_dir = default_cache_dir() if cache_dir is None else Path(cache_dir)
        voxels = len(self.cases) * prod(space.spatial_shape)
        self.fits_in_memory = voxels * BYTES_PER_VOXEL <= memory_limit_bytes
        self._label_maps_fit = voxels <= memory_limit_bytes
        self._prepared: dict[int, PreparedCase] = {}
        self._label_maps: dict[int, PreparedLabelMap] = {}

    def __len__(self) -> int:
        return len(self.cases)

    @overload
    def __getitem__(self, index: int) -> PreparedCase: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[PreparedCase, ...]: ...

    def __getitem__(self, index: int | slice) -> PreparedCase | tuple[PreparedCase, ...]:
        places = range(len(self.cases))[index]
        if isinstance(places, range):
            return tuple(self[place] for place in places)
        if places not in self._prepared:
            self._prepared[places] = self._make(places)
        return self._prepared[places]

    def label_map(self, place: int) -> PreparedLabelMap:
        """The label map of a case, of which no image need be read.

        Raises:
            DataError: If the label map cannot be prepared, see `prepare_label_map`.
        """
        if place in self._prepared:
            return self._prepared[place]
        if not self._label_maps_fit:
            case = self.cases[place]
            return self[place] if case.has_image else prepare_label_map(case, self.space)
        if place not in self._label_maps:
            self._label_maps[place] = prepare_label_map(self.cases[place], self.space)
        return self._label_maps[place]

    def label_maps(self) -> Iterator[PreparedLabelMap]:
        """The label map of every case, in turn."""
        return map(self.label_map, range(len(self)))

    def whole_image(self, case: Case) -> NDArray[np.float32]:
        """The image of a scan, whole, as `prepare_volume` gives it for prediction.

        A case whose prepared image shows all of the scan is not read again.

        Raises:
            DataError: If the case cannot be used.
        """
        space = self.space
        lengths = lengths_at(ras_grid(case.read_grid()), space.spacing_mm)
        fits = all(n <= most for n, most in zip(lengths, space.spatial_shape, strict=True))
        if case in self.cases and fits and space.centre == "volume":
            return self[self.cases.index(case)].image
        return prepare_volume(case.read_volume(), space).data

    def prepare_all(self) -> None:
        """Prepare every case now, so that worker processes share them and bad cases show early.

        Raises:
            DataError: If a case cannot be prepared, see `prepare_case`; of the first such case.
        """
        for place in range(len(self)):
            self[place]

    def _make(self, place: int) -> PreparedCase:
        if self.fits_in_memory:
            return self._new(place)
        case = self.cases[place]
        with naming(case.id):
            key = entry_key(case, self.space)
            stored = load_entry(self.cache_dir, key, self.space)
            if stored is None:
                logger.info("preparing %s into %s", case.id, self.cache_dir)
                made = self._new(place)
                store_entry(self.cache_dir, key, made)
                # A disk that gives back other bytes than it took is passed by.
                return load_entry(self.cache_dir, key, self.space) or made
            return stored

    def _new(self, place: int) -> PreparedCase:
        case, known = self.cases[place], self._label_maps.pop(place, None)
        return (
            prepare_case(case, self.space) if known is None else add_image(known, case, self.space)
        )
