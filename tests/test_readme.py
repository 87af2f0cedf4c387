"""What the README shows works: its Python runs, its commands parse, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import shapeguide
from shapeguide import commands
from shapeguide.cli import main
from shapeguide.training.settings.presets import PRESETS

ROOT = Path(__file__).parents[1]
DOCS = [f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))]


def code_blocks(language: str, page: str = "README.md") -> list[str]:
    """The fenced blocks of a language in a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def run_python_of_the_readme() -> dict[str, Any]:
    """The names that it leaves."""
    names: dict[str, Any] = {}
    for block in code_blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    return names


def shown_commands(page: str = "README.md") -> list[list[str]]:
    """Words of each `shapeguide` line in the shell blocks of a page."""
    lines = [line for block in code_blocks("bash", page) for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("shapeguide ")]


@pytest.fixture
def quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of the preset "quick" are smaller and learn for a moment only."""
    quick = PRESETS["quick"]
    fewer = quick.changed(
        shape=quick.shape.changed(
            iterations=20, batch_size=2, channels=(4, 8), canonical_shape=12, quality_pairs=8
        ),
        shape_loss=quick.shape_loss.changed(accept_collapsed=True),
        restorer=quick.restorer.changed(channels=(4, 8), batch_size=2),
        segmentation=quick.segmentation.changed(
            channels=(4, 8), dice_iterations=10, guided_iterations=5
        ),
    )
    monkeypatch.setitem(PRESETS, "quick", fewer)


@pytest.mark.usefixtures("quicker")
def test_python_of_the_readme_runs_and_scores_each_test_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_python_of_the_readme()
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in printed] == [[case.id, "horn:"] for case in names["test"]]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{case.id}.nii.gz" for case in names["test"]
    }
    # Who goes on with the commands in the same folder is not stopped by what Python wrote.
    synthesize = next(words for words in shown_commands() if words[1] == "synthesize")
    assert main(synthesize[1:]) == 0
    assert main([*synthesize[1:], "--seed", "1"]) == 2


@pytest.mark.slow
def test_python_of_the_readme_finds_the_structure_in_each_test_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_python_of_the_readme()
    assert all("Dice" in line for line in capsys.readouterr().out.splitlines())


@pytest.mark.usefixtures("quicker")
def test_python_of_the_guide_runs_and_compares_two_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in code_blocks("python", "docs/python.md"):
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["found"].complete
    assert len(names["found"].comparison) > 0
    assert names["logits"].grad.abs().sum() > 0


def test_the_python_page_names_every_public_call() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert [name for name in shapeguide.__all__ if not re.search(rf"\b{name}\b", page)] == []


def test_the_script_of_the_readme_fits_on_ten_lines_without_the_cohort() -> None:
    script = code_blocks("python")[0]
    own = [line for line in script.splitlines() if line and "write_cohort" not in line]
    assert len(own) <= 10


@pytest.mark.parametrize(
    "words", shown_commands() + shown_commands("docs/datasets.md"), ids=lambda words: words[1]
)
def test_commands_of_the_pages_parse(words: list[str]) -> None:
    _, name, *arguments = words
    assert commands.parse(name, arguments) is not None


def test_relative_links_of_the_project_pages_lead_to_files() -> None:
    missing = []
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *DOCS):
        text = (ROOT / page).read_text(encoding="utf-8")
        targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
        folder = (ROOT / page).parent
        missing += [f"{page}: {target}" for target in targets if not (folder / target).exists()]
    assert missing == []
