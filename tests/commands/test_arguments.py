"""Structures, test cases and settings as they stand on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shapeguide import commands
from shapeguide.commands.arguments import CaseChoice, parse_structures
from shapeguide.errors import ConfigError
from shapeguide.training.settings.groups import TrainSettings
from shapeguide.training.settings.presets import PRESETS


def parsed_train(*arguments: str) -> Any:
    """The train command with a dataset, a run folder and more arguments."""
    return commands.parse("train", ["dataset.json", "--out", "run", *arguments])


def test_one_structure_may_have_several_label_ids() -> None:
    assert parse_structures([["hippocampus=1,2"]]) == {"hippocampus": (1, 2)}


def test_structures_may_follow_one_option_or_repeat_it() -> None:
    after_one = parsed_train("--structure", "anterior=1", "posterior=2")
    repeated = parsed_train("--structure", "anterior=1", "--structure", "posterior=2")
    wanted = {"anterior": (1,), "posterior": (2,)}
    assert parse_structures(after_one.structure) == wanted
    assert parse_structures(repeated.structure) == wanted


@pytest.mark.parametrize("word", ["hippocampus", "hippocampus=", "hippocampus=a", "dataset.json"])
def test_a_structure_without_label_ids_says_how_to_write_it(word: str) -> None:
    with pytest.raises(ConfigError, match="such as hippocampus=1,2"):
        parse_structures([[word]])


def test_a_structure_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="a was given before"):
        parse_structures([["a=1"], ["a=2"]])


def test_background_is_no_structure() -> None:
    with pytest.raises(ConfigError, match="0 is the background"):
        parse_structures([["a=0"]])


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_gives_all_settings(name: str) -> None:
    assert parsed_train("--preset", name).settings == PRESETS[name]
    assert parsed_train(f"--preset={name}").settings == PRESETS[name]


def test_options_change_a_preset() -> None:
    found = parsed_train(
        "--preset", "paper", "--alpha", "0.3", "--shape.objective", "surface", "--device", "cpu"
    ).settings
    paper = PRESETS["paper"]
    assert found == paper.changed(
        shape_loss=paper.shape_loss.changed(alpha=0.3),
        shape=paper.shape.changed(objective="surface"),
        machine=paper.machine.changed(device="cpu"),
    )


def test_without_options_the_settings_are_the_default_ones() -> None:
    assert parsed_train().settings == TrainSettings()


def test_two_ways_to_choose_test_cases_are_refused() -> None:
    choice = CaseChoice(split="fold_0", test_count=4)
    with pytest.raises(ConfigError, match="--split and --test-count"):
        choice.read(Path("dataset.json"))
