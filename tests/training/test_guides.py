"""Guides other than the shape network: trained, resumed, refused, and followed."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shapeguide as sg
from shapeguide.cli import main
from shapeguide.data.dataset import Dataset
from shapeguide.data.prepare import prepare_volume
from shapeguide.errors import ConfigError
from shapeguide.inference.shown import prepared_probabilities
from shapeguide.models.model_files import MODEL_FILE
from shapeguide.models.quality import ReconstructionQuality
from shapeguide.training.engine import loop
from shapeguide.training.engine.checkpoint import read_tensors
from shapeguide.training.engine.log import LOG_FILE, read_log
from shapeguide.training.engine.run_folder import BRANCH_FILE
from shapeguide.training.guides import WITHOUT_MODEL
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset
from shapeguide.training.stages import autoencoder_step
from shapeguide.training.stages import stage as one_path
from shapeguide.training.stages.autoencoder_step import disturbed, measure_reconstruction
from shapeguide.training.stages.classes import one_hot, with_background
from shapeguide.training.stages.segmentation_step import SegmentationStep

GUIDANCES = ("none", "acnn", "srn", "boundary", "hausdorff")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("cohort")
    description = sg.write_cohort(
        folder / "c", count=4, seed=1, spatial_shape=(24, 24, 24), spacing_mm=(2.0, 2.0, 2.0)
    )
    return sg.read_dataset(description)


def tiny(guidance: str, **changes: Any) -> TrainSettings:
    quick = preset("quick")
    settings = quick.changed(
        guidance=guidance,
        autoencoder=quick.autoencoder.changed(
            iterations=4, batch_size=2, channels=(4, 8), code_length=6
        ),
        segmentation=quick.segmentation.changed(
            channels=(4, 8), dice_iterations=3, guided_iterations=3
        ),
        machine=quick.machine.changed(device="cpu", precision="fp32", checkpoint_every=2),
    )
    return settings.changed(**changes)


@pytest.fixture(scope="module")
def runs(cohort: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder for each guidance, by its name."""
    folder = tmp_path_factory.mktemp("runs")
    for guidance in GUIDANCES:
        sg.train(cohort, out=folder / guidance, settings=tiny(guidance), progress=False)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return sg.load_segmenter(folder, device="cpu").network.state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("guidance", GUIDANCES[1:])
def test_guidance_sets_in_after_the_dice_iterations_and_is_logged(
    runs: Path, guidance: str
) -> None:
    guided, plain = (read_tensors(runs / run / BRANCH_FILE)[0] for run in (guidance, "none"))
    assert guided.keys() == plain.keys()
    assert same(guided, plain)
    assert not same(weights(runs / guidance), weights(runs / "none"))
    watched = {"acnn": {"acnn_code"}, "srn": {"srn_reconstruction", "srn_code"}}
    assert {"dice", "guide", *watched.get(guidance, {guidance})} <= set(
        read_log(runs / guidance / LOG_FILE)[-1]
    )
    assert json.loads((runs / guidance / MODEL_FILE).read_text())["notes"]["guidance"] == guidance


@pytest.mark.parametrize("guidance", ["acnn", "srn"])
def test_autoencoder_leaves_its_model_and_how_well_it_reproduces(
    cohort: Dataset, runs: Path, guidance: str
) -> None:
    description = json.loads((runs / guidance / "autoencoder" / MODEL_FILE).read_text())
    assert (description["kind"], description["flavour"]) == ("autoencoder", guidance)
    rows = description["quality"]
    assert [row["structure"] for row in rows] == [item.name for item in cohort.structures]
    assert all(0 <= row["dice"] <= 1 and row["cases"] == 4 for row in rows)
    assert (rows[0]["restored"] is not None) == (guidance == "srn")


def test_kind_of_the_guide_decides_whatever_the_settings_say(
    cohort: Dataset, runs: Path, tmp_path: Path
) -> None:
    guide = sg.load_autoencoder(runs / "acnn" / "autoencoder")
    sg.train_segmenter(
        cohort, guide, run_dir=tmp_path / "run", settings=tiny("shape"), progress=False
    )
    assert same(weights(tmp_path / "run"), weights(runs / "acnn"))


def test_branched_acnn_run_equals_the_one_trained_from_the_start(
    cohort: Dataset, runs: Path, tmp_path: Path
) -> None:
    sg.train_segmenter(
        cohort,
        sg.load_autoencoder(runs / "acnn" / "autoencoder"),
        run_dir=tmp_path / "run",
        settings=tiny("acnn"),
        branch_from=runs / "none",
        progress=False,
    )
    assert same(weights(tmp_path / "run"), weights(runs / "acnn"))


