"""How well the autoencoders of ACNN and SRN reproduce label maps that they were not trained on.

    python benchmarks/autoencoders.py DATASET OUT --fold 0

Both are trained on the training side of the fold for several lengths, and put the label maps of the
other side through: whole ones, and for SRN corrupted ones too. Printed are mean Dice scores; an
autoencoder that does not reproduce what it guides to guides to something else. OUT keeps the runs:
the same command goes on with what is missing.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.table import Table

import shapeguide as sg
from shapeguide.data.prepared_cases import PreparedCases
from shapeguide.training.cohort import cohort_of
from shapeguide.training.engine.seeds import generator_for
from shapeguide.training.settings.presets import preset
from shapeguide.training.stages.autoencoder_step import measure_reconstruction
from shapeguide.vocabulary import AutoencoderName

MEASURING = 104
"""Keeps what corrupts maps here apart from what training draws."""
GUIDES: tuple[AutoencoderName, ...] = ("acnn", "srn")


def main(
    dataset: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    *,
    fold: int = 0,
    structure: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    iterations: tuple[int, ...] = (400, 800, 1600),
    seed: int = 0,
) -> None:
    """Train both autoencoders for each length, and print how they reproduce held-out label maps.

    Args:
        dataset: Any dataset that `shapeguide train` takes.
        out: Folder for the runs.
        fold: Which of five folds is held out.
        structure: Structures as NAME=ID; those of the dataset when not given.
        iterations: Lengths of the training.
        seed: Of the training.
    """
    cases = sg.read_dataset(dataset)
    if structure:
        named = dict(one.split("=", 1) for one in structure)
        cases = cases.with_structures(**{name: int(ids) for name, ids in named.items()})
    train, test = cases.fold(fold)
    table = Table(title=f"Dice of {len(test)} held-out label maps, {len(train)} to train on")
    for name in ("autoencoder", "iterations", "structure", "reproduced", "corrupted", "restored"):
        table.add_column(name)
    for guidance in GUIDES:
        for count in iterations:
            start = time.perf_counter()
            settings = preset("default")
            settings = settings.changed(
                seed=seed,
                guidance=guidance,
                autoencoder=settings.autoencoder.changed(iterations=count),
                segmentation=settings.segmentation.changed(validation_cases=0),
            )
            cohort = cohort_of(train, settings)
            model = sg.train_autoencoder(
                cohort, run_dir=out / f"{guidance}-{count}", settings=settings
            )
            held_out = PreparedCases(
                test, cohort.space, memory_limit_bytes=settings.data.memory_limit_bytes
            )
            rows = measure_reconstruction(
                model.network,
                (torch.from_numpy(case.classes) for case in held_out.label_maps()),
                cohort.names,
                flavour=guidance,
                held_out=True,
                generator=generator_for(seed, MEASURING),
            )
            for row in rows:
                told = [
                    "" if one is None else f"{one:.3f}" for one in (row.corrupted, row.restored)
                ]
                table.add_row(guidance, str(count), row.structure, f"{row.dice:.3f}", *told)
            print(f"{guidance}, {count}: {time.perf_counter() - start:.0f} s")
    Console().print(table)


if __name__ == "__main__":
    tyro.cli(main)
