"""One condition of the study of separation: a shape network trained, and measured on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from shapeguide.data.case import Case
from shapeguide.data.dataset import Dataset
from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import CheckpointError
from shapeguide.machine import choose_device
from shapeguide.models.shape_model import ShapeModel
from shapeguide.storage.whole import write_json, write_table
from shapeguide.studies.separation.design import Condition
from shapeguide.studies.separation.probes import error_probe, warp_probe
from shapeguide.studies.separation.separation import measure_separation
from shapeguide.studies.study import Present, StudyFiles, read_object, seconds_of, stopwatch
from shapeguide.training.engine.seeds import generator_for
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.shape import MaskBank, mask_bank
from shapeguide.training.stages.shape import train_shape

MEASURING = 101
"""Keeps the random pairs apart from everything that training draws."""


@dataclass(frozen=True)
class Measured:
    """What the table says of a condition."""

    same: float
    """Mean raw distance of affine pairs of one held-out case."""
    different: float
    """Mean raw distance of affine pairs of two held-out cases."""
    ratio: float
    ratio_low: float
    """Low end of the 95 % bootstrap interval that resamples people; so below."""
    ratio_high: float
    auc: float
    auc_low: float
    auc_high: float
    rank1: float
    rank1_low: float
    rank1_high: float
    signature_std: float
    """Standard deviation of signatures between cases, over their mean size."""
    seconds: float
    """Of the training, over all its starts."""
    train_cases: int
    test_cases: int
    train_lacking: int
    """Training cases that lack the structure and were left out."""
    test_lacking: int


@dataclass(frozen=True)
class SeparationFiles(StudyFiles):
    """Where everything of a study of separation lies."""

    def run(self, condition: Condition) -> Path:
        """Run folder of a condition."""
        return self.folder / "cells" / condition.folder_name

    def measured(self, condition: Condition) -> Path:
        """What was measured of a condition; written last, so one that has it is finished."""
        return self.run(condition) / "measured.json"

    def all_measured(self) -> list[Path]:
        """The files `measured` of all finished conditions."""
        return sorted((self.folder / "cells").glob("*/measured.json"))

    def part(self, condition: Condition, name: str) -> Path:
        """A table of a condition: `pairs`, `warps` or `errors`."""
        return self.run(condition) / f"{name}.csv"


@dataclass(frozen=True)
class SeparationStudy:
    """What every cell of the study refers to; it travels to other processes."""

    files: SeparationFiles
    train: Dataset
    test: Dataset
    settings: TrainSettings
    pairs: int
    present: Present

    def cases(self, structure: str) -> tuple[Dataset, Dataset]:
        """Training and held-out cases that have a structure, with that structure alone."""
        ids = {item.name: item.label_ids for item in self.train.structures}[structure]
        train, test = (
            cases.select(self.present[structure][side]).with_structures(**{structure: ids})
            for side, cases in (("train", self.train), ("test", self.test))
        )
        return train, test


def measure_condition(study: SeparationStudy, condition: Condition) -> None:
    """Train a condition and write what is measured of it.

    Raises:
        ConfigError: If the folder of the condition holds another run.
        DataError: If a case cannot be used.
    """
    files, settings = study.files, condition.settings(study.settings)
    folder = files.run(condition)
    train, test = study.cases(condition.structure)
    with stopwatch(folder, "train"):
        model = train_shape(train, run_dir=folder, settings=settings, progress=False)
    device = choose_device(settings.machine.device)
    limit_bytes = int(settings.data.memory_limit_gb * 1024**3)
    prepared = _prepared(tuple(test), model.space, limit_bytes)
    bank = mask_bank(prepared, settings).to(device)
    model.network.to(device)
    figures = _separation(study, condition, model, bank)
    unit = figures["different"]
    warps = warp_probe(model.network, bank, unit=unit)
    write_table(files.part(condition, "warps"), warps)
    errors = error_probe(model.network, bank, unit=unit)
    write_table(files.part(condition, "errors"), errors)
    found = Measured(
        **figures,
        seconds=seconds_of(folder, "train"),
        train_cases=len(train),
        test_cases=len(test),
        train_lacking=len(study.train) - len(train),
        test_lacking=len(study.test) - len(test),
    )
    content = {"condition": asdict(condition), "measured": asdict(found)}
    write_json(files.measured(condition), content)


def finished(files: SeparationFiles, structures: Sequence[str]) -> dict[Condition, Measured]:
    """Every finished condition of a results folder, of this start or an earlier one, in order.

    Args:
        files: The results folder.
        structures: Their order; conditions of others come after them.

    Raises:
        CheckpointError: If a file is damaged.
    """
    found: dict[Condition, Measured] = {}
    for path in files.all_measured():
        content = read_object(path)
        try:
            found[Condition(**content["condition"])] = Measured(**content["measured"])
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); delete it to measure again") from (
                error
            )
    order = [*structures, *sorted({one.structure for one in found} - set(structures))]
    return dict(sorted(found.items(), key=lambda item: item[0].place(order)))


@lru_cache(maxsize=1)
def _prepared(
    cases: tuple[Case, ...], space: WorkingSpace, memory_limit_bytes: int
) -> PreparedCases:
    """Held-out cases, which all conditions of a structure measure on; the last ones are kept."""
    return PreparedCases(cases, space, memory_limit_bytes=memory_limit_bytes)


def _separation(
    study: SeparationStudy, condition: Condition, model: ShapeModel, bank: MaskBank
) -> dict[str, float]:
    """How well distances tell held-out people apart; the pairs are kept for the figure."""
    generator = generator_for(condition.seed, MEASURING)
    found = measure_separation(model.network, bank, pairs=study.pairs, generator=generator)
    columns = {"case": found.cases, "same": found.same, "different": found.different}
    write_table(study.files.part(condition, "pairs"), pd.DataFrame(columns))
    ends = {
        f"{name}_{end}": value
        for name, interval in found.intervals().items()
        for end, value in zip(("low", "high"), interval, strict=True)
    }
    return {
        "same": float(found.same.mean()),
        "different": float(found.different.mean()),
        "ratio": found.ratio,
        "auc": found.auc,
        "rank1": found.rank1,
        "signature_std": found.signature_std,
        **ends,
    }
