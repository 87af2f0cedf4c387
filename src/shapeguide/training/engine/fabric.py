"""Lightning Fabric for a training: which device computes, in which precision."""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from shapeguide.launch import count, count_on_this_machine, is_started_by_fabric
from shapeguide.machine import choose_device, choose_precision
from shapeguide.training.settings.groups import MachineSettings
from shapeguide.vocabulary import Precision

logger = logging.getLogger(__name__)

WITHOUT_FLOAT64 = frozenset({"mps"})
"""Types of devices that have no such numbers."""


def start_fabric(machine: MachineSettings, *, precision: Precision | None = None) -> Fabric:
    """Fabric on the device and in the precision that the settings and the machine give.

    Args:
        machine: Settings of the machine.
        precision: That of a stage which has but one.
    """
    device = choose_device(machine.device)
    chosen = precision or choose_precision(machine.precision, device)
    logger.info("computing on %s in %s", device.type, chosen)
    together, here = count(), count_on_this_machine()
    index = [device.index or 0] if device.type == "cuda" else 1
    fabric = Fabric(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=index if together == 1 else here,
        num_nodes=together // here,
        strategy="auto" if together == 1 else "ddp",
        precision="bf16-mixed" if chosen == "bf16" else "32-true",
    )
    if together > 1 and not is_started_by_fabric():
        fabric.launch()
    return fabric


def to_device(batch: Any, fabric: Fabric) -> Any:
    """A batch on the device that computes.

    Where the device has no float64, such as that of warps, it becomes float32.

    Args:
        batch: Tensors, in any nesting of records, sequences and mappings.
        fabric: Knows the device.
    """
    if fabric.device.type in WITHOUT_FLOAT64:
        batch = apply_to_collection(batch, Tensor, _without_float64)
    return fabric.to_device(batch)


def _without_float64(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.float64 else tensor
