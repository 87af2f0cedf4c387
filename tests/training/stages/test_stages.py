from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

import shapeguide as sg
from shapeguide.data.dataset import Dataset
from shapeguide.errors import CheckpointError, ConfigError
from shapeguide.models.model_files import MODEL_FILE
from shapeguide.models.segmenter import build_segmenter
from shapeguide.training.engine.checkpoint import CHECKPOINT_FILE
from shapeguide.training.engine.log import LOG_FILE, read_log
from shapeguide.training.engine.run_folder import BRANCH_FILE, RUN_FILE, clear_run_folder
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset
from shapeguide.training.stages.case_order import CaseOrder
from shapeguide.training.stages.classes import one_hot
from shapeguide.training.stages.stage import lay_out


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("cohort")
    description = sg.write_cohort(
        folder / "c", count=5, seed=1, spatial_shape=(24, 24, 24), spacing_mm=(2.0, 2.0, 2.0)
    )
    return sg.read_dataset(description)


def tiny(**changes: object) -> TrainSettings:
    quick = preset("quick")
    settings = quick.changed(
        shape=quick.shape.changed(iterations=4, channels=(4, 8), quality_pairs=8),
        restorer=quick.restorer.changed(iterations=2, batch_size=2, channels=(4, 8)),
        shape_loss=quick.shape_loss.changed(accept_collapsed=True),
        segmentation=quick.segmentation.changed(
            channels=(4, 8), dice_iterations=4, guided_iterations=2, validate_every=2
        ),
        machine=quick.machine.changed(device="cpu", checkpoint_every=2),
    )
    return settings.changed(**changes)


