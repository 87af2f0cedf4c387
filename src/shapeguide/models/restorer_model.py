"""A trained shape restorer: its working space, how well it restores, and its use with caution."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage
from torch import nn

from shapeguide.data.preprocess import WorkingSpace
from shapeguide.errors import ConfigError
from shapeguide.geometry.volume import Structure
from shapeguide.models.model_files import (
    Length,
    ModelDescription,
    load_weights,
    read_description,
    space_from,
    structures_from,
)
from shapeguide.models.shape_restorer import ShapeRestorer

RESTORER_FOLDER = "restorer"
"""Folder of the restorer inside the run folder of the segmenter whose predictions it restores."""
CAUTION, CAUTION_WITH_FEW_CASES = 3.0, 1.0
"""Where a restorer states none: a segmenter that learnt from few scans is trusted less."""
FEW_CASES = 10
"""With fewer labelled scans than this a segmenter counts as one that learnt from few."""


class RestorerDescription(ModelDescription):
    """`model.json` of a shape restorer."""

    kind: Literal["restorer"] = "restorer"
    coarsening: Annotated[int, Field(ge=1, le=64)]
    window: tuple[Length, Length, Length]
    caution: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    quality: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class RestorerModel:
    """A trained shape restorer and what belongs to it."""

    network: nn.Module
    """Class probabilities to logits, as `ShapeRestorer`."""
    structures: tuple[Structure, ...]
    space: WorkingSpace
    caution: float | None
    """Log odds of the new class over the old that a change must reach somewhere; None leaves it to
    the number of scans that the segmenter learnt from."""
    quality: tuple[dict[str, Any], ...]
    """One row for each structure: Dice of spoilt, restored and clean maps, cases, held_out."""
    window: tuple[int, int, int] | None = None
    """Voxels of the working space around the structures that it looks at; all when not given."""


def load_restorer(run_dir: str | Path) -> RestorerModel:
    """Load the restorer of a finished restorer stage.

    Raises:
        CheckpointError: If the stage is not finished, damaged, or the folder of another kind.
    """
    folder = Path(run_dir)
    description = read_description(RestorerDescription, folder)
    network = ShapeRestorer(
        1 + len(description.structures),
        channels=description.channels,
        coarsening=description.coarsening,
    )
    load_weights(network, description, folder, "last")
    return RestorerModel(
        network=network.eval().requires_grad_(False),
        structures=structures_from(description),
        space=space_from(description.space),
        caution=description.caution,
        quality=description.quality,
        window=description.window,
    )


def restore(
    model: RestorerModel,
    probabilities: NDArray[np.float32],
    *,
    labelled_cases: int | None = None,
) -> NDArray[np.float32]:
    """Class probabilities completed and cleaned by what label maps look like, with caution.

    Voxels whose class the restorer would change are grouped in regions that share faces. A region
    is changed as a whole when the log odds of the new class over the old reach the model's caution
    somewhere in it; everything else, and so most of the edges, stays as the segmenter saw it.

    The restorer knows the shapes of its training and no scan: it can paint over what a scan truly
    shows, such as a resection or a lesion. Where such cases are expected, do without it.

    Args:
        model: A trained shape restorer.
        probabilities: In the model's working spacing, background first, (1 + S, I, J, K). Beyond
            the window of the training, laid around the structures found, they stay as they are;
            so they do where no structure is found at all.
        labelled_cases: How many labelled scans the segmenter learnt from, if known. Where the model
            states no caution it is 1 for fewer than ten of them, else 3.

    Returns:
        Same shape, float32, summing to 1 over the classes; the same bits outside the changed
        regions.

    Raises:
        ConfigError: If the classes are not those of the model.
    """
    if probabilities.ndim != 4 or len(probabilities) != 1 + len(model.structures):
        raise ConfigError(
            f"the restorer knows {len(model.structures)} structures and takes probabilities "
            f"(1 + structures, I, J, K), found shape {probabilities.shape}; give those of a "
            "segmenter of the same structures"
        )
    restored = np.array(probabilities, dtype=np.float32)
    classes = restored.argmax(axis=0)
    if not classes.any():
        return restored
    window = _window_around(classes > 0, model.window)
    seen = restored[(slice(None), *window)]
    logits = _logits(model.network, seen)
    taken = _whole_corrections(logits, classes[window], _caution(model, labelled_cases))
    if taken.any():
        chosen = logits[:, taken]
        odds = np.exp(chosen - chosen.max(axis=0))
        seen[:, taken] = odds / odds.sum(axis=0)
    return restored


def _caution(model: RestorerModel, labelled_cases: int | None) -> float:
    if model.caution is not None:
        return model.caution
    few = labelled_cases is not None and labelled_cases < FEW_CASES
    return CAUTION_WITH_FEW_CASES if few else CAUTION


@torch.inference_mode()
def _logits(network: nn.Module, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    parameter = next(network.parameters(), None)
    given = torch.from_numpy(np.ascontiguousarray(probabilities))[None]
    if parameter is not None:
        given = given.to(parameter.device)
    found: NDArray[np.float32] = network(given)[0].float().cpu().numpy()
    return found


def _whole_corrections(
    logits: NDArray[np.float32], classes: NDArray[np.intp], caution: float
) -> NDArray[np.bool_]:
    """Voxels (I, J, K) of the regions to change, from logits (C, I, J, K) and classes so far."""
    new = logits.argmax(axis=0)
    regions, count = ndimage.label(new != classes)
    taken = np.zeros(count + 1, dtype=np.bool_)
    if count:
        gain = _values_at(logits, new) - _values_at(logits, classes)
        taken[1:] = np.asarray(ndimage.maximum(gain, regions, np.arange(1, count + 1))) >= caution
    return taken[regions]


def _values_at(logits: NDArray[np.float32], classes: NDArray[np.intp]) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.take_along_axis(logits, classes[None], axis=0)[0]
    return values


def _window_around(
    mask: NDArray[np.bool_], window: tuple[int, int, int] | None
) -> tuple[slice, ...]:
    """A window of that shape about the median position of a mask (I, J, K), within its grid."""
    if window is None:
        return tuple(slice(0, length) for length in mask.shape)
    slices = []
    for positions, wanted, length in zip(np.nonzero(mask), window, mask.shape, strict=True):
        first = round(float(np.median(positions)) - (wanted - 1) / 2)
        first = max(0, min(first, length - wanted))
        slices.append(slice(first, min(first + wanted, length)))
    return tuple(slices)
