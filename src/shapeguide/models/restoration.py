"""What restores predictions: one kind of model, whatever network does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shapeguide.data.working_space import WorkingSpace
from shapeguide.errors import ConfigError
from shapeguide.geometry.volume import Structure


@dataclass(frozen=True, eq=False)
class Restoration:
    """Restored class probabilities, and where they differ from those that were given."""

    probabilities: NDArray[np.float32]
    """Shape (1 + structures, I, J, K), background first, summing to 1 over the classes."""
    changed: NDArray[np.bool_] | None
    """Voxels that were changed, shape (I, J, K); None where every voxel was made anew."""

    @property
    def changes(self) -> bool:
        """Whether anything was changed."""
        return self.changed is None or bool(self.changed.any())


class Restorer(Protocol):
    """A model that completes and cleans class probabilities by what label maps look like."""

    @property
    def structures(self) -> tuple[Structure, ...]:
        """What it knows, in the order of the classes."""

    @property
    def space(self) -> WorkingSpace:
        """Where it was trained; probabilities come in its spacing."""

    @property
    def identity(self) -> dict[str, Any]:
        """What decides on its restorations, as plain values."""

    def restore(self, probabilities: NDArray[np.float32]) -> Restoration:
        """Restore class probabilities (1 + structures, I, J, K), background first.

        Raises:
            ConfigError: If the classes are not those of the model.
        """


def restore(restorer: Restorer, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Class probabilities completed and cleaned by a restorer.

    Args:
        restorer: A shape restorer from `load_restorer`, or SRN's from `load_autoencoder`.
        probabilities: In the restorer's working spacing, background first, (1 + S, I, J, K).

    Returns:
        Same shape, float32, summing to 1 over the classes.

    Raises:
        ConfigError: If the classes are not those of the restorer, or it is ACNN's autoencoder,
            which restores nothing.
    """
    return restorer.restore(probabilities).probabilities


def check_classes(restorer: Restorer, probabilities: NDArray[np.float32]) -> None:
    """Refuse probabilities of other classes.

    Raises:
        ConfigError: If they are not those of the restorer.
    """
    if probabilities.ndim != 4 or len(probabilities) != 1 + len(restorer.structures):
        raise ConfigError(
            f"the restorer knows {len(restorer.structures)} structures and takes probabilities "
            f"(1 + structures, I, J, K), found shape {probabilities.shape}; give those of a "
            "segmenter of the same structures"
        )
