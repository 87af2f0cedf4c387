"""The systems of the comparison and their table, one command each.

    python -m benchmarks.peers ours --data DATA --out OUT
    python -m benchmarks.peers nnunet --data DATA --out OUT --minutes 60
    python -m benchmarks.peers monai --data DATA --out OUT --minutes 60
    python -m benchmarks.peers table --data DATA --out OUT

DATA is the folder that holds `miccai2012`. Every step of a command is done once; the same command
goes on with those that are missing.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

import tyro

from shapeguide.storage.whole import write_text

from .heads import choose_heads
from .systems import Precision, minutes_of_ours, run_monai, run_nnunet, run_ours
from .table import TABLE_FILE, markdown_table, score_systems

Device = Literal["cpu", "cuda"]


def ours(
    data: Path,
    out: Path,
    *,
    seed: int = 0,
    options: str = "",
    development: bool = False,
    device: Device = "cpu",
) -> None:
    """Train and predict with shapeguide, default preset.

    Args:
        data: Folder that holds miccai2012.
        out: Out folder of the comparison.
        seed: Seed of the training.
        options: More options of `shapeguide train`, such as --options="--preset quick".
        development: Train on 11 and test on 4 of the 15 training heads.
        device: Where to compute.
    """
    heads = choose_heads(data, out.resolve(), development=development)
    run_ours(heads, out.resolve(), seed=seed, options=shlex.split(options), device=device)


def nnunet(
    data: Path,
    out: Path,
    *,
    minutes: float | None = None,
    times_ours: float = 1.0,
    mirroring: bool = True,
    memory_target_gb: float | None = None,
    precision: Precision = "default",
    development: bool = False,
    device: Device = "cpu",
) -> None:
    """Plan, preprocess, train and predict with nnU-Net v2.

    Args:
        data: Folder that holds miccai2012.
        out: Out folder of the comparison.
        minutes: Minutes of training; by default those that ours took in the same out folder.
        times_ours: So many times the minutes of ours.
        mirroring: --no-mirroring takes nnU-Net's trainer without mirroring in place of its
            default, which mirrors left structures onto right ones.
        memory_target_gb: What nnU-Net plans patch and batch for, in place of its own 8 GB.
        precision: bf16 lets a CPU train in bf16; nnU-Net's own is fp32 there.
        development: Train on 11 and test on 4 of the 15 training heads.
        device: Where to compute.
    """
    out = out.resolve()
    run_nnunet(
        choose_heads(data, out, development=development),
        out,
        minutes=minutes or minutes_of_ours(out, times_ours),
        mirroring=mirroring,
        memory_target_gb=memory_target_gb,
        precision=precision,
        device=device,
    )


def monai(
    data: Path,
    out: Path,
    *,
    minutes: float | None = None,
    times_ours: float = 1.0,
    network: Literal["monai", "ours"] = "monai",
    learning_rate: float = 1e-3,
    seed: int = 0,
    development: bool = False,
    device: Device = "cpu",
) -> None:
    """Train and predict with a script as MONAI's tutorials teach it.

    Args:
        data: Folder that holds miccai2012.
        out: Out folder of the comparison.
        minutes: Minutes of training; by default those that ours took in the same out folder.
        times_ours: So many times the minutes of ours.
        network: MONAI's UNet, or the U-Net of our default preset.
        learning_rate: Of AdamW, at the start.
        seed: Seed of the training.
        development: Train on 11 and test on 4 of the 15 training heads.
        device: Where to compute.
    """
    out = out.resolve()
    run_monai(
        choose_heads(data, out, development=development),
        out,
        minutes=minutes or minutes_of_ours(out, times_ours),
        network=network,
        learning_rate=learning_rate,
        seed=seed,
        device=device,
    )


def table(data: Path, out: Path, *, development: bool = False) -> None:
    """Score what all systems of an out folder predicted, and print one Markdown table.

    Args:
        data: Folder that holds miccai2012.
        out: Out folder of the comparison.
        development: Whether the systems were tested on four of the training heads.
    """
    heads = choose_heads(data, out, development=development)
    text = markdown_table(out, score_systems(out, heads.test))
    write_text(out / TABLE_FILE, text)
    print(text)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(
        {"ours": ours, "nnunet": nnunet, "monai": monai, "table": table}
    )
