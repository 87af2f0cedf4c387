"""Damaged run folders: training into one resumes correctly or says what is wrong, never less.

Each round damages one file of a finished or a killed run in a way drawn from its number, so that a
failure names the round that repeats it. `SHAPEGUIDE_FUZZ_ROUNDS` says how many rounds there are,
`SHAPEGUIDE_FUZZ_SEED` where they start.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import shapeguide as sg
from shapeguide.data.dataset import Dataset
from shapeguide.errors import ShapeguideError
from shapeguide.training.engine.loop import TrainingFailed
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset

ROUNDS = int(os.environ.get("SHAPEGUIDE_FUZZ_ROUNDS", "100"))
SEED = int(os.environ.get("SHAPEGUIDE_FUZZ_SEED", "0"))
FILES = ("run.json", "log.jsonl", "model.json", "checkpoint.safetensors", "model.safetensors")
HUGE = "9" * 5000
STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 10**6, 2**70, 1e308, 0.5, "", "evil", "../../evil", "\0", "é\u2028", [], {},
    [[]], {"a": {}}, "shapeguide 0", [1, 2, 3],
)  # fmt: skip
RAW = (HUGE, "NaN", "-Infinity", '"\\ud800"', "[" * 20_000, '{"a": 1, "a": 2}', "1e999", "")
"""JSON that Python cannot write, or should not have."""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("cohort") / "c"
    sg.write_cohort(folder, count=2, spatial_shape=(18, 18, 18), spacing_mm=(3.0, 3.0, 3.0))
    return sg.read_dataset(folder / "dataset.json")


def tiny() -> TrainSettings:
    quick = preset("quick")
    return quick.changed(
        guidance="none",
        segmentation=quick.segmentation.changed(
            channels=(4,), dice_iterations=3, guided_iterations=1, batch_size=1
        ),
        machine=quick.machine.changed(device="cpu", precision="fp32", checkpoint_every=2),
    )


def train(cohort: Dataset, folder: Path) -> dict[str, torch.Tensor]:
    found = sg.train(cohort, out=folder, settings=tiny(), progress=False)
    return {name: value.clone() for name, value in found.network.state_dict().items()}


@pytest.fixture(scope="module")
def finished(cohort: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(cohort, folder)
    return folder


@pytest.fixture(scope="module")
def killed(cohort: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended in its third iteration, after the checkpoint of the second."""
    from shapeguide.training.stages.segmentation_step import SegmentationStep

    folder, whole = tmp_path_factory.mktemp("killed") / "run", SegmentationStep.__call__

    def step(self: SegmentationStep, batch: Any, iteration: int) -> Any:
        if iteration == 2:
            raise KeyboardInterrupt
        return whole(self, batch, iteration)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentationStep, "__call__", step)
        with pytest.raises(KeyboardInterrupt):
            train(cohort, folder)
    assert (folder / "checkpoint.safetensors").is_file()
    assert not (folder / "model.json").exists()
    return folder


def test_a_damaged_run_folder_resumes_correctly_or_says_what_is_wrong(
    cohort: Dataset, finished: Path, killed: Path, tmp_path: Path
) -> None:
    wanted = train(cohort, finished)
    refused = resumed = 0
    for round_ in range(SEED, SEED + ROUNDS):
        draw = random.Random(round_)
        folder = tmp_path / str(round_)
        shutil.copytree(draw.choice((finished, killed)), folder)
        what = damage(folder, draw)
        try:
            found = train(cohort, folder)
        except ShapeguideError as error:
            said = str(error)
            if isinstance(error, TrainingFailed) or (";" not in said and "." not in said):
                pytest.fail(f"round {round_}, {what}: no way out in {error!r}")
            refused += 1
        except Exception as error:
            pytest.fail(f"round {round_}, {what}: {error!r}")
        else:
            same = all(torch.equal(found[name], wanted[name]) for name in wanted)
            assert same, f"round {round_}, {what}: resumed to other weights"
            resumed += 1
        shutil.rmtree(folder)
    assert refused > 0 or ROUNDS < 20
    assert resumed > 0 or ROUNDS < 20


def damage(folder: Path, draw: random.Random) -> str:
    """Damage one file that is there; what was done, in words."""
    name = draw.choice(
        [name for name in FILES if (folder / name).exists() and (folder / name).read_bytes()]
    )
    path = folder / name
    kinds: list[Callable[[bytes, random.Random], bytes]] = [flipped, cut, doubled]
    kinds += 3 * [header_changed if path.suffix == ".safetensors" else json_changed]
    kind = draw.choice(kinds)
    path.write_bytes(kind(path.read_bytes(), draw))
    return f"{name} {kind.__name__}"


def flipped(content: bytes, draw: random.Random) -> bytes:
    """Some bits flipped, mostly near the start, where headers are."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 8))):
        place = draw.randrange(min(len(changed), draw.choice((16, 400, len(changed)))))
        changed[place] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(content: bytes, draw: random.Random) -> bytes:
    """The end missing."""
    return content[: draw.randrange(len(content))]


def doubled(content: bytes, draw: random.Random) -> bytes:
    """A stretch of it twice."""
    start = draw.randrange(len(content))
    return content[:start] + content[start : start + draw.randrange(1, 200)] + content[start:]


def json_changed(content: bytes, draw: random.Random) -> bytes:
    """A value or a name of the JSON text exchanged, or of one of its lines."""
    lines = content.decode().splitlines()
    whole = lines[:1] == ["{"]
    texts = ["\n".join(lines)] if whole else lines
    if not texts:
        return b"{"
    place = draw.randrange(len(texts))
    texts[place] = changed_text(json.loads(texts[place]), draw)
    return "\n".join(texts).encode("utf-8", "surrogatepass")


def header_changed(content: bytes, draw: random.Random) -> bytes:
    """The JSON header of a safetensors file changed, its length made to fit."""
    (length,) = struct.unpack("<Q", content[:8])
    header, rest = json.loads(content[8 : 8 + length]), content[8 + length :]
    noted = header.get("__metadata__", {})
    if draw.random() < 0.4 and noted:
        name = draw.choice(sorted(noted))
        noted[name] = draw.choice(
            ["", "7", HUGE, "NaN", "[" * 9000, changed_text({"iteration": 3}, draw)]
            + [f'{{"iteration": {n}, "best_score": null, "best_iteration": null}}'
               for n in (3, 10**6, -1, HUGE, "true", "1e3")]
        )  # fmt: skip
        text = json.dumps(header)
    elif draw.random() < 0.5:
        name = draw.choice(sorted(set(header) - {"__metadata__"}))
        new = draw.choice(["optimizer.x.step", "optimizer.99.step", "evil", "", "network", "a.b.c"])
        header[new] = header.pop(name)
        text = json.dumps(header)
    else:
        text = changed_text(header, draw)
    raw = text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(raw)) + raw + rest


def changed_text(content: Any, draw: random.Random) -> str:
    """JSON text of `content` with one value, somewhere, exchanged or missing."""
    mark = "what is to be exchanged"
    holders: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        keys: Any = inner if isinstance(inner, dict) else range(len(inner))
        for key in keys:
            holders.append((inner, key))
            if isinstance(inner[key], dict | list):
                walk(inner[key])

    walk(content)
    if not holders:
        return "[]"
    holder, key = draw.choice(holders)
    if draw.random() < 0.3:
        del holder[key]
        return json.dumps(content)
    holder[key] = mark
    raw = draw.choice(RAW) if draw.random() < 0.4 else json.dumps(draw.choice(STRANGE))
    return json.dumps(content).replace(f'"{mark}"', raw)
