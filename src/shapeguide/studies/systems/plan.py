"""Which tasks an experiment still needs, and in which order."""

from __future__ import annotations

from collections.abc import Iterable

from shapeguide.studies.systems.design import Cell
from shapeguide.studies.systems.experiment import Experiment
from shapeguide.studies.systems.folder import check_cell
from shapeguide.studies.systems.guides import (
    GuideKey,
    guide_is_trained,
    guide_key,
    train_guide,
)
from shapeguide.studies.systems.postprocessing import restorers
from shapeguide.studies.systems.scheduler import Task
from shapeguide.studies.systems.scoring import is_scored, score_cell
from shapeguide.studies.systems.training import (
    is_trained,
    takes_over,
    train_cell,
    unguided_of,
)


def plan_tasks(experiment: Experiment, cells: Iterable[Cell]) -> list[Task]:
    """What is missing of these cells, needs before what needs them; nothing that is finished.

    Raises:
        ConfigError: If the folder of a cell holds another system of that name.
    """
    tasks: dict[str, Task] = {}
    for cell in cells:
        check_cell(experiment.files, cell)
        if not is_scored(experiment, cell):
            _add_score(tasks, experiment, cell)
    return list(tasks.values())


def _add_score(tasks: dict[str, Task], experiment: Experiment, cell: Cell) -> None:
    needs = (_add_training(tasks, experiment, cell),)
    # Without a restorer, the rest of the cell is scored all the same.
    restoring = restorers(experiment, cell).values()
    waits = tuple(_add_guide(tasks, experiment, key) for key in restoring)
    name = f"score {cell.name}"
    tasks[name] = Task(name, score_cell, (experiment, cell), needs, waits)


def _add_training(tasks: dict[str, Task], experiment: Experiment, cell: Cell) -> str:
    name = f"train {cell.name}"
    if name in tasks or is_trained(experiment, cell):
        return name
    needs = []
    if takes_over(experiment, cell):
        needs.append(_add_training(tasks, experiment, unguided_of(cell)))
    key = guide_key(cell)
    if key is not None:
        needs.append(_add_guide(tasks, experiment, key))
    tasks[name] = Task(name, train_cell, (experiment, cell), tuple(needs))
    return name


def _add_guide(tasks: dict[str, Task], experiment: Experiment, key: GuideKey) -> str:
    name = f"guide {key.text}"
    if name not in tasks and not guide_is_trained(experiment, key):
        tasks[name] = Task(name, train_guide, (experiment, key))
    return name
