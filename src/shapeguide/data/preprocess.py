"""Cases in the working space, prepared when first asked for and kept."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from typing import overload

from shapeguide.data.cache import default_cache_dir, entry_key, load_entry, store_entry
from shapeguide.data.case import Case, naming
from shapeguide.data.intensities import normalise_intensities
from shapeguide.data.prepare import PreparedCase, prepare_case, prepare_volume
from shapeguide.data.working_space import WorkingSpace, choose_working_space

__all__ = [
    "PreparedCase",
    "PreparedCases",
    "WorkingSpace",
    "choose_working_space",
    "normalise_intensities",
    "prepare_case",
    "prepare_volume",
]

logger = logging.getLogger(__name__)

BYTES_PER_VOXEL = 5  # float32 image, uint8 classes
MEMORY_LIMIT_BYTES = 2 * 2**30


class PreparedCases(Sequence[PreparedCase]):
    """Prepared cases, each made when it is first asked for.

    They are kept in memory when all of them fit, and otherwise in memory-mapped files of the
    cache folder, from where a later run takes them too; a changed file or setting makes them new.
    Nothing is written to the folder of the dataset.
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
        size = len(self.cases) * prod(space.spatial_shape) * BYTES_PER_VOXEL
        self.fits_in_memory = size <= memory_limit_bytes
        self._prepared: dict[int, PreparedCase] = {}

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
            self._prepared[places] = self._make(self.cases[places])
        return self._prepared[places]

    def prepare_all(self) -> None:
        """Prepare every case now, so that worker processes share them and bad cases show early.

        Raises:
            DataError: As `prepare_case`, for the first case that cannot be prepared.
        """
        for place in range(len(self)):
            self[place]

    def _make(self, case: Case) -> PreparedCase:
        if self.fits_in_memory:
            return prepare_case(case, self.space)
        with naming(case.id):
            key = entry_key(case, self.space)
            stored = load_entry(self.cache_dir, key, self.space)
            if stored is None:
                logger.info("preparing %s into %s", case.id, self.cache_dir)
                store_entry(self.cache_dir, key, prepare_case(case, self.space))
                stored = load_entry(self.cache_dir, key, self.space)
            # A disk that gives back other bytes than it took is passed by.
            return stored or prepare_case(case, self.space)
