"""One condition of the study of separation: a shape network trained, and measured on others.

How well its distances tell people apart: pairs, retrieval, spread, and intervals over people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from shapeguide.data.case import Case
from shapeguide.data.dataset import Dataset
from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import CheckpointError
from shapeguide.machine import choose_device
from shapeguide.metrics.statistics import middle, times_drawn
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.storage.whole import write_json, write_table
from shapeguide.studies.separation.design import Condition
from shapeguide.studies.separation.probes import error_probe, warp_probe
from shapeguide.studies.study import Present, StudyFiles, read_object, seconds_of, stopwatch
from shapeguide.training.engine.seeds import generator_for
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.shape import MaskBank, mask_bank
from shapeguide.training.shape.separation import any_stranger, draw_views
from shapeguide.training.stages.shape import train_shape

RESAMPLES = 2000
MEASURING = 101
"""Keeps the random pairs apart from everything that training draws."""


@dataclass(frozen=True, eq=False)
class Separation:
    """Distances of random affine pairs of held-out cases, and searches among them."""

    cases: NDArray[np.int64]
    """The case that both pairs of a row start from, shape (P,), from 0."""
    same: NDArray[np.float64]
    """Raw distance of two warped copies of that case, shape (P,)."""
    different: NDArray[np.float64]
    """Raw distance of a warped copy of it and one of another case, shape (P,)."""
    found: NDArray[np.bool_]
    """Whether the nearest of the case itself and of all other people's was the case itself, shape
    (searches, cases)."""
    signature_std: float
    """Standard deviation of signatures between cases, over their mean size."""
    people: NDArray[np.int64]
    """Number of the person that each case shows, shape (cases,), from 0."""

    @property
    def ratio(self) -> float:
        """Mean distance of different cases over that of the same case; 0 when all are equal."""
        return float(self._ratios(np.ones((1, self.found.shape[1])))[0])

    @property
    def auc(self) -> float:
        """Chance that a same-case pair is closer than a different-case pair; ties count half."""
        return float(self._aucs(np.ones((1, self.found.shape[1])))[0])

    @property
    def rank1(self) -> float:
        """Share of searches that found the same case; chance is 1 over the number of cases."""
        return float(self.found.mean())

    def intervals(self, *, seed: int = 0) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals of ratio, auc and rank1 that resample people, not pairs.

        Pairs that start from one person are not independent, so a person is drawn with all of them.
        """
        count = int(self.people.max()) + 1
        weights = times_drawn(count, resamples=RESAMPLES, seed=seed)[:, self.people]
        resampled = {
            "ratio": self._ratios(weights),
            "auc": self._aucs(weights),
            "rank1": weights @ self.found.mean(axis=0) / weights.sum(axis=1),
        }
        return {name: middle(values) for name, values in resampled.items()}

    def figures(self) -> dict[str, float]:
        """Those of `Measured` that the distances give."""
        ends = {
            f"{name}_{end}": value
            for name, interval in self.intervals().items()
            for end, value in zip(("low", "high"), interval, strict=True)
        }
        return {
            "same": float(self.same.mean()),
            "different": float(self.different.mean()),
            "ratio": self.ratio,
            "auc": self.auc,
            "rank1": self.rank1,
            "signature_std": self.signature_std,
            **ends,
        }

    def _ratios(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Ratio under each weighting of the cases, weights (R, cases)."""
        same, different = (weights[:, self.cases] @ one for one in (self.same, self.different))
        return np.divide(different, same, out=np.zeros_like(same), where=same > 0)

    def _aucs(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """AUC under each weighting of the cases, weights (R, cases)."""
        same, different = self.same[:, None], self.different[None]
        closer = (same < different) + 0.5 * (same == different)
        rows = np.eye(weights.shape[1])[self.cases]
        by_cases = rows.T @ closer @ rows
        pairs = weights @ rows.sum(axis=0)
        wins = np.einsum("ra,ab,rb->r", weights, by_cases, weights)
        return np.asarray(wins / pairs**2, dtype=np.float64)


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
    """Time of the training, over all its starts."""
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
    prepared = _prepared(tuple(test), model.space, settings.data.memory_limit_bytes)
    bank = mask_bank(prepared, settings).to(device)
    model.network.to(device)
    generator = generator_for(condition.seed, MEASURING)
    separation = measure_separation(model.network, bank, pairs=study.pairs, generator=generator)
    pairs = {name: getattr(separation, name) for name in ("cases", "same", "different")}
    table = pd.DataFrame(pairs).rename(columns={"cases": "case"})
    write_table(files.part(condition, "pairs"), table)
    unit = float(separation.different.mean())
    warps = warp_probe(model.network, bank, unit=unit)
    write_table(files.part(condition, "warps"), warps)
    errors = error_probe(model.network, bank, unit=unit)
    write_table(files.part(condition, "errors"), errors)
    found = Measured(
        **separation.figures(),
        seconds=seconds_of(folder, "train"),
        train_cases=len(train),
        test_cases=len(test),
        train_lacking=len(study.train) - len(train),
        test_lacking=len(study.test) - len(test),
    )
    content = {"condition": asdict(condition), "measured": asdict(found)}
    write_json(files.measured(condition), content)


@torch.no_grad()
def measure_separation(
    network: ShapeNetwork, bank: MaskBank, *, pairs: int, generator: torch.Generator
) -> Separation:
    """Draw warped copies of every case and compare them, by the estimator of the training.

    Args:
        network: A trained network of one structure.
        bank: Masks of held-out cases that have it, of at least two people. Two scans of one
            person are neither a pair of two people nor a wrong find.
        pairs: Pairs of either kind; every case starts equally many, but for a rest.
        generator: Source of all randomness, on the CPU.
    """
    (views,) = draw_views(network, bank, pairs, generator)
    drawn = views.pairs(pairs, generator, any_stranger)
    return Separation(
        cases=drawn.cases.numpy(),
        same=drawn.same.cpu().double().numpy(),
        different=drawn.different.cpu().double().numpy(),
        found=views.finds(step=-1).cpu().numpy(),
        signature_std=views.spread,
        people=_people(bank),
    )


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


def _people(bank: MaskBank) -> NDArray[np.int64]:
    """Number of the person that each case shows; each another one where the bank does not say."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(bank.people))}
    count = len(bank.masks)
    return np.array([numbers[name] for name in bank.people] if numbers else range(count))
