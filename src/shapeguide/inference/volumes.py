"""Prediction of one volume, on exactly its grid."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shapeguide.data.preprocess import prepare_volume
from shapeguide.errors import ConfigError
from shapeguide.geometry.resample import resample_channels
from shapeguide.geometry.volume import LabelMap, Structure, Volume
from shapeguide.machine import autocast, choose_precision
from shapeguide.metrics.components import keep_largest_component
from shapeguide.models.autoencoder_model import AutoencoderModel, reconstruct
from shapeguide.models.segmenter import Segmenter

WINDOW_OVERLAP = 0.25


def predict(
    segmenter: Segmenter,
    volume: Volume,
    *,
    largest_component: bool = False,
    autoencoder: AutoencoderModel | None = None,
) -> LabelMap:
    """Segment a volume, on exactly its grid.

    Each structure is written with the first of its label ids.

    Args:
        segmenter: A trained segmenter.
        volume: Of any orientation and spacing.
        largest_component: Keep only the largest connected component of each structure.
        autoencoder: Of SRN; it restores the prediction before the classes are chosen.

    Raises:
        DataError: If the volume cannot be normalised, for instance because it is constant.
        ConfigError: If the autoencoder has other structures or another spacing, or is not SRN's.
    """
    probabilities = predict_probabilities(segmenter, volume, autoencoder=autoencoder)
    labels = label_map_from(probabilities, segmenter.structures, volume)
    return keep_largest_component(labels) if largest_component else labels


def predict_probabilities(
    segmenter: Segmenter, volume: Volume, *, autoencoder: AutoencoderModel | None = None
) -> NDArray[np.float32]:
    """Class probabilities on the grid of the volume, restored by SRN's autoencoder if one is given.

    Returns:
        Shape (1 + structures, I, J, K), background first, float32.

    Raises:
        ConfigError: If the autoencoder has other structures or another spacing, or is not SRN's.
    """
    if autoencoder is not None:
        check_fits(autoencoder, segmenter)
    prepared = prepare_volume(volume, segmenter.space)
    probabilities = prepared_probabilities(segmenter, prepared.data)
    if autoencoder is not None:
        probabilities = reconstruct(autoencoder, probabilities)
    return resample_channels(probabilities, prepared.grid, volume.grid)


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


def check_fits(autoencoder: AutoencoderModel, segmenter: Segmenter) -> None:
    """Refuse an autoencoder that cannot restore what the segmenter predicts.

    Raises:
        ConfigError: If it has other structures or another spacing, or is not SRN's.
    """
    if autoencoder.flavour != "srn":
        raise ConfigError(
            f"only an autoencoder of 'srn' restores predictions, found "
            f"{autoencoder.flavour!r}; name a run that was guided by 'srn'"
        )
    found = (autoencoder.structures, autoencoder.space.spacing_mm)
    expected = (segmenter.structures, segmenter.space.spacing_mm)
    if found != expected:
        raise ConfigError(
            f"the autoencoder was trained on {found[0]} at {found[1]} mm, the segmenter on "
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
