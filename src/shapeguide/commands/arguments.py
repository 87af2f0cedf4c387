"""What the commands share: how structures, test cases and settings stand on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import UseAppendAction, arg

import shapeguide as sg
from shapeguide.errors import ConfigError, DataError
from shapeguide.vocabulary import STATED

if TYPE_CHECKING:
    from shapeguide.data.dataset import Dataset

Structures = Annotated[
    UseAppendAction[tuple[tuple[str, ...], ...]],
    arg(name="structure", metavar="NAME=IDS"),
]
ImagePatterns = Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="PATTERN")]
OptionalPath = Annotated[Path | None, arg(metavar="PATH")]


@dataclass(frozen=True)
class CaseChoice:
    """Which cases of a dataset are for training and which for testing, and how they are read."""

    split: Annotated[str | None, arg(metavar="FILE|NAME")] = None
    """Test on the test cases of this split file, or of fold_0 to fold_4. Where a dataset states a
    split itself, that one is taken unless another way is chosen."""
    fold: Annotated[int | None, arg(metavar="INT")] = None
    """Test on this fold, from 0, train on the others."""
    folds: int = 5
    """How many folds there are."""
    test_count: Annotated[int | None, arg(metavar="INT")] = None
    """Test on so many cases drawn at random."""
    split_seed: int = 0
    """Seed of the folds and of the random draw."""
    images: ImagePatterns = ()
    """Which files of a folder are images, such as 'T1_*.nii.gz'. Without stars: T2w in BIDS,
    norm.mgz of FreeSurfer, T1.nii.gz in one folder per person. Several are the channels of one
    image."""
    labels: Annotated[str | None, arg(metavar="PATTERN")] = None
    """Which are label maps, such as '*_seg.nii.gz': the stars stand for what they stand for in an
    image. Without stars: desc-manual in BIDS, or file names."""
    orientation: Annotated[str | None, arg(metavar="RAS")] = None
    """Directions of the voxel axes, for files that state none, such as Analyze."""
    allow_outside: bool = False
    """Let a description name files outside its folder."""

    @property
    def chooses_files(self) -> bool:
        """Whether images or label maps are chosen, so that a folder is a dataset."""
        return bool(self.images) or self.labels is not None

    @property
    def chooses(self) -> bool:
        """Whether test cases are chosen at all."""
        return any(value is not None for value in (self.split, self.fold, self.test_count))

    def read(self, path: Path) -> tuple[Dataset, Dataset | None]:
        """Training cases and test cases.

        Where nothing was chosen: those of the split that the dataset states, or all cases and None.

        Raises:
            ConfigError: If more than one way to choose is given.
        """
        given = {"--split": self.split, "--fold": self.fold, "--test-count": self.test_count}
        named = [name for name, value in given.items() if value is not None]
        if len(named) > 1:
            raise ConfigError(f"{' and '.join(named)} each choose the test cases; give one of them")
        dataset = sg.read_dataset(
            path,
            images=self.images,
            labels=self.labels,
            allow_outside=self.allow_outside,
            orientation=self.orientation,
        )
        if self.split is not None:
            return dataset.split(self.split)
        if self.fold is not None:
            return dataset.fold(self.fold, count=self.folds, seed=self.split_seed)
        if self.test_count is not None:
            return dataset.split_at_random(test_count=self.test_count, seed=self.split_seed)
        return dataset.split(STATED) if dataset.states_split else (dataset, None)

    def read_test(self, path: Path) -> Dataset:
        """The test cases, or all cases when nothing was chosen."""
        everything, test = self.read(path)
        return everything if test is None else test


def parse_structures(words: Sequence[Sequence[str]]) -> dict[str, tuple[int, ...]]:
    """Structures as the command line gives them: `hippocampus=1,2` is one with two label ids.

    Raises:
        ConfigError: If a word does not read like that, or a name comes twice.
    """
    structures: dict[str, tuple[int, ...]] = {}
    for word in (word for given in words for word in given):
        name, _, ids = word.partition("=")
        try:
            label_ids = tuple(int(label_id) for label_id in ids.split(","))
        except ValueError:
            raise ConfigError(
                f"--structure {word}: expected a name and label ids, such as hippocampus=1,2"
            ) from None
        if name in structures:
            raise ConfigError(f"--structure {word}: {name} was given before; list its ids together")
        structures[name] = sg.Structure(name, label_ids).label_ids
    return structures


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse to write to a path that is there, unless told to.

    Raises:
        ConfigError: If it is there and must stay.
    """
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} is there already; choose another path or add --overwrite")


def refuse_missing(*paths: Path | None) -> None:
    """Refuse paths that lead nowhere; None is passed over.

    Raises:
        DataError: If one does.
    """
    for path in paths:
        if path is not None and not path.exists():
            raise DataError(f"{path}: there is no such file or folder; correct the path")