class KilledError(Exception):
    pass


def kill_at(monkeypatch: pytest.MonkeyPatch, iteration: int) -> None:
    """Let the training loop break off in the first stage that comes to an iteration."""
    whole = loop.train_loop

    def broken(state: Any, plan: Any, task: Any, **places: Any) -> None:
        step = task.step

        def stop(batch: Any, number: int) -> Any:
            if number == iteration:
                raise KilledError
            return step(batch, number)

        whole(state, plan, type(task)(**{**vars(task), "step": stop}), **places)

    monkeypatch.setattr(one_path, "train_loop", broken)


@pytest.mark.parametrize("guidance", ["acnn", "srn"])
def test_killed_and_resumed_guided_run_ends_with_the_same_bits(
    cohort: Dataset, runs: Path, tmp_path: Path, guidance: str
) -> None:
    out, settings = tmp_path / "run", tiny(guidance)
    for iteration in (3, 5):  # the autoencoder has four iterations, the segmenter six
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, iteration)
            with pytest.raises(KilledError):
                sg.train(cohort, out=out, settings=settings, progress=False)
    sg.train(cohort, out=out, settings=settings, progress=False)
    for name in ("model.safetensors", "average.safetensors", "autoencoder/model.safetensors"):
        assert (out / name).read_bytes() == (runs / guidance / name).read_bytes()


def test_run_with_other_guidance_is_refused(cohort: Dataset, runs: Path) -> None:
    guide = sg.load_autoencoder(runs / "srn" / "autoencoder")
    with pytest.raises(ConfigError, match=r'another run: settings\.guidance was "acnn", is "srn"'):
        sg.train_segmenter(
            cohort, guide, run_dir=runs / "acnn", settings=tiny("srn"), progress=False
        )


def test_guide_of_other_structures_is_refused(cohort: Dataset, runs: Path, tmp_path: Path) -> None:
    renamed = cohort.with_structures(other=cohort.structures[0].label_ids)
    with pytest.raises(ConfigError, match=r"acnn autoencoder was trained on.*same structures"):
        sg.train_segmenter(
            renamed,
            sg.load_autoencoder(runs / "acnn" / "autoencoder"),
            run_dir=tmp_path / "run",
            settings=tiny("acnn"),
            progress=False,
        )


def test_guide_of_another_working_shape_is_refused(
    cohort: Dataset, runs: Path, tmp_path: Path
) -> None:
    data = tiny("srn").data.changed(spatial_shape=(26, 26, 26))
    with pytest.raises(ConfigError, match=r"srn autoencoder looks at .*24.*works in .*26"):
        sg.train_segmenter(
            cohort,
            sg.load_autoencoder(runs / "srn" / "autoencoder"),
            run_dir=tmp_path / "run",
            settings=tiny("srn", data=data),
            progress=False,
        )


def test_shape_network_beside_another_guidance_is_refused(cohort: Dataset, tmp_path: Path) -> None:
    settings = tiny("shape")
    quick = settings.shape.changed(iterations=2, channels=(4,), quality_pairs=4)
    shape_network = sg.train_shape(
        cohort, run_dir=tmp_path / "s", settings=settings.changed(shape=quick), progress=False
    )
    with pytest.raises(ConfigError, match="together with guidance 'srn'"):
        sg.train(
            cohort,
            out=tmp_path / "r",
            settings=tiny("srn"),
            shape_network=shape_network,
            progress=False,
        )


