from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import ndimage

import shapeguide as sg
from shapeguide.data.dataset import Dataset
from shapeguide.errors import ConfigError, DataError
from shapeguide.models.restoration import Restoration
from shapeguide.storage.whole import write_json
from shapeguide.studies.study import read_object
from shapeguide.studies.systems.design import SystemsDesign
from shapeguide.studies.systems.factorial import study_guidance
from shapeguide.studies.systems.study import SystemsResult, open_cells, study_systems
from shapeguide.studies.systems.systems import systems_named
from shapeguide.studies.systems.training import (
    SystemsFiles,
    SystemsStudy,
    load_guide,
    restoration,
    restorer_key,
    restorers,
)
from shapeguide.training.settings.groups import TrainSettings

DESIGN = SystemsDesign(
    systems=systems_named(["plain"]),
    seeds=(1,),
    regimes=("few2",),
    corruptions=(),
    weights=("last",),
)
TEST_CASES = 2
SCORED = ["dice", "hausdorff_mm", "missed"]


pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def settings(small: TrainSettings) -> TrainSettings:
    return small.changed(
        segmentation=small.segmentation.changed(dice_iterations=2, guided_iterations=1),
        machine=small.machine.changed(precision="fp32"),
    )


def parts_of(cohort: Path) -> tuple[Dataset, Dataset]:
    dataset = sg.read_dataset(cohort).with_structures(horn=(1,))
    return dataset.split_at_random(test_count=TEST_CASES)


