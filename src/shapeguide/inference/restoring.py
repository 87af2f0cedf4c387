"""What restores the predictions of a run: its shape restorer, or an SRN autoencoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from shapeguide.errors import CheckpointError, ConfigError
from shapeguide.inference.prediction import check_fits, check_restorer_fits
from shapeguide.models.autoencoder_model import (
    AUTOENCODER_FOLDER,
    AutoencoderModel,
    load_autoencoder,
)
from shapeguide.models.restorer_model import (
    RESTORER_FOLDER,
    USUAL_FILE,
    RestorerModel,
    load_restorer,
    read_usual,
)
from shapeguide.models.segmenter import Segmenter
from shapeguide.vocabulary import WeightsName


@dataclass(frozen=True, eq=False)
class Restorers:
    """At most one of the two."""

    autoencoder: AutoencoderModel | None = None
    restorer: RestorerModel | None = None


def load_restorers(
    run: str | Path | Segmenter,
    segmenter: Segmenter,
    *,
    weights: WeightsName,
    restore: bool,
    reconstruct: bool,
    autoencoder: str | Path | None,
) -> Restorers:
    """What was asked for to restore predictions, on the device of the segmenter.

    Args:
        run: Run folder, or the loaded segmenter.
        segmenter: That of the run.
        weights: Of the segmenter.
        restore: Take the shape restorer of the run folder where it has one.
        reconstruct: Take the SRN autoencoder of the run folder instead.
        autoencoder: Take that of this folder instead.

    Raises:
        ConfigError: If an SRN autoencoder is asked for that is not there, or what is there does
            not fit the segmenter.
        CheckpointError: If it is not finished or damaged, or what is usual for the segmenter was
            not measured.
    """
    if reconstruct or autoencoder is not None:
        return Restorers(autoencoder=_load_autoencoder(run, segmenter, autoencoder))
    if not restore or isinstance(run, Segmenter):
        return Restorers()
    folder = Path(run) / RESTORER_FOLDER
    if not folder.is_dir():
        return Restorers()
    if read_usual(folder) is None:
        raise CheckpointError(
            f"{run}: its training stopped before it had measured what is usual for the segmenter "
            f"({folder / USUAL_FILE} is missing); run the same training again, which does only "
            "that (calibrate_restorer), or predict with --no-restore (restore=False)"
        )
    model = load_restorer(folder, weights=weights)
    check_restorer_fits(model, segmenter)
    return Restorers(restorer=replace(model, network=model.network.to(segmenter.device)))


def _load_autoencoder(
    run: str | Path | Segmenter, segmenter: Segmenter, other: str | Path | None
) -> AutoencoderModel:
    if other is None and isinstance(run, Segmenter):
        raise ConfigError(
            "predictions are restored by the autoencoder of a run: give the run folder instead of "
            "a loaded segmenter, or name the autoencoder's folder in the options"
        )
    folder = Path(str(run if other is None else other))
    if (folder / AUTOENCODER_FOLDER).is_dir():
        folder = folder / AUTOENCODER_FOLDER
    elif other is None:
        raise ConfigError(
            f"{folder} has no folder {AUTOENCODER_FOLDER!r}: it was not guided by 'srn'; name "
            "another run whose SRN autoencoder restores its predictions"
        )
    model = load_autoencoder(folder)
    check_fits(model, segmenter)
    return replace(model, network=model.network.to(segmenter.device))
