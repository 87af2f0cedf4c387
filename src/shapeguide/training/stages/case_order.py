"""Which cases an iteration sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from shapeguide.training.engine.seeds import ORDER_OF_CASES, Stream, generator_for


@dataclass(frozen=True)
class CaseOrder:
    """Every case comes once in each round, in an order drawn from the seed and the round's number.

    So a batch depends on nothing but the seed and the iteration.
    """

    cases: int
    batch_size: int
    seed: int

    def of(self, iteration: int) -> list[int]:
        """Which cases the batch of an iteration holds."""
        first = iteration * self.batch_size
        return [self._at(place) for place in range(first, first + self.batch_size)]

    def _at(self, place: int) -> int:
        turn, offset = divmod(place, self.cases)
        generator = generator_for(self.seed, Stream.SEGMENTATION, ORDER_OF_CASES, turn)
        return int(torch.randperm(self.cases, generator=generator)[offset])
