from __future__ import annotations

import re

import pytest

from shapeguide.storage.names import LONGEST_NAME_BYTES, name_fault, shown


@pytest.mark.parametrize(
    "name",
    [
        "hippocampus",
        "left hippocampus",
        "Гиппокамп, слева",
        "海馬",
        "1003_3.v2",
        "NA",
        "nan",
        "null",
        "console",
        "a" * LONGEST_NAME_BYTES,
        "-x",
        "=1+1",
        "$x_1$",
    ],
)
def test_names_that_every_system_takes_have_no_fault(name: str) -> None:
    assert name_fault(name) is None


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "is empty"),
        ("..", "dot"),
        (".hidden", "dot"),
        ("ends.", "dot"),
        (" a", "space"),
        ("x/../../../evil", "holds /"),
        ("x\\evil", r"holds \\"),
        ("C:evil", "holds :"),
        ("a*?", r"holds \* \?"),
        ("a\0b", r"U\+0000"),
        ("a\nb", r"U\+000A"),
        ("a\ud800b", r"U\+D800"),
        ("a\u2028b", r"U\+2028"),
        ("a\u202eb", r"U\+202E"),
        ("CON", "device"),
        ("nul.nii", "device"),
        ("Com1", "device"),
        ("lpt¹.txt", "device"),
        ("a" * (LONGEST_NAME_BYTES + 1), "101 bytes"),
        ("é" * 51, "102 bytes"),
        (3, "int, not a text"),
    ],
)
def test_a_fault_says_what_is_wrong_with_the_name(name: object, fault: str) -> None:
    found = name_fault(name)
    assert found is not None
    assert re.search(fault, found)


def test_a_faulty_name_is_shown_without_what_is_not_seen_and_never_whole_pages_of_it() -> None:
    assert shown("a\ud800\n") == r"'a\ud800\n'"
    assert shown("海馬") == "'海馬'"
    assert len(shown("x" * 5000)) == 60
