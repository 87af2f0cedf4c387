"""From a cohort to scores on the command line, with networks that learn next to nothing."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest

from shapeguide.cli import main

TINY = shlex.split(
    "--preset quick --device cpu --precision fp32 --spacing-mm 2 2 2 "
    "--channels 4 8 --dice-iterations 3 --guided-iterations 2 "
    "--shape.iterations 4 --shape.channels 4 8 --shape.quality-pairs 4 "
    "--restorer.iterations 2 --restorer.channels 4 8 --accept-collapsed"
)
STRUCTURE = ("--structure", "horn=1")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Description of a synthetic cohort of six cases."""
    folder = tmp_path_factory.mktemp("journey") / "cohort"
    assert main(["synthesize", str(folder), "--cases", "6"]) == 0
    return folder / "dataset.json"


@pytest.fixture(scope="module")
def run(cohort: Path) -> Path:
    """A finished run that kept two cases for testing."""
    out = cohort.parents[1] / "run"
    choice = ("--test-count", "2")
    assert main(["train", str(cohort), *STRUCTURE, "--out", str(out), *choice, *TINY]) == 0
    return out


@pytest.fixture(scope="module")
def predictions(cohort: Path, run: Path) -> Path:
    """Label maps of the two test cases."""
    out = run.parent / "predictions"
    split = ("--split", str(run / "split.json"))
    assert main(["predict", str(run), str(cohort), "--out", str(out), *split]) == 0
    return out


def test_training_notes_which_cases_it_never_saw(run: Path) -> None:
    split = json.loads((run / "split.json").read_text())
    assert (len(split["train"]), len(split["test"])) == (4, 2)
    assert not set(split["train"]) & set(split["test"])


def test_training_again_takes_up_the_finished_run_and_says_what_comes_next(
    cohort: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "model.safetensors").stat().st_mtime_ns
    choice = ("--test-count", "2")
    assert main(["train", str(cohort), *STRUCTURE, "--out", str(run), *choice, *TINY]) == 0
    assert (run / "model.safetensors").stat().st_mtime_ns == before
    assert capsys.readouterr().out.splitlines() == [
        f"horn: model in {run}",
        "trained on 4 cases; none held out for validation",
        "2 cases were kept for testing, and no training saw them",
        f"next: shapeguide predict {run} {cohort} --out predictions",
    ]


