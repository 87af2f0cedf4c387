"""One setting of the study of controls: g trained as printed, and what else looks at the masks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from shapeguide.data.dataset import Dataset
from shapeguide.errors import CheckpointError
from shapeguide.machine import choose_device
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.storage.whole import write_json
from shapeguide.studies.controls.design import Observer, Setting
from shapeguide.studies.separation.measure import Separation, measure_separation
from shapeguide.studies.study import Present, StudyFiles, read_object
from shapeguide.training.cohort import Cohort, cohort_of
from shapeguide.training.engine.seeds import generator_for
from shapeguide.training.settings.groups import ShapeSettings, TrainSettings
from shapeguide.training.shape import MaskBank, mask_bank
from shapeguide.training.shape.recipes import batches_of, learner_of, step_of
from shapeguide.training.stages.shape import ShapeStage

AVERAGED_EDGE = 4
MEASURING, LYING = 102, 103
"""Keep random numbers apart from everything that training draws."""
SIDES = ("train", "test")
FIGURES = ("same", "different", "ratio", "auc", "rank1")


class Looking(ShapeNetwork):
    """No network: the signature of a mask is what its pose shows, or that averaged.

    Args:
        like: Whose structure and pose it takes.
        averaged: Average the view to 4 x 4 x 4 numbers.
    """

    def __init__(self, like: ShapeNetwork, *, averaged: bool) -> None:
        super().__init__(
            like.structures, channels=(1,), pose=like.pose, canonical_shape=like.canonical_shape
        )
        self.aligned = like.aligned
        self.averaged = averaged

    def signatures(self, views: Tensor) -> Tensor:
        """The views (B, S, I, J, K) themselves, or averaged."""
        return functional.adaptive_avg_pool3d(views, AVERAGED_EDGE) if self.averaged else views


@dataclass(frozen=True)
class ControlsFiles(StudyFiles):
    """Where everything of a study of controls lies."""

    def measured(self, setting: Setting) -> Path:
        """What was measured of a setting."""
        return self.folder / "cells" / f"{setting.folder_name}.json"


@dataclass(frozen=True)
class ControlsStudy:
    """What every cell of the study refers to; it travels to other processes."""

    files: ControlsFiles
    train: Dataset
    test: Dataset
    settings: TrainSettings
    pairs: int
    present: Present

    def cohorts(self, structure: str) -> tuple[Cohort, Cohort]:
        """Training cases and others that have a structure, with it alone, in one space."""
        train, test = (tuple(self.present[structure][side]) for side in SIDES)
        # What they hold depends on nothing that settings vary.
        settings = Setting(structure, 0).settings(self.settings)
        return _cohorts(self.train, train, self.test, test, structure, settings)


@lru_cache(maxsize=1)
def _cohorts(
    train: Dataset,
    train_ids: tuple[str, ...],
    test: Dataset,
    test_ids: tuple[str, ...],
    structure: str,
    settings: TrainSettings,
) -> tuple[Cohort, Cohort]:
    """Cases of both sides; the last ones are kept, so that their files are read once."""
    first, second = (
        cohort_of(cases.select(ids).with_one_structure(structure), settings)
        for cases, ids in ((train, train_ids), (test, test_ids))
    )
    limit = settings.data.memory_limit_bytes
    return first, second.in_space(first.space, memory_limit_bytes=limit)


def measure_setting(study: ControlsStudy, setting: Setting) -> None:
    """Train g as printed in one setting, and measure it and what stands beside it.

    Raises:
        DataError: If a case cannot be used.
    """
    settings, cohorts = setting.settings(study.settings), study.cohorts(setting.structure)
    device = choose_device(settings.machine.device)
    hard = setting.maps == "binary"
    banks = {
        side: lying_off(
            replace(mask_bank(cohort.train_cases, settings), hard=hard),
            setting.offset_mm,
            generator_for(setting.seed, LYING, SIDES.index(side)),
        ).to(device)
        for side, cohort in zip(SIDES, cohorts, strict=True)
    }
    rows = []
    for observer, network in _observers(setting, settings, cohorts[0], banks["train"]):
        for side, bank in banks.items():
            generator = generator_for(setting.seed, MEASURING, SIDES.index(side))
            found = measure_separation(network, bank, pairs=study.pairs, generator=generator)
            rows.append({"observer": observer, "people": side, **_figures(found)})
    write_json(study.files.measured(setting), {"setting": asdict(setting), "rows": rows})


def read_measured(path: Path) -> list[dict[str, Any]]:
    """Rows of a setting for the table.

    Raises:
        CheckpointError: If the file is damaged.
    """
    content = read_object(path)
    try:
        setting = asdict(Setting(**content["setting"]))
        return [{**setting, **row} for row in content["rows"]]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); delete it to measure again") from error


def lying_off(bank: MaskBank, offset_mm: float, generator: torch.Generator) -> MaskBank:
    """The same masks, each moved by whole voxels at random, as heads lie that nobody aligned.

    Args:
        bank: Masks on the whole grid.
        offset_mm: Standard deviation along each axis; a mask goes no further than the border.
        generator: Source of randomness, on the CPU.
    """
    if not offset_mm:
        return bank
    spacing = torch.tensor(bank.spacing_mm)
    wanted = torch.randn(len(bank.masks), 3, generator=generator) * offset_mm / spacing
    moved = []
    for masks, steps in zip(bank.masks, wanted.round().long(), strict=True):
        filled = masks.amax(0).nonzero()
        last = torch.tensor(masks.shape[1:]) - 1
        if len(filled):
            steps = steps.clamp(-filled.amin(0), last - filled.amax(0))
        moved.append(masks.roll(steps.tolist(), dims=(-3, -2, -1)))
    return replace(bank, masks=torch.stack(moved))


def trained_as_printed(
    network: ShapeNetwork, bank: MaskBank, settings: ShapeSettings, *, seed: int
) -> None:
    """Train a network on a bank, as the shape stage does; nothing is written."""
    learner = learner_of(network, settings, spacing_mm=bank.spacing_mm, seed=seed)
    batches = batches_of(network, settings, bank=bank, seed=seed)
    step = step_of(learner, settings)
    optimizer = torch.optim.Adam(learner.parameters(), lr=settings.learning_rate)
    for iteration in range(settings.iterations):
        terms = step(batches[iteration], iteration)
        optimizer.zero_grad(set_to_none=True)
        terms.total.backward()
        optimizer.step()


def _observers(
    setting: Setting, settings: TrainSettings, cohort: Cohort, bank: MaskBank
) -> list[tuple[Observer, ShapeNetwork]]:
    """What looks at the masks, ready to."""
    stage = ShapeStage(cohort, settings)
    device = bank.masks.device
    found: list[tuple[Observer, ShapeNetwork]] = []
    for observer in setting.observers:
        network = stage.untrained().to(device)
        if observer == "trained":
            trained_as_printed(network, bank, settings.shape, seed=setting.seed)
        elif observer != "untrained":
            network = Looking(network, averaged=observer == "averaged view").to(device)
        found.append((observer, network.eval().requires_grad_(False)))
    return found


def _figures(found: Separation) -> dict[str, float]:
    figures = found.figures()
    return {name: figures[name] for name in FIGURES}
