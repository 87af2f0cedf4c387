from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import shapeguide as sg
from shapeguide.data.dataset import Dataset
from shapeguide.errors import ConfigError
from shapeguide.training.cohort import hold_out
from shapeguide.training.engine.checkpoint import CHECKPOINT_FILE, read_tensors
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset
from shapeguide.training.shape.recipes import ShapeLearner

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("cohort") / "c"
    description = sg.write_cohort(
        folder, count=3, seed=1, spatial_shape=(24, 24, 24), spacing_mm=(2.0, 2.0, 2.0)
    )
    return sg.read_dataset(description)


def settings(**changes: object) -> TrainSettings:
    quick = preset("quick")
    shape = quick.shape.changed(
        iterations=5, batch_size=2, channels=(2, 4), canonical_shape=16, quality_pairs=6
    )
    return quick.changed(
        shape=shape.changed(**changes),
        machine=quick.machine.changed(device="cpu", precision="fp32", checkpoint_every=2),
    )


@pytest.mark.parametrize("objective", ["surface", "reconstruction"])
def test_stage_that_was_stopped_ends_with_the_same_bits(
    objective: str, cohort: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(objective=objective)
    sg.train_shape(cohort, run_dir=tmp_path / "whole", settings=chosen, progress=False)
    calls: list[int] = []

    def stopped(self: ShapeLearner, *batch: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(self, *batch)

    forward = ShapeLearner.forward
    monkeypatch.setattr(ShapeLearner, "forward", stopped)
    with pytest.raises(KeyboardInterrupt):
        sg.train_shape(cohort, run_dir=tmp_path / "stopped", settings=chosen, progress=False)
    monkeypatch.setattr(ShapeLearner, "forward", forward)
    assert '"iteration": 2' in read_tensors(tmp_path / "stopped" / CHECKPOINT_FILE)[1]["progress"]
    assert not (tmp_path / "stopped" / WEIGHTS).exists()
    sg.train_shape(cohort, run_dir=tmp_path / "stopped", settings=chosen, progress=False)
    whole, resumed = ((tmp_path / run / WEIGHTS).read_bytes() for run in ("whole", "stopped"))
    assert whole == resumed


def test_held_out_scans_of_one_person_say_nothing_and_training_cases_do(tmp_path: Path) -> None:
    description = sg.write_cohort(
        tmp_path / "c", count=4, spatial_shape=(24, 24, 24), spacing_mm=(2.0, 2.0, 2.0)
    )
    dataset = sg.read_dataset(description)
    twice = dataset.with_same_person([dataset[0].id, dataset[1].id])
    chosen = settings()
    chosen = chosen.changed(segmentation=chosen.segmentation.changed(validation_cases=2))
    seeded = (chosen.changed(seed=seed) for seed in range(20))
    one_person = next(each for each in seeded if held_out_people(twice, each) == 1)
    model = sg.train_shape(twice, run_dir=tmp_path / "one", settings=one_person, progress=False)
    assert [(row.held_out, row.cases) for row in model.quality] == [(False, 2)]
    others = sg.train_shape(dataset, run_dir=tmp_path / "two", settings=one_person, progress=False)
    assert [(row.held_out, row.cases) for row in others.quality] == [(True, 2)]


def held_out_people(dataset: Dataset, chosen: TrainSettings) -> int:
    return len({case.group for case in hold_out(dataset, chosen)[1] or ()})


def test_decoder_is_in_the_checkpoint_and_not_in_the_model(cohort: Dataset, tmp_path: Path) -> None:
    model = sg.train_shape(
        cohort, run_dir=tmp_path, settings=settings(objective="reconstruction"), progress=False
    )
    kept = read_tensors(tmp_path / CHECKPOINT_FILE)[0]
    assert any(name.endswith("exit.weight") for name in kept)
    assert set(read_tensors(tmp_path / WEIGHTS)[0]) == set(model.network.state_dict())
    assert model.objective == "reconstruction"
    assert model.quality[0].measured


def test_finished_aligned_network_sees_what_it_saw_in_training(
    cohort: Dataset, tmp_path: Path
) -> None:
    trained = sg.train_shape(cohort, run_dir=tmp_path, settings=settings(), progress=False)
    loaded = sg.load_shape_network(tmp_path)
    assert loaded.network.pose == "aligned"
    assert loaded.network.aligned is not None
    assert loaded.network.aligned.filters.abs().max() > 0
    assert trained.network.calibration.tolist() == loaded.network.calibration.tolist()


@pytest.mark.parametrize("name", ["contrastive", "vicreg"])
def test_batch_of_one_is_refused_before_anything_is_written(
    name: str, cohort: Dataset, tmp_path: Path
) -> None:
    alone = settings(objective=name, batch_size=1)
    with pytest.raises(ConfigError, match=f"'{name}'.*at least 2.*batch_size=1"):
        sg.train_shape(cohort, run_dir=tmp_path / "run", settings=alone, progress=False)
    assert not (tmp_path / "run").exists()
