"""A plain MONAI script, as the tutorials teach it for one image and several organs.

    python -m benchmarks.peers.tutorial train --cases FILE --model FILE --training-file FILE
    python -m benchmarks.peers.tutorial predict --cases FILE --model FILE --out FOLDER

CacheDataset, patches of 96^3 half of them around a structure, MONAI's UNet, Dice and cross entropy,
AdamW, sliding windows. Where tutorials differ, what is better for these heads was taken: no
mirroring, since sides matter, and a learning rate that falls to its end within the minutes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from monai.data import CacheDataset, DataLoader, decollate_batch, list_data_collate
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import (
    AsDiscreted,
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    RandAffined,
    RandCropByPosNegLabeld,
    RandScaleIntensityd,
    RandShiftIntensityd,
    SaveImaged,
    Spacingd,
)
from monai.utils import set_determinism
from safetensors.torch import load_file, save_file
from torch import nn

from shapeguide.machine import autocast, choose_precision
from shapeguide.models.segmenter import build_segmenter
from shapeguide.storage.whole import read_json
from shapeguide.training.settings.presets import preset

from .steps import Training, write_training

PATCH = (96, 96, 96)
PATCHES_OF_A_HEAD = 2
WINDOWS_AT_ONCE = 2
SPACING_MM = (1.0, 1.0, 1.0)
PRINT_EVERY = 20

Network = Literal["monai", "ours"]
Device = Literal["cpu", "cuda"]


def train(
    cases: Path,
    model: Path,
    training_file: Path,
    *,
    minutes: float,
    learning_rate: float,
    network: Network = "monai",
    seed: int = 0,
    device: Device = "cpu",
) -> None:
    """Train for some minutes and write the weights.

    Args:
        cases: JSON with training cases and structures.
        model: Weights to write.
        training_file: Takes how much was seen.
        minutes: From the first batch; reading and caching are not part of them.
        learning_rate: Of AdamW at the start; it falls to 0 along half a cosine.
        network: MONAI's UNet or ours.
        seed: Seed of weights and patches.
        device: Where to compute.
    """
    set_determinism(seed)
    content, place = read_json(cases), torch.device(device)
    classes = 1 + len(content["structures"])
    dataset = CacheDataset(content["train"], _training_transforms(), num_workers=2)
    built = _build(network, classes).to(place)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    optimizer = torch.optim.AdamW(built.parameters(), lr=learning_rate, weight_decay=1e-5)
    precision = choose_precision("auto", place)
    batches = _batches(dataset, pinned=place.type == "cuda")
    batch, limit, start = next(batches), 60 * minutes, time.monotonic()
    for iteration in count(1):
        passed = time.monotonic() - start
        if passed >= limit:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * passed / limit))
        optimizer.zero_grad(set_to_none=True)
        with autocast(place, precision):
            logits = built(batch["image"].to(place))
        loss = loss_of(logits.float(), batch["label"].to(place))
        loss.backward()
        optimizer.step()
        if iteration % PRINT_EVERY == 0:
            print(f"{passed:.0f} s, iteration {iteration}, loss {float(loss):.4f}")
        batch = next(batches)
    parameters = sum(weights.numel() for weights in built.parameters())
    seen = Training(
        iteration - 1, round(time.monotonic() - start, 2), PATCHES_OF_A_HEAD, PATCH, parameters
    )
    save_file({name: tensor.contiguous() for name, tensor in built.state_dict().items()}, model)
    write_training(seen, training_file)


@torch.inference_mode()
def predict(
    cases: Path, model: Path, out: Path, *, network: Network = "monai", device: Device = "cpu"
) -> None:
    """Segment the test scans by sliding windows, each on its own grid.

    Args:
        cases: JSON with test scans and structures.
        model: Weights of a training.
        out: Folder of label maps of class indices.
        network: The network that was trained.
        device: Where to compute.
    """
    content, place = read_json(cases), torch.device(device)
    built = _build(network, 1 + len(content["structures"])).to(place).eval()
    built.load_state_dict(load_file(model))
    precision = choose_precision("auto", place)
    before = Compose(_preparation(["image"]))
    after = Compose(
        [
            Invertd("pred", before, orig_keys="image", nearest_interp=False),
            AsDiscreted("pred", argmax=True),
            SaveImaged(
                "pred", output_dir=out, output_postfix="", separate_folder=False,
                output_dtype="uint8", print_log=False,
            ),
        ]
    )  # fmt: skip
    for scan in content["test"]:
        batch = list_data_collate([before(scan)])
        with autocast(place, precision):
            logits = sliding_window_inference(
                batch["image"].to(place), PATCH, WINDOWS_AT_ONCE, built
            )
        batch["pred"] = logits.float().softmax(dim=1).cpu()
        for one in decollate_batch(batch):
            after(one)
        print(scan["image"])


def _preparation(keys: list[str]) -> list[Any]:
    bilinear = {"image": "bilinear", "label": "nearest"}
    return [
        LoadImaged(keys),
        EnsureChannelFirstd(keys),
        Orientationd(keys, axcodes="RAS", labels=None),
        Spacingd(keys, pixdim=SPACING_MM, mode=[bilinear[key] for key in keys]),
        NormalizeIntensityd("image", nonzero=True),
        CropForegroundd(keys, source_key="image", select_fn=_is_foreground),
    ]


def _training_transforms() -> Compose:
    keys = ["image", "label"]
    return Compose(
        [
            *_preparation(keys),
            RandCropByPosNegLabeld(
                keys, label_key="label", spatial_size=PATCH, pos=1, neg=1,
                num_samples=PATCHES_OF_A_HEAD, image_key="image", image_threshold=-math.inf,
            ),
            RandAffined(
                keys, mode=["bilinear", "nearest"], prob=0.5, padding_mode="zeros",
                rotate_range=(math.pi / 15,) * 3, scale_range=(0.1,) * 3,
            ),
            RandScaleIntensityd("image", factors=0.1, prob=0.5),
            RandShiftIntensityd("image", offsets=0.1, prob=0.5),
        ]
    )  # fmt: skip


def _is_foreground(image: torch.Tensor) -> torch.Tensor:
    """Voxels that are not background; that of skull-stripped heads is exactly 0."""
    return image != 0


def _batches(dataset: CacheDataset, *, pinned: bool) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of the patches of one head, in a new order each time round, without end."""
    loader = DataLoader(
        dataset,
        batch_size=1,
        shuffle=True,
        num_workers=1,
        persistent_workers=True,
        collate_fn=list_data_collate,
        pin_memory=pinned,
    )
    while True:
        yield from loader


def _build(network: Network, classes: int) -> nn.Module:
    if network == "ours":
        ours = preset("default").segmentation
        return build_segmenter(ours.suited(PATCH).segmenter, ours.channels, classes=classes)
    built: nn.Module = UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=classes,
        channels=(16, 32, 64, 128, 256),
        strides=(2, 2, 2, 2),
        num_res_units=2,
    )
    return built


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"train": train, "predict": predict})
