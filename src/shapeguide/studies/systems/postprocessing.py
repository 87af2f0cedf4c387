"""What predictions are tested as: as they come, with their largest component, or restored first."""

from __future__ import annotations

from shapeguide.studies.systems.compared import (
    AS_PREDICTED,
    LARGEST,
    RESTORED,
    RESTORED_ALL_MAPS,
    RESTORED_BY_SRN,
)
from shapeguide.studies.systems.design import ALL, Cell
from shapeguide.studies.systems.experiment import Experiment
from shapeguide.studies.systems.guides import GuideKey, guide_key, restorer_key, srn_key
from shapeguide.studies.systems.systems import GUIDED_ALL_MAPS, PLAIN, SRN, SRN_ALL_MAPS


def postprocesses(experiment: Experiment, cell: Cell) -> tuple[str, ...]:
    """Everything that the predictions of a cell are tested as."""
    return (AS_PREDICTED, LARGEST, *restorers(experiment, cell))


def restorers(experiment: Experiment, cell: Cell) -> dict[str, GuideKey]:
    """What restores the predictions of a cell, by the name of the post-processing."""
    return {**_shape_restorers(experiment, cell), **_srn_restorers(experiment, cell)}


def _shape_restorers(experiment: Experiment, cell: Cell) -> dict[str, GuideKey]:
    """Of the label maps of its own regime; those of all cases where its guide has seen them.

    Segmenters that shape guides or nothing are restored, and the plain one by either, so that it
    stands beside both.
    """
    if not experiment.design.restores or experiment.settings.restorer.iterations == 0:
        return {}
    everything = restorer_key(ALL, cell.seed)
    if cell.system.name == GUIDED_ALL_MAPS:
        return {RESTORED: everything}
    if cell.system.guidance not in ("none", "shape"):
        return {}
    own = {RESTORED: restorer_key(cell.regime, cell.seed)}
    if cell.system.name == PLAIN and cell.regime != ALL:
        return {**own, RESTORED_ALL_MAPS: everything}
    return own


def _srn_restorers(experiment: Experiment, cell: Cell) -> dict[str, GuideKey]:
    """SRN's own autoencoder on SRN, as its paper has it, and on the plain segmenter."""
    trained = any(system.name == SRN for system in experiment.design.systems)
    key = None
    if cell.system.name == SRN_ALL_MAPS:
        key = guide_key(cell)
    elif trained and cell.system.name in (PLAIN, SRN):
        key = srn_key(cell)
    return {} if key is None else {RESTORED_BY_SRN: key}
