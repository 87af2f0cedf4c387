"""One cell of table 1: a shape network trained, and measured on held-out cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from shapeguide.errors import CheckpointError
from shapeguide.machine import choose_device
from shapeguide.models.shape_model import ShapeModel
from shapeguide.storage.whole import write_json, written_whole
from shapeguide.studies.separation.cases import HeldOutMasks, StructureCases
from shapeguide.studies.separation.design import Cell
from shapeguide.studies.separation.folder import Table1Files
from shapeguide.studies.separation.probes import error_probe, warp_probe
from shapeguide.studies.separation.separation import measure_separation
from shapeguide.studies.systems.folder import read_json, seconds_of, stopwatch
from shapeguide.training.engine.seeds import generator_for
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.shape import MaskBank
from shapeguide.training.stages.shape import train_shape

MEASURING = 101
"""Keeps the random pairs apart from everything that training draws."""


@dataclass(frozen=True)
class Measured:
    """What table 1 says of a cell."""

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


@dataclass(frozen=True, eq=False)
class Bench:
    """What all cells of a table share."""

    files: Table1Files
    settings: TrainSettings
    pairs: int
    masks: HeldOutMasks
    progress: bool = True
    """Show progress bars."""


def measure_cell(cell: Cell, cases: StructureCases, bench: Bench) -> bool:
    """Train a cell and write what is measured of it, unless an earlier start has done so.

    Args:
        cell: Which one.
        cases: Of its structure.
        bench: What all cells share.

    Returns:
        Whether it was measured now.

    Raises:
        ConfigError: If the cell's folder holds another run.
        DataError: If a case cannot be used.
    """
    files, masks = bench.files, bench.masks
    if files.measured(cell).is_file():
        return False
    folder, settings = files.cell(cell), cell.settings(bench.settings)
    with stopwatch(folder, "train"):
        model = train_shape(cases.train, run_dir=folder, settings=settings, progress=bench.progress)
    device = choose_device(settings.machine.device)
    bank = masks.bank(cases, model.space, settings, device)
    model.network.to(device)
    figures = _separation(model, bank, cell, files, bench.pairs)
    unit = figures["different"]
    _write(warp_probe(model.network, bank, unit=unit), cell, files, "warps")
    _write(error_probe(model.network, bank, unit=unit), cell, files, "errors")
    found = Measured(
        **figures,
        seconds=seconds_of(folder, "train"),
        train_cases=len(cases.train),
        test_cases=len(cases.test),
        train_lacking=cases.train_lacking,
        test_lacking=cases.test_lacking,
    )
    write_json(files.measured(cell), {"cell": asdict(cell), "measured": asdict(found)})
    return True


def finished_cells(files: Table1Files, structures: Sequence[str]) -> dict[Cell, Measured]:
    """Every finished cell of a results folder, of this start or an earlier one, in their order.

    Args:
        files: The results folder.
        structures: Their order; cells of others come after them.

    Raises:
        CheckpointError: If a file is damaged.
    """
    found: dict[Cell, Measured] = {}
    for path in files.all_measured():
        content = read_json(path)
        try:
            found[Cell(**content["cell"])] = Measured(**content["measured"])
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); delete it to measure again") from (
                error
            )
    order = [*structures, *sorted({cell.structure for cell in found} - set(structures))]
    return dict(sorted(found.items(), key=lambda item: item[0].place(order)))


def _separation(
    model: ShapeModel, bank: MaskBank, cell: Cell, files: Table1Files, pairs: int
) -> dict[str, float]:
    """How well distances tell held-out people apart; the pairs are kept for the figure."""
    found = measure_separation(
        model.network, bank, pairs=pairs, generator=generator_for(cell.seed, MEASURING)
    )
    columns = {"case": found.cases, "same": found.same, "different": found.different}
    _write(pd.DataFrame(columns), cell, files, "pairs")
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


def _write(table: pd.DataFrame, cell: Cell, files: Table1Files, name: str) -> None:
    with written_whole(files.cell_table(cell, name)) as temporary:
        table.to_csv(temporary, index=False)
