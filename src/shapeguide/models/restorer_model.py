"""A trained shape restorer: its working space, how well it restores, and its use with caution."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy import ndimage
from torch import nn

from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import CheckpointError
from shapeguide.geometry.volume import Structure
from shapeguide.models.model_files import (
    Length,
    ModelDescription,
    fingerprint,
    load_network,
    read_description,
    read_stated,
)
from shapeguide.models.quality import RestorationQuality
from shapeguide.models.restoration import Restoration, check_classes
from shapeguide.models.shape_restorer import ShapeRestorer
from shapeguide.vocabulary import WeightsName

RESTORER_FOLDER = "restorer"
"""Folder of the restorer inside the run folder of the segmenter whose predictions it restores."""
USUAL_FILE = "usual.json"
"""In that folder: how much the restorer disagrees with what that segmenter usually predicts."""


Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
NotNegative: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RestorerDescription(ModelDescription):
    """`model.json` of a shape restorer."""

    kind: Literal["restorer"] = "restorer"
    coarsening: Annotated[int, Field(ge=1, le=64)]
    window: tuple[Length, Length, Length]
    offsets: tuple[tuple[Finite, Finite, Finite], ...] = ()
    caution: NotNegative
    quality: tuple[RestorationQuality, ...] = ()

    @property
    def seen_shape(self) -> tuple[int, int, int]:
        """The window in the blocks that the correction is computed on."""
        i, j, k = (-(-length // self.coarsening) for length in self.window)
        return i, j, k

    @model_validator(mode="after")
    def _check_offsets(self) -> RestorerDescription:
        if self.offsets and len(self.offsets) != len(self.structures):
            raise ValueError(
                f"offsets of {len(self.offsets)} structures, expected {len(self.structures)}; "
                "train the restorer again"
            )
        return self


class Usual(BaseModel):
    """`usual.json`: what is usual for the segmenter of a run, by its training scans."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: Annotated[float, Field(ge=0, le=1)]
    """Share of the scans that are no more unusual than stated below."""
    scans: Annotated[int, Field(ge=1)]
    disagreement: dict[WeightsName, NotNegative]
    """See `disagreement`, by the weights of the segmenter; empty where everything is restored."""


@dataclass(frozen=True, eq=False)
class RestorerModel:
    """A trained shape restorer and what belongs to it."""

    network: nn.Module
    """Class probabilities to logits, as `ShapeRestorer`."""
    structures: tuple[Structure, ...]
    space: WorkingSpace
    caution: float
    """Log odds of the new class over the old that a change must reach somewhere."""
    quality: tuple[RestorationQuality, ...]
    """One row for each structure."""
    window: tuple[int, int, int] | None = None
    """Voxels of the working space around the structures that it looks at; all when not given."""
    usual_disagreement: float | None = None
    """Predictions that it disagrees with no more than this are left alone; None restores all."""
    offsets: tuple[tuple[float, float, float], ...] = ()
    """Place of the median of each structure from the middle of the window, in voxels; empty, the
    middle is the median of all structures."""

    @property
    def identity(self) -> dict[str, Any]:
        """What decides on its restorations, as plain values."""
        return {
            "shape_restorer": fingerprint(self.network),
            "caution": self.caution,
            "usual_disagreement": self.usual_disagreement,
        }

    def restore(self, probabilities: NDArray[np.float32]) -> Restoration:
        """Class probabilities completed and cleaned by what label maps look like, with caution.

        Where the model knows what is usual for the segmenter, a prediction that it disagrees with
        no more than usual stays as it is.

        Of others, voxels whose class it would change are grouped in regions that share faces. A
        region is changed as a whole when the log odds of the new class over the old reach the
        model's caution somewhere in it; everything else, and so most of the edges, stays as the
        segmenter saw it.

        The restorer knows the shapes of its training and no scan: it can paint over what a scan
        truly shows, such as a resection or a lesion. Where such cases are expected, do without it.

        Args:
            probabilities: In the model's working spacing, background first, (1 + S, I, J, K).
                Beyond the window of the training, laid around the structures found, they stay as
                they are; so they do where no structure is found at all.

        Returns:
            Probabilities of the same shape, float32, summing to 1 over the classes; the same bits
            outside the changed regions.

        Raises:
            ConfigError: If the classes are not those of the model.
        """
        check_classes(self, probabilities)
        restored = np.array(probabilities, dtype=np.float32)
        classes = restored.argmax(axis=0)
        changed = np.zeros(classes.shape, dtype=np.bool_)
        if not classes.any():
            return Restoration(restored, changed)
        window = _window_around(classes, self)
        seen = restored[(slice(None), *window)]
        logits = _logits(self.network, seen)
        proposed, usual = _softmax(logits), self.usual_disagreement
        if usual is None or _disagreement(proposed, seen) > usual:
            taken = _whole_corrections(logits, classes[window], self.caution)
            seen[:, taken] = proposed[:, taken]
            changed[window] = taken
        return Restoration(restored, changed)


