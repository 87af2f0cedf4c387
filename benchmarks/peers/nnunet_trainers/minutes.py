"""nnU-Net's trainer, for a number of minutes in place of 1,000 epochs of 250 iterations.

nnU-Net finds it through `nnUNet_extTrainer`. What differs from nnU-Net's own, and nothing else:

- The end is a time, PEERS_MINUTES after the first batch, and the polynomial course of the learning
  rate goes by the share of the time instead of that of the epochs, so that it reaches its end.
- No validation between epochs. It costs a fifth of the time, and decides on nothing: nnU-Net
  predicts with the weights of the last iteration, `checkpoint_final`.
- No validation at the end, which is no part of a training.
- With PEERS_PRECISION=bf16, and only then, the network computes in bf16 on a CPU; nnU-Net's own is
  fp32 there.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)
from torch import Tensor

EXPONENT = 0.9
"""That of nnU-Net's PolyLRScheduler."""
PRINT_EVERY = 10


class TrainerForMinutes(nnUNetTrainer):  # type: ignore[misc]
    """nnU-Net's default trainer, for PEERS_MINUTES."""

    def run_training(self) -> None:
        """Train until the time is over, and note how much was seen."""
        self.on_train_start()
        self.on_epoch_start()
        self.on_train_epoch_start()
        limit = 60 * float(os.environ["PEERS_MINUTES"])
        outputs: list[dict[str, Any]] = []
        batch = next(self.dataloader_train)
        start = time.monotonic()
        while (passed := time.monotonic() - start) < limit:
            for group in self.optimizer.param_groups:
                group["lr"] = self.initial_lr * (1 - passed / limit) ** EXPONENT
            with torch.autocast(self.device.type, torch.bfloat16, enabled=_in_bf16(self.device)):
                outputs.append(self.train_step(batch))
            if len(outputs) % PRINT_EVERY == 0:
                self.print_to_log_file(f"{passed:.0f} s, loss {outputs[-1]['loss']:.4f}")
            batch = next(self.dataloader_train)
        self._note(len(outputs), time.monotonic() - start)
        self.on_train_epoch_end(outputs)
        self.current_epoch += 1
        self.on_train_end()

    def _build_loss(self) -> Callable[[Sequence[Tensor], Any], Tensor]:
        """nnU-Net's loss, in fp32 whatever the network computes in on a CPU."""
        loss_of: Callable[[Sequence[Tensor], Any], Tensor] = super()._build_loss()
        if not _in_bf16(self.device):
            return loss_of

        def in_fp32(outputs: Sequence[Tensor], targets: Any) -> Tensor:
            with torch.autocast(self.device.type, enabled=False):
                return loss_of([output.float() for output in outputs], targets)

        return in_fp32

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Leave it out."""

    def _note(self, iterations: int, seconds: float) -> None:
        parameters = sum(weights.numel() for weights in self.network.parameters())
        seen = {
            "iterations": iterations,
            "seconds": round(seconds, 2),
            "batch_size": int(self.batch_size),
            "patch": [int(length) for length in self.configuration_manager.patch_size],
            "parameters": parameters,
        }
        Path(os.environ["PEERS_TRAINING"]).write_text(json.dumps(seen, indent=2), encoding="utf-8")


class TrainerForMinutesNoMirroring(TrainerForMinutes, nnUNetTrainerNoMirroring):  # type: ignore[misc]
    """nnU-Net's trainer without mirroring, for PEERS_MINUTES."""


def _in_bf16(device: torch.device) -> bool:
    return device.type == "cpu" and os.environ.get("PEERS_PRECISION") == "bf16"
