"""Streams of randomness: everything random in a training has a name and follows from the seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import torch


class Stream(IntEnum):
    """The stream of each stage.

    `generator_for(seed, stream)` makes the first weights, `generator_for(seed, stream, n)` is that
    of iteration n, and the negative numbers below are what a stage draws beside those.
    """

    SHAPE = 1
    SEGMENTATION = 2
    AUTOENCODER = 3
    RESTORER = 4
    FINDER = 5


ORDER_OF_CASES = -1
"""With `SEGMENTATION` and the number of a round through the cases, whichever stage goes through
them."""
SHAPE_OBJECTIVE = -1
"""With `SHAPE`: what an objective draws once, before the first iteration."""
SHAPE_CALIBRATION = -2
"""With `SHAPE`: pairs of cases that the calibration is the mean distance of."""
SHAPE_QUALITY = -3
"""With `SHAPE`: pairs that the check for collapse measures."""
RECONSTRUCTION_QUALITY = -1
"""With `AUTOENCODER`: corruptions of the maps that are reproduced in the end."""
RESTORATION_QUALITY = -1
"""With `RESTORER`: what is spoilt in the maps that are restored in the end."""
FINDING_QUALITY = -1
"""With `FINDER` and the number of a view: those that a finder is measured on in the end."""


def generator_for(seed: int, *parts: int) -> torch.Generator:
    """A generator that depends on the seed and the parts only, such as stage and iteration."""
    mixed = seed
    for part in parts:
        # Knuth's multiplicative hash keeps neighbouring iterations apart.
        mixed = (mixed * 6364136223846793005 + int(part) * 1442695040888963407 + 1) % 2**63
    return torch.Generator().manual_seed(mixed)


@contextmanager
def first_weights(generator: torch.Generator) -> Iterator[None]:
    """Networks that are built within get weights from this generator's seed, and nothing else does.

    The layers of torch draw from its global generator; it is put back to where it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        yield
