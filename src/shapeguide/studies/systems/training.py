"""The networks of a study of systems: segmenters, what guides them and what restores them.

A guide or a restorer is trained once for all conditions of a regime and seed that share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shapeguide.data.dataset import Dataset
from shapeguide.errors import ConfigError
from shapeguide.inference.usual import calibrated
from shapeguide.machine import choose_device
from shapeguide.models.autoencoder_model import AutoencoderModel
from shapeguide.models.model_files import MODEL_FILE
from shapeguide.models.restoration import Restorer
from shapeguide.models.restorer_model import RESTORER_FOLDER, RestorerModel
from shapeguide.models.segmenter import Segmenter
from shapeguide.models.shape_model import SHAPE_FOLDER
from shapeguide.storage.identity import FolderKind, claim
from shapeguide.studies.scores import RESTORED, RESTORED_ALL_MAPS, RESTORED_BY_SRN
from shapeguide.studies.study import StudyFiles, stopwatch
from shapeguide.studies.systems.design import ALL, Condition, SystemsDesign, case_count
from shapeguide.studies.systems.systems import (
    GUIDED_ALL_MAPS,
    OTHERS,
    PLAIN,
    SRN,
    SRN_ALL_MAPS,
    SYSTEMS,
    System,
)
from shapeguide.training.guides import Guide, guided_by
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.guidance import ShapeGuidance
from shapeguide.training.stages.autoencoder import train_autoencoder
from shapeguide.training.stages.restorer import train_restorer
from shapeguide.training.stages.segmentation import train_segmenter
from shapeguide.training.stages.shape import train_shape
from shapeguide.vocabulary import WeightsName
from shapeguide.workflows.each_structure import is_for_each, train_each

SYSTEM = FolderKind("system", "system.json", identity=("name", "guidance"))
"""The folder of a condition, which notes what its system was when it was trained."""


@dataclass(frozen=True)
class SystemsFiles(StudyFiles):
    """Where everything of a study of systems lies."""

    def condition(self, condition: Condition) -> Path:
        """Folder of one condition."""
        seed = f"seed{condition.seed}"
        return self.folder / "cells" / condition.regime / seed / condition.system.name

    def run(self, condition: Condition) -> Path:
        """Run folder of the segmenter of a condition."""
        return self.condition(condition) / "run"

    def scores(self, condition: Condition) -> Path:
        """Scores of a condition, written whole at its end."""
        return self.condition(condition) / "scores.csv"

    def predictions(self, condition: Condition) -> Path:
        """Label maps of a condition, where they are kept."""
        return self.condition(condition) / "predictions"

    def guide(self, key: GuideKey) -> Path:
        """Folder of a guide: its run and its seconds."""
        return self.folder / "guides" / key.regime / f"seed{key.seed}" / key.name


@dataclass(frozen=True)
class SystemsStudy:
    """What every cell of the study refers to; it travels to other processes."""

    files: SystemsFiles
    train: Dataset
    test: Dataset
    settings: TrainSettings
    """Those of every training, apart from what the condition decides on."""
    design: SystemsDesign
    keep_predictions: bool = False

    def cases(self, condition: Condition) -> Dataset:
        """The labelled training cases of a condition."""
        return training_cases(self.train, condition.regime, condition.seed)

    def takes_over(self, condition: Condition) -> bool:
        """Whether it takes over Dice iterations of the unguided segmenter: there may be none."""
        settings = condition.system.settings(self.settings, condition.seed)
        return condition.system.branches and settings.segmentation.suited().dice_iterations > 0

    def is_trained(self, what: Condition | GuideKey) -> bool:
        """Whether a segmenter, a guide or a restorer is there."""
        if isinstance(what, GuideKey):
            return (self.files.guide(what) / "run" / MODEL_FILE).is_file()
        return (self.files.run(what) / MODEL_FILE).is_file()


def training_cases(train: Dataset, regime: str, seed: int) -> Dataset:
    """The labelled training cases of a regime: the same ones for all systems of a seed.

    Fewer cases are among the more: those of few3 are the first of those of few5. They show
    different people as long as there are any.

    Raises:
        ConfigError: If there are too few.
    """
    count = case_count(regime)
    if count is None:
        return train
    if count > len(train):
        raise ConfigError(
            f"{train.name}: regime {regime} needs {count} labelled training cases, "
            f"found {len(train)}; leave it out or give more cases"
        )
    order = np.random.default_rng([seed, len(train)]).permutation(len(train))
    drawn = [train[int(place)] for place in order]
    first = {case.person: case for case in reversed(drawn)}
    # Further scans of somebody come after everybody's first, each in the order drawn.
    drawn.sort(key=lambda case: first[case.person] is not case)
    return train.select(case.id for case in drawn[:count])


@dataclass(frozen=True)
class GuideKey:
    """Which guide or restorer it is."""

    regime: str
    """Whose label maps it is trained on."""
    seed: int
    name: str
    system: System
    """One of the systems that share it."""

    @property
    def text(self) -> str:
        """For messages."""
        return f"{self.regime}/{self.seed}/{self.name}"


def guide_key(condition: Condition) -> GuideKey | None:
    """The guide of a condition; None where nothing is trained for its guidance."""
    name = condition.system.guide
    if name is None:
        return None
    regime = ALL if condition.system.label_maps == "all" else condition.regime
    return GuideKey(regime, condition.seed, name, condition.system)


def restorer_key(regime: str, seed: int) -> GuideKey:
    """The shape restorer that is trained on the label maps of a regime."""
    return GuideKey(regime, seed, RESTORER_FOLDER, SYSTEMS[PLAIN])


def unguided_of(condition: Condition) -> Condition:
    """The same segmenter of the same regime and seed, without guidance."""
    system = (SYSTEMS | OTHERS)[condition.system.unguided]
    return Condition(condition.regime, condition.seed, system)


def restorers(study: SystemsStudy, condition: Condition) -> dict[str, GuideKey]:
    """What restores the predictions of a condition, by the name of the post-processing."""
    return {**_shape_restorers(study, condition), **_srn_restorers(study, condition)}


def _shape_restorers(study: SystemsStudy, condition: Condition) -> dict[str, GuideKey]:
    """Restorers of the label maps of its regime; of all cases where its guide has seen them.

    Segmenters that shape guides or nothing are restored, and the plain one by either, so that it
    stands beside both.
    """
    settings = condition.system.settings(study.settings, condition.seed)
    if not study.design.restores or settings.restorer.iterations == 0:
        return {}
    everything = restorer_key(ALL, condition.seed)
    if condition.system.name == GUIDED_ALL_MAPS:
        return {RESTORED: everything}
    if settings.guide is not None and not isinstance(settings.guide, ShapeGuidance):
        return {}
    own = {RESTORED: restorer_key(condition.regime, condition.seed)}
    if condition.system.name == PLAIN and condition.regime != ALL:
        return {**own, RESTORED_ALL_MAPS: everything}
    return own


def _srn_restorers(study: SystemsStudy, condition: Condition) -> dict[str, GuideKey]:
    """SRN's own autoencoder on SRN, as its paper has it, and on the plain segmenter."""
    trained = any(system.name == SRN for system in study.design.systems)
    key = None
    if condition.system.name == SRN_ALL_MAPS:
        key = guide_key(condition)
    elif trained and condition.system.name in (PLAIN, SRN):
        key = guide_key(Condition(condition.regime, condition.seed, SYSTEMS[SRN]))
    return {} if key is None else {RESTORED_BY_SRN: key}