def run(cohort: Path, out: Path, settings: TrainSettings, *, keep: bool = False) -> SystemsResult:
    train, test = parts_of(cohort)
    return study_systems(
        train, test, out=out, settings=settings, design=DESIGN, keep_predictions=keep,
        progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(
    cohort: Path, settings: TrainSettings, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("table2") / "out"
    assert run(cohort, out, settings).complete
    return out


def study_of(
    cohort: Path, out: Path, settings: TrainSettings, design: SystemsDesign
) -> SystemsStudy:
    return SystemsStudy(SystemsFiles(out), *parts_of(cohort), settings, design)


def scores_of(out: Path) -> Path:
    return out / "cells" / "few2" / "seed1" / "plain" / "scores.csv"


def test_each_system_is_restored_by_the_label_maps_that_its_guide_may_see(
    cohort: Path, settings: TrainSettings
) -> None:
    everything = SystemsDesign(seeds=(4,), regimes=("few2", "all"))
    study = study_of(cohort, Path("nowhere"), settings, everything)
    found = {
        cell.name: {name: key.text for name, key in restorers(study, cell).items()}
        for cell in everything.conditions()
    }
    assert {name: keys for name, keys in found.items() if keys} == {
        "few2/4/plain": {
            "restored": "few2/4/restorer",
            "restored_all_maps": "all/4/restorer",
            "srn": "few2/4/srn",
        },
        "few2/4/shape": {"restored": "few2/4/restorer"},
        "few2/4/shape_all_maps": {"restored": "all/4/restorer"},
        "few2/4/srn": {"srn": "few2/4/srn"},
        "few2/4/srn_all_maps": {"srn": "all/4/srn"},
        "all/4/plain": {"restored": "all/4/restorer", "srn": "all/4/srn"},
        "all/4/shape": {"restored": "all/4/restorer"},
        "all/4/srn": {"srn": "all/4/srn"},
        **{
            f"{regime}/4/{name}": {"restored": f"{regime}/4/restorer"}
            for regime in ("few2", "all")
            for name in ("unet2d", "fcn", "vnet")
        },
    }
    assert len(found) > 12


def test_restorers_are_trained_once_and_not_at_all_when_they_have_no_iterations(
    cohort: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    design = replace(DESIGN, systems=systems_named(["plain", "shape", "shape_all_maps"]))

    def planned(settings: TrainSettings, design: SystemsDesign) -> list[str]:
        cells = open_cells(study_of(cohort, tmp_path, settings, design), design.conditions())
        return [cell.name for cell in cells if cell.name.endswith("/restorer")]

    assert planned(settings, design) == ["guide few2/1/restorer", "guide all/1/restorer"]
    none = settings.changed(restorer=settings.restorer.changed(iterations=0))
    assert planned(none, design) == []
    assert planned(settings, replace(design, restores=False)) == []


def test_the_factorial_of_the_guidance_restores_nothing(
    cohort: Path, settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    designs = []

    def noted(*_: object, design: SystemsDesign, **__: object) -> None:
        designs.append(design)
        raise DataError("that is enough")

    monkeypatch.setattr("shapeguide.studies.systems.factorial.study_systems", noted)
    train, test = parts_of(cohort)
    with pytest.raises(DataError, match="that is enough"):
        study_guidance(train, test, out="nowhere", settings=settings, design=DESIGN)
    assert [design.restores for design in designs] == [False]


def test_without_a_restorer_the_rest_is_scored_and_the_restored_follow_later(
    finished: Path, cohort: Path, settings: TrainSettings, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fail(*_: object, **__: object) -> None:
        raise DataError("no restorer today")

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr("shapeguide.studies.systems.training.train_restorer", fail)
        found = run(cohort, out, settings)
    assert found.failures == {
        f"guide {regime}/1/restorer": "no restorer today" for regime in ("few2", "all")
    }
    assert list(found.scores["postprocess"].unique()) == ["none", "largest"]
    before = scores_of(out).read_text()
    assert run(cohort, out, settings).complete
    assert scores_of(out).read_text().startswith(before)
    same = ["case", "postprocess"]
    later, at_once = (pd.read_csv(scores_of(one)).sort_values(same) for one in (out, finished))
    pd.testing.assert_frame_equal(later.reset_index(drop=True), at_once.reset_index(drop=True))


def test_a_folder_from_before_there_were_restorers_goes_on(
    finished: Path, cohort: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    shutil.rmtree(out / "guides")
    table = pd.read_csv(scores_of(out))
    table[table["postprocess"].isin(["none", "largest"])].to_csv(scores_of(out), index=False)
    before = scores_of(out).read_text()
    identity = read_object(out / "study.json")
    del identity["settings"]["restorer"]
    write_json(out / "study.json", identity)
    weights = {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*.safetensors")}
    assert run(cohort, out, settings).complete
    assert scores_of(out).read_text().startswith(before)
    assert len(pd.read_csv(scores_of(out))) == len(table) == 4 * TEST_CASES
    assert {path: path.stat().st_mtime_ns for path in weights} == weights
    # From now on it is known which restorer it was.
    other = settings.changed(restorer=settings.restorer.changed(iterations=4))
    with pytest.raises(ConfigError, match=r"settings\.restorer\.iterations was 3, is 4"):
        run(cohort, out, other)


class TwoBoxes:
    @staticmethod
    def restore(probabilities: NDArray[np.float32]) -> Restoration:
        restored = np.zeros_like(probabilities)
        restored[1, 2:5, 2:5, 2:5] = restored[1, 10:16, 10:16, 10:16] = 1
        restored[0] = 1 - restored[1]
        return Restoration(restored, None)


class Untouched:
    @staticmethod
    def restore(probabilities: NDArray[np.float32]) -> Restoration:
        nowhere = np.zeros(probabilities.shape[1:], dtype=np.bool_)
        return Restoration(probabilities.copy(), nowhere)


@pytest.mark.parametrize("restorer", [TwoBoxes, Untouched])
def test_the_largest_component_of_a_restored_prediction_is_kept(
    finished: Path, cohort: Path, settings: TrainSettings, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    restorer: type[TwoBoxes | Untouched],
) -> None:  # fmt: skip
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    scores_of(out).unlink()
    monkeypatch.setattr(
        "shapeguide.studies.systems.scoring.restoration", lambda *_: {"last": restorer}
    )
    found = run(cohort, out, settings, keep=True).scores
    _, test = parts_of(cohort)
    for case in test:
        path = scores_of(out).parent / f"predictions/clean-last-restored/{case.id}.nii.gz"
        label_map = sg.read_label_map(path, structures=test.structures)
        if restorer is TwoBoxes:
            assert ndimage.label(label_map.data, np.ones((3, 3, 3)))[1] == 1
            assert np.count_nonzero(label_map.data) == pytest.approx(6**3, rel=0.5)
        else:
            rows = found[found["case"] == case.id].set_index("postprocess")
            restored, largest = (list(rows.loc[name, SCORED]) for name in ("restored", "largest"))
            assert restored == largest


def test_a_restorer_restores_and_is_no_guide(
    finished: Path, cohort: Path, settings: TrainSettings
) -> None:
    study = study_of(cohort, finished, settings, DESIGN)
    identity = read_object(finished / "study.json")["settings"]["data"]
    space = settings.data.changed(
        spacing_mm=identity["spacing_mm"], spatial_shape=identity["spatial_shape"]
    )
    study = replace(study, settings=settings.changed(data=space))
    key = restorer_key("few2", 1)
    with pytest.raises(ConfigError, match="few2/1/restorer restores predictions and guides no"):
        load_guide(study, key)
    probabilities = np.full((2, 16, 16, 16), 0.5, dtype=np.float32)
    cell = DESIGN.conditions()[0]
    segmenter = sg.load_segmenter(study.files.run(cell), device="cpu")
    restored = restoration(study, key, cell, {"last": segmenter})["last"]
    found = restored.restore(probabilities).probabilities
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-5)
