"""The cases of a training, prepared once and handed to every stage."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapeguide.data.case import Case
from shapeguide.data.dataset import Dataset, check_occurring
from shapeguide.data.prepared_cases import JoinedLabelMaps, LabelMapSource, PreparedCases
from shapeguide.data.regions import Places, Regions
from shapeguide.data.working_space import WorkingSpace, choose_working_space
from shapeguide.errors import CheckpointError, ConfigError
from shapeguide.geometry.volume import Structure
from shapeguide.models.finder_model import Finder
from shapeguide.models.memory import check_window
from shapeguide.models.segmenter import divisor_of
from shapeguide.storage.digest import file_digest
from shapeguide.storage.identity import differences_in_words
from shapeguide.storage.names import few
from shapeguide.training.placing import (
    PatchPlaces,
    RegionPlaces,
    RegionPlan,
    by_label_map,
    described,
    is_fixed,
    patches_of,
    plan_regions,
)
from shapeguide.training.settings.groups import TrainSettings

logger = logging.getLogger(__name__)

SMALLEST_TRAINING_SET = 10
LARGEST_ERROR_MM = 20.0
"""A finder that is further off finds nothing that one could rely on."""


@dataclass(frozen=True, eq=False)
class Cohort:
    """Cases to train on and cases held out of them, in the space that both are brought to.

    A file is read when a stage first asks for it, and then kept: stages that share a cohort read
    nothing twice, and those that see label maps alone read no images.
    """

    train: Dataset
    validation: Dataset | None
    space: WorkingSpace
    train_cases: PreparedCases
    validation_cases: PreparedCases
    """Empty without validation cases."""
    pool_cases: PreparedCases
    """Label maps without images, each with its structures in the middle."""
    decided_by: Mapping[str, Any]
    """The settings that it depends on."""
    plan: RegionPlan | None = None
    """What regions are chosen from; None where scans are worked on whole."""
    regions: Regions | None = None
    """Where they are, what is segmented; a finder finds them first."""
    finder: Finder | None = None
    """What finds them, once it is trained."""

    @property
    def structures(self) -> tuple[Structure, ...]:
        """What is segmented, in the order of the class indices, which start from 1."""
        return self.train.structures

    @property
    def names(self) -> list[str]:
        """Names of the structures."""
        return [structure.name for structure in self.structures]

    @property
    def classes(self) -> int:
        """Number of structures and the background."""
        return 1 + len(self.structures)

    @property
    def shapes(self) -> LabelMapSource:
        """The label maps that shapes are learned of: training cases, and those without images."""
        return JoinedLabelMaps((self.train_cases, self.pool_cases))

    @property
    def held_out(self) -> bool:
        """Whether there are validation cases."""
        return self.validation is not None

    @property
    def in_patches(self) -> bool:
        """Whether what is seen at once shows structures in part."""
        if self.regions is not None:
            return self.space.spatial_shape != self.regions.spatial_shape
        return isinstance(self.train_cases.places, PatchPlaces)

    def found_by(self, finder: Finder) -> Cohort:
        """The same cases with regions as large as this finder needs them.

        Those of held-out cases lie where it finds them, as in a user's scans.

        Raises:
            ConfigError: If there are no regions to be found, or the finder is too far off.
        """
        if self.plan is None:
            raise ConfigError(
                f"the cases of {self.train.name} are worked on whole: nothing is found"
            )
        if finder.error_mm > LARGEST_ERROR_MM:
            raise ConfigError(
                f"{self.train.name}: the finder is up to {finder.error_mm:.0f} mm off, and regions "
                f"are laid up to {LARGEST_ERROR_MM:g} mm off; train it longer "
                "(finder.iterations) or on more cases, look at the cases that its log names, or "
                "work on whole scans (data.region none)"
            )
        margin_mm = max(self.plan.settings.region_margin_mm, finder.error_mm)
        regions, space = self.plan.laid(margin_mm)
        if margin_mm > self.plan.settings.region_margin_mm:
            logger.warning(
                "the finder is up to %.1f mm off, so regions become larger: %s",
                finder.error_mm, described(regions, space),
            )  # fmt: skip
        limit = self.plan.settings.memory_limit_bytes
        return replace(
            self,
            space=space,
            regions=regions,
            finder=finder,
            train_cases=PreparedCases(
                self.train,
                space,
                memory_limit_bytes=limit,
                places=self.plan.true_places(regions, space),
            ),
            validation_cases=PreparedCases(
                self.validation or (),
                space,
                memory_limit_bytes=limit,
                places=self.plan.found_places(regions, space, finder),
            ),
            pool_cases=_prepared_pool(self.pool_cases.cases, space, limit, regions),
        )

    def in_space(self, space: WorkingSpace, *, memory_limit_bytes: int) -> Cohort:
        """The same cases, the same of them held out, in another space; nothing is read yet."""
        return replace(
            self,
            space=space,
            plan=None,
            regions=None,
            finder=None,
            train_cases=PreparedCases(self.train, space, memory_limit_bytes=memory_limit_bytes),
            validation_cases=PreparedCases(
                self.validation or (), space, memory_limit_bytes=memory_limit_bytes
            ),
            pool_cases=_prepared_pool(self.pool_cases.cases, space, memory_limit_bytes),
        )

    def whole_image(self, case: Case) -> NDArray[np.float32]:
        """The image of one of the cases, whole, as prediction sees it; see `PreparedCases`."""
        held_out = case in self.validation_cases.cases
        return (self.validation_cases if held_out else self.train_cases).whole_image(case)

    def check_structures_occur(self) -> None:
        """Refuse structures that nobody has: all label maps are read, and kept as usual.

        Raises:
            ConfigError: If a structure occurs neither in the training cases nor in those held out.
            DataError: If a case cannot be prepared.
        """
        present = _occurring(self.train_cases, self.classes)
        if not present.all():
            present |= _occurring(self.validation_cases, self.classes)
        check_occurring(
            self.train,
            [item for item, found in zip(self.structures, present[1:], strict=True) if not found],
        )

    @property
    def measured_cases(self) -> PreparedCases:
        """Cases on which a trained model is measured: held-out ones if any, else those it saw."""
        return self.validation_cases if self.held_out else self.train_cases


def cohort_of(data: Dataset | Cohort, settings: TrainSettings) -> Cohort:
    """A cohort of these settings: the one that is given, or a new one of a dataset.

    Validation cases are held out, and the working space is chosen from what is left: regions of
    whole scans, or scans as a whole.

    Raises:
        ConfigError: If there are no cases, no structures, or more held-out cases than there are,
            or a given cohort was made by other settings, or the trained segmenter would take too
            much memory for one window.
    """
    decisive = _decisive(settings)
    if isinstance(data, Cohort):
        differences = differences_in_words(data.decided_by, decisive)
        if differences:
            raise ConfigError(
                f"the cohort of {data.train.name} was made by other settings: "
                f"{'; '.join(differences)}; give the dataset, or the settings it was made by"
            )
        return data
    _check_labelled(data)
    segmentation = settings.segmentation
    train, validation = hold_out(data, settings)
    divisor = divisor_of(segmentation.suited().segmenter, segmentation.channels)
    space = choose_working_space(
        train,
        spacing_mm=settings.data.spacing_mm,
        spatial_shape=settings.data.spatial_shape,
        largest_shape=settings.data.largest_shape,
        centre=settings.data.centre,
        normalisation=settings.data.normalisation,
        divisor=divisor,
    )
    places: Places | None = None
    others: Places | None = None
    regions = None
    plan = plan_regions(train, settings.data, whole=space, divisor=divisor)
    if plan is not None:
        regions, space = plan.laid(settings.data.region_margin_mm)
        places, others = plan.true_places(regions, space), RegionPlaces(regions, by_label_map)
    elif settings.data.region != "none" and not is_fixed(settings.data):
        patches = patches_of(space, divisor)
        if patches is not None:
            space, places = patches
            others = PatchPlaces(off=(0, 0, 0), room=places.off)
    limit = settings.data.memory_limit_bytes
    check_network_size(segmentation.channels, 1 + len(data.structures), space.spatial_shape)
    return Cohort(
        train,
        validation,
        space,
        train_cases=PreparedCases(train, space, memory_limit_bytes=limit, places=places),
        validation_cases=PreparedCases(
            validation or (), space, memory_limit_bytes=limit, places=others
        ),
        pool_cases=_prepared_pool(_pool_apart(train.pool, data), space, limit, regions),
        decided_by=decisive,
        plan=plan,
        regions=regions,
    )


def _prepared_pool(
    pool: Sequence[Case],
    space: WorkingSpace,
    memory_limit_bytes: int,
    regions: Regions | None = None,
) -> PreparedCases:
    """Label maps around their structures: what else they hold may be as large as it likes."""
    return PreparedCases(
        pool,
        replace(space, centre="structure"),
        memory_limit_bytes=memory_limit_bytes,
        places=None if regions is None else RegionPlaces(regions, by_label_map),
    )


def _pool_apart(pool: Sequence[Case], cases: Iterable[Case]) -> list[Case]:
    """A pool without the label maps that the cases have themselves."""
    if not pool:
        return []
    known = {_content(case) for case in cases}
    apart = [case for case in pool if _content(case) not in known]
    if len(apart) < len(pool):
        count = len(pool) - len(apart)
        logger.info("%d label maps of the pool are those of training cases; left out", count)
    return apart


def check_pool_apart(pool: Sequence[Case], test: Iterable[Case]) -> None:
    """Refuse to learn shapes from the references that are tested on.

    Raises:
        ConfigError: If a label map of the pool is that of a test case.
        DataError: If a file cannot be read.
    """
    tested = {_content(case): case.id for case in test} if pool else {}
    both = [tested[content] for case in pool if (content := _content(case)) in tested]
    if both:
        raise ConfigError(
            f"{len(both)} label maps of the pool are those of test cases: {few(both)}; take them "
            "out of the pool"
        )


def _content(case: Case) -> str:
    """What the label map of a case holds."""
    return "" if case.label_map is None else file_digest(case.label_map)


def check_network_size(
    channels: Sequence[int], classes: int, spatial_shape: tuple[int, int, int]
) -> None:
    """Refuse to train what would be too large to be loaded again, see `check_window`.

    Raises:
        ConfigError: If it takes too much memory for one window.
    """
    try:
        check_window(channels, classes, spatial_shape)
    except CheckpointError as error:
        raise ConfigError(str(error)) from error


def hold_out(dataset: Dataset, settings: TrainSettings) -> tuple[Dataset, Dataset | None]:
    """Split validation cases off the training cases; a person stays on one side.

    Without a stated number, a tenth of the cases, 1 to 8, or all scans of one person where each has
    more; none when there are fewer than ten, because then each labelled case is worth more in
    training, or when all show one person.

    Raises:
        ConfigError: If no case would be left to train on.
    """
    count = settings.segmentation.validation_cases
    if count is None:
        scans = Counter(case.person for case in dataset)
        enough = len(dataset) >= SMALLEST_TRAINING_SET and len(scans) > 1
        count = max(min(8, max(1, len(dataset) // 10)), min(scans.values())) if enough else 0
    if count == 0:
        return dataset, None
    if count >= len(dataset):
        raise ConfigError(
            f"{dataset.name}: cannot hold out {count} of {len(dataset)} cases for validation; "
            "lower segmentation.validation_cases"
        )
    return dataset.split_at_random(test_count=count, seed=settings.seed)


def _occurring(cases: PreparedCases, classes: int) -> NDArray[np.bool_]:
    """Which class indices occur in any of the cases, shape (classes,)."""
    found = np.zeros(classes, dtype=np.bool_)
    for case in cases.label_maps():
        found |= np.bincount(case.classes.ravel(), minlength=classes) > 0
        if found.all():
            break
    return found


def _decisive(settings: TrainSettings) -> dict[str, Any]:
    """The settings that held-out cases and working space depend on."""
    segmentation = settings.segmentation
    return {
        "seed": settings.seed,
        "data": settings.data.model_dump(mode="json"),
        "segmentation": {
            "segmenter": segmentation.segmenter,
            "channels": list(segmentation.channels),
            "validation_cases": segmentation.validation_cases,
        },
    }


def _check_labelled(dataset: Dataset) -> None:
    if len(dataset) == 0 or not dataset.structures:
        raise ConfigError(
            f"{dataset.name}: training needs cases and structures, "
            f"found {len(dataset)} cases and {len(dataset.structures)} structures"
        )
    unlabelled = [case.id for case in dataset if case.label_map is None]
    if unlabelled:
        raise ConfigError(
            f"{dataset.name}: {len(unlabelled)} cases have no label map, the first is "
            f"{unlabelled[0]}; choose the cases to train on by a split"
        )
