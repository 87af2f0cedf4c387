"""Whose a folder is: claimed, compared and cleared for any kind of folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from shapeguide.errors import CheckpointError, ConfigError
from shapeguide.storage.identity import FolderKind, claim, clear, compare, read_note

LEDGER = FolderKind(
    what="ledger",
    note="ledger.json",
    identity=("owner", "rooms"),
    files=("total.csv", "page_*.txt"),
    folders={
        "pages": FolderKind("pages", None, files=("*.txt",)),
        "part_*": FolderKind("part", "part.json", identity=("number",), files=("total.csv",)),
    },
    growing=("rooms",),
)
ANNA = {"owner": "Anna", "rooms": {"kitchen": (1, 2)}}


def filled(folder: Path) -> Path:
    """A ledger with everything that it may own, and one file of the user's at each level."""
    claim(folder, LEDGER, ANNA)
    claim(folder / "part_1", LEDGER.folders["part_*"], {"number": 1})
    (folder / "pages").mkdir()
    for name in ("total.csv", "page_1.txt", "pages/1.txt", "part_1/total.csv"):
        (folder / name).write_text("ours")
    return folder


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_an_empty_folder_is_new_and_then_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    assert claim(folder, LEDGER, ANNA).state == "new"
    assert claim(folder, LEDGER, ANNA).state == "same"
    assert names_in(folder) == {"ledger.json"}


def test_a_folder_of_another_identity_is_refused_in_words(tmp_path: Path) -> None:
    claim(tmp_path, LEDGER, ANNA)
    with pytest.raises(ConfigError, match=r'another ledger: owner was "Anna", is "Bert"'):
        claim(tmp_path, LEDGER, {**ANNA, "owner": "Bert"})
    assert (read_note(tmp_path, LEDGER) or {})["owner"] == "Anna"


def test_a_folder_may_be_taken_over_and_then_notes_the_new_owner(tmp_path: Path) -> None:
    claim(tmp_path, LEDGER, ANNA)
    taken = claim(tmp_path, LEDGER, {**ANNA, "owner": "Bert"}, replace=True)
    assert (taken.state, taken.differences) == ("other", ('owner was "Anna", is "Bert"',))
    assert (read_note(tmp_path, LEDGER) or {})["owner"] == "Bert"


def test_what_may_differ_is_named_by_dots(tmp_path: Path) -> None:
    claim(tmp_path, LEDGER, {"owner": {"name": "Anna", "age": 30}, "rooms": {}})
    older = {"owner": {"name": "Anna", "age": 31}, "rooms": {}}
    assert compare(tmp_path, LEDGER, older).told == "owner.age was 30, is 31"
    assert compare(tmp_path, LEDGER, older, ignoring=["owner.age"]).state == "same"


def test_what_grows_may_be_added_to_and_used_in_part_but_not_changed(tmp_path: Path) -> None:
    claim(tmp_path, LEDGER, ANNA)
    assert claim(tmp_path, LEDGER, {**ANNA, "rooms": {"bath": [3]}}).state == "same"
    noted = read_note(tmp_path, LEDGER) or {}
    assert noted["rooms"] == {"kitchen": [1, 2], "bath": [3]}
    with pytest.raises(ConfigError, match=r"rooms\.kitchen was \[1, 2\], is \[1\]"):
        claim(tmp_path, LEDGER, {**ANNA, "rooms": {"kitchen": [1]}})


def test_what_stands_beside_the_identity_is_noted_and_never_compared(tmp_path: Path) -> None:
    claim(tmp_path, LEDGER, ANNA, beside={"weather": "rain"})
    assert claim(tmp_path, LEDGER, ANNA, beside={"weather": "sun"}).noted["weather"] == "rain"


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("{", CheckpointError, "cannot be read as JSON"),
        ('"text"', ConfigError, "holds no object"),
        ('{"owner": "Anna", "rooms": {}}', ConfigError, "shapeguide did not write it"),
        ('{"written_by": "shapeguide 1.0", "rooms": {}}', ConfigError, "states no owner"),
    ],
)
def test_a_note_that_is_not_ours_is_never_believed(
    tmp_path: Path, content: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "ledger.json").write_text(content)
    for attempt in (lambda: claim(tmp_path, LEDGER, ANNA), lambda: clear(tmp_path, LEDGER)):
        with pytest.raises(error, match=message):
            attempt()
    assert (tmp_path / "ledger.json").read_text() == content


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "total.csv").write_text("mine")
    for attempt in (lambda: claim(tmp_path, LEDGER, ANNA), lambda: clear(tmp_path, LEDGER)):
        with pytest.raises(ConfigError, match=r"ledger\.json is missing.*total\.csv"):
            attempt()
    assert names_in(tmp_path) == {"total.csv"}


def test_hidden_files_and_own_parts_do_not_make_a_folder_foreign(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_text("")
    claim(tmp_path / "part_1", LEDGER.folders["part_*"], {"number": 1})
    assert claim(tmp_path, LEDGER, ANNA).state == "new"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file"):
        claim(tmp_path / "file", LEDGER, ANNA)


def test_clearing_leaves_nothing_of_a_folder_that_holds_only_its_own(tmp_path: Path) -> None:
    clear(filled(tmp_path / "ledger"), LEDGER)
    assert names_in(tmp_path) == {"ledger"}


def test_clearing_leaves_what_is_not_its_own_and_can_be_claimed_again(tmp_path: Path) -> None:
    folder = filled(tmp_path)
    mine = {"mine.csv", "pages/mine.csv", "part_1/mine.csv", "part_2/total.csv", "page_2.txt/x"}
    for name in mine:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    clear(folder, LEDGER)
    kept = {name for name in names_in(folder) if (folder / name).is_file()}
    assert kept == mine | {"ledger.json", "part_1/part.json"}
    assert claim(folder, LEDGER, {**ANNA, "owner": "Bert"}, replace=True).state == "other"


def test_nothing_is_cleared_around_a_file_that_is_needed(tmp_path: Path) -> None:
    folder = filled(tmp_path)
    before = names_in(folder)
    with pytest.raises(ConfigError, match=r"holds .*scan\.nii.*nothing is deleted"):
        clear(folder, LEDGER, keep=[tmp_path / "deep" / ".." / "scan.nii"])
    assert names_in(folder) == before


def test_clearing_a_folder_that_is_not_there_is_nothing(tmp_path: Path) -> None:
    clear(tmp_path / "never was", LEDGER)
    assert names_in(tmp_path) == set()