def train_guide(study: SystemsStudy, key: GuideKey) -> None:
    """Train a guide or a restorer.

    Raises:
        ShapeguideError: As the training does.
    """
    with stopwatch(study.files.guide(key), "train"):
        trained(study, key)


def train_condition(study: SystemsStudy, condition: Condition) -> None:
    """Train the segmenter of a condition; what it branches from and its guide must be there.

    Raises:
        ShapeguideError: As the training does.
    """
    files = study.files
    claim(files.condition(condition), SYSTEM, condition.system.described())
    source = files.run(unguided_of(condition)) if study.takes_over(condition) else None
    settings = condition.system.settings(study.settings, condition.seed)
    cases, run = study.cases(condition), files.run(condition)
    with stopwatch(files.condition(condition), "train"):
        if condition.system.separate:
            _train_separate(cases, run, settings, source)
            return
        key = guide_key(condition)
        guide = None if key is None else load_guide(study, key)
        _check_guidance(condition, guide, settings)
        train_segmenter(
            cases, guide, run_dir=run, settings=settings, branch_from=source, progress=False
        )


def _train_separate(
    cases: Dataset, run: Path, settings: TrainSettings, source: Path | None
) -> None:
    """A segmenter for each structure, and before each what guides it."""

    def train_one(alone: Dataset, folder: Path, settings: TrainSettings) -> None:
        """Train one structure in its own folder, from the same one of the baseline if any."""
        guide = None
        if isinstance(settings.guide, ShapeGuidance):
            guide = train_shape(
                alone, run_dir=folder / SHAPE_FOLDER, settings=settings, progress=False
            )
        before = None if source is None else source / folder.relative_to(run)
        train_segmenter(
            alone, guide, run_dir=folder, settings=settings, branch_from=before, progress=False
        )

    if is_for_each(cases, settings):
        train_each(cases, run, settings, train_one)
    else:
        train_one(cases, run, settings)


