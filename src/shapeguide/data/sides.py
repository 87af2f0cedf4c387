"""Structures of the two sides of a body, told by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from shapeguide.errors import ConfigError

OTHER = {"left": "right", "lh": "rh", "l": "r"}
OTHER |= {other: side for side, other in OTHER.items()}


def other_side(name: str) -> str:
    """The name of the same structure on the other side; of one that names no side, its own.

    The side is a word of the name, whatever parts its words and however it is written:
    `left_caudate`, `Right-Hippocampus`, `lh.amygdala`, `thalamus_L`. A single letter counts at
    either end only.
    """
    words = re.split(r"([^A-Za-z]+)", name)
    for place, word in enumerate(words):
        other = OTHER.get(word.lower())
        if other and (len(word) > 1 or (len(words) > 1 and place in (0, len(words) - 1))):
            words[place] = _written_like(other, word)
            return "".join(words)
    return name


def _written_like(other: str, word: str) -> str:
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other


def mirrored_classes(names: Sequence[str]) -> tuple[int, ...]:
    """For each class, background first, the one that it becomes when the image is mirrored.

    Args:
        names: Those of the structures, in the order of their classes.

    Raises:
        ConfigError: If a structure has a side and its other one is not among them.
    """
    places = {name: index for index, name in enumerate(names, start=1)}
    for name in names:
        if other_side(name) not in places:
            raise ConfigError(
                f"mirrored training images would show {name} as {other_side(name)}, which is not "
                f"among the structures ({', '.join(names)}); name it too, or train without "
                "segmentation.mirrored"
            )
    return (0, *(places[other_side(name)] for name in names))
