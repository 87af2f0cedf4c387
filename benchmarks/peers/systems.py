"""The three systems as steps: prepare, train, predict; each leaves label maps of the test heads."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from shapeguide.inference.run import load_run
from shapeguide.storage.whole import read_json, write_json
from shapeguide.training.engine.log import TENSORBOARD_FOLDER

from .heads import STRUCTURES, Heads, write_classes, write_label_ids
from .steps import (
    TRAINING_FILE,
    Step,
    Training,
    carry_out,
    cores,
    module,
    read_usage,
    write_training,
)

SYSTEM_FILE = "system.json"
PREDICTIONS_FOLDER = "predictions"
OURS = "shapeguide"
NNUNET_DATASET = "Dataset004_Heads"
PLANS = "nnUNetPlansForMemory"
TRAINERS = Path(__file__).with_name("nnunet_trainers")

Precision = Literal["default", "bf16"]


def run_ours(heads: Heads, out: Path, *, seed: int, options: Sequence[str], device: str) -> None:
    """Train and predict with `shapeguide train` and `shapeguide predict`.

    Args:
        heads: Cases of all systems.
        out: Out folder of the comparison.
        seed: Seed of the training.
        options: More options of `shapeguide train`.
        device: cpu or cuda.
    """
    folder = out / f"{OURS}_seed{seed}"
    run, dataset, split = folder / "run", str(heads.folder), str(heads.split_file)
    program = (sys.executable, "-m", "shapeguide")
    named = [word for name, one in STRUCTURES.items() for word in ("--structure", f"{name}={one}")]
    train = (*program, "train", dataset, "--out", str(run), "--split", split, *named)
    chosen = ("--seed", str(seed), "--device", device, *options)
    carry_out(Step(folder, "train", (*train, *chosen), (run,)))
    predictions = folder / PREDICTIONS_FOLDER
    words = (str(run), dataset, "--split", split, "--out", str(predictions), "--device", device)
    carry_out(Step(folder, "predict", (*program, "predict", *words), (predictions,)))
    write_training(_training_of(run), folder / TRAINING_FILE)
    _describe(folder, f"shapeguide, seed {seed}")


def minutes_of_ours(out: Path, times: float) -> float:
    """So many times the minutes that the training of ours took in this out folder, on average.

    Raises:
        SystemExit: If there is none.
    """
    found = [read_usage(folder, "train") for folder in sorted(out.glob(f"{OURS}_seed*"))]
    seconds = [usage.seconds for usage in found if usage is not None]
    if not seconds:
        raise SystemExit(f"{out}: ours is not trained there yet; do so first, or give --minutes")
    return times * sum(seconds) / len(seconds) / 60


def run_nnunet(
    heads: Heads,
    out: Path,
    *,
    minutes: float,
    mirroring: bool,
    memory_target_gb: float | None,
    precision: Precision,
    device: str,
) -> None:
    """Plan, preprocess, train and predict with nnU-Net.

    Args:
        heads: Cases of all systems.
        out: Out folder of the comparison.
        minutes: Minutes of training, from the first iteration; planning is not part of them.
        mirroring: Whether to mirror in training and in prediction, as nnU-Net does by default.
        memory_target_gb: What nnU-Net plans patch and batch for; by default its own 8 GB.
        precision: Of training on a CPU; by default nnU-Net's own, which is fp32.
        device: cpu or cuda.
    """
    planned = "" if memory_target_gb is None else f"_{memory_target_gb:g}gb"
    kind = planned + ("" if mirroring else "_no_mirroring")
    kind += "" if precision == "default" else f"_{precision}"
    data, folder = out / f"nnunet_data{planned}", out / f"nnunet_{minutes:.1f}min{kind}"
    _write_raw(heads, data / "raw" / NNUNET_DATASET, data / "scans")
    results, predicted = folder / "results", folder / "classes"
    environment = {
        "nnUNet_raw": str(data / "raw"),
        "nnUNet_preprocessed": str(data / "preprocessed"),
        "nnUNet_results": str(results),
        "nnUNet_extTrainer": str(TRAINERS),
        **dict.fromkeys(("nnUNet_n_proc_DA", "nnUNet_def_n_proc"), str(cores())),
        "PEERS_MINUTES": str(minutes),
        "PEERS_PRECISION": precision,
        "PEERS_TRAINING": str(folder / TRAINING_FILE),
        "MPLBACKEND": "Agg",
    }
    trainer = "TrainerForMinutes" if mirroring else "TrainerForMinutesNoMirroring"
    plans, processes = PLANS if planned else "nnUNetPlans", str(cores())
    chosen = ("-tr", trainer, "-p", plans, "-device", device)
    plan = ["plan", "-d", "4", "-c", "3d_fullres", "-np", processes, "-npfp", processes]
    if memory_target_gb is not None:
        plan += ["-gpu_memory_target", f"{memory_target_gb:g}", "-overwrite_plans_name", plans]
    train = ("train", "4", "3d_fullres", "all", *chosen)
    files = ("-i", str(data / "scans"), "-o", str(predicted))
    predict = ("predict", *files, "-d", "4", "-c", "3d_fullres", "-f", "all", *chosen)
    for where, name, words, made in (
        (data, "prepare", plan, data / "preprocessed"),
        (folder, "train", train, results),
        (folder, "predict", (*predict, "-npp", processes, "-nps", processes), predicted),
    ):
        command = module("nnunet_process", *words)
        carry_out(Step(where, name, command, (made,), environment))
    write_label_ids(predicted, folder / PREDICTIONS_FOLDER)
    remarks = [f"{minutes:.0f} min"]
    remarks += ["no mirroring"] if not mirroring else []
    remarks += [f"planned for {memory_target_gb:g} GB"] if planned else []
    remarks += [precision] if precision != "default" else []
    _describe(folder, f"nnU-Net v2, {', '.join(remarks)}", prepared_in=data.name)


def run_monai(
    heads: Heads,
    out: Path,
    *,
    minutes: float,
    network: Literal["monai", "ours"],
    learning_rate: float,
    seed: int,
    device: str,
) -> None:
    """Train and predict with a script as MONAI's tutorials teach it.

    Args:
        heads: Cases of all systems.
        out: Out folder of the comparison.
        minutes: Minutes of training, from the first iteration; caching is not part of them.
        network: MONAI's UNet as in its tutorials, or the U-Net of our default preset.
        learning_rate: The highest.
        seed: Seed of the training.
        device: cpu or cuda.
    """
    folder = out / f"monai_{minutes:.1f}min_{network}_seed{seed}"
    labels = folder / "labels"
    for case in heads.train:
        if not (labels / f"{case.id}.nii.gz").exists():
            write_classes(case, labels / f"{case.id}.nii.gz")
    train = [
        {"image": str(case.image), "label": str(labels / f"{case.id}.nii.gz")}
        for case in heads.train
    ]
    cases = folder / "cases.json"
    scans = [{"image": str(case.image)} for case in heads.test]
    write_json(cases, {"train": train, "test": scans, "structures": list(STRUCTURES)})
    model, predicted = folder / "model.safetensors", folder / "classes"
    common = ("--cases", str(cases), "--model", str(model), "--network", network)
    how = ("--minutes", f"{minutes:.4f}", "--learning-rate", f"{learning_rate:g}")
    made = (folder / TRAINING_FILE,)
    train_words = ("train", *common, *how, "--training-file", str(made[0]))
    more = ("--seed", str(seed), "--device", device)
    carry_out(Step(folder, "train", module("tutorial", *train_words, *more), (model, *made)))
    predict_words = ("predict", *common, "--out", str(predicted), "--device", device)
    carry_out(Step(folder, "predict", module("tutorial", *predict_words), (predicted,)))
    write_label_ids(predicted, folder / PREDICTIONS_FOLDER)
    kind = ", our U-Net" if network == "ours" else ""
    _describe(folder, f"MONAI script, {minutes:.0f} min, seed {seed}{kind}")


def _describe(folder: Path, title: str, prepared_in: str | None = None) -> None:
    write_json(folder / SYSTEM_FILE, {"title": title, "prepared_in": prepared_in})


def _write_raw(heads: Heads, folder: Path, scans: Path) -> None:
    """Write the training heads as nnU-Net's raw dataset, and the test scans, without labels."""
    for case in heads.train:
        _link(case.image, folder / "imagesTr" / f"{case.id}_0000.nii.gz")
        labels = folder / "labelsTr" / f"{case.id}.nii.gz"
        if not labels.exists():
            write_classes(case, labels)
    for case in heads.test:
        _link(case.image, scans / f"{case.id}_0000.nii.gz")
    classes = {name: index for index, name in enumerate(STRUCTURES, start=1)}
    described = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, **classes},
        "numTraining": len(heads.train),
        "file_ending": ".nii.gz",
    }
    write_json(folder / "dataset.json", described)


def _link(image: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(image.resolve())


def _training_of(run: Path) -> Training:
    """How much the segmentation stage of a run saw, by the times in its TensorBoard log.

    The log has a row every few iterations; the seconds before the first are taken for as many as
    those after it.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / TENSORBOARD_FOLDER))
    events.Reload()
    rows = events.Scalars("learning_rate")
    first, last = rows[0], rows[-1]
    each = (last.wall_time - first.wall_time) / (last.step - first.step)
    segmenter = load_run(run, restorer="none", device="cpu").segmenter
    settings = read_json(run / "run.json")["settings"]
    return Training(
        iterations=last.step,
        seconds=round(each * last.step, 2),
        batch_size=settings["segmentation"]["batch_size"],
        patch=segmenter.space.spatial_shape,
        parameters=sum(weights.numel() for weights in segmenter.network.parameters()),
    )
