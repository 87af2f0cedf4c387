"""A trained run: its segmenter, and what restores its predictions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from shapeguide.inference.restoring import check_fits, restorer_of
from shapeguide.models.restoration import Restorer
from shapeguide.models.segmenter import Segmenter, load_segmenter
from shapeguide.vocabulary import Device, WeightsName


@dataclass(frozen=True)
class RunSource:
    """Where a run was loaded from, as `load_run` was told: another process loads the same."""

    run_dir: Path
    restorer: str | Path
    weights: WeightsName
    device: Device

    def load(self) -> TrainedRun:
        """The run; the last one that this process loaded is kept."""
        return _loaded(self)


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """All that a prediction takes.

    Raises:
        ConfigError: If the restorer does not fit the segmenter.
    """

    segmenter: Segmenter
    restorer: Restorer | None = None
    """Completes and cleans predictions. A shape restorer knows what is usual for the segmenter and
    leaves that alone. Restorers know shapes and no scan: they can paint over what a scan truly
    shows, such as a resection or a lesion."""
    source: RunSource | None = None
    """Where it was loaded from, if it was; other processes can predict with such a run only."""

    def __post_init__(self) -> None:
        if self.restorer is not None:
            check_fits(self.restorer, self.segmenter)


def load_run(
    run_dir: str | Path,
    *,
    restorer: str | Path = "shape",
    weights: WeightsName = "last",
    device: Device = "auto",
) -> TrainedRun:
    """Load what a training made, ready to predict as `shapeguide predict` does.

    Args:
        run_dir: Folder that a training wrote.
        restorer: `shape`: the shape restorer of the run, where it has one; `srn`: the SRN
            autoencoder of the run; `none`: predictions stay as the segmenter makes them; or the
            folder of another run whose restorer or SRN autoencoder is taken.
        weights: Weights after the last iteration, with the best validation score, or averaged.
        device: Where the networks compute.

    Raises:
        CheckpointError: If the run or its restorer is not finished, damaged, or of another kind.
        ConfigError: If there is no such restorer or device, or the restorer does not fit.
    """
    folder = Path(run_dir)
    segmenter = load_segmenter(folder, weights=weights, device=device)
    restoring = restorer_of(folder, segmenter, restorer, weights=weights)
    source = RunSource(folder.resolve(), restorer, weights, device)
    return TrainedRun(segmenter, restoring, source)


def as_run(model: str | Path | Segmenter | TrainedRun) -> TrainedRun:
    """A run by its folder, or around a segmenter, which comes without a restorer."""
    if isinstance(model, TrainedRun):
        return model
    return TrainedRun(model) if isinstance(model, Segmenter) else load_run(model)


@lru_cache(maxsize=1)
def _loaded(source: RunSource) -> TrainedRun:
    return load_run(
        source.run_dir, restorer=source.restorer, weights=source.weights, device=source.device
    )
