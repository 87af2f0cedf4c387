"""One of nnU-Net's own commands, in a process of its own.

    python -m benchmarks.peers.nnunet_process plan|train|predict ARGUMENTS...

The arguments are those of nnUNetv2_plan_and_preprocess, nnUNetv2_train and nnUNetv2_predict.
nnU-Net pickles; all of it happens in this process, and nothing else reads those files.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import torch

COMMANDS = {
    "plan": (
        "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints",
        "plan_and_preprocess_entry",
    ),
    "train": ("nnunetv2.run.run_training", "run_training_entry"),
    "predict": ("nnunetv2.inference.predict_from_raw_data", "predict_entry_point"),
}
UNUSED_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept_alive: list[torch.library.Library] = []


def main() -> None:
    """Run the command that the first argument names with the other arguments."""
    command, *arguments = sys.argv[1:]
    module, function = COMMANDS[command]
    sys.argv = [f"nnUNetv2_{command}", *arguments]
    getattr(importlib.import_module(module), function)()


def make_torchvision_importable() -> None:
    """Name the operators that torchvision lacks where it was compiled for another build of torch.

    nnU-Net imports torchvision on the way to networks that are not used here. With PyPI's wheel of
    it beside a torch for the CPU, the import fails for want of two compiled operators; with their
    names it succeeds, and nobody calls them.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    try:
        for library in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(str(library))
    except OSError:
        named = torch.library.Library("torchvision", "DEF")
        for operator in UNUSED_OPERATORS:
            named.define(operator)
        _kept_alive.append(named)


# Here and not in main: nnU-Net's worker processes import this module, and torchvision after it.
make_torchvision_importable()

if __name__ == "__main__":
    main()
