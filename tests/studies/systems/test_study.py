from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import shapeguide as sg
from shapeguide import cli
from shapeguide.data.dataset import Dataset
from shapeguide.errors import ConfigError, DataError
from shapeguide.geometry.volume import LabelMap
from shapeguide.studies.scores import COLUMNS
from shapeguide.studies.systems.design import SystemsDesign
from shapeguide.studies.systems.factorial import study_guidance
from shapeguide.studies.systems.study import SystemsResult, study_systems
from shapeguide.studies.systems.systems import GuidanceFactors, System, systems_named
from shapeguide.studies.systems.training import training_cases
from shapeguide.training.engine.log import read_log
from shapeguide.training.settings.groups import TrainSettings

DICE_ITERATIONS = 10
TEST_CASES = 3
DESIGN = SystemsDesign(
    systems=systems_named(["plain", "shape", "shape_all_maps"]),
    seeds=(1,),
    regimes=("few3",),
    corruptions=("noise",),
    severities=(2,),
)


# The figures of the finished experiment, which is made before the fixture, are enough.
pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def settings(small: TrainSettings) -> TrainSettings:
    return small.changed(
        segmentation=small.segmentation.changed(
            dice_iterations=DICE_ITERATIONS, guided_iterations=4
        ),
        machine=small.machine.changed(checkpoint_every=2),
    )


def parts_of(cohort: Path) -> tuple[Dataset, Dataset]:
    dataset = sg.read_dataset(cohort).with_structures(horn=(1,))
    return dataset.split_at_random(test_count=TEST_CASES)


def run(
    cohort: Path, out: Path, settings: TrainSettings, design: SystemsDesign = DESIGN
) -> SystemsResult:
    train, test = parts_of(cohort)
    return study_systems(train, test, out=out, settings=settings, design=design, progress=False)


@pytest.fixture(scope="module")
def finished(
    cohort: Path, settings: TrainSettings, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("table2") / "out"
    assert run(cohort, out, settings).complete
    return out


def read(out: Path, name: str = "table2") -> pd.DataFrame:
    return pd.read_csv(out / f"{name}.csv")


def state(out: Path) -> dict[str, int]:
    """Time of the last change of everything that costs time."""
    files = (*out.rglob("*.safetensors"), *out.rglob("scores.csv"))
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in files}


def cell(out: Path, name: str) -> Path:
    regime, seed, system = name.split("/")
    return out / "cells" / regime / f"seed{seed}" / system


def test_every_case_has_a_row_for_each_cell_image_postprocessing_and_weights(
    finished: Path,
) -> None:
    table = read(finished)
    assert tuple(table.columns) == (*COLUMNS, "person")
    assert tuple(table.columns[:-2]) == (
        *("dataset", "structure", "regime", "severity", "system", "guidance", "seed", "case"),
        *("postprocess", "dice", "hausdorff_mm", "hd95_mm", "assd_mm", "missed"),
    )
    tested = table.groupby("system", sort=False)["postprocess"].unique().map(list)
    assert tested.to_dict() == {
        "plain": ["none", "largest", "restored", "restored_all_maps"],
        "shape": ["none", "largest", "restored"],
        "shape_all_maps": ["none", "largest", "restored"],
    }
    assert len(table) == (4 + 3 + 3) * TEST_CASES * 2 * 2
    assert not table.duplicated([*COLUMNS[:9], "weights"]).any()
    assert set(zip(table["regime"], table["severity"], strict=True)) == {
        ("few3", 0),
        ("few3+noise", 2),
    }
    assert set(zip(table["system"], table["guidance"], strict=True)) == {
        ("plain", "none"),
        ("shape", "shape"),
        ("shape_all_maps", "shape"),
    }
    assert set(table["weights"]) == {"average", "last"}
    summary, compared = (read(finished, f"table2_{name}") for name in ("summary", "comparisons"))
    assert set(summary["regime"]) == {"few3", "few3+noise", "few3+corrupted"}
    assert list(summary.query("regime == 'few3'")["system"].unique()) == [
        "plain",
        "shape",
        "shape_all_maps",
        "plain+restorer",
        "plain+restorer_all_maps",
        "shape+restorer",
        "shape_all_maps+restorer",
    ]
    assert set(compared["first"]) >= {"shape+restorer", "shape_all_maps+restorer"}
    assert {path.name for path in (finished / "figures").iterdir()} == {
        "horn.png",
        "horn-dark.png",
    }


