"""The exponential moving average of a network's weights (Polyak averaging)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """Follows the weights of a network at a distance; smoother than the last weights are.

    Every floating tensor of the network's state is averaged, running statistics of normalisations
    too; counters are copied. It follows the tensors of the network in place, so it is made when
    the network is on its device.

    Args:
        network: On its device.
        decay: Share that the average keeps of itself in each iteration, in (0, 1). Early in a
            training it keeps less, min(decay, (1 + n) / (10 + n)) after n iterations, so that the
            untrained weights are soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        live = {name: value.detach() for name, value in network.state_dict().items()}
        self.tensors = {name: value.clone() for name, value in live.items()}
        """The average by the names of the network's state."""
        floating = [name for name, value in live.items() if value.is_floating_point()]
        self._live = [live[name] for name in floating]
        self._average = [self.tensors[name] for name in floating]
        self._counters = [
            (self.tensors[name], live[name]) for name in live if name not in set(floating)
        ]

    @torch.no_grad()
    def update(self, iterations: int) -> None:
        """Move towards the weights of the network, which has done so many iterations."""
        kept = min(self.decay, (1 + iterations) / (10 + iterations))
        torch._foreach_lerp_(self._average, self._live, 1 - kept)
        for counter, live in self._counters:
            counter.copy_(live)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the average that a checkpoint holds.

        Raises:
            KeyError: If it lacks a tensor of the network.
        """
        for name, average in self.tensors.items():
            average.copy_(tensors[name])