def _check_guidance(condition: Condition, guide: Guide | None, settings: TrainSettings) -> None:
    """A row of the table never says more than what was trained."""
    found = guided_by(guide, settings).guidance
    if found != condition.system.guidance:
        raise ConfigError(
            f"{condition.name}: would be trained with guidance {found!r}, expected "
            f"{condition.system.guidance!r}; leave this system out"
        )


def trained(study: SystemsStudy, key: GuideKey) -> Guide | RestorerModel:
    """A guide or a restorer; one that is not there is trained first."""
    run_dir = study.files.guide(key) / "run"
    cases = training_cases(study.train, key.regime, key.seed)
    settings = key.system.guide_settings(study.settings, key.seed)
    if key.name == RESTORER_FOLDER:
        return train_restorer(cases, run_dir=run_dir, settings=settings, progress=False)
    train = train_shape if isinstance(settings.guide, ShapeGuidance) else train_autoencoder
    return train(cases, run_dir=run_dir, settings=settings, progress=False)


def load_guide(study: SystemsStudy, key: GuideKey) -> Guide:
    """A trained guide; one that is not there is trained first.

    Raises:
        ConfigError: If it is a restorer, which guides nothing.
    """
    model = trained(study, key)
    if isinstance(model, RestorerModel):
        raise ConfigError(f"{key.text} restores predictions and guides no segmenter; name a guide")
    return model


def restoration(
    study: SystemsStudy,
    key: GuideKey,
    condition: Condition,
    segmenters: Mapping[WeightsName, Segmenter],
) -> Mapping[WeightsName, Restorer]:
    """How a shape restorer or SRN's autoencoder restores the predictions of a condition.

    Args:
        study: Whose guides they are.
        key: A restorer, or a guide of SRN.
        condition: Whose predictions are restored.
        segmenters: Those of the condition, by their weights.

    Returns:
        One for each segmenter: what is usual for it, its restorer leaves alone.

    Raises:
        ConfigError: If the guide is neither.
    """
    model = trained(study, key)
    model.network.to(choose_device(study.settings.machine.device))
    if isinstance(model, RestorerModel):
        share = study.settings.restorer.usual_share
        return calibrated(model, segmenters, study.cases(condition), share=share)
    if isinstance(model, AutoencoderModel):
        return dict.fromkeys(segmenters, model)
    raise ConfigError(f"{key.text} restores no prediction; name a restorer or a guide of SRN")