def test_training_tells_the_dice_of_the_cases_held_out_for_validation(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", str(cohort), *STRUCTURE, "--out", str(tmp_path / "run"), *TINY]
    assert main([*arguments, "--guidance", "none", "--validation-cases", "2"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"trained on 4 cases; mean Dice [01]\.\d{3} on 2 more", told)
    assert "SCAN... --out predictions" in told


def test_training_into_the_run_of_other_settings_is_refused(
    cohort: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ("--test-count", "2", "--seed", "7")
    assert main(["train", str(cohort), *STRUCTURE, "--out", str(run), *TINY, *other]) == 2
    assert "holds another run" in capsys.readouterr().err


def test_a_trained_shape_network_guides_another_run(
    cohort: Path, run: Path, tmp_path: Path
) -> None:
    reused = ("--shape-network", str(run), "--test-count", "2")
    out = tmp_path / "second"
    assert main(["train", str(cohort), *STRUCTURE, "--out", str(out), *TINY, *reused]) == 0
    assert (out / "model.json").is_file()
    assert not (out / "shape").exists()


def test_overwrite_replaces_a_run_of_other_settings(cohort: Path, tmp_path: Path) -> None:
    common = ["train", str(cohort), *STRUCTURE, "--out", str(tmp_path / "run"), *TINY]
    assert main([*common, "--guidance", "none"]) == 0
    assert main([*common, "--guidance", "none", "--seed", "1", "--overwrite"]) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["seed"] == 1


def test_predictions_are_those_of_the_test_cases(run: Path, predictions: Path) -> None:
    test = json.loads((run / "split.json").read_text())["test"]
    assert {path.name for path in predictions.glob("*.nii.gz")} == {f"{c}.nii.gz" for c in test}
    assert set(pd.read_csv(predictions / "volumes.csv")["case"]) == set(test)


def test_of_a_dataset_the_cases_kept_for_testing_are_predicted(
    cohort: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {f"{name}.nii.gz" for name in json.loads((run / "split.json").read_text())["test"]}
    for given in (cohort, cohort.parent):
        out = tmp_path / given.name
        assert main(["predict", str(run), str(given), "--out", str(out)]) == 0
        assert {path.name for path in out.glob("*.nii.gz")} == kept
        assert "2 cases that the training kept for testing" in capsys.readouterr().out
    others = ("--test-count", "5", "--out", str(tmp_path / "others"))
    assert main(["predict", str(run), str(cohort), *others]) == 0
    assert "of 5 cases were trained on" in capsys.readouterr().out
    scans = str(cohort.parent / "imagesTr")
    assert main(["predict", str(run), scans, *others]) == 2
    assert "is no dataset, so no cases can be chosen in it" in capsys.readouterr().err


def test_an_option_that_an_experiment_varies_itself_is_refused(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    choice = ("--test-count", "2", "--out", str(tmp_path / "out"))
    for words in (
        ("guidance", "--alpha", "5"),
        ("guidance", "--cap_form=hard"),
        ("systems", "--segmenter", "vnet"),
        ("separation", "--shape.pose", "grid"),
    ):
        assert main(["study", words[0], str(cohort), *choice, *words[1:]]) == 2
        assert "would change nothing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_broken_scan_is_reported_and_the_others_are_predicted(
    cohort: Path, run: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.nii.gz"
    broken.write_text("not a scan")
    whole = sorted((cohort.parent / "imagesTr").iterdir())[0]
    out = tmp_path / "out"
    assert main(["predict", str(run), str(broken), str(whole), "--out", str(out)]) == 1
    assert [path.name for path in out.glob("*.nii.gz")] == [whole.name]


def test_evaluation_writes_a_row_for_each_test_case(
    cohort: Path, run: Path, predictions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    arguments = ["evaluate", str(predictions), str(cohort), *STRUCTURE, "--out", str(out)]
    assert main([*arguments, "--split", str(run / "split.json")]) == 0
    assert len(pd.read_csv(out)) == 2


def test_evaluation_against_other_predictions_prints_a_comparison(
    cohort: Path, run: Path, predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--split", str(run / "split.json"), "--out", str(tmp_path / "scores.csv")]
    against = ["--against", str(predictions)]
    arguments = ["evaluate", str(predictions), str(cohort), *STRUCTURE]
    assert main([*arguments, *options, *against]) == 0
    assert "(first) against" in capsys.readouterr().out.replace("\n", " ")


def test_missing_predictions_are_named_and_exit_with_1(
    cohort: Path, predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = tmp_path / "some"
    shutil.copytree(predictions, some)
    missing = sorted(some.glob("*.nii.gz"))[0]
    missing.unlink()
    out = ("--out", str(tmp_path / "scores.csv"))
    assert main(["evaluate", str(some), str(cohort), *STRUCTURE, *out]) == 1
    assert "no prediction for 1 cases: " + missing.name[:-7] in capsys.readouterr().err


def test_of_a_dataset_the_cases_that_were_asked_for_are_scored(
    cohort: Path, run: Path, predictions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.csv"
    assert main(["evaluate", str(predictions), str(cohort), "--out", str(out)]) == 0
    test = json.loads((run / "split.json").read_text())["test"]
    assert set(pd.read_csv(out)["case"]) == set(test)


def test_evaluation_keeps_an_older_table(
    cohort: Path, predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.csv"
    out.write_text("precious")
    assert main(["evaluate", str(predictions), str(cohort), "--out", str(out)]) == 2
    assert out.read_text() == "precious"
    assert "add --overwrite" in capsys.readouterr().err


def test_describing_a_folder_writes_a_description_that_training_reads(
    cohort: Path, tmp_path: Path
) -> None:
    out = tmp_path / "dataset.json"
    assert main(["describe", str(cohort.parent), "--out", str(out)]) == 0
    assert main(["describe", str(cohort.parent), "--out", str(out)]) == 2
    assert len(json.loads(out.read_text())["training"]) == 6


def test_an_unknown_structure_id_is_refused(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", str(cohort), "--structure", "horn=9", "--out", str(tmp_path / "run")]
    assert main([*arguments, *TINY]) == 2
    assert "9" in capsys.readouterr().err
