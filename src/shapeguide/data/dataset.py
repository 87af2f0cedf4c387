"""Cases of one dataset: which there are, what their labels mean, who trains and who tests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count as numbers_from
from os import PathLike
from pathlib import Path
from typing import Any

from shapeguide.data.case import Case
from shapeguide.data.description import (
    OTHER_LABELS,
    SIDES,
    Side,
    cases_of,
    channels_of,
    labels_of,
    names_of,
    sides_of,
    stated_structures,
    structures_named,
    with_present_tests,
)
from shapeguide.data.file_choice import USUAL_CHANNEL, FileChoice, as_texts, unnamed_channels
from shapeguide.data.label_ids import listed_ids_of
from shapeguide.data.label_pool import label_maps_at
from shapeguide.data.layouts import Described, described
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
from shapeguide.geometry.nesting import apart
from shapeguide.geometry.volume import Structure, check_structures, find_structure
from shapeguide.storage.names import few
from shapeguide.vocabulary import STATED

__all__ = ["Case", "Dataset", "read_dataset"]

MOST_UNCHOSEN = 8
"""More labels than this are not taken for structures unless someone says so."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A sequence of cases."""

    name: str
    cases: tuple[Case, ...]
    labels: Mapping[int, str]
    """Label id to name, without the background; empty when the description names none."""
    structures: tuple[Structure, ...]
    """What label maps are taken apart into; they share no label id."""
    path: Path
    """The description file, or the folder that was described."""
    wholes: tuple[Structure, ...] = ()
    """Structures that are made of several of those, where some hold others."""
    unlabelled: tuple[Case, ...] = ()
    """Images without label maps, which no split touches."""
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Names of sets of label ids, which may share ids, as the description states them."""
    undecided: str = ""
    """Why someone has to choose the structures first; empty when they are chosen."""
    sides: Mapping[str, Side] = field(default_factory=dict)
    """Case id to its side of the stated split; empty when none is stated."""
    other_labels: bool = False
    """Whether label maps may hold more ids than `labels` names."""
    channels: tuple[str, ...] = (USUAL_CHANNEL,)
    """Names of the channels of every image, in their order."""
    pool: tuple[Case, ...] = ()
    """Label maps without images, of which shapes are learned and which no split touches. Where no
    case has an image, they are the cases themselves."""

    @property
    def all_structures(self) -> tuple[Structure, ...]:
        """All structures that were chosen, those that are made of others first."""
        return (*self.wholes, *self.structures)

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def __getitem__(self, index: int) -> Case:
        return self.cases[index]

    def with_structures(self, /, **named: int | str | Iterable[int | str]) -> Dataset:
        """The same cases with these structures, given by label ids or by names of labels.

        A structure may hold others, such as a hippocampus and its anterior part: see `wholes`.

        Raises:
            ConfigError: If a label is unknown, or two structures share some of their label ids.
        """
        structures = []
        for name, given in named.items():
            ids = [label_id for one in _each(given) for label_id in self._label_ids(name, one)]
            structures.append(Structure(name, tuple(ids)))
        return self._of(tuple(structures))

    def with_one_structure(self, name: str) -> Dataset:
        """The same cases with one of the structures alone, whatever its ids in the label pool.

        Raises:
            ConfigError: If none of `structures` has this name.
        """
        one = find_structure(self.structures, name)

        def alone(cases: tuple[Case, ...]) -> tuple[Case, ...]:
            return tuple(
                replace(case, structures=(find_structure(case.structures, name),)) for case in cases
            )

        return replace(
            self,
            structures=(one,),
            wholes=(),
            cases=alone(self.cases),
            unlabelled=alone(self.unlabelled),
            pool=alone(self.pool),
        )

    def with_label_pool(
        self, source: str | PathLike[str] | Dataset, /, **named: int | Iterable[int]
    ) -> Dataset:
        """The same cases, and label maps of the same structures of which shapes are learned too.

        The shape network and the shape restorer see them beside those of the training cases. They
        are never segmented or scored, and a label map that a case of the training has itself is
        left out.

        Args:
            source: A dataset whose label maps are taken; or a path: a folder that holds nothing but
                label maps, a pattern such as `maps/**/*_seg.nii.gz`, or what `read_dataset` reads.
            named: Label ids of each structure in them, where they are others than in this dataset.

        Raises:
            ConfigError: If no structures are chosen, or those that are named are others.
            DataError: If there are no label maps, or one is missing.
        """
        self.require_structures()
        ids = named or {one.name: one.label_ids for one in self.structures}
        if set(ids) != {one.name for one in self.structures}:
            raise ConfigError(
                f"{self.name}: the structures of a label pool are those of the dataset, "
                f"{few([one.name for one in self.structures])}, found {few(list(ids))}; name label "
                "ids for each of them"
            )
        given = {name: (one,) if isinstance(one, int) else tuple(one) for name, one in ids.items()}
        structures = tuple(Structure(one.name, given[one.name]) for one in self.structures)
        check_structures(structures)
        cases = source.cases if isinstance(source, Dataset) else label_maps_at(Path(source))
        taken = {case.id for case in (*self.cases, *self.pool)}
        added = []
        for case in cases:
            found = next(name for name in _names_like(case.id) if name not in taken)
            taken.add(found)
            alone = replace(case.without_image(), id=found, group=case.person)
            added.append(replace(alone, structures=structures, named_ids=frozenset()))
        return replace(self, pool=(*self.pool, *added))

    def require_images(self) -> None:
        """Refuse a dataset of which a case is a label map alone.

        Raises:
            ConfigError: If there is one.
        """
        lone = [case.id for case in self if not case.has_image]
        if lone:
            raise ConfigError(
                f"{self.name}: {len(lone)} cases have no image, the first is {lone[0]}; a shape "
                "network and a restorer learn from label maps alone, a segmenter from images too"
            )

    def require_structures(self) -> None:
        """Refuse a dataset of which nobody has said which structures it is about.

        Raises:
            ConfigError: If no case has a label map, no structure is chosen, or every label is one
                and there are many; with the label ids that are there, their names and sizes, and
                how to choose.
        """
        if not self.cases:
            raise ConfigError(
                f"{self.name}: none of the {len(self.unlabelled)} images has a label map; say by "
                "labels (--labels) where those are"
            )
        if self.structures and not self.undecided:
            return
        raise ConfigError(
            f"{self.name}: {self.undecided or 'no structures are chosen'}; choose some by name and "
            "label ids, as in --structure hippocampus=1,2 or "
            f"dataset.with_structures(hippocampus=(1, 2)); {listed_ids_of(self, self.labels)}"
        )

    def with_orientation(self, orientation: str) -> Dataset:
        """The same cases, read with this orientation whatever their headers state.

        Raises:
            ConfigError: If it is not an orientation such as "RAS".
        """
        check_orientation(orientation)
        cases = tuple(replace(case, orientation=orientation) for case in self.cases)
        unlabelled = tuple(replace(case, orientation=orientation) for case in self.unlabelled)
        pool = tuple(replace(case, orientation=orientation) for case in self.pool)
        return replace(self, cases=cases, unlabelled=unlabelled, pool=pool)

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
            raise DataError(f"{self.name}: there are no cases {few(unknown)}")
        return replace(self, cases=tuple(by_id[case_id] for case_id in chosen))

    @property
    def states_split(self) -> bool:
        """Whether the description says of each case whether it is to train or to test on."""
        return {"train", "test"} <= {self.sides.get(case.id) for case in self.cases}

    def split(self, name: str | PathLike[str], *, fold: int = 0) -> tuple[Dataset, Dataset]:
        """Training and test cases of a named split.

        Args:
            name: "stated" for what the description or the table says; "fold_0" to "fold_4" of the
                five folds with seed 0; or a split file, and a relative path that is not found
                starts from the folder of the dataset.
            fold: Which split of a file that holds a list of them.

        Raises:
            DataError: If the file is missing or unusable, or one person is on both sides.
            ConfigError: If there is no such fold.
        """
        named = re.fullmatch(r"fold_(\d+)", str(name))
        if named and not Path(name).exists():
            return self.fold(int(named.group(1)))
        if name == STATED:
            return self._stated_split()
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

    def _stated_split(self) -> tuple[Dataset, Dataset]:
        if not self.states_split:
            raise DataError(
                f'{self.name}: no split is stated; a table states one in its column "split", a '
                'description in "split" of each case, each time "train" or "test"'
            )
        ids = {side: [case.id for case in self if self.sides[case.id] == side] for side in SIDES}
        return self._apart(Split(tuple(ids["train"]), tuple(ids["test"])), "the stated split")

    def _groups(self) -> dict[str, int]:
        return groups_of({case.id: case.group for case in self.cases})

    def _apart(self, split: Split, name: str) -> tuple[Dataset, Dataset]:
        known = self.with_same_person(*split.same_person) if split.same_person else self
        check_split(split, known._groups(), f"{self.name}, {name}")
        return known.select(split.train), known.select(split.test)

    def _of(self, structures: tuple[Structure, ...], undecided: str = "") -> Dataset:
        structures, wholes = apart(structures)
        return replace(
            self,
            structures=structures,
            wholes=wholes,
            undecided=undecided,
            cases=tuple(replace(case, structures=structures) for case in self.cases),
            unlabelled=tuple(replace(case, structures=structures) for case in self.unlabelled),
            pool=tuple(replace(case, structures=structures) for case in self.pool),
        )

    def _label_ids(self, structure: str, given: int | str) -> tuple[int, ...]:
        if isinstance(given, str):
            if given in self.regions:
                return self.regions[given]
            for label_id, name in self.labels.items():
                if name == given:
                    return (label_id,)
        elif given in self.labels or not self.labels or self.other_labels:
            return (given,)
        raise ConfigError(
            f"structure {structure}: {self.name} has no label {given!r}; it has these "
            f"{listed_ids_of(self, self.labels)}"
        )


def read_dataset(
    path: str | PathLike[str],
    *,
    images: str | Iterable[str] = (),
    labels: str | None = None,
    allow_outside: bool = False,
    orientation: str | None = None,
) -> Dataset:
    """Read a dataset description or a table of cases, or describe a folder on the fly.

    Patterns choose the files of any folder: an image and a label map of `T1_*.nii.gz` and
    `*_seg.nii.gz` belong together when the stars stand for the same in both. `*` stands for part of
    a name, `**` for folders, none or several, and `{person}` for the name of a person, whose scans
    stay on one side of every split; without it those in one folder that a star stands for do.

    Without structures in the description, every label and region it names is one. Where regions
    overlap, or labels are many, somebody has to choose: see `Dataset.require_structures`.

    Args:
        path: A `dataset.json` of the Decathlon or nnU-Net v2, one that `describe` wrote, a table
            with the columns image and label (.csv or .tsv), or a folder.
        images: Which files of a folder are images: a pattern; in BIDS a suffix and entities, such
            as `T2w` or `desc-preproc_T1w`; in subjects of FreeSurfer a file of `mri/`; in one
            folder per person the name of the file. Several are channels of one image, on the
            grid of the first; `T2=*_b.nii.gz` names one.
        labels: Which files are label maps, likewise, such as `desc-manual` in BIDS. With a pattern
            of images alone, all of them are unlabelled; with one of label maps alone, the cases
            have no images, and shapes can be learned of them.
        allow_outside: Let the description name files, or a root, outside its folder.
        orientation: Directions of the voxel axes such as "RAS" for all cases, see
            `Dataset.with_orientation`.

    Raises:
        DataError: If the description or a file is missing or unusable, a path leaves the folder,
            or case ids repeat.
        ConfigError: If structures or orientations in it contradict each other, or `images` or
            `labels` do not suit it.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: there is no such dataset description or folder")
    try:
        description = described(
            path, FileChoice(as_texts(images), labels), allow_outside=allow_outside
        )
        dataset = _dataset_of(description, path, images_alone=bool(images) and labels is None)
    except (ConfigError, DataError) as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    return dataset if orientation is None else dataset.with_orientation(orientation)


