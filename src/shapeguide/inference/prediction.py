"""Prediction of one volume, on exactly its grid."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shapeguide.data.prepare import prepare_volume
from shapeguide.errors import ConfigError
from shapeguide.geometry.resample import resample_channels
from shapeguide.geometry.volume import LabelMap, Structure, Volume
from shapeguide.machine import autocast, choose_precision
from shapeguide.metrics.components import keep_largest_component
from shapeguide.models.autoencoder_model import AutoencoderModel, reconstruct
from shapeguide.models.restorer_model import RestorerModel, restore
from shapeguide.models.segmenter import Segmenter

WINDOW_OVERLAP = 0.25


def predict(
    segmenter: Segmenter,
    volume: Volume,
    *,
    largest_component: bool = False,
    autoencoder: AutoencoderModel | None = None,
    restorer: RestorerModel | None = None,
) -> LabelMap:
    """Segment a volume, on exactly its grid.

    Each structure is written with the first of its label ids.

    Args:
        segmenter: A trained segmenter.
        volume: Of any orientation and spacing.
        largest_component: Keep only the largest connected component of each structure.
        autoencoder: Of SRN; it restores the prediction before the classes are chosen.
        restorer: Completes and cleans the prediction before the classes are chosen. It knows
            shapes and no scan: it can paint over what the scan truly shows, such as a resection.

    Raises:
        DataError: If the volume cannot be normalised, for instance because it is constant.
        ConfigError: If what restores has other structures or another spacing, the autoencoder is
            not SRN's, or both are given.
    """
    probabilities = predict_probabilities(
        segmenter, volume, autoencoder=autoencoder, restorer=restorer
    )
    labels = label_map_from(probabilities, segmenter.structures, volume)
    return keep_largest_component(labels) if largest_component else labels


def predict_probabilities(
    segmenter: Segmenter,
    volume: Volume,
    *,
    autoencoder: AutoencoderModel | None = None,
    restorer: RestorerModel | None = None,
) -> NDArray[np.float32]:
    """Class probabilities on the grid of the volume, restored if something to restore is given.

    Args:
        segmenter: A trained segmenter.
        volume: Of any orientation and spacing.
        autoencoder: Of SRN.
        restorer: A shape restorer; not together with an autoencoder.

    Returns:
        Shape (1 + structures, I, J, K), background first, float32.

    Raises:
        ConfigError: If what restores has other structures or another spacing, the autoencoder is
            not SRN's, or both are given.
    """
    if autoencoder is not None:
        check_fits(autoencoder, segmenter, restorer)
        prepared = prepare_volume(volume, segmenter.space)
        found = reconstruct(autoencoder, prepared_probabilities(segmenter, prepared.data))
        return resample_channels(found, prepared.grid, volume.grid)
    return predict_before_and_after(segmenter, volume, restorer)[1]


def predict_before_and_after(
    segmenter: Segmenter, volume: Volume, restorer: RestorerModel | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Class probabilities on the grid of the volume without and with the shape restorer.

    Returns:
        Two arrays as of `predict_probabilities`; one and the same where nothing was restored.

    Raises:
        ConfigError: If the restorer has other structures or another spacing.
    """
    if restorer is not None:
        check_restorer_fits(restorer, segmenter)
    prepared = prepare_volume(volume, segmenter.space)
    seen = prepared_probabilities(segmenter, prepared.data)
    restored = seen
    if restorer is not None:
        restored = restore(restorer, seen)
    before = resample_channels(seen, prepared.grid, volume.grid)
    if np.array_equal(restored, seen):
        return before, before
    return before, resample_channels(restored, prepared.grid, volume.grid)


@torch.inference_mode()
def prepared_probabilities(segmenter: Segmenter, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Class probabilities of an image from `prepare_volume`, in the working space.

    Args:
        segmenter: A trained segmenter.
        image: Normalised intensities in the segmenter's spacing, shape (I, J, K).

    Returns:
        Shape (1 + structures, I, J, K), background first, float32.
    """
    device = segmenter.device
    images = torch.from_numpy(np.ascontiguousarray(image)).to(device)[None, None]
    window = segmenter.space.spatial_shape

    def network(windows: Tensor) -> Tensor:
        with autocast(device, choose_precision("auto", device)):
            logits: Tensor = segmenter.network(windows)
        return logits.float().softmax(dim=1)

    if images.shape[2:] == window:
        probabilities = network(images)
    else:
        probabilities = _slide(network, images, window)
    found: NDArray[np.float32] = probabilities[0].cpu().numpy()
    return found


def label_map_from(
    probabilities: NDArray[np.float32], structures: tuple[Structure, ...], volume: Volume
) -> LabelMap:
    """The most probable class of each voxel as a label map with the placement of the volume.

    Args:
        probabilities: Shape (1 + structures, I, J, K), background first.
        structures: In the order of the channels.
        volume: The input, whose grid and header placement the label map takes.
    """
    written = np.array([0, *(structure.label_ids[0] for structure in structures)])
    smallest = np.min_scalar_type(int(written.max()))
    data = written.astype(smallest)[probabilities.argmax(axis=0)]
    return LabelMap(data, volume.grid, structures, volume.placement)


def check_fits(
    autoencoder: AutoencoderModel, segmenter: Segmenter, restorer: RestorerModel | None = None
) -> None:
    """Refuse an autoencoder that cannot restore what the segmenter predicts.

    Raises:
        ConfigError: If it has other structures or another spacing, is not SRN's, or a shape
            restorer is given beside it.
    """
    if restorer is not None:
        raise ConfigError(
            "an SRN autoencoder and a shape restorer were given; each restores predictions of a "
            "segmenter and not of the other, so leave out one of them"
        )
    if autoencoder.flavour != "srn":
        raise ConfigError(
            f"only an autoencoder of 'srn' restores predictions, found "
            f"{autoencoder.flavour!r}; name a run that was guided by 'srn'"
        )
    _check_same("autoencoder", autoencoder, segmenter)


def check_restorer_fits(restorer: RestorerModel, segmenter: Segmenter) -> None:
    """Refuse a shape restorer that cannot restore what the segmenter predicts.

    Raises:
        ConfigError: If it has other structures or another spacing.
    """
    _check_same("restorer", restorer, segmenter)


def _check_same(title: str, model: AutoencoderModel | RestorerModel, segmenter: Segmenter) -> None:
    found = (model.structures, model.space.spacing_mm)
    expected = (segmenter.structures, segmenter.space.spacing_mm)
    if found != expected:
        raise ConfigError(
            f"the {title} was trained on {found[0]} at {found[1]} mm, the segmenter on "
            f"{expected[0]} at {expected[1]} mm; train both on the same"
        )


def _slide(network: object, images: Tensor, window: tuple[int, int, int]) -> Tensor:
    from monai.inferers import sliding_window_inference

    found = sliding_window_inference(
        images, window, 1, network, overlap=WINDOW_OVERLAP, mode="gaussian"
    )
    if not isinstance(found, Tensor):
        raise TypeError(f"the network gave {type(found)}, expected one tensor of logits")
    return found
