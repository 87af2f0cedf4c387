"""The command line: what it says, what it refuses, and how it exits."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Sequence

import pytest

from shapeguide import commands
from shapeguide.cli import FIRST_SPEAKS_S, SUMMARIES, main
from shapeguide.errors import DataError

HEAVY = {"torch", "monai", "numpy", "pandas", "nibabel", "matplotlib", "pydantic", "tyro", "rich"}


def fail_with(error: BaseException, patch: pytest.MonkeyPatch) -> None:
    """Let every command end in that error."""

    def run(name: str, arguments: Sequence[str]) -> int:
        raise error

    patch.setattr(commands, "run", run)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--help"])
    assert exited.value.code == 0
    shown = capsys.readouterr().out
    assert [name for name in SUMMARIES if name not in shown] == []


def test_every_command_of_the_help_exists() -> None:
    assert set(SUMMARIES) == set(commands.COMMANDS)


@pytest.mark.parametrize("name", SUMMARIES)
def test_each_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main([name, "--help"])
    assert exited.value.code == 0
    assert f"usage: shapeguide {name}" in capsys.readouterr().out


def test_help_loads_no_heavy_library() -> None:
    program = (
        "import sys, shapeguide.cli\n"
        "try: shapeguide.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not HEAVY.intersection(finished.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("name", SUMMARIES)
def test_help_of_a_command_loads_no_torch(name: str) -> None:
    program = (
        "import sys, shapeguide.cli\n"
        f"try: shapeguide.cli.main(['{name}', '--help'])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert finished.stdout.splitlines()[-1] == "False"


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--version"])
    assert exited.value.code == 0
    assert capsys.readouterr().out.startswith("shapeguide ")


@pytest.mark.parametrize("arguments", [[], ["tarin"], ["--verson"], ["train", "--alpah", "1"]])
def test_arguments_that_do_not_parse_exit_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2


def test_an_error_is_one_message_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SHAPEGUIDE_DEBUG", raising=False)
    fail_with(DataError("case_7: the label map is empty"), monkeypatch)
    assert main(["describe", "folder"]) == 2
    assert capsys.readouterr().err == "error: case_7: the label map is empty\n"


def test_of_several_processes_the_first_speaks_at_once_and_the_others_wait(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SHAPEGUIDE_DEBUG", raising=False)
    waits: list[float] = []
    monkeypatch.setattr("shapeguide.cli.time.sleep", waits.append)
    monkeypatch.setenv("WORLD_SIZE", "2")
    fail_with(DataError("case_7: empty"), monkeypatch)
    for number, waited in (("0", []), ("1", [FIRST_SPEAKS_S])):
        monkeypatch.setenv("RANK", number)
        assert main(["describe", "folder"]) == 2
        assert capsys.readouterr().err == f"error (process {number}): case_7: empty\n"
        assert waits == waited


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(DataError("case_7: the label map is empty"), monkeypatch)
    with pytest.raises(DataError, match="case_7"):
        main(["--debug", "describe", "folder"])


def test_debug_variable_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAPEGUIDE_DEBUG", "1")
    fail_with(DataError("case_7: the label map is empty"), monkeypatch)
    with pytest.raises(DataError, match="case_7"):
        main(["describe", "folder"])


def test_a_full_disk_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SHAPEGUIDE_DEBUG", raising=False)
    fail_with(OSError(errno.ENOSPC, "No space left on device", "out/a.nii.gz"), monkeypatch)
    assert main(["describe", "folder"]) == 2
    assert capsys.readouterr().err.startswith("error: out/a.nii.gz: No space left on device")


def test_interrupting_says_that_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(KeyboardInterrupt(), monkeypatch)
    assert main(["train", "dataset.json"]) == 130
    assert "same command" in capsys.readouterr().err


def test_a_setting_out_of_range_names_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "dataset.json", "--out", "run", "--alpha", "-1"]) == 2
    assert "--alpha -1.0: Input should be greater than or equal to 0" in capsys.readouterr().err


def test_a_setting_out_of_range_in_a_group_names_its_option_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "dataset.json", "--out", "run", "--shape.iterations", "0"]) == 2
    assert "--shape.iterations 0: Input should be greater" in capsys.readouterr().err


def test_settings_that_do_not_fit_together_are_one_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    none = ["--dice-iterations", "0", "--guided-iterations", "0"]
    assert main(["train", "dataset.json", "--out", "run", *none]) == 2
    expected = "error: segmentation options: dice_iterations + guided_iterations must be at least 1"
    assert capsys.readouterr().err.startswith(expected)


def test_a_command_of_an_earlier_version_says_its_new_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["experiment", "table1", "cohort"])
    assert ended.value.code == 2
    assert "now called study separation, study systems or study guidance" in capsys.readouterr().err