def load_restorer(run_dir: str | Path, *, weights: WeightsName = "last") -> RestorerModel:
    """Load the restorer of a finished restorer stage.

    Args:
        run_dir: Folder of the restorer, `restorer` in that of a run.
        weights: Those of the segmenter, which what is usual depends on. Where that was not
            measured, all predictions are restored.

    Raises:
        CheckpointError: If the stage is not finished, damaged, or the folder of another kind.
    """
    folder = Path(run_dir)
    description = read_description(RestorerDescription, folder)

    def build() -> ShapeRestorer:
        return ShapeRestorer(
            1 + len(description.structures),
            channels=description.channels,
            coarsening=description.coarsening,
        )

    network = load_network(build, description, folder, "last")
    usual = read_usual(folder)
    return RestorerModel(
        network=network,
        structures=description.structures,
        space=description.space,
        caution=description.caution,
        quality=description.quality,
        window=description.window,
        usual_disagreement=usual.disagreement.get(weights) if usual else None,
        offsets=description.offsets,
    )


def read_usual(folder: Path) -> Usual | None:
    """What is usual for the segmenter of a run; None where that was not measured.

    Args:
        folder: Folder of the restorer.

    Raises:
        CheckpointError: If the file is damaged.
    """
    path = folder / USUAL_FILE
    if not path.is_file():
        return None
    try:
        return read_stated(Usual, path)
    except CheckpointError as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); delete it and run the training again, which measures it "
            "anew"
        ) from error


def disagreement(model: RestorerModel, probabilities: NDArray[np.float32]) -> float:
    """How much of a prediction the restorer would change, before any caution.

    Args:
        model: A trained shape restorer.
        probabilities: In the model's working spacing, background first, (1 + S, I, J, K).

    Returns:
        The probability that would move between classes, summed over voxels, as a share of the
        voxels in which a structure is found; 0 where none is.

    Raises:
        ConfigError: If the classes are not those of the model.
    """
    check_classes(model, probabilities)
    classes = probabilities.argmax(axis=0)
    if not classes.any():
        return 0.0
    seen = probabilities[(slice(None), *_window_around(classes, model))]
    return _disagreement(_softmax(_logits(model.network, seen)), seen)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    odds: NDArray[np.float32] = np.exp(logits - logits.max(axis=0))
    odds /= odds.sum(axis=0)
    return odds


def _disagreement(proposed: NDArray[np.float32], seen: NDArray[np.float32]) -> float:
    found = int(np.count_nonzero(seen.argmax(axis=0)))
    return float(np.abs(proposed - seen).sum(dtype=np.float64)) / 2 / max(found, 1)


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


def _window_around(classes: NDArray[np.intp], model: RestorerModel) -> tuple[slice, ...]:
    """The model's window around the structures found in classes (I, J, K), within their grid.

    Each structure says where the middle should be, by where it lay in the window of the training;
    so one that is lost in part or whole hardly moves the window.
    """
    if model.window is None:
        return tuple(slice(0, length) for length in classes.shape)
    middles = [np.median(np.nonzero(classes), axis=1)]
    if model.offsets:
        present = [index for index in np.unique(classes) if index > 0]
        middles = [
            np.median(np.nonzero(classes == index), axis=1) - model.offsets[index - 1]
            for index in present
        ]
    slices = []
    for at, wanted, length in zip(
        np.mean(middles, axis=0), model.window, classes.shape, strict=True
    ):
        first = round(float(at) - (wanted - 1) / 2)
        first = max(0, min(first, length - wanted))
        slices.append(slice(first, min(first + wanted, length)))
    return tuple(slices)
