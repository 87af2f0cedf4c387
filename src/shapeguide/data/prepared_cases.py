"""Cases in the working space, prepared when first asked for and kept."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
    prepare_channels,
    prepare_label_map,
)
from shapeguide.data.regions import Places
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

    def label_map(self, place: int) -> PreparedLabelMap:
        """The label map of an item."""
        ...

    def label_maps(self) -> Iterator[PreparedLabelMap]:
        """The label map of every item, in turn."""
        ...

    def showing(self, case: int, structure: int) -> int:
        """The item that shows a structure of a case whole; both counted from 0."""
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

    def label_map(self, place: int) -> PreparedLabelMap:
        """The label map of an item."""
        for part in self.parts:
            if place < len(part):
                return part.label_map(place)
            place -= len(part)
        raise IndexError(place)

    def label_maps(self) -> Iterator[PreparedLabelMap]:
        """The label map of every item, in turn."""
        return (label_map for part in self.parts for label_map in part.label_maps())

    def showing(self, case: int, structure: int) -> int:
        """The item that shows a structure of a case whole; both counted from 0."""
        before = 0
        for part in self.parts:
            if case < len(part.cases):
                return before + part.showing(case, structure)
            case, before = case - len(part.cases), before + len(part)
        raise IndexError(case)


BYTES_PER_VOXEL = 4
"""What a voxel of one channel takes, in float32; its class takes one byte."""
MEMORY_LIMIT_BYTES = 2 * 2**30


class PreparedCases(Sequence[PreparedCase]):
    """Prepared cases, each made when it is first asked for.

    Where places say so, a case has several items, such as its regions: first come those of the
    first case, then those of the next.

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
        places: Places | None = None,
    ) -> None:
        """Prepare nothing yet.

        Args:
            cases: Labelled cases with structures.
            space: The working space.
            cache_dir: Folder for prepared cases that do not fit in memory; see
                `default_cache_dir`.
            memory_limit_bytes: What all prepared cases together may take in memory.
            places: Where the items of each case lie; None prepares one crop of each by the centre
                rule of the space.
        """
        self.cases = tuple(cases)
        self.space = space
        self.places = places
        self.room = (0, 0, 0) if places is None else places.room
        """Voxels at both ends of each axis that are prepared beyond the working space."""
        self.off = (0, 0, 0) if places is None else places.off
        """Voxels that training lays an item off its middle, at most, to either side."""
        self.items_each = 1 if places is None else places.count
        """Items of each case."""
        self._stored_space = replace(space, spatial_shape=_grown(space.spatial_shape, self.room))
        self.cache_dir = default_cache_dir() if cache_dir is None else Path(cache_dir)
        voxels = len(self) * prod(self._stored_space.spatial_shape)
        self.channels = max((case.channel_count for case in self.cases), default=1)
        """Channels of every image."""
        self.fits_in_memory = voxels * (BYTES_PER_VOXEL * self.channels + 1) <= memory_limit_bytes
        self._label_maps_fit = voxels <= memory_limit_bytes
        self._prepared: dict[int, PreparedCase] = {}
        self._label_maps: dict[int, PreparedLabelMap] = {}

    def __len__(self) -> int:
        return len(self.cases) * self.items_each

    @overload
    def __getitem__(self, index: int) -> PreparedCase: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[PreparedCase, ...]: ...

    def __getitem__(self, index: int | slice) -> PreparedCase | tuple[PreparedCase, ...]:
        places = range(len(self))[index]
        if isinstance(places, range):
            return tuple(self[place] for place in places)
        return self.with_room(places).without(self.room)

    def with_room(self, place: int) -> PreparedCase:
        """An item with the room around it.

        Raises:
            DataError: If the case cannot be prepared, see `prepare_case`.
        """
        if place not in self._prepared:
            self._prepared[place] = self._make(place)
        return self._prepared[place]

    def label_map(self, place: int) -> PreparedLabelMap:
        """The label map of an item, of which no image need be read.

        Raises:
            DataError: If the label map cannot be prepared, see `prepare_label_map`.
        """
        if place in self._prepared:
            return self[place]
        if place in self._label_maps:
            return self._label_maps[place].without(self.room)
        case = self.case_of(place)
        if not self._label_maps_fit and case.has_image:
            return self[place]
        made = prepare_label_map(case, self._stored_space, self._middle_mm(place))
        if self._label_maps_fit:
            self._label_maps[place] = made
        return made.without(self.room)

    def case_of(self, place: int) -> Case:
        """Whose item it is."""
        return self.cases[place // self.items_each]

    def showing(self, case: int, structure: int) -> int:
        """The item that shows a structure of a case whole.

        Args:
            case: Which of the cases.
            structure: Which of their structures, from 0.
        """
        if self.places is None:
            return case
        name = self.cases[case].structures[structure].name
        return case * self.items_each + self.places.showing(name)

    def label_maps(self) -> Iterator[PreparedLabelMap]:
        """The label map of every item, in turn."""
        return map(self.label_map, range(len(self)))

    def whole_image(self, case: Case) -> NDArray[np.float32]:
        """The image of a scan, whole, as `prepare_channels` gives it for prediction.

        A case whose prepared image shows all of the scan is not read again.

        Raises:
            DataError: If the case cannot be used.
        """
        space = self.space
        lengths = lengths_at(ras_grid(case.read_grid()), space.spacing_mm)
        fits = all(n <= most for n, most in zip(lengths, space.spatial_shape, strict=True))
        if case in self.cases and fits and space.centre == "volume" and self.places is None:
            return self[self.cases.index(case)].image
        return prepare_channels(case.read_channels(), space)[1]

    def prepare_all(self) -> None:
        """Prepare every case now, so that worker processes share them and bad cases show early.

        Raises:
            DataError: If a case cannot be prepared, see `prepare_case`; of the first such case.
        """
        for place in range(len(self)):
            self.with_room(place)

    def _make(self, place: int) -> PreparedCase:
        if self.fits_in_memory:
            return self._new(place)
        case, space = self.case_of(place), self._stored_space
        with naming(case.id):
            key = entry_key(case, space, self._middle_mm(place))
            stored = load_entry(self.cache_dir, key, space, self.channels)
            if stored is None:
                logger.info("preparing %s into %s", case.id, self.cache_dir)
                made = self._new(place)
                store_entry(self.cache_dir, key, made)
                # A disk that gives back other bytes than it took is passed by.
                return load_entry(self.cache_dir, key, space, self.channels) or made
            return stored

    def _new(self, place: int) -> PreparedCase:
        case, known = self.case_of(place), self._label_maps.pop(place, None)
        if known is None:
            return prepare_case(case, self._stored_space, self._middle_mm(place))
        return add_image(known, case, self._stored_space)

    def _middle_mm(self, place: int) -> NDArray[np.float64] | None:
        if self.places is None:
            return None
        return self.places.middle_mm(self.case_of(place), place % self.items_each)


def _grown(shape: tuple[int, int, int], room: tuple[int, int, int]) -> tuple[int, int, int]:
    i, j, k = (length + 2 * more for length, more in zip(shape, room, strict=True))
    return i, j, k