def _dataset_of(description: Described, path: Path, *, images_alone: bool) -> Dataset:
    content = description.content
    labels = labels_of(content)
    names = names_of(labels)
    cases = cases_of(content, "training", description.reach)
    if not cases and not images_alone:
        raise DataError('"training" of the description lists no cases')
    present = with_present_tests(content, description.reach.folder)
    other_labels = bool(content.get(OTHER_LABELS))
    named = frozenset() if other_labels else frozenset(names)
    known = [replace(case, named_ids=named) for case in cases]
    with_images = [case for case in known if case.has_image]
    sides = sides_of(content, cases)
    lone = [case for case in known if not case.has_image and sides.get(case.id) != "test"]
    dataset = Dataset(
        name=_printable(content.get("name")) or path.resolve().name,
        cases=tuple(with_images or known),
        pool=tuple(lone if with_images else ()),
        labels=names,
        structures=(),
        path=path,
        unlabelled=cases_of(present, "test", description.reach),
        regions={label.name: label.ids for label in labels if len(label.ids) > 1},
        sides=sides,
        other_labels=other_labels,
        channels=_channel_names(content, cases),
    )
    stated = tuple(Structure(one.name, one.ids) for one in stated_structures(content))
    try:
        structures = stated or structures_named(labels)
        apart(structures)
    except ConfigError as error:
        return replace(dataset, undecided=str(error))
    undecided = ""
    if not stated and len(labels) > MOST_UNCHOSEN:
        undecided = f"it has {len(labels)} labels, too many to take each of them for a structure"
    return dataset._of(structures, undecided)


