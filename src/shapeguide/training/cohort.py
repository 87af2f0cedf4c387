"""What both stages share before they start: held-out cases, the working space, the device."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from shapeguide.data.dataset import Dataset
from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.data.working_space import WorkingSpace, choose_working_space
from shapeguide.errors import ConfigError
from shapeguide.models.segmenter import divisor_of
from shapeguide.training.settings.groups import TrainSettings

SMALLEST_TRAINING_SET = 10


@dataclass(frozen=True)
class Preparation:
    """Cases to train on, cases held out of them, and the space both are brought to."""

    train: Dataset
    validation: Dataset | None
    space: WorkingSpace
    memory_limit_bytes: int
    cache_dir: Path | None = None

    def prepared_train(self) -> PreparedCases:
        """The training cases in the working space."""
        return self._prepared(self.train)

    def prepared_validation(self) -> PreparedCases:
        """The held-out cases in the working space; none when there are none."""
        return self._prepared(self.validation if self.validation else self.train.select([]))

    def _prepared(self, dataset: Dataset) -> PreparedCases:
        return PreparedCases(
            tuple(dataset),
            self.space,
            cache_dir=self.cache_dir,
            memory_limit_bytes=self.memory_limit_bytes,
        )


def prepare(dataset: Dataset, settings: TrainSettings) -> Preparation:
    """Hold out validation cases and choose the working space from what is left.

    Raises:
        ConfigError: If there are no cases, no structures, or more held-out cases than there are.
    """
    if len(dataset) == 0:
        raise ConfigError(f"{dataset.name}: training needs cases, found none")
    dataset.require_structures()
    unlabelled = [case.id for case in dataset if case.label_map is None]
    if unlabelled:
        raise ConfigError(
            f"{dataset.name}: {len(unlabelled)} cases have no label map, the first is "
            f"{unlabelled[0]}; choose the cases to train on by a split"
        )
    train, validation = hold_out(dataset, settings)
    space = choose_working_space(
        train,
        spacing_mm=settings.data.spacing_mm,
        spatial_shape=settings.data.spatial_shape,
        centre=settings.data.centre,
        normalisation=settings.data.normalisation,
        divisor=divisor_of(settings.segmentation.segmenter, settings.segmentation.channels),
    )
    return Preparation(train, validation, space, int(settings.data.memory_limit_gb * 1024**3))


def hold_out(dataset: Dataset, settings: TrainSettings) -> tuple[Dataset, Dataset | None]:
    """Split validation cases off the training cases; a person stays on one side.

    Without a stated number, a tenth of the cases, 1 to 8, or all scans of one person where each has
    more; none when there are fewer than ten, because then each labelled case is worth more in
    training, or when all show one person.
    """
    count = settings.segmentation.validation_cases
    if count is None:
        enough = len(dataset) >= SMALLEST_TRAINING_SET
        scans = Counter(case.person for case in dataset)
        enough = enough and len(scans) > 1
        count = max(min(8, max(1, len(dataset) // 10)), min(scans.values())) if enough else 0
    if count == 0:
        return dataset, None
    if count >= len(dataset):
        raise ConfigError(
            f"{dataset.name}: cannot hold out {count} of {len(dataset)} cases for validation; "
            "lower segmentation.validation_cases"
        )
    return dataset.split_at_random(test_count=count, seed=settings.seed)