@pytest.fixture(scope="module")
def trained(cohort: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "guided"
    sg.train(cohort, out=folder, settings=tiny(), progress=False)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return sg.load_segmenter(folder, device="cpu").network.state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_training_leaves_settings_log_models_and_no_stray_file(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names >= {RUN_FILE, LOG_FILE, MODEL_FILE, CHECKPOINT_FILE, "model.safetensors"}
    assert names >= {"shape", "restorer"}
    assert not [name for name in names if name.startswith(".writing")]
    assert (trained / "shape" / MODEL_FILE).is_file()
    assert (trained / "restorer" / MODEL_FILE).is_file()
    assert any((trained / "tensorboard").iterdir())
    rows = read_log(trained / LOG_FILE)
    assert {"dice", "guide", "shape_distance", "capped_share", "learning_rate"} <= set(rows[-1])


def test_same_call_on_a_finished_run_loads_it(cohort: Dataset, trained: Path) -> None:
    before = (trained / "model.safetensors").stat().st_mtime_ns
    again = sg.train(cohort, out=trained, settings=tiny(), progress=False)
    assert (trained / "model.safetensors").stat().st_mtime_ns == before
    assert same(weights(trained), again.network.state_dict())


def test_plain_and_guided_runs_are_equal_until_the_guidance_sets_in(
    cohort: Dataset, trained: Path, tmp_path: Path
) -> None:
    sg.train(cohort, out=tmp_path / "plain", settings=tiny(guidance="none"), progress=False)
    plain = (tmp_path / "plain" / BRANCH_FILE).read_bytes()
    assert plain == (trained / BRANCH_FILE).read_bytes()
    assert not same(weights(tmp_path / "plain"), weights(trained))


def test_branched_run_equals_the_one_trained_from_the_start(
    cohort: Dataset, trained: Path, tmp_path: Path
) -> None:
    sg.train(cohort, out=tmp_path / "plain", settings=tiny(guidance="none"), progress=False)
    shape_network = sg.load_shape_network(trained / "shape")
    sg.train_segmenter(
        cohort,
        shape_network,
        run_dir=tmp_path / "branched",
        settings=tiny(),
        branch_from=tmp_path / "plain",
        progress=False,
    )
    assert same(weights(tmp_path / "branched"), weights(trained))
    averages = [
        sg.load_segmenter(run, weights="average", device="cpu").network.state_dict()
        for run in (tmp_path / "branched", trained)
    ]
    assert same(*averages)
    assert not same(averages[0], weights(trained))
    assert [row["iteration"] for row in read_log(tmp_path / "branched" / LOG_FILE)] == [6]


def test_branch_of_another_seed_is_refused(cohort: Dataset, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot branch.*settings\.seed was 0, is 5"):
        sg.train_segmenter(
            cohort,
            run_dir=tmp_path / "run",
            settings=tiny(seed=5),
            branch_from=trained,
            progress=False,
        )


def test_folder_of_other_settings_or_data_is_refused(cohort: Dataset, trained: Path) -> None:
    with pytest.raises(ConfigError, match=r"another run: settings\.seed was 0, is 3"):
        sg.train(cohort, out=trained, settings=tiny(seed=3), progress=False)
    fewer = cohort.select([case.id for case in cohort][:3])
    with pytest.raises(ConfigError, match=r"dataset\.train"):
        sg.train(fewer, out=trained, settings=tiny(), progress=False)


def test_machine_settings_may_change_between_two_starts(cohort: Dataset, trained: Path) -> None:
    settings = tiny()
    settings = settings.changed(machine=settings.machine.changed(checkpoint_every=1))
    again = sg.train(cohort, out=trained, settings=settings, progress=False)
    assert same(weights(trained), again.network.state_dict())


def test_settings_that_a_stage_does_not_use_may_change_between_two_starts(
    cohort: Dataset, tmp_path: Path
) -> None:
    settings, folder = tiny(), tmp_path / "shape"
    sg.train_shape(cohort, run_dir=folder, settings=settings, progress=False)
    other = settings.changed(
        autoencoder=settings.autoencoder.changed(iterations=7),
        restorer=settings.restorer.changed(iterations=7),
        shape_loss=settings.shape_loss.changed(alpha=2.0),
    )
    sg.train_shape(cohort, run_dir=folder, settings=other, progress=False)
    used = settings.changed(shape=settings.shape.changed(iterations=7))
    with pytest.raises(ConfigError, match=r"another run: settings\.shape\.iterations"):
        sg.train_shape(cohort, run_dir=folder, settings=used, progress=False)


def test_three_cases_train(cohort: Dataset, tmp_path: Path) -> None:
    few = cohort.select([case.id for case in cohort][:3])
    sg.train(few, out=tmp_path, settings=tiny(), progress=False)
    assert (tmp_path / MODEL_FILE).is_file()


def test_one_case_trains_without_guidance_only(cohort: Dataset, tmp_path: Path) -> None:
    alone = cohort.select([cohort[0].id])
    with pytest.raises(ConfigError, match=r"at least 2 cases.*found 1"):
        sg.train(alone, out=tmp_path / "guided", settings=tiny(), progress=False)
    sg.train(alone, out=tmp_path / "plain", settings=tiny(guidance="none"), progress=False)
    assert (tmp_path / "plain" / MODEL_FILE).is_file()


def test_workers_change_nothing(cohort: Dataset, trained: Path, tmp_path: Path) -> None:
    settings = tiny()
    settings = settings.changed(machine=settings.machine.changed(num_workers=1))
    sg.train(cohort, out=tmp_path / "run", settings=settings, progress=False)
    assert same(weights(tmp_path / "run"), weights(trained))


def test_validation_cases_are_held_out_and_the_best_weights_kept(
    cohort: Dataset, tmp_path: Path
) -> None:
    settings = tiny(guidance="none")
    held_out = settings.segmentation.changed(validation_cases=2)
    settings = settings.changed(segmentation=held_out)
    sg.train(cohort, out=tmp_path, settings=settings, progress=False)
    identity = json.loads((tmp_path / RUN_FILE).read_text())["dataset"]
    assert len(identity["train"]) == 3
    assert len(identity["validation"]) == 2
    assert not set(identity["train"]) & set(identity["validation"])
    scores = [row for row in read_log(tmp_path / LOG_FILE) if "score" in row]
    assert [row["iteration"] for row in scores] == [2, 4, 6]
    sg.load_segmenter(tmp_path, weights="best", device="cpu")


def test_deep_supervision_leaves_every_kind_of_weights_of_the_segmenter_alone(
    cohort: Dataset, tmp_path: Path
) -> None:
    settings = tiny(guidance="none")
    deep = settings.segmentation.changed(
        channels=(4, 6, 8),
        deep_supervision=True,
        elastic_mm=1.5,
        swelling_mm=2.0,
        scanner_faults=0.5,
        validation_cases=1,
    )
    settings = settings.changed(segmentation=deep)
    sg.train(cohort, out=tmp_path, settings=settings, progress=False)
    logged = [row for row in read_log(tmp_path / LOG_FILE) if "deep" in row]
    assert logged
    assert all(row["deep"] > 0 for row in logged)
    plain = build_segmenter("unet3d", (4, 6, 8), classes=1 + len(cohort.structures))
    for which in ("last", "best", "average"):
        network = sg.load_segmenter(tmp_path, weights=which, device="cpu").network
        assert network.state_dict().keys() == plain.state_dict().keys()
    # All that varies the images is drawn by the iteration: a worker draws the same.
    working = settings.changed(machine=settings.machine.changed(num_workers=1))
    sg.train(cohort, out=tmp_path / "working", settings=working, progress=False)
    assert same(weights(tmp_path), weights(tmp_path / "working"))


def test_holding_out_every_case_is_refused(cohort: Dataset, tmp_path: Path) -> None:
    settings = tiny()
    settings = settings.changed(segmentation=settings.segmentation.changed(validation_cases=5))
    with pytest.raises(ConfigError, match="cannot hold out 5 of 5"):
        sg.train(cohort, out=tmp_path / "run", settings=settings, progress=False)


def test_collapsed_shape_network_is_refused_unless_accepted(
    cohort: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = tiny()
    settings = settings.changed(
        shape=settings.shape.changed(objective="pairwise", pose="grid", learning_rate=0.05),
        shape_loss=settings.shape_loss.changed(accept_collapsed=False),
    )
    shape_network = sg.train_shape(
        cohort, run_dir=tmp_path / "s", settings=settings, progress=False
    )
    if not shape_network.collapsed:
        pytest.fail(f"expected a collapse after so few iterations: {shape_network.quality}")
    with pytest.raises(ConfigError, match=r"collapsed for .*AUC.*accept_collapsed"):
        sg.train_segmenter(
            cohort, shape_network, run_dir=tmp_path / "r", settings=settings, progress=False
        )
    settings = settings.changed(restorer=settings.restorer.changed(iterations=5))
    with pytest.raises(ConfigError, match="collapsed for"):
        sg.train(cohort, out=tmp_path / "all", settings=settings, progress=False)
    assert (tmp_path / "all/shape/model.json").is_file()
    assert not (tmp_path / "all/restorer").exists(), "refused before the restorer is trained"
    accepted = settings.changed(shape_loss=settings.shape_loss.changed(accept_collapsed=True))
    with caplog.at_level("WARNING"):
        sg.train_segmenter(
            cohort, shape_network, run_dir=tmp_path / "r", settings=accepted, progress=False
        )
    assert re.search(r"collapsed for .* all the same.*ratio .*AUC", caplog.text)


def test_shape_network_of_other_structures_is_refused(
    cohort: Dataset, trained: Path, tmp_path: Path
) -> None:
    label_id = cohort.structures[0].label_ids[0]
    renamed = cohort.with_structures(other=(label_id,))
    with pytest.raises(ConfigError, match="same structures"):
        sg.train_segmenter(
            renamed,
            sg.load_shape_network(trained / "shape"),
            run_dir=tmp_path / "r",
            settings=tiny(),
            progress=False,
        )


def test_paper_forms_train(cohort: Dataset, tmp_path: Path) -> None:
    settings, paper = tiny(), preset("paper")
    settings = settings.changed(
        shape=paper.shape.changed(iterations=3, channels=(4, 8), quality_pairs=8),
        shape_loss=paper.shape_loss,
    )
    sg.train(cohort, out=tmp_path, settings=settings, progress=False)
    description = json.loads((tmp_path / "shape" / MODEL_FILE).read_text())
    assert (description["objective"], description["pose"]) == ("pairwise", "grid")


def test_damaged_model_file_is_found(trained: Path, tmp_path: Path) -> None:
    for name in (MODEL_FILE, "model.safetensors"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (tmp_path / "model.safetensors").write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="SHA-256"):
        sg.load_segmenter(tmp_path, device="cpu")
    (tmp_path / MODEL_FILE).write_text("{")
    with pytest.raises(CheckpointError, match=r"model\.json"):
        sg.load_segmenter(tmp_path, device="cpu")


def test_model_that_asks_for_absurd_memory_is_refused(trained: Path, tmp_path: Path) -> None:
    content = json.loads((trained / MODEL_FILE).read_text())
    content["channels"] = [10**9]
    (tmp_path / MODEL_FILE).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="channels"):
        sg.load_segmenter(tmp_path, device="cpu")


def test_run_without_an_average_says_which_weights_it_has(cohort: Dataset, tmp_path: Path) -> None:
    settings = tiny(guidance="none")
    settings = settings.changed(segmentation=settings.segmentation.changed(average_decay=0.0))
    sg.train(cohort, out=tmp_path, settings=settings, progress=False)
    assert not (tmp_path / "average.safetensors").exists()
    with pytest.raises(CheckpointError, match="no 'average' weights; it has: last"):
        sg.load_segmenter(tmp_path, weights="average", device="cpu")


def test_folder_without_a_model_says_what_to_do(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(CheckpointError, match="finished model"):
        sg.load_segmenter(tmp_path)
    with pytest.raises(CheckpointError, match="ShapeModelDescription"):
        sg.load_shape_network(trained / "restorer")


def test_only_run_folders_are_ever_deleted(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("kept")
    with pytest.raises(ConfigError, match="no folder of a run"):
        clear_run_folder(tmp_path)
    assert (tmp_path / "precious.txt").is_file()
    clear_run_folder(tmp_path / "never was")


def test_alpha_rises_along_its_ramp() -> None:
    settings = tiny()
    settings = settings.changed(
        shape_loss=settings.shape_loss.changed(alpha=0.4, ramp_iterations=4),
        segmentation=settings.segmentation.changed(dice_iterations=10, guided_iterations=8),
    )
    assert [round(settings.guide_weight(n), 3) for n in (1, 2, 4, 8)] == [0.1, 0.2, 0.4, 0.4]


def test_every_case_comes_once_in_each_round() -> None:
    order = CaseOrder(5, batch_size=2, seed=3)
    seen = [index for iteration in range(5) for index in order.of(iteration)]
    assert sorted(seen[:5]) == sorted(seen[5:]) == [0, 1, 2, 3, 4]
    assert seen == [index for iteration in range(5) for index in order.of(iteration)]


@pytest.mark.parametrize(("channels", "last"), [((8, 16), True), ((16, 32), False)])
def test_weights_of_few_channels_are_laid_out_anew_and_stay_the_same(
    channels: tuple[int, ...], last: bool
) -> None:
    network = build_segmenter("unet3d", channels, classes=2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    lay_out(network)
    assert same(before, network.state_dict())
    formats = {
        weights.is_contiguous(memory_format=torch.channels_last_3d)
        for weights in network.parameters()
        if weights.shape[2:] == (3, 3, 3) and weights.shape[1] > 1
    }
    assert formats == {last}


def test_one_hot_has_a_channel_for_each_class() -> None:
    classes = torch.tensor([[[[0, 1, 2]]]], dtype=torch.uint8)
    assert one_hot(classes, 3)[0, :, 0, 0].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
