"""Cases of one dataset: which there are, what their labels mean, who trains and who tests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from shapeguide.data.case import Case
from shapeguide.data.description import (
    cases_of,
    labels_of,
    root_of,
    structures_of,
    with_present_tests,
)
from shapeguide.data.layouts import describe_folder, is_nnunet, read_description
from shapeguide.data.placement import check_orientation
from shapeguide.data.splits import (
    Split,
    check_split,
    fold_split,
    groups_of,
    random_split,
    read_split,
)
from shapeguide.errors import ConfigError, DataError
from shapeguide.geometry.volume import Structure, check_structures

__all__ = ["Case", "Dataset", "read_dataset"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A sequence of cases."""

    name: str
    cases: tuple[Case, ...]
    labels: Mapping[int, str]
    """Label id to name, without the background; empty when the description names none."""
    structures: tuple[Structure, ...]
    path: Path
    """The description file, or the folder that was described."""
    unlabelled: tuple[Case, ...] = ()
    """Images without label maps, which no split touches."""

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def __getitem__(self, index: int) -> Case:
        return self.cases[index]

    def with_structures(self, **named: int | str | Iterable[int | str]) -> Dataset:
        """The same cases with these structures, given by label ids or by names of labels.

        Raises:
            ConfigError: If a label is unknown, or two structures share a label id.
        """
        structures = tuple(
            Structure(name, tuple(self._label_id(name, one) for one in _each(given)))
            for name, given in named.items()
        )
        check_structures(structures)
        return replace(
            self,
            structures=structures,
            cases=_with_structures(self.cases, structures),
            unlabelled=_with_structures(self.unlabelled, structures),
        )

    def with_orientation(self, orientation: str) -> Dataset:
        """The same cases, read with this orientation whatever their headers state.

        Raises:
            ConfigError: If it is not an orientation such as "RAS".
        """
        check_orientation(orientation)
        cases = tuple(replace(case, orientation=orientation) for case in self.cases)
        unlabelled = tuple(replace(case, orientation=orientation) for case in self.unlabelled)
        return replace(self, cases=cases, unlabelled=unlabelled)

    def with_same_person(self, *groups: Iterable[str]) -> Dataset:
        """The same cases, with the case ids of each group known to show one person."""
        numbers = groups_of({case.id: case.group for case in self.cases}, groups)
        first = {number: case_id for case_id, number in sorted(numbers.items(), reverse=True)}
        cases = tuple(replace(case, group=first[numbers[case.id]]) for case in self.cases)
        return replace(self, cases=cases)

    def select(self, case_ids: Iterable[str]) -> Dataset:
        """The cases with these ids, in this order.

        Raises:
            DataError: If an id is unknown.
        """
        by_id = {case.id: case for case in self.cases}
        chosen = list(case_ids)
        unknown = [case_id for case_id in chosen if case_id not in by_id]
        if unknown:
            raise DataError(f"{self.name}: there are no cases {', '.join(unknown[:5])}")
        return replace(self, cases=tuple(by_id[case_id] for case_id in chosen))

    def split(self, name: str | PathLike[str], *, fold: int = 0) -> tuple[Dataset, Dataset]:
        """Training and test cases of a named split.

        Args:
            name: "fold_0" to "fold_4" of the five folds with seed 0, or a split file; a relative
                path that is not found starts from the folder of the dataset.
            fold: Which split of a file that holds a list of them.

        Raises:
            DataError: If the file is missing or unusable, or one person is on both sides.
            ConfigError: If there is no such fold.
        """
        named = re.fullmatch(r"fold_(\d+)", str(name))
        if named and not Path(name).exists():
            return self.fold(int(named.group(1)))
        path = Path(name)
        if not path.exists():
            folder = self.path if self.path.is_dir() else self.path.parent
            path = folder / path
        if not path.is_file():
            raise DataError(f'{name}: neither a split file nor a fold such as "fold_0"')
        split = read_split(path, fold=fold)
        return self._apart(split, str(name))

    def split_at_random(
        self,
        *,
        test_count: int | None = None,
        test_fraction: float | None = None,
        seed: int = 0,
    ) -> tuple[Dataset, Dataset]:
        """Training and test cases drawn at random; the same for the same seed and case ids.

        Args:
            test_count: How many cases to test on, at most.
            test_fraction: Or which share of them, in (0, 1).
            seed: Seed of the draw.

        Raises:
            ConfigError: If not exactly one of count and fraction is given, or it is out of range.
            DataError: If there are too few people.
        """
        if (test_count is None) == (test_fraction is None):
            raise ConfigError("a random split needs either test_count or test_fraction")
        if test_fraction is not None:
            if not 0 < test_fraction < 1:
                raise ConfigError(f"test_fraction lies between 0 and 1, found {test_fraction}")
            test_count = max(1, round(test_fraction * len(self)))
        groups = self._groups()
        split = random_split(groups, test_count=test_count or 0, seed=seed)
        return self._apart(split, f"random split with seed {seed}")

    def fold(self, index: int, *, count: int = 5, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Training and test cases of one of `count` folds of about equal size.

        Raises:
            ConfigError: If there is no such fold.
            DataError: If there are fewer people than folds.
        """
        split = fold_split(self._groups(), index=index, count=count, seed=seed)
        return self._apart(split, f"fold {index}")

    def _groups(self) -> dict[str, int]:
        return groups_of({case.id: case.group for case in self.cases})

    def _apart(self, split: Split, name: str) -> tuple[Dataset, Dataset]:
        known = self.with_same_person(*split.same_person) if split.same_person else self
        check_split(split, known._groups(), f"{self.name}, {name}")
        return known.select(split.train), known.select(split.test)

    def _label_id(self, structure: str, given: int | str) -> int:
        known = ", ".join(f"{label_id} {name}" for label_id, name in list(self.labels.items())[:20])
        if isinstance(given, str):
            for label_id, name in self.labels.items():
                if name == given:
                    return label_id
        elif given in self.labels or not self.labels:
            return given
        raise ConfigError(f"structure {structure}: unknown label {given!r}; known labels: {known}")


def read_dataset(
    path: str | PathLike[str], *, allow_outside: bool = False, orientation: str | None = None
) -> Dataset:
    """Read a dataset description, or describe a folder in a known layout on the fly.

    Without structures in the description, every label it names is one.

    Args:
        path: A `dataset.json` of the Decathlon or nnU-Net v2, one that `describe` wrote, or a
            folder.
        allow_outside: Let the description name files outside its folder (or the root it states).
        orientation: Directions of the voxel axes such as "RAS" for all cases, see
            `Dataset.with_orientation`.

    Raises:
        DataError: If the description or a file is missing or unusable, a path leaves the folder,
            or case ids repeat.
        ConfigError: If structures or orientations in it contradict each other.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if not path.exists():
        raise DataError(f"{path}: there is no such dataset description or folder")
    description = describe_folder(path) if path.is_dir() else read_description(path)
    if is_nnunet(description):
        description = describe_folder(folder)
    root = root_of(description, folder)
    labels = labels_of(description)
    structures = structures_of(description, labels)
    cases = cases_of(description, "training", root, allow_outside=allow_outside)
    if not cases:
        raise DataError(f'{path}: "training" of the description lists no cases')
    present = with_present_tests(description, root)
    unlabelled = cases_of(present, "test", root, allow_outside=allow_outside)
    named_ids = frozenset(labels)
    dataset = Dataset(
        name=str(description.get("name", folder.resolve().name)),
        cases=tuple(replace(case, named_ids=named_ids) for case in cases),
        labels=labels,
        structures=structures,
        path=path,
        unlabelled=unlabelled,
    )
    dataset = replace(dataset, cases=_with_structures(dataset.cases, structures))
    return dataset if orientation is None else dataset.with_orientation(orientation)


def check_apart(train: Dataset, test: Dataset) -> None:
    """Refuse to test on people that are trained on.

    Raises:
        ConfigError: If a person has cases on both sides.
    """
    trained = {case.person: case.id for case in train}
    both = [(trained[case.person], case.id) for case in test if case.person in trained]
    if both:
        shown = ", ".join(one if one == other else f"{one} = {other}" for one, other in both[:5])
        raise ConfigError(
            f"{train.name}: {len(both)} test cases show people that are trained on: {shown}; "
            "choose the test cases by a split"
        )


def _with_structures(
    cases: tuple[Case, ...], structures: tuple[Structure, ...]
) -> tuple[Case, ...]:
    return tuple(replace(case, structures=structures) for case in cases)


def _each(given: int | str | Iterable[int | str]) -> Iterable[int | str]:
    return (given,) if isinstance(given, int | str) else given
