"""What restores the predictions of a run: its shape restorer, an SRN autoencoder, or nothing."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from shapeguide.errors import CheckpointError, ConfigError
from shapeguide.models.autoencoder_model import AUTOENCODER_FOLDER, load_autoencoder
from shapeguide.models.model_files import kind_of
from shapeguide.models.restoration import Restorer
from shapeguide.models.restorer_model import (
    RESTORER_FOLDER,
    USUAL_FILE,
    load_restorer,
    read_usual,
)
from shapeguide.models.segmenter import Segmenter
from shapeguide.vocabulary import WeightsName


def restorer_of(
    run_dir: Path, segmenter: Segmenter, choice: str | Path, *, weights: WeightsName
) -> Restorer | None:
    """What restores the predictions of a run, on the device of the segmenter.

    Args:
        run_dir: Run folder.
        segmenter: That of the run.
        choice: `shape` takes the shape restorer of the run where it has one, `srn` the SRN
            autoencoder of the run, `none` none; anything else is a folder, of another run or of
            its restorer, whose restorer or SRN autoencoder is taken.
        weights: Those of the segmenter.

    Raises:
        ConfigError: If there is none where one is named, or it does not fit the segmenter.
        CheckpointError: If it is not finished or damaged, or what is usual for the segmenter was
            not measured.
    """
    if choice == "none":
        return None
    folder = run_dir / RESTORER_FOLDER
    if choice == "shape" and not folder.is_dir():
        return None
    if choice == "srn":
        folder = run_dir / AUTOENCODER_FOLDER
        if not folder.is_dir():
            raise ConfigError(
                f"{run_dir} has no folder {AUTOENCODER_FOLDER!r}: it was not guided by 'srn'; name "
                "another run whose SRN autoencoder restores its predictions"
            )
    elif choice != "shape":
        inner = [Path(choice) / name for name in (RESTORER_FOLDER, AUTOENCODER_FOLDER)]
        folder = next((path for path in inner if path.is_dir()), Path(choice))
    restorer = _load(folder, segmenter, weights)
    check_fits(restorer, segmenter)
    return restorer


def check_fits(restorer: Restorer, segmenter: Segmenter) -> None:
    """Refuse a restorer that cannot restore what the segmenter predicts.

    Raises:
        ConfigError: If it has other structures or another spacing.
    """
    found = (restorer.structures, restorer.space.spacing_mm)
    expected = (segmenter.structures, segmenter.space.spacing_mm)
    if found != expected:
        raise ConfigError(
            f"the restorer was trained on {found[0]} at {found[1]} mm, the segmenter on "
            f"{expected[0]} at {expected[1]} mm; train both on the same"
        )


def _load(folder: Path, segmenter: Segmenter, weights: WeightsName) -> Restorer:
    kind = kind_of(folder)
    if kind == "autoencoder":
        autoencoder = load_autoencoder(folder)
        if autoencoder.flavour != "srn":
            raise ConfigError(
                f"only an autoencoder of 'srn' restores predictions, found "
                f"{autoencoder.flavour!r} in {folder}; name a run that was guided by 'srn'"
            )
        _move(autoencoder.network, segmenter)
        return autoencoder
    if kind != "restorer":
        raise ConfigError(f"{folder} holds a {kind} and restores nothing; name a restorer")
    if read_usual(folder) is None:
        raise CheckpointError(
            f"{folder.parent}: its training stopped before it had measured what is usual for the "
            f"segmenter ({folder / USUAL_FILE} is missing); run the same training again, which "
            'does only that (calibrate_restorer), or predict with --restorer none (restorer="none")'
        )
    model = load_restorer(folder, weights=weights)
    _move(model.network, segmenter)
    return model


def _move(network: nn.Module, segmenter: Segmenter) -> None:
    network.to(segmenter.device)
