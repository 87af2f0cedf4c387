"""The study of controls: what it varies, that g trains as in the shape stage, and its tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

import shapeguide as sg
from shapeguide.cli import main
from shapeguide.data.dataset import Dataset
from shapeguide.errors import ConfigError
from shapeguide.geometry.warp_limits import WarpLimits
from shapeguide.models.shape_network import ShapeNetwork
from shapeguide.studies.controls.design import ControlsDesign, Setting
from shapeguide.studies.controls.measure import Looking, lying_off, trained_as_printed
from shapeguide.studies.controls.study import study_controls, summary_of
from shapeguide.training.cohort import cohort_of
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import preset
from shapeguide.training.shape import MaskBank, mask_bank
from shapeguide.training.stages.shape import ShapeStage, train_shape

SMALL = ControlsDesign(
    centres=("object",), translations_mm=(0.0,), offsets_mm=(0.0, 4.0), levels=(1,), seeds=(0,),
    pairs=4,
)  # fmt: skip


def tiny() -> TrainSettings:
    paper = preset("paper")
    return paper.changed(
        shape=paper.shape.changed(iterations=2, canonical_shape=8, quality_pairs=4),
        machine=paper.machine.changed(device="cpu"),
    )


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    description = sg.write_cohort(
        tmp_path_factory.mktemp("cohort") / "c",
        count=5,
        seed=1,
        spatial_shape=(24, 24, 24),
        spacing_mm=(2.0, 2.0, 2.0),
    )
    return sg.read_dataset(description)


def bank_of(*corners: tuple[int, int, int]) -> MaskBank:
    masks = torch.zeros((len(corners), 1, 12, 12, 12), dtype=torch.uint8)
    for mask, (i, j, k) in zip(masks, corners, strict=True):
        mask[0, i : i + 2, j : j + 3, k : k + 2] = 1
    return MaskBank(masks, (2.0, 2.0, 2.0), WarpLimits())


def test_every_setting_is_there_once_and_varies_what_it_says() -> None:
    design = ControlsDesign()
    found = list(design.settings(("a",)))
    assert len(set(found)) == len(found) == 3 * (24 + 2 * 6 + 2 + 2)
    assert len({one.folder_name for one in found}) == len(found)
    for one in found:
        made = one.settings(preset("default"))
        assert made.shape.objective == "pairwise"
        assert (made.warp.centre, made.warp.translation_mm) == (one.centre, one.translation_mm)
        assert (len(made.shape.channels), made.shape.normalised) == (one.levels, one.normalised)
        assert (made.shape.maps, made.shape.pose) == (one.maps, one.pose)
        assert (made.data.region, made.seed) == ("none", one.seed)


@pytest.mark.parametrize(
    "wrong",
    [{"seeds": ()}, {"levels": (6,)}, {"offsets_mm": (-1.0,)}, {"pairs": 1}, {"seeds": (1, 1)}],
)
def test_what_cannot_be_varied_is_refused(wrong: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ConfigError):
        ControlsDesign(**wrong)  # type: ignore[arg-type]


def test_heads_lie_off_by_whole_voxels_and_no_structure_is_cut() -> None:
    bank = bank_of((0, 0, 0), (5, 5, 5), (10, 9, 10))
    for seed in range(5):
        moved = lying_off(bank, 10.0, torch.Generator().manual_seed(seed))
        for before, after in zip(bank.masks, moved.masks, strict=True):
            assert after.sum() == before.sum()
            (low, high) = (f(after[0].nonzero(), 0) for f in (torch.amin, torch.amax))
            assert (high - low).tolist() == [1, 2, 1], "it is moved in one piece"
        assert not torch.equal(moved.masks, bank.masks)
    assert lying_off(bank, 0.0, torch.Generator()) is bank


def test_no_network_is_the_view_itself_or_its_averages() -> None:
    masks = bank_of((3, 3, 3)).masks.float()
    like = ShapeNetwork(["a"], pose="grid")
    view, averaged = (
        Looking(like, averaged=one)(masks, spacing_mm=(2.0, 2.0, 2.0)) for one in (False, True)
    )
    assert torch.equal(view, masks)
    assert averaged.shape == (1, 1, 4, 4, 4)
    torch.testing.assert_close(averaged.mean(), masks.mean())
    assert averaged[0, 0, 1, 1, 1] == pytest.approx(12 / 27)


def test_g_is_trained_as_the_shape_stage_trains_it(cohort: Dataset, tmp_path: Path) -> None:
    settings = Setting("horn", 3).settings(tiny())
    expected = train_shape(cohort, run_dir=tmp_path, settings=settings, progress=False).network
    made = cohort_of(cohort, settings)
    network = ShapeStage(made, settings).untrained()
    trained_as_printed(network, mask_bank(made.train_cases, settings), settings.shape, seed=3)
    for name, tensor in network.trunks.state_dict().items():
        torch.testing.assert_close(tensor, expected.trunks.state_dict()[name], rtol=0, atol=1e-7)


def test_the_scale_is_that_of_the_same_network_before_training() -> None:
    rows = [
        {"structure": s, "seed": 0, "pose": "grid", "centre": "object", "translation_mm": 0.0,
         "offset_mm": 0.0, "maps": "binary", "levels": 3, "normalised": False, "people": "test",
         "observer": observer, "same": 1.0, "different": different, "ratio": different, "auc": 0.5,
         "rank1": 0.5}
        for s, observer, different in (
            ("a", "trained", 1.0), ("a", "untrained", 4.0),
            ("b", "trained", 3.0), ("b", "untrained", 4.0), ("a", "view", 5.0),
        )
    ]  # fmt: skip
    found = summary_of(pd.DataFrame(rows)).set_index("observer")
    assert float(found["scale"]["trained"]) == pytest.approx((1 / 4 + 3 / 4) / 2)
    assert found["scale"][["untrained", "view"]].isna().all()
    ratios = [float(found[name]["trained"]) for name in ("ratio", "ratio_least", "ratio_most")]
    assert ratios == [2.0, 1.0, 3.0]


def test_a_study_measures_every_observer_on_both_sides_and_goes_on_where_it_ended(
    cohort: Dataset, tmp_path: Path
) -> None:
    train, test = cohort.split_at_random(test_count=2)
    out = tmp_path / "out"
    found = study_controls(train, test, out=out, settings=tiny(), design=SMALL, progress=False)
    assert not found.failures
    table = found.table
    assert set(table["observer"]) == {"trained", "untrained", "view", "averaged view"}
    assert set(table["people"]) == {"train", "test"}
    assert set(table[table["pose"] != "grid"]["observer"]) == {"view", "averaged view"}
    assert (out / "figures" / "ratios.png").stat().st_size > 1000
    written = {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    more = replace(SMALL, seeds=(0, 1))
    again = study_controls(train, test, out=out, settings=tiny(), design=more, progress=False)
    assert all(path.stat().st_mtime_ns == written[path] for path in written)
    assert len(again.table) == 2 * len(table)
    with pytest.raises(ConfigError, match="holds another study"):
        study_controls(
            train,
            test,
            out=out,
            settings=tiny().changed(shape=tiny().shape.changed(iterations=3)),
            design=SMALL,
            progress=False,
        )


def test_the_command_prints_the_means(
    cohort: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(cohort.path if cohort.path.is_dir() else cohort.path.parent)
    done = main(
        ["study", "controls", folder, "--test-count", "2", "--out", str(tmp_path / "out"),
         "--preset", "paper", "--device", "cpu", "--shape.iterations", "2", "--centres", "grid",
         "--translations-mm", "0", "--offsets-mm", "0", "--levels", "1", "--seeds", "0",
         "--pairs", "4"]
    )  # fmt: skip
    assert done == 0
    printed = capsys.readouterr().out
    assert "averaged view" in printed
    assert "1 level" in printed


def test_masks_stay_binary_only_where_they_are_to() -> None:
    bank = bank_of((4, 4, 4))
    soft, hard = (
        replace(bank, hard=one).warped(bank.masks, generator=torch.Generator().manual_seed(0))
        for one in (False, True)
    )
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    assert len(soft.unique()) > 2


def test_an_option_that_would_change_nothing_is_refused(
    cohort: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["study", "controls", str(cohort.path), "--test-count", "2", "--out", str(tmp_path)]
    assert main([*words, "--preset", "paper", "--shape.batch-size", "4"]) == 2
    assert "--shape.batch-size would change nothing" in capsys.readouterr().err
