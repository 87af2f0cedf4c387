"""What the help shows: the options that people use, or all of them."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from shapeguide import commands
from shapeguide.commands.arguments import CaseChoice
from shapeguide.commands.options import USUAL
from shapeguide.training.settings.groups import TrainSettings


def shown(name: str, word: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints when asked for help by that word."""
    with pytest.raises(SystemExit):
        commands.parse(name, [word])
    return capsys.readouterr().out


def options_in(page: str) -> set[str]:
    """The options that a help page lists."""
    return set(re.findall(r"^\W*?(--[a-z][a-z0-9.-]*)", page, flags=re.MULTILINE))


def test_help_of_train_shows_the_options_that_people_use(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = shown("train", "--help", capsys)
    found = options_in(page)
    assert {"--out", "--structure", "--test-count", "--preset", "--device"} <= found
    assert {"--dry-run", "--time-budget"} <= found
    assert not found & {"--shape.objective", "--split-seed", "--cap-form", "--restorer.caution"}
    assert len(found) < 28
    assert "--help-all in place of --help shows every option" in page


def test_help_all_of_train_shows_every_setting_in_its_group(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = shown("train", "--help-all", capsys)
    found = {option.rpartition(".")[2].strip("-") for option in options_in(page)}
    for group, field in TrainSettings.model_fields.items():
        for name in getattr(field.annotation, "model_fields", ()):
            switch = name.replace("_", "-")
            assert {switch, f"no-{switch}"} & found, f"{group}.{name}"
        if hasattr(field.annotation, "model_fields"):
            assert f"{group.replace('_', '-')} options" in page
    assert "--split-seed" in page


def test_every_option_of_the_settings_is_explained() -> None:
    silent = [
        f"{group}.{name}"
        for group, field in TrainSettings.model_fields.items()
        for name, setting in getattr(field.annotation, "model_fields", {group: field}).items()
        if not setting.description
    ]
    assert silent == []


def test_an_option_that_the_short_help_hides_is_still_parsed() -> None:
    parsed = commands.parse("train", ["d.json", "--out", "run", "--split-seed", "3"])
    assert vars(parsed)["cases"] == CaseChoice(split_seed=3)


def test_what_the_short_help_names_exists() -> None:
    for kind, names in USUAL.items():
        known = getattr(kind, "model_fields", None) or {field.name for field in fields(CaseChoice)}
        assert set(names) <= set(known), kind