def _channel_names(content: Mapping[str, Any], cases: Sequence[Case]) -> tuple[str, ...]:
    count = max((case.channel_count for case in cases), default=1)
    return channels_of(content) or tuple(unnamed_channels(count))


def check_occurring(dataset: Dataset, absent: Sequence[Structure]) -> None:
    """Refuse structures that no case of a dataset has.

    Args:
        dataset: Labelled cases.
        absent: The structures that were looked for and not found in any of them.

    Raises:
        ConfigError: If there are any; it lists the label ids that are there.
    """
    if absent:
        raise ConfigError(
            f"{dataset.name}: no voxel of any case belongs to "
            f"{', '.join(f'{item.name} {item.label_ids}' for item in absent)}; name label ids that "
            f"are there, or leave the structure out; {listed_ids_of(dataset, dataset.labels)}"
        )


def check_apart(train: Dataset, test: Dataset) -> None:
    """Refuse to test on people that are trained on.

    Raises:
        ConfigError: If a person has cases on both sides.
    """
    trained = {case.person: case.id for case in train}
    both = [(trained[case.person], case.id) for case in test if case.person in trained]
    if both:
        shown = few([one if one == other else f"{one} = {other}" for one, other in both])
        raise ConfigError(
            f"{train.name}: {len(both)} test cases show people that are trained on: {shown}; "
            "choose the test cases by a split"
        )


def _each(given: int | str | Iterable[int | str]) -> Iterable[int | str]:
    return (given,) if isinstance(given, int | str) else given


def _names_like(name: str) -> Iterator[str]:
    """The name, and others that tell of it."""
    yield name
    yield from (f"{name}_{number}" for number in numbers_from(2))


def _printable(name: object) -> str:
    """The name of a dataset without what a terminal would not show, and not pages of it."""
    return "".join(filter(str.isprintable, name))[:200] if isinstance(name, str) else ""
