from __future__ import annotations

import pytest

from shapeguide.data.sides import mirrored_classes, other_side
from shapeguide.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("left_caudate", "right_caudate"),
        ("Right-Hippocampus", "Left-Hippocampus"),
        ("ctx-lh-insula", "ctx-rh-insula"),
        ("thalamus_L", "thalamus_R"),
        ("r.amygdala", "l.amygdala"),
        ("caudate LEFT", "caudate RIGHT"),
        ("lh", "rh"),
    ],
)
def test_the_other_side_is_written_like_the_first(name: str, other: str) -> None:
    assert other_side(name) == other
    assert other_side(other) == name


@pytest.mark.parametrize("name", ["brainstem", "cleft", "l", "area_L_dorsal", "bright_spot", "123"])
def test_names_without_a_side_stay(name: str) -> None:
    assert other_side(name) == name


def test_classes_change_places_with_those_of_the_other_side() -> None:
    names = ("left_a", "brainstem", "right_b", "right_a", "left_b")
    assert mirrored_classes(names) == (0, 4, 2, 5, 1, 3)


def test_a_side_alone_cannot_be_mirrored() -> None:
    with pytest.raises(ConfigError, match=r"left_b as right_b, which is not among"):
        mirrored_classes(("left_a", "right_a", "left_b"))
