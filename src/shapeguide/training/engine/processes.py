"""Several processes that train one network together: torchrun starts them, here they agree.

Every process sees the whole batch of an iteration and draws all that is random in it, so that the
result does not depend on how many there are. The network is where they share the work: each runs
it on its rows of the batch and gets the outputs of all, see `shared`. A loss is then computed on
the whole batch by each of them, also one that is no mean over items, such as Dice over a batch, a
contrastive loss or VICReg. The first process alone writes files, logs and validates.

With one process everything here does nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn

from shapeguide.errors import ConfigError, ShapeguideError
from shapeguide.launch import count, is_first, number

PlainT = TypeVar("PlainT")


def wait_for_all() -> None:
    """Go on when all processes are here."""
    agree_on_any(False)


def agree_on_any(flag: bool) -> bool:
    """Whether the flag is up in any process."""
    if count() == 1:
        return flag
    _join()
    up = torch.tensor(int(flag))
    dist.all_reduce(up, op=dist.ReduceOp.MAX)
    return bool(up)


def on_first(work: Callable[[], PlainT]) -> PlainT:
    """Have the first process do something, and give all what it found, or its error.

    Args:
        work: Returns a plain value: it is passed on as JSON.

    Raises:
        ShapeguideError: In the other processes, if the first one failed; there, its own error.
    """
    if count() == 1:
        return work()
    _join()
    failed: BaseException | None = None
    text = ""
    if is_first():
        try:
            text = json.dumps({"found": work()})
        except BaseException as error:
            failed, text = error, json.dumps({"failed": str(error) or type(error).__name__})
    told = json.loads(_from_first(text))
    if failed is not None:
        raise failed
    if "failed" in told:
        raise ShapeguideError(told["failed"])
    found: PlainT = told["found"]
    return found


def shared(wrapped: nn.Module, learner: nn.Module, fabric: Fabric) -> nn.Module:
    """A network that each process runs on its rows of the batch, with the outputs of all.

    Every tensor that it is called with has the items of the batch along its first axis, and so has
    every tensor that it returns.

    Gradients flow through the rows of a process in that process only; DistributedDataParallel,
    which Fabric wraps around the network, brings them together.

    Args:
        wrapped: The network as Fabric has set it up.
        learner: The same network as it is.
        fabric: The Fabric that has set it up.
    """
    return wrapped if count() == 1 else _Shared(wrapped, learner, fabric)


class _Shared(nn.Module):
    """See `shared`. A network with batch normalisation needs all rows: it is not divided.

    In evaluation it is the network alone, so that the first process can validate by itself.
    """

    def __init__(self, wrapped: nn.Module, learner: nn.Module, fabric: Fabric) -> None:
        super().__init__()
        self.wrapped, self.learner = wrapped, learner
        self._fabric = fabric
        norms = nn.modules.batchnorm._BatchNorm
        self._divided = not any(isinstance(part, norms) for part in learner.modules())

    def forward(self, *given: Any) -> Any:
        """Outputs of all rows of a batch: a tensor, or several.

        Raises:
            ConfigError: If the batch cannot be shared out evenly.
        """
        if not self.learner.training:
            with self._fabric.autocast():
                return self.learner(*given)
        if not self._divided:
            return self.wrapped(*given)
        found = self.wrapped(*(_own_rows(each) for each in given))
        return _all_rows(found) if isinstance(found, Tensor) else tuple(map(_all_rows, found))


def _own_rows(given: Any) -> Any:
    """The part of a tensor that this process works on; anything else as it is."""
    if not isinstance(given, Tensor):
        return given
    if len(given) % count():
        raise ConfigError(
            f"a batch of {len(given)} cannot be shared out to {count()} processes; choose a "
            f"batch_size that is a multiple of {count()}, or another number of processes"
        )
    return given.chunk(count())[number()]


def _all_rows(own: Tensor) -> Tensor:
    gathered: Tensor = _AllRows.apply(own)  # type: ignore[no-untyped-call]
    return gathered


class _AllRows(torch.autograd.Function):
    """Gather rows from all processes; hand back the gradient of the own ones.

    DistributedDataParallel averages over processes what is a sum over their rows: hence the factor.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        rows = [torch.empty(own.shape, dtype=own.dtype, device=own.device) for _ in range(count())]
        dist.all_gather(rows, own.contiguous())
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        return gradient.chunk(count())[number()] * count()


def _from_first(text: str) -> str:
    """The text of the first process."""
    size = torch.tensor(len(text.encode()) if is_first() else 0)
    dist.broadcast(size, 0)
    content = torch.zeros(int(size), dtype=torch.uint8)
    if is_first():
        content = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    dist.broadcast(content, 0)
    return bytes(content.tolist()).decode()


def _join() -> None:
    """Meet the other processes, once; messages go by the CPU, gradients of a GPU by NCCL."""
    if not dist.is_initialized():
        both = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if both else "gloo")