def test_all_systems_of_a_seed_share_cases_and_the_iterations_before_the_guidance(
    finished: Path,
) -> None:
    logs = {
        name: read_log(cell(finished, f"few3/1/{name}") / "run" / "log.jsonl")
        for name in ("plain", "shape", "shape_all_maps")
    }
    early = [[row for row in rows if row["iteration"] <= DICE_ITERATIONS] for rows in logs.values()]
    assert early[0]
    assert early[0] == early[1] == early[2]
    assert "guide" in logs["shape"][-1]
    assert "guide" not in logs["plain"][-1]
    guides = (finished / "guides").glob("*/seed*/*/run/model.json")
    assert sorted("/".join(path.parts[-5:-2]) for path in guides) == [
        *("all/seed1/restorer", "all/seed1/shape", "few3/seed1/restorer", "few3/seed1/shape")
    ]


def test_guidance_that_starts_early_has_the_same_iterations_before_it(
    cohort: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    longer = settings.segmentation.changed(dice_iterations=20)
    train, test = parts_of(cohort)
    found = study_guidance(
        train,
        test,
        out=tmp_path / "out",
        settings=settings.changed(segmentation=longer),
        design=replace(DESIGN, corruptions=(), weights=("last",)),
        factors=GuidanceFactors((0.3,), ("smooth",), ("gradient",), ramps=(0.0,), starts=(0.5, 1)),
        progress=False,
    )
    plain, early, as_set = (
        read_log(cell(tmp_path / "out", f"few3/1/{name}") / "run" / "log.jsonl")
        for name in ("plain", "a0.3-smooth-gradient-r0.0-s0.5", "a0.3-smooth-gradient-r0.0")
    )
    assert plain[0] == early[0] == as_set[0]
    assert [row["iteration"] for row in early if "guide" in row] == [20, 24]
    assert [row["iteration"] for row in as_set if "guide" in row] == [24]
    assert plain[-1]["iteration"] == 24
    effects = pd.read_csv(tmp_path / "out" / "factorial.csv")
    assert set(effects.loc[effects["factor"] == "start", "level"].astype(float)) == {0.5, 1.0}
    assert (tmp_path / "out" / "figures" / "horn_effects-dark.png").is_file()
    assert found.table.complete


def test_another_segmenter_is_guided_from_its_own_iterations_on_dice(
    cohort: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    design = replace(
        DESIGN, systems=systems_named(["vnet_shape"]), corruptions=(), weights=("last",)
    )
    found = run(cohort, tmp_path / "out", settings, design)
    assert found.complete
    assert set(found.scores["system"]) == {"vnet_shape"}
    assert set(found.scores["postprocess"]) == {"none", "largest", "restored"}
    unguided, guided = (
        read_log(cell(tmp_path / "out", f"few3/1/{name}") / "run" / "log.jsonl")
        for name in ("vnet", "vnet_shape")
    )
    assert unguided[0] == guided[0]
    assert "guide" in guided[-1]
    assert "guide" not in unguided[-1]


def test_few_cases_are_the_same_for_a_seed_and_nested(cohort: Path) -> None:
    train, _ = parts_of(cohort)
    few = {
        (regime, seed): [case.id for case in training_cases(train, regime, seed)]
        for regime in ("few2", "few3", "all")
        for seed in range(8)
    }
    for seed in range(8):
        assert few["few3", seed][:2] == few["few2", seed]
        assert few["all", seed] == [case.id for case in train]
    assert len({tuple(sorted(few["few3", seed])) for seed in range(8)}) > 1


def test_what_is_finished_is_never_done_again(
    finished: Path, cohort: Path, settings: TrainSettings
) -> None:
    before, table = state(finished), read(finished)
    elsewhere = settings.changed(machine=settings.machine.changed(checkpoint_every=7))
    run(cohort, finished, elsewhere)
    assert state(finished) == before
    pd.testing.assert_frame_equal(read(finished), table)


def test_more_corruptions_are_scored_without_training_again(
    finished: Path, cohort: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    wider = replace(DESIGN, corruptions=("noise", "slab"), systems=DESIGN.systems[:1])
    table = run(cohort, out, settings, wider).scores
    assert set(table["regime"]) == {"few3", "few3+noise", "few3+slab"}
    weights = [name for name in state(finished) if name.endswith(".safetensors")]
    assert weights
    assert all(state(out)[name] == state(finished)[name] for name in weights)
    old = read(finished).query("system == 'plain'").reset_index(drop=True)
    kept = table[table["regime"] != "few3+slab"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, old)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_study import DESIGN, parts_of
from shapeguide.cells import Workers
from shapeguide.studies.systems.study import study_systems
from shapeguide.training.settings.groups import TrainSettings

if __name__ == "__main__":
    train, test = parts_of(Path(sys.argv[2]))
    settings = TrainSettings.model_validate_json(sys.argv[4])
    study_systems(
        train, test, out=sys.argv[3], settings=settings, design=DESIGN, workers=Workers(jobs=2),
        progress=False,
    )
"""


def test_a_killed_experiment_goes_on_and_ends_with_the_same_scores(
    finished: Path, cohort: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(SCRIPT)
    arguments = [str(Path(__file__).parent), str(cohort), str(out), settings.model_dump_json()]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(script), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while not list(out.rglob("checkpoint.safetensors")) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the experiment ended before it could be killed"
    assert not (out / "table2.csv").exists()
    run(cohort, out, settings)
    pd.testing.assert_frame_equal(read(out), read(finished))


def test_another_experiment_in_the_folder_is_refused(
    finished: Path, cohort: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    other = settings.changed(segmentation=settings.segmentation.changed(batch_size=2))
    with pytest.raises(ConfigError, match=r"segmentation\.batch_size was 1, is 2"):
        run(cohort, finished, other)
    train, test = parts_of(cohort)
    with pytest.raises(ConfigError, match=r"dataset\.test was"):
        study_systems(
            train, test.select([test[0].id]), out=finished, settings=settings, design=DESIGN
        )
    strange = System("shape", guidance="shape", changes={"shape_loss": {"alpha": 0.7}})
    with pytest.raises(ConfigError, match=r"another system of that name: changes\.shape_loss was"):
        run(cohort, finished, settings, replace(DESIGN, systems=(strange,)))
    (tmp_path / "notes.txt").write_text("do not lose me")
    with pytest.raises(ConfigError, match="is no folder of a study of systems"):
        run(cohort, tmp_path, settings)


def test_few_cases_are_of_different_people_while_there_are_any(cohort: Path) -> None:
    train, _ = parts_of(cohort)
    a, b, c, d = (case.id for case in train)
    twice = train.with_same_person((a, b), (c, d))
    for seed in range(6):
        chosen = training_cases(twice, "few2", seed)
        assert len({case.group for case in chosen}) == 2
        more = training_cases(twice, "few3", seed)
        assert [case.id for case in more][:2] == [case.id for case in chosen]
        everything = {case.id for case in training_cases(twice, "few4", seed)}
        assert everything == {a, b, c, d}


def test_best_weights_are_refused_where_no_case_is_held_out(
    cohort: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    best = replace(DESIGN, weights=("last", "best"))
    with pytest.raises(ConfigError, match="few3/1/plain holds no cases out of its 3"):
        run(cohort, tmp_path / "out", settings, best)
    assert not list(tmp_path.rglob("cells"))


def test_a_setting_that_does_not_fit_is_refused_before_the_folder_is_claimed(
    cohort: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    train, test = parts_of(cohort)
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="alpha"):
        study_guidance(
            train, test, out=out, settings=settings, factors=GuidanceFactors(alphas=(-1.0,))
        )
    assert not out.exists()


def test_guidance_from_the_first_iteration_takes_over_none(
    cohort: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    at_once = settings.segmentation.changed(dice_iterations=0)
    found = run(
        cohort,
        tmp_path / "out",
        settings.changed(segmentation=at_once),
        replace(DESIGN, systems=systems_named(["shape"]), corruptions=(), weights=("last",)),
    )
    assert found.complete
    assert not cell(tmp_path / "out", "few3/1/plain").exists()


def test_a_case_in_training_and_test_is_refused(cohort: Path, settings: TrainSettings) -> None:
    train, _ = parts_of(cohort)
    with pytest.raises(ConfigError, match="test cases show people that are trained on"):
        study_systems(
            train, train.select([train[0].id]), out="nowhere", settings=settings, design=DESIGN
        )


def test_too_few_training_cases_are_named_before_anything_is_trained(
    cohort: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    few = replace(DESIGN, regimes=("few5",))
    with pytest.raises(ConfigError, match="regime few5 needs 5 labelled training cases, found 4"):
        run(cohort, tmp_path / "few", settings, few)
    train, test = parts_of(cohort)
    one = train.select([train[0].id])
    everything = replace(DESIGN, regimes=("all",))
    with pytest.raises(ConfigError, match="all/1/shape has 1 training case"):
        study_systems(one, test, out=tmp_path / "one", settings=settings, design=everything)
    assert not list(tmp_path.rglob("cells"))


def test_choices_that_do_not_exist_are_named(settings: TrainSettings, cohort: Path) -> None:
    with pytest.raises(ConfigError, match="unknown regime 'some'"):
        replace(DESIGN, regimes=("some",))
    with pytest.raises(ConfigError, match="corruptions: unknown fog; choose from noise, blur"):
        replace(DESIGN, corruptions=("fog",))
    with pytest.raises(ConfigError, match="seeds: a value is given twice: 1, 1"):
        replace(DESIGN, seeds=(1, 1))
    without = settings.changed(segmentation=settings.segmentation.changed(average_decay=0.0))
    with pytest.raises(ConfigError, match="average_decay is 0"):
        run(cohort, cohort.parent / "average", without)


def test_a_structure_that_no_case_or_no_training_of_a_regime_has_is_refused_by_name(
    cohort: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    named = tmp_path / "named"
    shutil.copytree(cohort, named)
    description = json.loads((named / "dataset.json").read_text())
    description["labels"]["2"] = "tip"
    (named / "dataset.json").write_text(json.dumps(description))
    dataset = sg.read_dataset(named).with_structures(horn=(1,), tip=(2,))
    train, test = dataset.split_at_random(test_count=TEST_CASES)
    plain = replace(DESIGN, systems=DESIGN.systems[:1], corruptions=())

    def study() -> None:
        study_systems(
            train, test, out=tmp_path / "out", settings=settings, design=plain, progress=False
        )

    with pytest.raises(ConfigError, match=r"(?s)belongs to tip \(2,\).*label ids.*1  horn"):
        study()
    shutil.rmtree(tmp_path / "out")
    drawn = {case.id for case in training_cases(train, "few3", 1)}
    other = next(case for case in train if case.id not in drawn)
    assert other.label_map is not None
    stored = sg.read_label_map(other.label_map, structures=dataset.structures)
    labels = stored.data.copy()
    labels[tuple(np.argwhere(labels == 1)[0])] = 2
    sg.write_label_map(replace(stored, data=labels), other.label_map)
    with pytest.raises(ConfigError, match=r"none of the 3 training cases of few3/1/plain has tip"):
        study()
    assert not list((tmp_path / "out").rglob("model.json"))


def test_cases_without_the_structure_are_left_out_and_counted(
    cohort: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    holed = tmp_path / "holed"
    shutil.copytree(cohort, holed)
    train, test = parts_of(holed)
    for case in (train[0], test[0]):
        label_map = case.read_label_map()
        assert case.label_map is not None
        empty = LabelMap(np.zeros_like(label_map.data), label_map.grid, label_map.structures)
        sg.write_label_map(empty, case.label_map)
    alone = replace(DESIGN, systems=DESIGN.systems[:1], corruptions=())
    found = study_systems(
        train, test, out=tmp_path / "out", settings=settings, design=alone, progress=False
    )
    assert found.left_out == {"horn": [train[0].id, test[0].id]}
    assert set(found.scores["case"]) == {case.id for case in test} - {test[0].id}
    hollow = test.select([test[0].id])
    with pytest.raises(DataError, match="none of 1 cases holds horn"):
        study_systems(train, hollow, out=tmp_path / "hollow", settings=settings, design=alone)


def test_the_autoencoder_of_srn_restores_the_predictions_of_srn_and_plain(
    cohort: Path, settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = settings.changed(
        autoencoder=settings.autoencoder.changed(channels=(4, 8), iterations=4, batch_size=1),
        machine=settings.machine.changed(precision="fp32"),
    )
    srn = systems_named(["plain", "srn"])
    both = replace(DESIGN, systems=srn, corruptions=(), restores=False)

    def fail(*_: object, **__: object) -> None:
        raise DataError("no autoencoder today")

    with monkeypatch.context() as patched:
        patched.setattr("shapeguide.studies.systems.training.train_autoencoder", fail)
        found = run(cohort, tmp_path / "out", tiny, both)
    assert not found.complete
    assert found.failures["guide few3/1/srn"] == "no autoencoder today"
    assert set(found.scores["system"]) == {"plain"}
    assert set(found.scores["postprocess"]) == {"none", "largest"}
    found = run(cohort, tmp_path / "out", tiny, both)
    assert found.complete
    counts = found.scores.groupby(["system", "postprocess"]).size()
    assert counts.to_dict() == {
        (system, postprocess): TEST_CASES * 2
        for system in ("plain", "srn")
        for postprocess in ("none", "largest", "srn")
    }


def test_one_cell_is_done_alone_by_its_command(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = [
        *("study", "systems", str(cohort), "--structure", "horn=1", "--test-count", "2"),
        *("--preset", "quick", "--channels", "4", "8", "--dice-iterations", "2"),
        *("--guided-iterations", "1", "--device", "cpu", "--regimes", "few2", "--out", str(out)),
        *("--systems", "plain", "unet2d", "--corruptions", "blur", "--severities", "1"),
        *("--keep-predictions", "--only", "few2/3/unet2d", "--seeds", "3"),
        *("--restorer.iterations", "2", "--restorer.channels", "4", "8"),
    ]
    assert cli.main(words) == 0
    assert [path.parent.name for path in out.rglob("scores.csv")] == ["unet2d"]
    assert len(list(out.rglob("predictions/blur1-last-largest/*.nii.gz"))) == 2
    printed = capsys.readouterr().out
    assert "few2/3/unet2d" in printed
    assert "add --only CELL" in printed
    assert cli.main([*words, "--only", "few2/3/vnet"]) == 2
    assert "there is no such cell" in capsys.readouterr().err
