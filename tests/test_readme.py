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

ROOT = Path(__file__).parents[1]
DOCS = [f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))]


def code_blocks(language: str, page: str = "README.md") -> list[str]:
    """The fenced blocks of a language in a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def shown_commands() -> list[list[str]]:
    """Words of each `shapeguide` line in the README's shell blocks."""
    lines = [line for block in code_blocks("bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("shapeguide ")]


def test_python_of_the_readme_runs_and_scores_each_test_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in code_blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == [case.id for case in names["test"]]
    assert all("Dice" in line for line in printed)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{case.id}.nii.gz" for case in names["test"]
    }
    # Who goes on with the commands in the same folder is not stopped by what Python wrote.
    synthesize = next(words for words in shown_commands() if words[1] == "synthesize")
    assert main(synthesize[1:]) == 0
    assert main([*synthesize[1:], "--seed", "1"]) == 2


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


@pytest.mark.parametrize("words", shown_commands(), ids=lambda words: words[1])
def test_commands_of_the_readme_parse(words: list[str]) -> None:
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