def test_autoencoder_is_trained_for_its_guidance_only(cohort: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'acnn' or 'srn', found 'shape'"):
        sg.train_autoencoder(cohort, run_dir=tmp_path, settings=tiny("shape"), progress=False)


def test_autoencoder_that_fails_is_warned_about(
    cohort: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = tiny("acnn")
    settings = settings.changed(autoencoder=settings.autoencoder.changed(iterations=1))
    with caplog.at_level(logging.WARNING):
        model = sg.train_autoencoder(cohort, run_dir=tmp_path, settings=settings, progress=False)
    assert model.failed
    assert any("FAILED" in record.message for record in caplog.records)


def test_reproduction_of_a_perfect_autoencoder_is_one_and_of_an_absent_structure_a_failure() -> (
    None
):
    classes = torch.zeros((6, 6, 6), dtype=torch.uint8)
    classes[1:4, 1:4, 1:4] = 1
    found = measure_reconstruction(
        torch.nn.Identity(),
        [classes],
        ["horn", "lobe"],
        flavour="srn",
        held_out=True,
        generator=torch.Generator().manual_seed(0),
    )
    assert (found[0].dice, found[0].cases) == (1.0, 1)
    assert found[0].corrupted == found[0].restored
    assert found[0].corrupted is not None
    assert found[0].corrupted < 1.0
    assert not found[1].good
    assert found[1] == ReconstructionQuality(structure="lobe", cases=0, held_out=True, dice=0.0)


def test_disturbed_maps_are_probabilities_and_mostly_wrong() -> None:
    classes = torch.zeros((12, 12, 12, 12), dtype=torch.uint8)
    classes[:, 3:7, 3:8, 3:9], classes[:, 7:9, 3:8, 3:9] = 1, 2
    reference = one_hot(classes, 3)
    seen = disturbed(reference, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(seen.sum(1), torch.ones(()))
    assert (seen >= 0).all()
    changed = (seen.argmax(1) != classes).flatten(1).any(1).sum().item()
    assert 6 <= changed <= 12
    assert torch.equal(reference, one_hot(classes, 3))


def test_disturbed_maps_of_srn_lose_slabs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = torch.zeros((60, 24, 24, 24), dtype=torch.uint8)
    classes[:, 6:18, 6:18, 6:18] = 1
    reference = one_hot(classes, 2)
    for share in ("CORRUPTED_SHARE", "SOFTENED_SHARE"):
        monkeypatch.setattr(autoencoder_step, share, 0.0)
    seen = disturbed(reference, generator=torch.Generator().manual_seed(0))[:, 1]
    lost = reference[:, 1] - seen > 0.3
    # Of a box of 12 voxels an edge, at most a quarter of one axis is lost.
    voxels = lost.flatten(1).sum(1)
    assert set(voxels.tolist()) <= {0, 144, 288, 432}
    assert 0.2 < (voxels > 0).float().mean().item() < 0.6


def test_background_is_what_structures_leave_and_overlaps_are_shared() -> None:
    masks = torch.tensor([[0.2, 1.0, 0.0], [0.3, 1.0, 0.0]])[None, :, :, None, None]
    wanted = torch.tensor([[0.5, 0.0, 1.0], [0.2, 0.5, 0.0], [0.3, 0.5, 0.0]])
    assert torch.allclose(with_background(masks)[0, :, :, 0, 0], wanted)


def test_restored_prediction_is_the_argmax_of_the_restored_probabilities(
    cohort: Dataset, runs: Path
) -> None:
    segmenter = sg.load_segmenter(runs / "srn", device="cpu")
    autoencoder = sg.load_autoencoder(runs / "srn" / "autoencoder")
    volume = cohort[0].read_volume()
    prepared = prepare_volume(volume, segmenter.space)
    restored = sg.restore(autoencoder, prepared_probabilities(segmenter, prepared.data[None]))
    labels = sg.predict(sg.TrainedRun(segmenter, autoencoder), volume)
    # The cohort lies on the working grid already: nothing is resampled.
    assert np.array_equal(labels.class_indices(), restored.argmax(0))
    assert not np.array_equal(labels.data, sg.predict(segmenter, volume).data)


def test_predictions_are_restored_by_the_autoencoder_of_the_run_or_of_another(
    cohort: Dataset, runs: Path, tmp_path: Path
) -> None:
    scan, autoencoder = cohort[0], sg.load_autoencoder(runs / "srn" / "autoencoder")
    for name, restorer in (
        ("srn", "srn"), ("none", runs / "srn"), ("none", runs / "srn" / "autoencoder"),
    ):  # fmt: skip
        run = sg.load_run(runs / name, restorer=restorer, device="cpu")
        report = sg.predict_files(run, scan, out_dir=tmp_path / name, progress=False)
        segmenter = sg.load_segmenter(runs / name, device="cpu")
        wanted = sg.predict(sg.TrainedRun(segmenter, autoencoder), scan.read_volume())
        found = sg.read_label_map(
            tmp_path / name / f"{scan.id}.nii.gz", structures=segmenter.structures
        )
        assert report.complete
        assert np.array_equal(found.data, wanted.data)


@pytest.mark.parametrize(
    ("run", "message"),
    [("none", "no folder 'autoencoder'"), ("acnn", r"only an autoencoder of 'srn'.*found 'acnn'")],
)
def test_run_without_an_srn_autoencoder_restores_nothing(
    runs: Path, run: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sg.load_run(runs / run, restorer="srn", device="cpu")
    with pytest.raises(ConfigError, match="holds a segmenter and restores nothing"):
        sg.load_run(runs / "srn", restorer=runs / "none", device="cpu")


def test_autoencoder_of_other_structures_restores_nothing(runs: Path) -> None:
    segmenter = sg.load_segmenter(runs / "none", device="cpu")
    other = replace(segmenter, structures=(sg.Structure("other", (9,)),))
    with pytest.raises(ConfigError, match="train both on the same"):
        sg.TrainedRun(other, sg.load_autoencoder(runs / "srn" / "autoencoder"))


def test_command_line_restores_predictions_and_takes_the_average(
    cohort: Dataset, runs: Path, tmp_path: Path
) -> None:
    scan = str(cohort[0].image)
    words = ["--device", "cpu", "--restorer", "srn", "--weights", "average"]
    assert main(["predict", str(runs / "srn"), scan, "--out", str(tmp_path), *words]) == 0
    segmenter = sg.load_segmenter(runs / "srn", weights="average", device="cpu")
    autoencoder = sg.load_autoencoder(runs / "srn" / "autoencoder")
    wanted = sg.predict(sg.TrainedRun(segmenter, autoencoder), cohort[0].read_volume())
    found = sg.read_label_map(tmp_path / f"{cohort[0].id}.nii.gz", structures=segmenter.structures)
    assert np.array_equal(found.data, wanted.data)


def step_of(guidance: str, **changes: Any) -> SegmentationStep:
    settings = tiny(guidance)
    settings = settings.changed(
        shape_loss=settings.shape_loss.changed(ramp_iterations=4, **changes),
        segmentation=settings.segmentation.changed(dice_iterations=10),
    )
    guide = WITHOUT_MODEL.get(type(settings.guide))
    loss = guide(spacing_mm=(1.0, 1.0, 1.0)) if guide else None
    return SegmentationStep(torch.nn.Identity(), (1.0, 1.0, 1.0), settings, loss)


@pytest.mark.parametrize(
    ("guidance", "full"),
    [("shape", 0.4), ("acnn", 0.02), ("srn", 1.0), ("boundary", 0.5), ("hausdorff", 0.6)],
)
def test_each_guide_has_its_weight_and_all_the_same_ramp(guidance: str, full: float) -> None:
    quick = tiny(guidance)

    def weight(balance: str, guided: int) -> float:
        shape_loss = quick.shape_loss.changed(alpha=0.4, ramp_iterations=4, balance=balance)
        settings = quick.changed(
            shape_loss=shape_loss,
            acnn=quick.acnn.changed(weight=0.02),
            boundary=quick.boundary.changed(weight=0.5),
            hausdorff=quick.hausdorff.changed(weight=0.6),
        )
        return settings.guide_weight(guided)

    assert weight("none", 1) == pytest.approx(full / 4)
    assert weight("none", 4) == weight("none", 90) == full
    assert weight("gradient_all", 90) == 0.4
    assert weight("gradient", 90) == (0.4 if guidance == "shape" else full)


def test_balanced_guide_has_alpha_times_the_gradient_of_dice_and_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 2, 6, 6, 6), generator=generator, requires_grad=True)
    classes = (torch.rand((2, 6, 6, 6), generator=generator) > 0.7).to(torch.uint8)
    gradients = {}
    for iteration in (9, 99):
        terms = step_of("hausdorff", balance="gradient_all", alpha=0.25).terms(
            logits, classes, iteration
        )
        (gradients[iteration],) = torch.autograd.grad(terms.total, logits)
    added = gradients[99] - gradients[9]
    assert added.norm().item() == pytest.approx(0.25 * gradients[9].norm().item(), rel=1e-4)
    assert {"hausdorff", "guidance_scale", "guide"} <= set(terms.watched())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_balanced_guide_trains_to_the_end(
    cohort: Dataset, runs: Path, tmp_path: Path, precision: str
) -> None:
    settings = tiny("srn")
    settings = settings.changed(
        shape_loss=settings.shape_loss.changed(balance="gradient_all"),
        machine=settings.machine.changed(precision=precision),
    )
    guide = sg.load_autoencoder(runs / "srn" / "autoencoder")
    sg.train_segmenter(cohort, guide, run_dir=tmp_path, settings=settings, progress=False)
    assert read_log(tmp_path / LOG_FILE)[-1]["guidance_scale"] > 0
    assert not same(weights(tmp_path), weights(runs / "srn"))
