"""Model files by foreign hands: an error at loading, and no memory taken before it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import shapeguide as sg
from shapeguide.errors import CheckpointError
from shapeguide.geometry.volume import Structure
from shapeguide.models.memory import LARGEST_WINDOW_BYTES, window_bytes
from shapeguide.models.model_files import MODEL_FILE, WEIGHTS_FILES
from shapeguide.storage.digest import digest_now

Run = Callable[..., Path]
LOADERS: dict[str, Callable[[Path], Any]] = {
    ".": sg.load_segmenter,
    "shape": sg.load_shape_network,
    "restorer": sg.load_restorer,
    "autoencoder": sg.load_autoencoder,
}


def change(folder: Path, **changes: Any) -> None:
    path = folder / MODEL_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def space(**changes: Any) -> dict[str, Any]:
    stated = {"spacing_mm": [1, 1, 1], "spatial_shape": [16, 16, 16], "centre": "volume"}
    return {**stated, "normalisation": "foreground", **changes}


def structure(name: str, *label_ids: object) -> dict[str, Any]:
    return {"name": name, "label_ids": label_ids}


@pytest.mark.parametrize("inner", LOADERS)
def test_every_model_of_a_run_comes_back_with_its_structures_and_its_space(
    run_by_hand: Run, inner: str
) -> None:
    model = LOADERS[inner](run_by_hand() / inner)
    assert model.structures == (Structure("horn", (1,)), Structure("lobe", (2, 3)))
    assert model.space.spatial_shape == (16, 16, 16)
    assert not next(model.network.parameters()).is_meta


@pytest.mark.parametrize("inner", LOADERS)
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"structures": [structure("horn", 2**31), structure("lobe", 1)]}, "label ids"),
        ({"structures": [structure("horn", 0), structure("lobe", 1)]}, "label ids"),
        ({"structures": [structure("ho\0rn", 1), structure("lobe", 2)]}, "U\\+0000"),
        ({"structures": [structure("x/../../../evil", 1), structure("lobe", 2)]}, "holds /"),
        ({"structures": [structure("lobe", 1), structure("lobe", 2)]}, "name"),
        ({"structures": [structure("horn", 1), structure("lobe", 1)]}, "label id"),
        ({"structures": []}, "structures"),
        ({"space": space(spatial_shape=[16, 16])}, "spatial_shape"),
        ({"space": space(spatial_shape=[2048, 2048, 2048])}, "at most 134,217,728"),
        ({"space": space(spacing_mm=[1, 1, 0])}, "positive"),
        ({"space": space(spacing_mm=[1, 1, 1e9])}, "at most 1000"),
        ({"space": space(centre="moon")}, "centre"),
        ({"channels": [1025]}, "channels"),
        ({"format": 2}, "format"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)
def test_what_cannot_be_is_an_error_at_loading(
    run_by_hand: Run, inner: str, changes: dict[str, Any], told: str
) -> None:
    folder = run_by_hand() / inner
    change(folder, **changes)
    with pytest.raises(CheckpointError, match=f"(?s){MODEL_FILE}.*{told}"):
        LOADERS[inner](folder)


def test_a_window_that_the_network_cannot_halve_is_an_error_at_loading(run_by_hand: Run) -> None:
    folder = run_by_hand()
    change(folder, space=space(spatial_shape=[3, 5, 7]))
    with pytest.raises(CheckpointError, match=r"multiples of 2, found \(3, 5, 7\)"):
        sg.load_segmenter(folder)


@pytest.mark.parametrize("inner", LOADERS)
def test_channels_of_another_network_are_refused_before_their_memory_is_taken(
    run_by_hand: Run, inner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_by_hand() / inner
    change(folder, channels=[1024, 1024])
    # Nothing may be drawn for weights that would fill gigabytes.
    taken: list[int] = []
    empty = torch.empty

    def noted(*size: Any, **options: Any) -> torch.Tensor:
        made = empty(*size, **options)
        taken.append(0 if made.is_meta else made.numel())
        return made

    monkeypatch.setattr(torch, "empty", noted)
    with pytest.raises(CheckpointError, match=r"cannot load .*safetensors"):
        LOADERS[inner](folder)
    assert sum(taken) == 0


def test_a_window_beyond_the_limit_is_refused_with_what_it_would_take(run_by_hand: Run) -> None:
    folder = run_by_hand()
    change(folder, space=space(spatial_shape=[512, 512, 512]), channels=[64, 64])
    with pytest.raises(CheckpointError, match=r"takes about \d+ GiB, and at most 16 GiB"):
        sg.load_segmenter(folder)


def test_the_published_crop_with_the_widest_segmenter_is_below_the_limit() -> None:
    assert window_bytes((16, 32, 64, 128, 256), 5, (256, 256, 128)) < LARGEST_WINDOW_BYTES / 2


def rewrite(folder: Path, change_weights: Callable[[torch.Tensor], torch.Tensor]) -> None:
    path = folder / WEIGHTS_FILES["last"]
    tensors = load_file(path)
    first = sorted(tensors)[0]
    tensors[first] = change_weights(tensors[first])
    save_file(tensors, path)
    change(folder, weights={"last": digest_now(path)})


@pytest.mark.parametrize("inner", LOADERS)
def test_weights_that_are_not_finite_floating_numbers_are_refused(
    run_by_hand: Run, inner: str
) -> None:
    faults: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
        "nan": (lambda tensor: tensor * torch.nan, "not finite"),
        "int8": (lambda tensor: tensor.to(torch.int8), "numbers of type I8"),
        "shape": (lambda tensor: tensor[None], "has shape"),
        "huge": (lambda tensor: tensor.double() + 1e300, "not finite"),
    }
    for name, (fault, told) in faults.items():
        folder = run_by_hand(name) / inner
        rewrite(folder, fault)
        with pytest.raises(CheckpointError, match=told):
            LOADERS[inner](folder)


def test_weights_in_half_precision_are_taken(run_by_hand: Run) -> None:
    folder = run_by_hand()
    rewrite(folder, lambda tensor: tensor.half())
    assert next(sg.load_segmenter(folder).network.parameters()).dtype == torch.float32


def test_offsets_of_another_count_are_refused(run_by_hand: Run) -> None:
    folder = run_by_hand() / "restorer"
    change(folder, offsets=[[0, 0, 0]])
    with pytest.raises(CheckpointError, match="offsets of 1 structures, expected 2"):
        sg.load_restorer(folder)
