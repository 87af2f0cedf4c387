"""What all tests share: where the real data lies, and run folders made by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shapeguide as sg
from shapeguide.data.dataset import Dataset
from shapeguide.data.working_space import WorkingSpace
from shapeguide.geometry.volume import Structure
from shapeguide.models.autoencoder_model import AutoencoderDescription, build_autoencoder
from shapeguide.models.model_files import write_description, write_weights
from shapeguide.models.restorer_model import RestorerDescription, Usual
from shapeguide.models.segmenter import SegmenterDescription, build_segmenter
from shapeguide.models.shape_model import ShapeModelDescription
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.models.shape_restorer import ShapeRestorer
from shapeguide.storage.whole import write_json
from shapeguide.vocabulary import WeightsName


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real scans that SHAPEGUIDE_DATA names; the test is skipped without it."""
    named = os.environ.get("SHAPEGUIDE_DATA")
    if not named:
        pytest.skip("SHAPEGUIDE_DATA is not set: no real data here")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"SHAPEGUIDE_DATA names {folder}, which is not a folder: no real data here")
    return folder


RUN_STRUCTURES = (Structure("horn", (1,)), Structure("lobe", (2, 3)))
RUN_SPACE = WorkingSpace((1.0, 1.0, 1.0), (16, 16, 16))
RUN_CHANNELS = (2, 4)


@pytest.fixture
def run_by_hand(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run folder with random weights: segmenter, shape network, restorer and SRN."""

    def write(name: str = "run", *, seed: int = 0) -> Path:
        torch.manual_seed(seed)
        folder = tmp_path / name
        for inner in ("shape", "restorer", "autoencoder"):
            (folder / inner).mkdir(parents=True)
        segmenter = build_segmenter("unet3d", RUN_CHANNELS, classes=3)
        network = ShapeNetwork(["horn", "lobe"], channels=RUN_CHANNELS, canonical_shape=8)
        restorer = ShapeRestorer(3, channels=RUN_CHANNELS, coarsening=2)
        torch.nn.init.normal_(restorer.unet.head.weight, std=3.0)
        srn = build_autoencoder(
            "srn", classes=3, spatial_shape=(16, 16, 16), channels=RUN_CHANNELS, code_length=4
        )
        stated: dict[str, Any] = {
            "made_by": "a test",
            "structures": RUN_STRUCTURES,
            "space": RUN_SPACE,
            "channels": RUN_CHANNELS,
        }

        def weights(model: torch.nn.Module, inner: str) -> dict[WeightsName, str]:
            return {"last": write_weights(model, folder / inner, "last")}

        write_description(SegmenterDescription(**stated, weights=weights(segmenter, ".")), folder)
        write_description(
            ShapeModelDescription(
                **stated, weights=weights(network, "shape"), objective="surface",
                pose="canonical", canonical_shape=8, trunks=1,
            ),
            folder / "shape",
        )  # fmt: skip
        write_description(
            RestorerDescription(
                **stated, weights=weights(restorer, "restorer"), coarsening=2, window=(12, 12, 12),
                caution=0.0, offsets=((0.0, 0.0, 0.0), (1.0, 0.0, 0.0)),
            ),
            folder / "restorer",
        )  # fmt: skip
        usual = Usual(share=1.0, scans=12, disagreement={"last": 0.0})
        write_json(folder / "restorer" / "usual.json", usual.model_dump())
        write_description(
            AutoencoderDescription(
                **stated, weights=weights(srn, "autoencoder"), flavour="srn", code_length=4
            ),
            folder / "autoencoder",
        )
        return folder

    return write


@pytest.fixture(scope="session")
def write_halves() -> Callable[..., Dataset]:
    """Writes a synthetic cohort whose horns are two structures, `upper` and `lower`."""

    def write(folder: Path, **grid: Any) -> Dataset:
        description = sg.write_cohort(folder, **grid)
        for case in sg.read_dataset(description):
            label_map = case.read_label_map()
            data = label_map.data.copy()
            data[:, :, : int(np.median(np.argwhere(data)[:, 2]))] *= 2
            assert case.label_map is not None
            sg.write_label_map(replace(label_map, data=data), case.label_map)
        content = json.loads(description.read_text())
        content["labels"] = {"0": "background", "1": "upper", "2": "lower"}
        description.write_text(json.dumps(content))
        return sg.read_dataset(description)

    return write
